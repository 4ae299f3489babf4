"""The statements that erase what events of one object said, and keep that there were such, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from dispatcher.store import limits
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

_COLUMNS: Final = (
    "id, object_id, tenant_id, reason, created_by, created_at, cursor, passes, next_pass_at, events, attempts, "
    "cancelled, in_flight"
)

_ADD = text(f"""
INSERT INTO dispatcher.erasures (id, object_id, tenant_id, reason, created_by, created_at, next_pass_at)
VALUES (:id, :object_id, :tenant_id, :reason, :created_by, :at, :at)
RETURNING {_COLUMNS}
""")

_FIND = text(f"SELECT {_COLUMNS} FROM dispatcher.erasures WHERE id = :id")

_LIST = text(f"""
SELECT {_COLUMNS} FROM dispatcher.erasures
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id) AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")

_TAKE = text(f"""
SELECT {_COLUMNS} FROM dispatcher.erasures
WHERE next_pass_at <= :now AND (CAST(:only AS uuid) IS NULL OR id = :only)
ORDER BY next_pass_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")

_SAVE = text(f"""
UPDATE dispatcher.erasures
SET cursor = :cursor, passes = :passes, next_pass_at = :next_pass_at, events = :events, attempts = :attempts,
    cancelled = :cancelled, in_flight = :in_flight
WHERE id = :id
RETURNING {_COLUMNS}
""")

_CHOSEN: Final = """
FROM dispatcher.events e
WHERE e.object_id = :object_id AND e.created_at <= :created_at
  AND (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
"""

# OFFSET 0: the object's events by the index events_object, then their order. Without it all events were read in the
# order of their ids.
_EVENTS = text(f"""
SELECT id FROM (SELECT e.id {_CHOSEN} OFFSET 0) found WHERE id > :cursor ORDER BY id LIMIT :batch
""")

_COUNT = text(f"""
SELECT count(*), count(e.payload),
       (SELECT count(*) FROM dispatcher.deliveries d WHERE d.event_id = ANY (ARRAY(SELECT e.id {_CHOSEN}))) {_CHOSEN}
""")

_OWNERS = text("SELECT DISTINCT tenant_id FROM dispatcher.events WHERE object_id = :object_id LIMIT :limit")

_EXPORT_EVENTS = text(f"SELECT e.* {_CHOSEN} ORDER BY e.id")

_EXPORT_ATTEMPTS = text(f"""
SELECT a.* FROM (SELECT e.id {_CHOSEN}) e
CROSS JOIN LATERAL (SELECT id FROM dispatcher.ended_deliveries d WHERE d.event_id = e.id
                    UNION ALL SELECT id FROM dispatcher.deliveries d WHERE d.event_id = e.id) d
CROSS JOIN LATERAL (SELECT * FROM dispatcher.attempts a WHERE a.delivery_id = d.id OFFSET 0) a
ORDER BY a.delivery_id, a.claim_seq
""")

_ASKED: Final = """
WITH asked AS MATERIALIZED (
    SELECT CAST(value AS uuid) AS id FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))
)
"""

# OFFSET 0: by the index deliveries_event for each, whatever the statistics say.
_LIVE: Final = (
    "FROM asked CROSS JOIN LATERAL (SELECT id FROM dispatcher.deliveries d WHERE d.event_id = asked.id OFFSET 0) d"
)

_WAITING = text(f"{_ASKED} SELECT d.id {_LIVE}")

_ERASE_EVENTS = text(
    _ASKED
    + """
UPDATE dispatcher.events e SET payload = NULL, erased_at = :now
FROM asked WHERE e.id = ANY (ARRAY[asked.id]) AND e.erased_at IS NULL
"""
)

# A query may hold what the event said: that of a GET always does.
_BARE: Final = "regexp_replace({url}, '[?].*$', '?erased')"

_ERASE_ATTEMPTS = text(
    _ASKED
    + f"""
, delivery AS MATERIALIZED (
    SELECT d.id FROM asked CROSS JOIN LATERAL (
        SELECT id FROM dispatcher.ended_deliveries d WHERE d.event_id = asked.id
        UNION ALL SELECT id FROM dispatcher.deliveries d WHERE d.event_id = asked.id) d
)
UPDATE dispatcher.attempts a
SET response_headers = '[]', response_body = '', error = NULL, url = {_BARE.format(url="a.url")}
FROM delivery
WHERE a.delivery_id = ANY (ARRAY[delivery.id])
  AND (a.response_body <> '' OR CAST(a.response_headers AS text) <> '[]' OR a.error IS NOT NULL
       OR a.url <> {_BARE.format(url="a.url")})
"""
)

_ERASE_ENDED = text(
    _ASKED
    + f"""
UPDATE dispatcher.ended_deliveries d SET last_error = NULL, target_url = {_BARE.format(url="d.target_url")}
FROM asked
WHERE d.event_id = ANY (ARRAY[asked.id])
  AND (d.last_error IS NOT NULL OR d.target_url <> {_BARE.format(url="d.target_url")})
"""
)

_IN_FLIGHT = text(f"{_ASKED} SELECT count(*) {_LIVE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure, and how far it is. `tenant_id` None: of every tenant's events.

    It passes over the object's events up to `cursor` in batches, `passes` times so far; `next_pass_at` is when it goes
    on, None once what was in flight has been erased too. `in_flight` deliveries were found in the latest pass.
    """

    id: UUID
    object_id: str
    tenant_id: UUID | None
    reason: str | None
    created_by: str
    created_at: datetime
    cursor: UUID
    passes: int
    next_pass_at: datetime | None
    events: int
    attempts: int
    cancelled: int
    in_flight: int


def add(
    connection: Connection,
    erasure_id: UUID,
    *,
    object_id: str,
    tenant_id: UUID | None,
    reason: str | None,
    created_by: str,
    at: datetime,
) -> Erasure:
    """Notes what is to be erased: the events that are there at this instant."""
    values = {"id": erasure_id, "object_id": object_id, "tenant_id": tenant_id, "reason": reason}
    row = connection.execute(_ADD, values | {"created_by": created_by, "at": at}).mappings().one()
    return Erasure(**row)


def find(connection: Connection, erasure_id: UUID) -> Erasure | None:
    """The erasure with this id."""
    row = connection.execute(_FIND, {"id": erasure_id}).mappings().first()
    return None if row is None else Erasure(**row)


def list_(
    connection: Connection, *, tenant_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> list[Erasure]:
    """Erasures, the newest first, older than `before`; only those of one tenant's events, if given."""
    rows = connection.execute(_LIST, {"tenant_id": tenant_id, "before": before, "limit": limit}).mappings()
    return [Erasure(**row) for row in rows]


def take(connection: Connection, *, now: datetime, only: UUID | None = None) -> Erasure | None:
    """The erasure whose turn it is, locked until the transaction ends; passes over what another has locked."""
    row = connection.execute(_TAKE, {"now": now, "only": only}).mappings().first()
    return None if row is None else Erasure(**row)


def save(connection: Connection, one: Erasure) -> Erasure:
    """Notes how far it is."""
    values = {
        "id": one.id,
        "cursor": one.cursor,
        "passes": one.passes,
        "next_pass_at": one.next_pass_at,
        "events": one.events,
        "attempts": one.attempts,
        "cancelled": one.cancelled,
        "in_flight": one.in_flight,
    }
    return Erasure(**connection.execute(_SAVE, values).mappings().one())


def events_of(connection: Connection, one: Erasure, *, batch: int) -> list[UUID]:
    """The object's next `batch` events after the cursor, in their order. By the index events_object."""
    values = {"object_id": one.object_id, "tenant_id": one.tenant_id, "created_at": one.created_at}
    return list(connection.execute(_EVENTS, values | {"cursor": one.cursor, "batch": batch}).scalars())


def count(
    connection: Connection, object_id: str, tenant_id: UUID | None, *, created_at: datetime
) -> tuple[int, int, int]:
    """How many events the object has, how many of them have a payload, and their live deliveries."""
    values = {"object_id": object_id, "tenant_id": tenant_id, "created_at": created_at}
    events, payloads, live = connection.execute(_COUNT, values).one()
    return events, payloads, live


def owners(connection: Connection, object_id: str, *, limit: int) -> list[UUID]:
    """Tenants that have events of the object, `limit` at most. By the index events_object."""
    return list(connection.execute(_OWNERS, {"object_id": object_id, "limit": limit}).scalars())


def rows_of(
    connection: Connection, object_id: str, tenant_id: UUID | None, *, created_at: datetime
) -> Iterator[dict[str, Any]]:
    """The object's events, then the attempts of their deliveries, as they are stored, each with its `kind`."""
    values = {"object_id": object_id, "tenant_id": tenant_id, "created_at": created_at}
    for kind, statement in (("event", _EXPORT_EVENTS), ("attempt", _EXPORT_ATTEMPTS)):
        for row in connection.execute(statement, values, execution_options={"yield_per": 500}).mappings():
            yield {"kind": kind, **row}


def live_of(connection: Connection, ids: Collection[UUID]) -> list[UUID]:
    """The live deliveries of these events, by the index deliveries_event."""
    return list(connection.execute(_WAITING, {"ids": to_json(list(ids))}).scalars())


def erase(connection: Connection, ids: Collection[UUID], *, now: datetime) -> tuple[int, int]:
    """Takes from these events their payloads, from their attempts the answers, errors and queries; how many of each.

    What was erased already is left alone, so that doing it again changes and counts nothing.
    """
    values = {"ids": to_json(list(ids))}
    limits.plan_anew(connection)  # on empty tables the index by tenant is as good as the one by id
    events = connection.execute(_ERASE_EVENTS, values | {"now": now}).rowcount
    attempts = connection.execute(_ERASE_ATTEMPTS, values).rowcount
    connection.execute(_ERASE_ENDED, values)
    return events, attempts


def still_live(connection: Connection, ids: Collection[UUID]) -> int:
    """How many deliveries of these events live: once those that waited are cancelled, those in flight."""
    found: int = connection.execute(_IN_FLIGHT, {"ids": to_json(list(ids))}).scalar_one()
    return found
