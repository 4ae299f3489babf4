"""The statements that let go of what is past its retention: whole days by partition, a tenant's in batches.

A day is rewritten or dropped in one transaction. What is copied is locked against writers (SHARE ROW EXCLUSIVE) for
as long as the copy takes, which keeps nobody waiting: ids of old days are not made any more, and a day whose deliveries
still live is emptied in place. The exchange itself locks the parent for an instant, for which claims wait.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from dispatcher.ids import first_id
from dispatcher.store.partitions import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

What = Literal["payloads", "responses", "metadata"]
"""What is let go of: events' payloads; the answers that attempts got; the rows themselves."""

_DAY: Final = re.compile(r"(?P<table>events|ended_deliveries|attempts)_(?P<day>\d{8})")
_KEY: Final = {"events": "id", "ended_deliveries": "id", "attempts": "delivery_id"}

_PARTITIONS: Final = text("""
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid),
       r.partition IS NOT NULL, r.cursor, coalesce(r.look_again_at, 'infinity') <= :now
FROM pg_class c LEFT JOIN dispatcher.retained r ON r.partition = c.relname
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relispartition AND c.relkind = 'r'
ORDER BY c.relname
""")

# An event lives while a delivery of it does, an attempt while its delivery does.
_LIVE: Final = {
    "events": "SELECT count(*), min(created_at) FROM dispatcher.deliveries WHERE event_id >= :low AND event_id < :high",
    "attempts": "SELECT count(*), min(created_at) FROM dispatcher.deliveries WHERE id >= :low AND id < :high",
    "ended_deliveries": "SELECT 0, CAST(NULL AS timestamptz)",
}
_LIVES: Final = {
    "events": "EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.event_id = p.id)",
    "attempts": "EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.id = p.delivery_id)",
    "ended_deliveries": "false",
}

_WITHOUT: Final = {
    "events": {"payload": f"CASE WHEN {_LIVES['events']} THEN p.payload END"},
    "attempts": {"response_headers": "CAST('[]' AS json)", "response_body": "CAST('' AS bytea)"},
}

_COLUMNS: Final = text("""
SELECT attname FROM pg_attribute
WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
""")

_REMEMBER: Final = text("""
INSERT INTO dispatcher.retained (partition, cursor, look_again_at)
VALUES (:name, :cursor, coalesce(CAST(:look_again_at AS timestamptz), 'infinity'))
ON CONFLICT (partition) DO UPDATE SET cursor = excluded.cursor, look_again_at = excluded.look_again_at
""")


@dataclass(frozen=True, slots=True)
class Partition:
    """One day of one table. `rows` is the planner's estimate.

    `is_rewritten`: without its payloads or answers already; `cursor` is up to where it is, if that is under way in
    place; `is_due` means that it kept payloads that lived, and is to be looked at again.
    """

    table: str
    name: str
    day: datetime
    rows: int
    size: int
    is_rewritten: bool
    cursor: UUID | None
    is_due: bool

    @property
    def low(self) -> UUID:
        """The first id that may be in it."""
        return first_id(self.day)

    @property
    def high(self) -> UUID:
        """The first id that is in a later one."""
        return first_id(self.until)

    @property
    def until(self) -> datetime:
        """When the day ended."""
        return self.day + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Living:
    """How many live deliveries need rows of a partition, and since when the oldest of them lives."""

    deliveries: int
    oldest: datetime | None


def plan_freely(connection: Connection) -> None:
    """Has this transaction read whole partitions as they lie, also on a connection that plans for the hot path."""
    for setting in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"):
        connection.execute(text(f"SET LOCAL enable_{setting} = on"))
    connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))


def partitions(connection: Connection, *, now: datetime) -> list[Partition]:
    """The daily partitions, the oldest day first; the default ones are not among them."""
    found = []
    for name, *values in connection.execute(_PARTITIONS, {"now": now}):
        if (match := _DAY.fullmatch(name)) is not None:
            day = datetime.strptime(match["day"], "%Y%m%d").replace(tzinfo=UTC)
            found.append(Partition(match["table"], name, day, *values))
    return sorted(found, key=lambda one: (one.day, TABLES.index(one.table)))


def living(connection: Connection, one: Partition) -> Living:
    """What of the partition is still needed. By the indexes deliveries_event, or of ids."""
    statement = text(_LIVE[one.table])
    values = {} if one.table == "ended_deliveries" else {"low": one.low, "high": one.high}
    return Living(*connection.execute(statement, values).one())


def drop_day(connection: Connection, days: list[Partition]) -> None:
    """Drops the partitions of one day; of their rows, those that a live delivery needs move to the default partitions.

    Takes ACCESS EXCLUSIVE locks on the parents, for which everybody waits who reads or writes them, until the
    transaction ends. Waits for who does that now, no longer than the transaction's lock_timeout.
    """
    for one in days:
        lock(connection, one)
        _detach(connection, one)
        columns = ", ".join(_columns(connection, one.name))
        if one.table != "ended_deliveries":
            connection.execute(
                text(
                    f"INSERT INTO dispatcher.{one.table} ({columns}) "
                    f"SELECT {columns} FROM dispatcher.{one.name} p WHERE {_LIVES[one.table]}"
                )
            )
        connection.execute(text(f"DROP TABLE dispatcher.{one.name}"))
        connection.execute(text("DELETE FROM dispatcher.retained WHERE partition = :name"), {"name": one.name})


def rewrite(connection: Connection, one: Partition, *, look_again_at: datetime, is_living: bool) -> None:
    """Exchanges the partition for a copy without its payloads, or its answers: its space is given back at once.

    An event that has a live delivery keeps its payload; `look_again_at` is when such are looked at again, where there
    are any. Locks the partition against writers meanwhile, and for the exchange as `drop_day` does.
    """
    lock(connection, one)
    copy, key = f"{one.name}_copy", _KEY[one.table]
    within = f"{key} >= '{one.low}' AND {key} < '{one.high}'"
    names = _columns(connection, one.name)
    columns, without = ", ".join(names), _WITHOUT[one.table]
    selected = ", ".join(without.get(name, f"p.{name}") for name in names)
    for statement in (
        f"CREATE TABLE dispatcher.{copy} (LIKE dispatcher.{one.table} INCLUDING ALL)",
        f"INSERT INTO dispatcher.{copy} ({columns}) SELECT {selected} FROM dispatcher.{one.name} p ORDER BY {key}",
        # Proves the bounds, or attaching would read all of it while everybody waits.
        f"ALTER TABLE dispatcher.{copy} ADD CONSTRAINT within CHECK ({key} IS NOT NULL AND {within})",
    ):
        connection.execute(text(statement))
    _detach(connection, one)
    if one.table == "events":
        # A delivery made while we copied, as a replay is, has its event's payload: since the lock, none can be made
        # by a transaction that reads the event.
        healed = connection.execute(
            text(
                f"UPDATE dispatcher.{copy} c SET payload = p.payload FROM dispatcher.{one.name} p "
                "WHERE p.id IN (SELECT event_id FROM dispatcher.deliveries WHERE "
                "event_id >= :low AND event_id < :high) "
                "AND c.id = p.id AND c.payload IS NULL AND p.payload IS NOT NULL"
            ),
            {"low": one.low, "high": one.high},
        ).rowcount
        is_living = is_living or healed > 0
    for statement in (
        f"DROP TABLE dispatcher.{one.name}",
        f"ALTER TABLE dispatcher.{copy} RENAME TO {one.name}",
        (
            f"ALTER TABLE dispatcher.{one.table} ATTACH PARTITION dispatcher.{one.name} "
            f"FOR VALUES FROM ('{one.low}') TO ('{one.high}')"
        ),
        f"ALTER TABLE dispatcher.{one.name} DROP CONSTRAINT within",
    ):
        connection.execute(text(statement))
    remember(connection, one, look_again_at=look_again_at if is_living else None)


def remember(
    connection: Connection, one: Partition, *, cursor: UUID | None = None, look_again_at: datetime | None = None
) -> None:
    """Notes what was done with the partition."""
    connection.execute(_REMEMBER, {"name": one.name, "cursor": cursor, "look_again_at": look_again_at})


def clear_payloads(connection: Connection, one: Partition) -> int:
    """Takes away the payloads that a rewritten partition kept and that no live delivery needs any more; how many."""
    return connection.execute(
        text(f"UPDATE dispatcher.{one.name} p SET payload = NULL WHERE payload IS NOT NULL AND NOT {_LIVES['events']}")
    ).rowcount


def empty_answers(connection: Connection, one: Partition, *, batch: int) -> UUID | None:
    """Empties the answers of the partition's next `batch` deliveries in place; the last of them, or None at the end."""
    last: UUID | None = connection.execute(
        text(
            f"WITH next AS MATERIALIZED (SELECT DISTINCT delivery_id FROM dispatcher.{one.name} "
            "WHERE delivery_id > :cursor ORDER BY delivery_id LIMIT :batch), "
            f"emptied AS (UPDATE dispatcher.{one.name} a SET response_headers = '[]', response_body = '' FROM next "
            "WHERE a.delivery_id = next.delivery_id) SELECT delivery_id FROM next ORDER BY delivery_id DESC LIMIT 1"
        ),
        {"cursor": one.cursor or UUID(int=0), "batch": batch},
    ).scalar()
    return last


_KEPT: Final = text("SELECT since FROM dispatcher.kept")
_KEEP: Final = text("UPDATE dispatcher.kept SET since = greatest(since, :since)")


def kept_since(connection: Connection) -> UUID:
    """The first id from which on the log is whole: of what is older, only what lives is left."""
    since: UUID = connection.execute(_KEPT).scalar_one()
    return since


def keep_since(connection: Connection, since: UUID) -> None:
    """Notes that the log is whole only from this id on."""
    connection.execute(_KEEP, {"since": since})


# Of the default partitions, which no day's partition covers.

# OFFSET 0, and a column by which indexes have no key (mode), so that each is looked for by its key.
_SWEEP: Final = {
    "payloads": (
        """
        UPDATE dispatcher.events_default e SET payload = NULL WHERE e.id = ANY (ARRAY(
            SELECT p.id FROM dispatcher.events_default p
            WHERE p.id < :before AND p.payload IS NOT NULL
              AND NOT EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.event_id = p.id OFFSET 0)
            LIMIT :batch))""",
    ),
    "responses": (
        """
        UPDATE dispatcher.attempts_default a SET response_headers = '[]', response_body = ''
        WHERE a.ctid = ANY (ARRAY(
            SELECT p.ctid FROM dispatcher.attempts_default p
            WHERE p.delivery_id < :before AND (p.response_body <> '' OR CAST(p.response_headers AS text) <> '[]')
            LIMIT :batch))""",
    ),
    "metadata": (
        """
        DELETE FROM dispatcher.attempts_default a WHERE a.ctid = ANY (ARRAY(
            SELECT p.ctid FROM dispatcher.attempts_default p
            WHERE p.delivery_id < :before
              AND NOT EXISTS (SELECT FROM dispatcher.deliveries d
                              WHERE d.id = p.delivery_id AND d.mode <> '' OFFSET 0) LIMIT :batch))""",
        """
        DELETE FROM dispatcher.ended_deliveries_default e WHERE e.id = ANY (ARRAY(
            SELECT id FROM dispatcher.ended_deliveries_default WHERE id < :before LIMIT :batch))""",
        """
        DELETE FROM dispatcher.events_default e WHERE e.id = ANY (ARRAY(
            SELECT p.id FROM dispatcher.events_default p
            WHERE p.id < :before
              AND NOT EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.event_id = p.id OFFSET 0)
            LIMIT :batch))""",
    ),
}


def sweep_default(connection: Connection, what: What, before: UUID, *, batch: int) -> int:
    """Does it to up to `batch` rows of each default partition with an id before this one; returns how many."""
    return sum(
        connection.execute(text(statement), {"before": before, "batch": batch}).rowcount for statement in _SWEEP[what]
    )


# Of tenants that keep less. What an event said and what became of it go together, also at endpoints of tenants above.

_SHORTER: Final = text("""
SELECT t.id, w.what, w.days, coalesce(r.cursor, CAST('00000000-0000-0000-0000-000000000000' AS uuid))
FROM dispatcher.tenants t
CROSS JOIN LATERAL (VALUES ('payloads', payloads_days), ('responses', responses_days), ('metadata', metadata_days))
                   AS w(what, days)
LEFT JOIN dispatcher.tenant_retained r ON r.tenant_id = t.id AND r.what = w.what
WHERE w.days IS NOT NULL
ORDER BY t.id, w.what
""")

_PAST: Final = text("""
SELECT e.id FROM dispatcher.events e
WHERE e.tenant_id = :tenant_id AND e.id > :cursor AND e.id < :before ORDER BY e.id LIMIT :batch
""")

_IDS: Final = "SELECT CAST(value AS uuid) AS id FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))"

_DONE: Final = f"""
WITH asked AS MATERIALIZED ({_IDS}), done AS MATERIALIZED (
    SELECT id FROM asked WHERE NOT EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.event_id = asked.id OFFSET 0)
), ended AS MATERIALIZED (
    SELECT d.id FROM done CROSS JOIN LATERAL (
        SELECT id FROM dispatcher.ended_deliveries d WHERE d.event_id = done.id) d
)
"""

_OF_TENANT: Final = {
    "payloads": (
        _DONE
        + """
        UPDATE dispatcher.events e SET payload = NULL FROM done
        WHERE e.id = ANY (ARRAY[done.id]) AND e.payload IS NOT NULL""",
    ),
    "responses": (
        _DONE
        + """
        UPDATE dispatcher.attempts a SET response_headers = '[]', response_body = ''
        FROM ended WHERE a.delivery_id = ANY (ARRAY[ended.id])""",
    ),
    "metadata": (
        _DONE
        + """
        , attempt AS (DELETE FROM dispatcher.attempts a USING ended WHERE a.delivery_id = ANY (ARRAY[ended.id])
        ), delivery AS (DELETE FROM dispatcher.ended_deliveries d USING ended WHERE d.id = ANY (ARRAY[ended.id]))
        DELETE FROM dispatcher.events e USING done WHERE e.id = ANY (ARRAY[done.id])""",
    ),
}

_MOVE_ON: Final = text("""
INSERT INTO dispatcher.tenant_retained (tenant_id, what, cursor) VALUES (:tenant_id, :what, :cursor)
ON CONFLICT (tenant_id, what) DO UPDATE SET cursor = excluded.cursor
""")


@dataclass(frozen=True, slots=True)
class Shorter:
    """How many days a tenant keeps something, and up to which event that has been done."""

    tenant_id: UUID
    what: What
    days: int
    cursor: UUID


def shorter(connection: Connection) -> list[Shorter]:
    """What tenants keep for less long than the installation."""
    return [Shorter(*row) for row in connection.execute(_SHORTER)]


_KEEP_LESS: Final = text("""
UPDATE dispatcher.tenants
SET payloads_days = :payloads, responses_days = :responses, metadata_days = :metadata WHERE id = :id
""")


def keep_less(
    connection: Connection, tenant_id: UUID, *, payloads: int | None, responses: int | None, metadata: int | None
) -> None:
    """Sets for how many days a tenant's are kept; None: as long as the installation's."""
    values = {"payloads": payloads, "responses": responses, "metadata": metadata}
    connection.execute(_KEEP_LESS, {"id": tenant_id, **values})


def sweep_tenant(connection: Connection, one: Shorter, before: UUID, *, batch: int) -> int:
    """Does it to the tenant's next `batch` events before this id; returns how many there were.

    What has a live delivery is passed over, and goes with its day. By the index events_tenant: where there is nothing
    more, this costs one probe of it.
    """
    values = {"tenant_id": one.tenant_id, "cursor": one.cursor, "before": before, "batch": batch}
    ids = list(connection.execute(_PAST, values).scalars())
    if ids:
        listed = "[" + ",".join(f'"{id_}"' for id_ in ids) + "]"
        for statement in _OF_TENANT[one.what]:
            connection.execute(text(statement), {"ids": listed})
        connection.execute(_MOVE_ON, {"tenant_id": one.tenant_id, "what": one.what, "cursor": ids[-1]})
    return len(ids)


def rows_of(connection: Connection, one: Partition) -> Iterator[Mapping[str, Any]]:
    """All rows of the partition, as they are stored, in the order of their ids; a few in memory at a time."""
    order = "delivery_id, claim_seq" if one.table == "attempts" else "id"
    statement = text(f"SELECT * FROM dispatcher.{one.name} ORDER BY {order}")
    for row in connection.execute(statement, execution_options={"yield_per": 500}).mappings():
        yield dict(row)


def lock(connection: Connection, one: Partition) -> None:
    """Keeps writers away from the partition until the transaction ends."""
    connection.execute(text(f"LOCK TABLE dispatcher.{one.name} IN SHARE ROW EXCLUSIVE MODE"))


def _detach(connection: Connection, one: Partition) -> None:
    connection.execute(text(f"ALTER TABLE dispatcher.{one.table} DETACH PARTITION dispatcher.{one.name}"))


def _columns(connection: Connection, name: str) -> list[str]:
    return list(connection.execute(_COLUMNS, {"name": f"dispatcher.{name}"}).scalars())
