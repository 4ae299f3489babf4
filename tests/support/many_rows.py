"""Fills every table with many rows, without the statistics of any of them: for tests of what statements read.

The server is not told what came in (autovacuum is off for the tables), so plans that were made on the empty tables
stay, and new ones know no more than the tables' sizes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg

from dispatcher.ids import first_id

SMALL: Final = 50
"""Rows of tables whose size operators choose: pauses, workers, event types, signing keys, profiles, schedules."""

IN_FLIGHT: Final = 1000
"""Deliveries that are claimed: some by a dead worker, the others by live ones, whose room bounds how many they are."""

OLD: Final = timedelta(days=200)
"""How long ago rows of the default partitions were made: past every retention."""

KINDS: Final = {
    "tenant": 1, "endpoint": 2, "event": 3, "delivery": 4, "ended": 5, "attempt": 6, "worker": 7, "replay": 8,
    "key": 9, "preview": 10, "erasure": 11, "entry": 12, "pause": 13, "old": 14,
}  # fmt: skip


def id_of(kind: str, n: int, at: datetime) -> UUID:
    """The id of the n-th row of a kind, counted from 1."""
    return UUID(int=first_id(at).int | 7 << 76 | 2 << 62 | KINDS[kind] << 48 | n)


# Not a function in pg_temp: a new schema would have every session plan anew.
def _id(kind: str, n: str, at: datetime) -> str:
    """The SQL of `id_of`, for the n-th row."""
    first = str(id_of(kind, 0, at))[:24]
    return f"CAST('{first}' || lpad(to_hex({n}), 12, '0') AS uuid)"


def made_at(now: datetime) -> datetime:
    """When the rows were made: some time today, so that their partition is there."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=1, microsecond=0)


# Endpoint n is tenant n's, of which one in a hundred is deleted, one in a hundred disabled, one in fifty ordered. Half
# of what waits is the first endpoint's; of all that waits half is due, one in a hundred has expired.
_FILL = """
INSERT INTO dispatcher.tenants (id, name, payloads_days)
SELECT {tenant}, 'tenant ' || n, CASE WHEN n <= 20 THEN 1 END FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.endpoints (id, tenant_id, url, profile, schedule, method, max_in_flight, secrets, status,
                                  ordered, origin, blocked)
SELECT {endpoint}, {tenant}, 'https://host-' || n || '.example.com/', 'default', 'standard', 'POST', 64, '[]',
       CASE n % 100 WHEN 0 THEN 'deleted' WHEN 1 THEN 'disabled' ELSE 'active' END, n % 50 = 2,
       CASE WHEN n % 10 = 3 THEN 'https://host-' || n || '.example.com' END,
       CASE WHEN n % 1000 = 4 THEN 1 ELSE 0 END
FROM generate_series(1, {rows}) n;
UPDATE dispatcher.endpoints SET status = 'active', ordered = false WHERE id = {first_endpoint};

INSERT INTO dispatcher.endpoint_history (endpoint_id, version, status)
SELECT {endpoint}, 1, 'active' FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.lanes (endpoint_id, ready_at, cap, capped)
SELECT {endpoint}, CASE WHEN n % 2 = 0 THEN statement_timestamp() ELSE 'infinity' END, 64, n % 200 = 3
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.wakes (endpoint_id, due_at, succeeded)
SELECT {endpoint}, statement_timestamp() + n % 2 * interval '1 minute', 1 FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.events (id, tenant_id, type, mode, object_id, payload, fanout, created_at)
SELECT {event}, {tenant}, 'type.' || n % 1000, 'live', 'object ' || n, CAST('{{}}' AS bytea), 1, {at}
FROM generate_series(1, {rows}) n
UNION ALL
SELECT {old}, {tenant}, 'type.' || n % 1000, 'live', NULL, CAST('{{}}' AS bytea), 1, {at}
FROM generate_series(1, {small}) n;

INSERT INTO dispatcher.deliveries (id, endpoint_id, event_id, tenant_id, created_at, due_at, expires_at, schedule_id,
                                   event_type, mode, object_id, claim_seq, state, claimed_by)
SELECT {delivery}, CASE WHEN n % 2 = 0 THEN {first_endpoint} ELSE {endpoint} END, {event}, {tenant}, {at},
       statement_timestamp() + CASE WHEN n % 4 < 2 THEN interval '1 day' ELSE interval '-1 hour' END
       - n * interval '1 ms',
       CASE WHEN n % 100 = 5 THEN statement_timestamp() - interval '1 second'
            WHEN n % 4 > 0 THEN statement_timestamp() + interval '7 days' END,
       (SELECT min(id) FROM dispatcher.schedule_versions), 'type.' || n % 1000, 'live', 'object ' || n,
       CASE WHEN n <= {in_flight} THEN 1 ELSE 0 END, CASE WHEN n <= {in_flight} THEN 'in_flight' ELSE 'waiting' END,
       CASE WHEN n <= {in_flight} THEN {claimer} END
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.ended_deliveries (id, endpoint_id, event_id, tenant_id, created_at, ended_at, claim_seq,
    schedule_id, attempts, refunds, state, event_type, mode, object_id, reason, last_outcome, last_error, replay_id)
SELECT {ended}, CASE WHEN n % 2 = 0 THEN {first_endpoint} ELSE {endpoint} END, {event}, {tenant}, {at}, {at}, 1,
       (SELECT min(id) FROM dispatcher.schedule_versions), 1 + n % 3, 0,
       CASE WHEN n % 10 = 0 THEN 'exhausted' ELSE 'delivered' END, 'type.' || n % 1000, 'live', 'object ' || n, 'ok',
       CASE WHEN n % 10 = 0 THEN 'http_retryable' ELSE 'ok' END, CASE WHEN n % 10 = 0 THEN 'error ' || n END,
       CASE WHEN n % 1000 = 7 THEN {replay} END
FROM generate_series(1, {rows}) n
UNION ALL
SELECT {old}, {endpoint}, {old}, {tenant}, {at}, {at}, 1, (SELECT min(id) FROM dispatcher.schedule_versions), 1, 0,
       'delivered', 'type.1', 'live', NULL, 'ok', 'ok', NULL, NULL
FROM generate_series(1, {small}) n;

INSERT INTO dispatcher.attempts (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, outcome_known,
                                 outcome, method, url, request_headers, response_headers, response_body, body_end,
                                 decision)
SELECT x.delivery_id, 1, {attempt}, {tenant}, {at}, 1, 1, true, 'ok', 'POST', 'https://example.com/',
       CAST('[]' AS json), CAST('[]' AS json), CAST('ok' AS bytea), 'complete', 'delivered'
FROM generate_series(1, {rows}) n CROSS JOIN LATERAL (SELECT {ended} AS delivery_id) x
UNION ALL
SELECT {old}, 1, {attempt}, {tenant}, {at}, 1, 1, true, 'ok', 'POST', 'https://example.com/',
       CAST('[]' AS json), CAST('[]' AS json), CAST('ok' AS bytea), 'complete', 'delivered'
FROM generate_series(1, {small}) n;

INSERT INTO dispatcher.idempotency (tenant_id, key, event_id, body_sha256, expires_at)
SELECT {tenant}, 'key ' || n, {event}, '', {in_or_past_a_day}
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.idempotent_requests (owner, key, request_sha256, status, body, expires_at)
SELECT {tenant}, 'key ' || n, '', 200, '', {in_or_past_a_day}
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.request_signatures (signature_sha256, expires_at)
SELECT sha256(CAST('signature ' || n AS bytea)), {in_or_past_a_day}
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.previews (id, kind, filter, options, count, expires_at)
SELECT {preview}, 'replay', '{{}}', '{{}}', 1, {in_or_past_a_day}
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.replays (id, filter, state, ended_at)
SELECT {replay}, '{{}}', CASE WHEN n <= 3 THEN 'running' ELSE 'done' END,
       CASE WHEN n > 3 THEN statement_timestamp() END
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.replay_endpoints (replay_id, endpoint_id, total, looked_at, stepped_at, state)
SELECT {its_replay}, {endpoint}, 1, {at}, {at},
       CASE WHEN n <= {small} THEN 'running' ELSE 'done' END
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.audit_log (id, actor, action, object, tenant_id)
SELECT {entry}, 'test', 'endpoint.created', 'ep_' || {endpoint}, {tenant} FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.api_keys (id, tenant_id, name, key_sha256)
SELECT {key}, {tenant}, 'key', sha256(CAST('key ' || n AS bytea)) FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.erasures (id, object_id, created_by, created_at, passes, next_pass_at)
SELECT {erasure}, 'object ' || n, 'test', statement_timestamp(), 2, CASE WHEN n <= 3 THEN statement_timestamp() END
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.tenant_retained (tenant_id, what, cursor)
SELECT {tenant}, 'payloads', {old} FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.tallies (at, body)
SELECT statement_timestamp(), '[{{"endpoint_id": "00000000-0000-0000-0000-000000000000", "event_type": "t",
       "kind": "attempt", "what": "ok", "size": 1, "n": 1}}]'
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.counts (endpoint_id, grain, since, event_type, kind, what, size, n)
SELECT {endpoint}, '5min', date_trunc('hour', statement_timestamp()) - n % 100 * interval '1 hour', 'type.1', 'attempt',
       'ok', 1, 1
FROM generate_series(1, {rows}) n;

INSERT INTO dispatcher.workers (id, host, pid, room, started_at, heartbeat_until)
SELECT {worker}, 'host', n, 100, {at},
       statement_timestamp() + CASE WHEN n <= 4 THEN 3600 ELSE -86400 END * interval '1 second'
FROM generate_series(1, {small}) n;

INSERT INTO dispatcher.pauses (id, tenant_id, reason, created_by)
SELECT {pause}, {tenant}, 'test', 'test' FROM generate_series(1000, 1000 + {small}) n;

INSERT INTO dispatcher.event_types (name) SELECT 'type.' || n FROM generate_series(1, {small}) n
"""


def fill(connection: psycopg.Connection, rows: int, *, now: datetime) -> None:
    """Puts so many rows into every table. The connection must be in autocommit mode."""
    at = made_at(now)
    values = {
        **{kind: _id(kind, "n", at) for kind in KINDS}, "old": _id("old", "n", at - OLD),
        "first_endpoint": _id("endpoint", "1", at), "claimer": _id("worker", "1 + n % 5", at),
        "its_replay": _id("replay", f"CASE WHEN n <= {SMALL} THEN 1 ELSE n END", at),
        "rows": rows, "small": SMALL, "at": f"CAST('{at.isoformat()}' AS timestamptz)",
        "in_or_past_a_day": "statement_timestamp() + CASE n % 2 WHEN 0 THEN -1 ELSE 1 END * interval '1 day'",
        "in_flight": IN_FLIGHT,
    }  # fmt: skip
    for statement in _FILL.format(**values).split(";\n"):
        connection.execute(statement.encode())


def turn_autovacuum_off(connection: psycopg.Connection) -> None:
    """Turns autovacuum and its ANALYZE off for every table."""
    tables = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace AND relkind = 'r'"
    )
    for (name,) in tables.fetchall():
        connection.execute(f"ALTER TABLE dispatcher.{name} SET (autovacuum_enabled = false)".encode())
