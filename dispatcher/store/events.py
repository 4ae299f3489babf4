"""The statements that accept events: what `emit` runs in the producer's own transaction.

They insert only. No lane is touched and no foreign key is checked, so two producers never block or deadlock one
another, unless they use the same idempotency key, or are the first to send a tenant's events to one target's origin.

The session is the producer's, so nothing depends on what is set there: names are qualified, and what goes to and fro is
text in ASCII, whole numbers, numerics or bytes. `extra_float_digits` would round a float, `client_encoding` may lack
characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import text

from dispatcher.store.clock import bind
from dispatcher.store.rows import to_ascii_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.store.clock import Now

# OFFSET 0 here and below: each sub-select runs for each row in front of it, by its index. As joins, plans that were
# made on empty tables read all tenants or endpoints for each batch of events.
_RECIPIENTS = text("""
WITH RECURSIVE asked AS (
    SELECT * FROM pg_catalog.json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS x(n int, tenant_id uuid, type text)
), owner AS (
    SELECT a.n, t.id, t.parent_id, a.type, a.tenant_id
    FROM asked a CROSS JOIN LATERAL (SELECT id, parent_id FROM dispatcher.tenants WHERE id = a.tenant_id OFFSET 0) t
    UNION -- not ALL: it also ends where parents form a ring
    SELECT o.n, t.id, t.parent_id, o.type, o.tenant_id
    FROM owner o CROSS JOIN LATERAL (SELECT id, parent_id FROM dispatcher.tenants WHERE id = o.parent_id OFFSET 0) t
)
SELECT o.n, CAST(e.id AS text) AS endpoint_id, e.version_id, CAST(e.first_wait_s AS numeric), e.ordered,
       o.id = o.tenant_id,
       CAST(o.id AS text), NULL, NULL
FROM owner o
LEFT JOIN LATERAL (
    SELECT e.id, v.id AS version_id, v.first_wait_s, e.ordered
    FROM dispatcher.endpoints e
    JOIN dispatcher.schedules s ON s.name = e.schedule
    JOIN dispatcher.schedule_versions v ON v.id = s.version_id
    WHERE e.tenant_id = o.id AND e.status <> 'deleted' AND e.origin IS NULL
      AND (e.type_patterns IS NULL OR o.type LIKE ANY (e.type_patterns))
    OFFSET 0
) e ON true
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, t.name, pg_catalog.convert_to(t.schema, 'UTF8')
FROM dispatcher.event_types t
WHERE t.schema IS NOT NULL AND t.name = ANY (ARRAY(SELECT type FROM asked))
ORDER BY n, endpoint_id
""")

_IMPLICIT = text("""
SELECT CAST(e.tenant_id AS text), e.origin, CAST(e.id AS text), v.id, CAST(v.first_wait_s AS numeric)
FROM pg_catalog.json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS x(tenant_id uuid, origin text)
CROSS JOIN LATERAL (
    SELECT id, tenant_id, origin, schedule FROM dispatcher.endpoints
    WHERE tenant_id = x.tenant_id AND origin = x.origin AND status <> 'deleted' OFFSET 0
) e
JOIN dispatcher.schedules s ON s.name = e.schedule
JOIN dispatcher.schedule_versions v ON v.id = s.version_id
""")

_REGISTER = text("""
SELECT dispatcher.register_implicit_endpoint(:id, :tenant_id, :origin, :profile, :schedule, :max_in_flight)
""")

_REMEMBER = text("""
INSERT INTO dispatcher.idempotency AS i (tenant_id, key, event_id, body_sha256, expires_at)
SELECT tenant_id, key, event_id, pg_catalog.decode(body_sha256, 'hex'),
       dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) + pg_catalog.make_interval(secs => lifetime_s)
FROM pg_catalog.json_to_recordset(CAST(CAST(:rows AS text) AS json))
     AS x(tenant_id uuid, key text, event_id uuid, body_sha256 text, lifetime_s float8)
ORDER BY tenant_id, key
ON CONFLICT (tenant_id, key) DO UPDATE
SET event_id = excluded.event_id, body_sha256 = excluded.body_sha256, expires_at = excluded.expires_at
WHERE i.expires_at <= dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))
RETURNING CAST(i.event_id AS text)
""")

_RECALL = text("""
SELECT x.n, CAST(i.event_id AS text), i.body_sha256,
       extract(epoch FROM i.expires_at - dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])))
FROM pg_catalog.json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS x(n int, tenant_id uuid, key text)
CROSS JOIN LATERAL (SELECT * FROM dispatcher.idempotency WHERE tenant_id = x.tenant_id AND key = x.key OFFSET 0) i
""")

_ACCEPT = text("""
WITH event AS (
    INSERT INTO dispatcher.events (id, tenant_id, type, mode, object_id, payload, fanout, created_at)
    SELECT id, tenant_id, type, mode, object_id,
           substring(CAST(:payloads AS bytea) FROM payload_at FOR payload_bytes), fanout, created_at
    FROM pg_catalog.json_to_recordset(CAST(CAST(:events AS text) AS json))
         AS x(id uuid, tenant_id uuid, type text, mode text, object_id text, payload_at int, payload_bytes int,
              fanout smallint, created_at timestamptz)
), clock AS MATERIALIZED (
    SELECT dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) AS now,
           dispatcher.clock_correction() AS correction
), delivery AS MATERIALIZED (  -- instants that producers name are the database's clock's
    SELECT x.*, greatest(x.not_before + clock.correction,
                         clock.now + pg_catalog.make_interval(secs => x.first_wait_s)) AS due_at, clock.correction
    FROM clock, pg_catalog.json_to_recordset(CAST(CAST(:deliveries AS text) AS json))
         AS x(id uuid, endpoint_id uuid, event_id uuid, tenant_id uuid, created_at timestamptz,
              not_before timestamptz, first_wait_s float8, expires_at timestamptz, schedule_id smallint,
              event_type text, mode text, object_id text, replay_id uuid, replay_of uuid,
              target_url text, target_method text, ordered boolean)
), wake AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at)
    SELECT endpoint_id, pg_catalog.min(due_at) FROM delivery GROUP BY endpoint_id
)
INSERT INTO dispatcher.deliveries (id, endpoint_id, event_id, tenant_id, created_at, due_at, expires_at, schedule_id,
                                   event_type, mode, object_id, replay_id, replay_of,
                                   target_url, target_method, ordered)
SELECT id, endpoint_id, event_id, tenant_id, created_at, due_at, expires_at + correction, schedule_id,
       event_type, mode, object_id, replay_id, replay_of,
       target_url, target_method, coalesce(ordered, false)
FROM delivery
""")


_FORGET = text("""
DELETE FROM dispatcher.idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM dispatcher.idempotency
    WHERE expires_at <= dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")


@dataclass(frozen=True, slots=True)
class Recipient:
    """An endpoint that an event goes to, with the schedule version that its delivery pins.

    `own` means that it is of the event's own tenant, not of one above it, which `tenant_id` names then; `ordered` that
    its deliveries take turns.
    """

    endpoint_id: UUID
    schedule_id: int
    first_wait_s: float
    ordered: bool = False
    own: bool = True
    tenant_id: UUID | None = None


def recipients(
    connection: Connection, asked: Sequence[tuple[UUID, str]]
) -> tuple[list[list[Recipient] | None], dict[str, str]]:
    """For each (tenant, event type): the endpoints of the tenant and of those above it that want the type.

    None where there is no such tenant. With them the JSON Schemas of those types that have one. Disabled endpoints
    are among the recipients: their deliveries are held. Those of targets are not. Reads only columns that producers
    are granted, by the index endpoints_tenant. Locks nothing.
    """
    found: list[list[Recipient] | None] = [None] * len(asked)
    schemas: dict[str, str] = {}
    rows = to_ascii_json([{"n": n, "tenant_id": tenant_id, "type": kind} for n, (tenant_id, kind) in enumerate(asked)])
    for n, endpoint_id, schedule_id, wait_s, ordered, own, owner, kind, schema in connection.execute(
        _RECIPIENTS, {"rows": rows}
    ):
        if n is None:
            schemas[kind] = bytes(schema).decode()
            continue
        of_this = found[n] = found[n] or []
        if endpoint_id is not None:
            tenant_id = None if own else UUID(owner)
            of_this.append(Recipient(UUID(endpoint_id), schedule_id, float(wait_s), ordered, own, tenant_id))
    return found, schemas


def implicit_endpoints(
    connection: Connection, asked: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], Recipient]:
    """The implicit endpoints that there are for targets at these (tenant, origin), by the index endpoints_origin."""
    rows = to_ascii_json([{"tenant_id": tenant_id, "origin": origin} for tenant_id, origin in asked])
    return {
        (UUID(tenant_id), origin): Recipient(UUID(endpoint_id), schedule_id, float(first_wait_s))
        for tenant_id, origin, endpoint_id, schedule_id, first_wait_s in connection.execute(_IMPLICIT, {"rows": rows})
    }


def register_implicit_endpoint(
    connection: Connection,
    endpoint_id: UUID,
    *,
    tenant_id: UUID,
    origin: str,
    profile: str,
    schedule: str,
    max_in_flight: int,
) -> None:
    """Makes the endpoint for targets at this origin, its lane and its history, unless the tenant has one.

    Waits for any transaction that has made the same one and is still open. Runs as the owner of the schema, who
    checks that nothing else can be registered by it: `profile` must be the tenant's and allow targets, `schedule` its
    schedule. Raises sqlalchemy.exc.ProgrammingError otherwise.
    """
    connection.execute(
        _REGISTER,
        {
            "id": endpoint_id,
            "tenant_id": tenant_id,
            "origin": origin,
            "profile": profile,
            "schedule": schedule,
            "max_in_flight": max_in_flight,
        },
    )


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an idempotency key stands for: the event, and the SHA-256 of what was asked under it.

    It is kept for `lifetime_s` more; where that is not above 0 the key is free again.
    """

    tenant_id: UUID
    key: str
    event_id: UUID
    body_sha256: bytes
    lifetime_s: float


def remember(connection: Connection, asked: Sequence[Remembered], *, now: Now = None) -> set[UUID]:
    """Takes the keys; returns the event ids of those that were free, or whose time has passed.

    Waits for any transaction that has taken or repeated the same key and is still open, in the order of (tenant,
    key), so two batches with the same keys do not deadlock. Locks the rows of the keys, repeated ones too, until the
    transaction ends.
    """
    rows = [
        {
            "tenant_id": r.tenant_id,
            "key": r.key,
            "event_id": r.event_id,
            "body_sha256": r.body_sha256.hex(),
            "lifetime_s": r.lifetime_s,
        }
        for r in asked
    ]
    return {
        UUID(taken)
        for taken in connection.execute(_REMEMBER, {"rows": to_ascii_json(rows), "now": bind(now)}).scalars()
    }


def recall(connection: Connection, keys: Collection[tuple[UUID, str]], *, now: Now = None) -> list[Remembered]:
    """What the keys stand for, those of them that are kept. Locks nothing.

    Run it after `remember` refused some, as a statement of its own: it then sees them.
    """
    asked = list(keys)
    rows = to_ascii_json([{"n": n, "tenant_id": tenant_id, "key": key} for n, (tenant_id, key) in enumerate(asked)])
    return [
        Remembered(asked[n][0], asked[n][1], UUID(event_id), bytes(body_sha256), float(lifetime_s))
        for n, event_id, body_sha256, lifetime_s in connection.execute(_RECALL, {"rows": rows, "now": bind(now)})
    ]


class NewEvent(TypedDict):
    """A row of `events`. `payload_at` is where its payload begins among those of its statement, from 1 on."""

    id: UUID
    tenant_id: UUID
    type: str
    mode: str
    object_id: str | None
    payload_at: int
    payload_bytes: int
    fanout: int
    created_at: datetime


class NewDelivery(TypedDict):
    """A row of `deliveries`, first due `first_wait_s` seconds from now, and not before `not_before`."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    tenant_id: UUID
    created_at: datetime
    not_before: datetime | None
    first_wait_s: float
    expires_at: datetime | None
    schedule_id: int
    event_type: str
    mode: str
    object_id: str | None
    replay_id: NotRequired[UUID | None]
    replay_of: NotRequired[UUID | None]
    target_url: NotRequired[str | None]
    target_method: NotRequired[str | None]
    ordered: NotRequired[bool]


def accept(
    connection: Connection,
    events: Sequence[NewEvent],
    deliveries: Sequence[NewDelivery],
    payloads: bytes = b"",
    *,
    now: Now = None,
) -> None:
    """Inserts the events, their deliveries, and a wake for each endpoint: one statement.

    `payloads` are those of the events, one after the other: as one value they are neither quoted nor parsed on their
    way (JSON with base64 cost 5 µs more an event). A replay passes deliveries alone. Locks nothing but the new rows.
    """
    values = {
        "events": to_ascii_json(events),
        "deliveries": to_ascii_json(deliveries),
        "payloads": payloads,
        "now": bind(now),
    }
    connection.execute(_ACCEPT, values)


def forget(connection: Connection, *, batch: int, now: Now = None) -> int:
    """Deletes up to `batch` idempotency keys whose time has passed; returns how many."""
    return connection.execute(_FORGET, {"batch": batch, "now": bind(now)}).rowcount
