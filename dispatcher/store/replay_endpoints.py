"""The statements that keep how far a replay is with each of its endpoints: turns, rates, first ones that go alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from sqlalchemy import text

from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

State = Literal["running", "stopped", "done"]

_CLOCK: Final = """clock AS (
    SELECT now, now + dispatcher.clock_correction() AS due
    FROM (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS now) x
)"""

# What was made and not attempted yet is bounded by the depths, so counting all of it stays cheap. What is in flight
# does not make an endpoint one that is stuck: it may be a dead worker's, to which all endpoints have lost some.
_FRESH: Final = """
SELECT endpoint_id, count(*) AS n, min(due_at) FILTER (WHERE state = 'waiting') AS since,
       count(*) FILTER (WHERE due_at >= clock.due - make_interval(secs => :stuck_s)) AS young
FROM dispatcher.deliveries CROSS JOIN clock
WHERE replay_id = :replay_id AND attempts = 0 AND refunds = 0
GROUP BY endpoint_id
"""

# Why nothing of an endpoint is sent now: whatever was made for it would wait. A pause of a type or mode holds a part.
_HELD: Final = """
CASE WHEN e.status <> 'active' THEN 'the endpoint is ' || e.status || coalesce(': ' || e.status_reason, '')
     ELSE (SELECT 'paused: ' || p.reason FROM dispatcher.pauses p
           WHERE p.type_pattern IS NULL AND p.mode IS NULL AND (p.tenant_id IS NULL OR p.tenant_id = e.tenant_id)
             AND (p.endpoint_id IS NULL OR p.endpoint_id = e.id)
           ORDER BY p.created_at, p.id LIMIT 1) END
"""

_LOOK = text(f"""
WITH {_CLOCK}, fresh AS MATERIALIZED ({_FRESH})
SELECT r.endpoint_id, r.total, r.made, r.cursor, r.canary_from, r.passed, coalesce(f.n, 0),
       CAST(extract(epoch FROM clock.now - greatest(r.stepped_at, CAST(:resumed_at AS timestamptz))) AS float8),
       coalesce(e.status = 'deleted', true), CAST((SELECT coalesce(sum(young), 0) FROM fresh) AS int)
FROM clock, dispatcher.replay_endpoints r
LEFT JOIN dispatcher.endpoints e ON e.id = r.endpoint_id
LEFT JOIN fresh f ON f.endpoint_id = r.endpoint_id
WHERE r.replay_id = :replay_id AND r.state = 'running'
  AND (e.status IS DISTINCT FROM 'active' AND e.status IS DISTINCT FROM 'disabled'
       OR (coalesce(f.n, 0) < :depth AND coalesce(f.since >= clock.due - make_interval(secs => :stuck_s), true)
           AND (CAST(:rate AS float8) IS NULL
                OR greatest(r.stepped_at, CAST(:resumed_at AS timestamptz))
                   + make_interval(secs => 1 / CAST(:rate AS float8)) <= clock.now
                OR greatest(r.stepped_at, CAST(:resumed_at AS timestamptz)) > clock.now)  -- the clock was set back
           AND ({_HELD}) IS NULL))
ORDER BY r.looked_at, r.endpoint_id LIMIT :most
""")

_VERDICTS = text("""
SELECT x.endpoint_id,
       EXISTS (SELECT FROM dispatcher.ended_deliveries o
               WHERE o.replay_id = :replay_id AND o.endpoint_id = x.endpoint_id AND o.state = 'delivered'),
       EXISTS (SELECT FROM dispatcher.deliveries d
               WHERE d.replay_id = :replay_id AND d.endpoint_id = x.endpoint_id AND d.attempts = 0)
FROM unnest(CAST(:endpoint_ids AS uuid[])) AS x(endpoint_id)
""")

_ADVANCE = text("""
UPDATE dispatcher.replay_endpoints r
SET made = r.made + x.made, cursor = x.cursor, state = x.state, status_reason = x.status_reason,
    passed = x.passed, stepped_at = x.stepped_at,
    looked_at = coalesce(CAST(:now AS timestamptz), statement_timestamp())
FROM json_to_recordset(CAST(CAST(:rows AS text) AS json))
     AS x(endpoint_id uuid, made bigint, cursor uuid, state text, status_reason text, passed boolean,
          stepped_at timestamptz)
CROSS JOIN LATERAL (  -- OFFSET 0: by the primary key for each, never all of the replay's with each
    SELECT ctid AS place FROM dispatcher.replay_endpoints
    WHERE replay_id = :replay_id AND endpoint_id = x.endpoint_id OFFSET 0
) found
WHERE r.ctid = found.place
""")

_RESUME = text("""
UPDATE dispatcher.replay_endpoints SET state = 'running', status_reason = NULL, canary_from = made
WHERE replay_id = :replay_id AND state = 'stopped'
""")

_STANDING = text(f"""
SELECT count(*) FILTER (WHERE r.state = 'running'), count(*) FILTER (WHERE r.state = 'stopped'),
       count(*) FILTER (WHERE r.state = 'running' AND ({_HELD}) IS NOT NULL)
FROM dispatcher.replay_endpoints r LEFT JOIN dispatcher.endpoints e ON e.id = r.endpoint_id
WHERE r.replay_id = :replay_id AND r.state <> 'done'
""")

_LEFT = text("""
SELECT EXISTS (SELECT FROM dispatcher.replay_endpoints WHERE replay_id = :replay_id AND state = 'running'),
       (SELECT count(*) FROM dispatcher.replay_endpoints WHERE replay_id = :replay_id AND state = 'stopped')
""")

_COUNTS = text("""
SELECT coalesce(sum(n) FILTER (WHERE state = 'delivered'), 0),
       coalesce(sum(n) FILTER (WHERE state NOT IN ('delivered', 'live')), 0),
       coalesce(sum(n) FILTER (WHERE state = 'live'), 0)
FROM (
    SELECT state, count(*) AS n FROM dispatcher.ended_deliveries WHERE replay_id = :replay_id GROUP BY state
    UNION ALL
    SELECT 'live', count(*) FROM dispatcher.deliveries WHERE replay_id = :replay_id
) found
""")

_LIST = text(f"""
WITH {_CLOCK}
SELECT r.endpoint_id, coalesce(e.url, ''), r.total, r.made, r.state,
       CASE WHEN r.state <> 'running' THEN r.status_reason
            ELSE coalesce({_HELD},
                 CASE WHEN fresh.n > 0 AND (fresh.n >= :depth
                                            OR fresh.since < clock.due - make_interval(secs => :stuck_s))
                      THEN fresh.n || ' made have not been attempted yet' END,
                 CASE WHEN one.canary IS NOT NULL AND NOT r.passed AND r.made >= r.canary_from + one.canary
                      THEN 'those that go first have not all been attempted yet' END) END,
       (SELECT count(*) FROM dispatcher.ended_deliveries o
        WHERE o.replay_id = r.replay_id AND o.endpoint_id = r.endpoint_id AND o.state = 'delivered'),
       (SELECT count(*) FROM dispatcher.ended_deliveries o
        WHERE o.replay_id = r.replay_id AND o.endpoint_id = r.endpoint_id AND o.state <> 'delivered'),
       (SELECT count(*) FROM dispatcher.deliveries d
        WHERE d.replay_id = r.replay_id AND d.endpoint_id = r.endpoint_id)
FROM clock, dispatcher.replays one
JOIN dispatcher.replay_endpoints r ON r.replay_id = one.id
LEFT JOIN dispatcher.endpoints e ON e.id = r.endpoint_id
CROSS JOIN LATERAL (
    SELECT count(*) AS n, min(d.due_at) FILTER (WHERE d.state = 'waiting') AS since FROM dispatcher.deliveries d
    WHERE d.replay_id = r.replay_id AND d.endpoint_id = r.endpoint_id AND d.attempts = 0 AND d.refunds = 0
) fresh
WHERE one.id = :replay_id AND (CAST(:after AS uuid) IS NULL OR r.endpoint_id > :after)
ORDER BY r.endpoint_id LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Look:
    """An endpoint of a replay that may get more: how many were there and were made, and how far its rate has come.

    `fresh` were made and not attempted yet; `young` are those of all endpoints together, but for those of endpoints
    that do not answer. `waited_s` is what of its own rate is not used up.
    """

    endpoint_id: UUID
    total: int
    made: int
    cursor: UUID
    canary_from: int
    passed: bool
    fresh: int
    waited_s: float
    is_deleted: bool
    young: int


def look(
    connection: Connection,
    replay_id: UUID,
    *,
    most: int,
    depth: int,
    stuck_s: float,
    rate: float | None,
    resumed_at: datetime | None,
    now: datetime | None = None,
) -> list[Look]:
    """Up to `most` endpoints that may get more, or are deleted, those first whose turn was longest ago.

    Passed over are those that are disabled or paused, have `depth` deliveries that were not attempted, or one for
    longer than `stuck_s`, and those whose own rate has not come to one. The replay's own lock guards them.
    """
    values = {"replay_id": replay_id, "most": most, "depth": depth, "stuck_s": stuck_s, "rate": rate}
    return [Look(*row) for row in connection.execute(_LOOK, {**values, "resumed_at": resumed_at, "now": now})]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of what was made for an endpoint: whether any was delivered, and whether any was never charged an attempt."""

    is_delivered: bool
    is_open: bool


def verdicts(connection: Connection, replay_id: UUID, endpoint_ids: Collection[UUID]) -> dict[UUID, Verdict]:
    """What has become of those that went first. By the indexes ended_replay and deliveries_replay."""
    values = {"replay_id": replay_id, "endpoint_ids": list(endpoint_ids)}
    return {row[0]: Verdict(*row[1:]) for row in connection.execute(_VERDICTS, values)}


class Advance(TypedDict):
    """How far an endpoint is after a step: `made` is how many more."""

    endpoint_id: UUID
    made: int
    cursor: UUID
    state: State
    status_reason: str | None
    passed: bool
    stepped_at: datetime


def advance(connection: Connection, replay_id: UUID, rows: Sequence[Advance], *, now: datetime | None = None) -> None:
    """Notes how far the endpoints are, in the transaction that brought them there."""
    connection.execute(_ADVANCE, {"replay_id": replay_id, "rows": to_json(rows), "now": now})


def resume(connection: Connection, replay_id: UUID) -> int:
    """Has the stopped ones try their next ones; how many those are."""
    return connection.execute(_RESUME, {"replay_id": replay_id}).rowcount


@dataclass(frozen=True, slots=True)
class Standing:
    """How many endpoints are left: running and stopped; `held` are those of the running that are disabled or paused."""

    running: int
    stopped: int
    held: int


def standing(connection: Connection, replay_id: UUID) -> Standing:
    """How the endpoints stand. Reads all that are not done."""
    return Standing(*connection.execute(_STANDING, {"replay_id": replay_id}).one())


def left(connection: Connection, replay_id: UUID) -> tuple[bool, int]:
    """Whether any endpoint runs, and how many are stopped."""
    running, stopped = connection.execute(_LEFT, {"replay_id": replay_id}).one()
    return running, stopped


@dataclass(frozen=True, slots=True)
class Counts:
    """What has become of what a replay made. `failed` have ended in any other way than delivered."""

    delivered: int = 0
    failed: int = 0
    waiting: int = 0


def counts(connection: Connection, replay_id: UUID) -> Counts:
    """What has become of what it made. Counts all of it, by the indexes ended_replay and deliveries_replay."""
    return Counts(*map(int, connection.execute(_COUNTS, {"replay_id": replay_id}).one()))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is with the endpoint `id`; `status_reason` says why it is stopped, done early, or waits."""

    id: UUID
    url: str
    total: int
    made: int
    state: State
    status_reason: str | None
    delivered: int
    failed: int
    waiting: int


def list_(
    connection: Connection,
    replay_id: UUID,
    *,
    depth: int,
    stuck_s: float,
    after: UUID | None = None,
    limit: int = 50,
    now: datetime | None = None,
) -> list[Progress]:
    """The endpoints of a replay in the order of their ids, from `after` on."""
    values: dict[str, Any] = {"replay_id": replay_id, "depth": depth, "stuck_s": stuck_s, "after": after}
    return [Progress(*row) for row in connection.execute(_LIST, {**values, "limit": limit, "now": now})]
