"""The daily partitions of what only grows, ranges of UUIDv7."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from dispatcher.ids import first_id

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

TABLES: Final = ("events", "ended_deliveries", "attempts")
DAYS_BACK: Final = 2  # a producer's own event id may be up to a day old
DAYS_AHEAD: Final = 7

_DEFAULT_IS_EMPTY: Final = (
    "SELECT NOT EXISTS (SELECT FROM dispatcher.{table}_default WHERE {column} >= :low AND {column} < :high)"
)


_PRESENT = text("SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace AND relispartition")


@dataclass(frozen=True, slots=True)
class DayPartition:
    """One table's partition of one day: ids from `low` up to, and without, `high`."""

    table: str
    name: str
    low: UUID
    high: UUID

    @property
    def locks(self) -> dict[str, str]:
        """What `make` locks, in this order."""
        parent = f"dispatcher.{self.table}"
        return {parent: "SHARE UPDATE EXCLUSIVE", f"{parent}_default": "ACCESS EXCLUSIVE"}


def lock_briefly(connection: Connection) -> None:
    """Has this transaction wait at most two seconds for any lock."""
    connection.execute(text("SET LOCAL lock_timeout = '2s'"))


def missing(connection: Connection, now: datetime | None = None) -> list[DayPartition]:
    """The partitions from two days ago to a week ahead that do not exist yet."""
    at = now or connection.execute(text("SELECT statement_timestamp()")).scalar_one()
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    present = set(connection.execute(_PRESENT).scalars())
    days = [midnight + timedelta(days=n) for n in range(-DAYS_BACK, DAYS_AHEAD + 1)]
    wanted = [
        DayPartition(table, f"{table}_{day:%Y%m%d}", first_id(day), first_id(day + timedelta(days=1)))
        for day in days
        for table in TABLES
    ]
    return [partition for partition in wanted if partition.name not in present]


def make(connection: Connection, partition: DayPartition) -> bool:
    """Makes a partition, unless another process has just made it or the default partition holds rows of its day.

    Rows of a day without a partition fall into the default partition, so nothing is ever refused for its date. Takes a
    SHARE UPDATE EXCLUSIVE lock on the parent, for which nobody waits who reads or writes it, then an ACCESS EXCLUSIVE
    one on the default partition: it waits for who reads that, as a claim does for a moment, and claims then for it.
    Two partitions in one transaction would hold one such lock while they wait for the next, and a claim, which reads
    several tables, could then be part of a deadlock.
    """
    table, name = partition.table, partition.name
    connection.execute(text(f"LOCK TABLE ONLY dispatcher.{table} IN SHARE UPDATE EXCLUSIVE MODE"))
    if name in connection.execute(_PRESENT).scalars().all():
        return False
    column = "delivery_id" if table == "attempts" else "id"
    empty = text(_DEFAULT_IS_EMPTY.format(table=table, column=column))
    if not connection.execute(empty, {"low": partition.low, "high": partition.high}).scalar_one():
        return False
    # Made apart and then attached: PARTITION OF would lock the parent against everybody, so it would wait for every
    # open producer, and every other one behind it.
    connection.execute(text(f"CREATE TABLE dispatcher.{name} (LIKE dispatcher.{table} INCLUDING ALL)"))
    connection.execute(
        text(
            f"ALTER TABLE dispatcher.{table} ATTACH PARTITION dispatcher.{name} "
            f"FOR VALUES FROM ('{partition.low}') TO ('{partition.high}')"
        )
    )
    return True


def ensure(connection: Connection, now: datetime | None = None) -> list[str]:
    """Makes all that are missing in one transaction, for a database without other users; returns their names."""
    return [partition.name for partition in missing(connection, now) if make(connection, partition)]
