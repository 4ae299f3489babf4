"""The daily partitions of what only grows, ranges of UUIDv7."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from dispatcher.ids import first_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLES: Final = ("events", "ended_deliveries", "attempts")
DAYS_BACK: Final = 2  # a producer's own event id may be up to a day old
DAYS_AHEAD: Final = 7

_DEFAULT_IS_EMPTY: Final = (
    "SELECT NOT EXISTS (SELECT FROM dispatcher.{table}_default WHERE {column} >= :low AND {column} < :high)"
)


def lock_briefly(connection: Connection) -> None:
    """Has this transaction wait at most two seconds for any lock."""
    connection.execute(text("SET LOCAL lock_timeout = '2s'"))


def ensure(connection: Connection, now: datetime | None = None) -> list[str]:
    """Makes the partitions from two days ago to a week ahead that are missing; returns their names.

    Rows of any other day fall into the default partition, so nothing is ever refused for its date. A day of which
    the default partition holds rows already is left to it. Takes a SHARE UPDATE EXCLUSIVE lock on the
    parents, for which nobody waits who reads or writes them, and, where it makes any, an ACCESS EXCLUSIVE one on
    their default partitions: it waits for who reads those, as a claim does for a moment, and claims then for it.
    """
    at = now or connection.execute(text("SELECT statement_timestamp()")).scalar_one()
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    present = set(
        connection.execute(
            text("SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace AND relispartition")
        ).scalars()
    )
    made = []
    for day in (midnight + timedelta(days=n) for n in range(-DAYS_BACK, DAYS_AHEAD + 1)):
        low, high = first_id(day), first_id(day + timedelta(days=1))
        for table in TABLES:
            name = f"{table}_{day:%Y%m%d}"
            if name in present:
                continue
            column = "delivery_id" if table == "attempts" else "id"
            empty = text(_DEFAULT_IS_EMPTY.format(table=table, column=column))
            if not connection.execute(empty, {"low": low, "high": high}).scalar_one():
                continue
            # Made apart and then attached: PARTITION OF would lock the parent against everybody, so it would wait for
            # every open producer, and every other one behind it.
            connection.execute(text(f"CREATE TABLE dispatcher.{name} (LIKE dispatcher.{table} INCLUDING ALL)"))
            connection.execute(
                text(
                    f"ALTER TABLE dispatcher.{table} ATTACH PARTITION dispatcher.{name} "
                    f"FOR VALUES FROM ('{low}') TO ('{high}')"
                )
            )
            made.append(name)
    return made
