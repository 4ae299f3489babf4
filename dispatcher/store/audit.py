"""The checks of what the database itself can prove or refute of the invariants: read only, one statement each.

They scan, so they want an engine that plans freely (`wiring.engine`), never a worker's, and one snapshot for all of
them. `since` narrows a check to ids of that instant or later, which prunes partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from dispatcher.ids import first_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

EXAMPLES: Final = 5
"""How many of the rows that break an invariant are named."""


@dataclass(frozen=True, slots=True)
class Check:
    """One statement that yields a row, a text naming it, for each breach of the invariant with this number."""

    invariant: int
    what: str
    sql: str


_BOTH: Final = """
SELECT {columns} FROM dispatcher.deliveries d WHERE d.id >= :since
UNION ALL
SELECT {columns} FROM dispatcher.ended_deliveries d WHERE d.id >= :since
"""

# An event's deliveries are made at its acceptance, which a producer's own id may precede or follow by a day.
_FANOUT: Final = """
WITH original AS (
    SELECT event_id, endpoint_id, count(*) AS n FROM (
        SELECT event_id, endpoint_id FROM dispatcher.deliveries WHERE replay_of IS NULL AND id >= :since_a_day_before
        UNION ALL
        SELECT event_id, endpoint_id FROM dispatcher.ended_deliveries
        WHERE replay_of IS NULL AND id >= :since_a_day_before
    ) x GROUP BY event_id, endpoint_id
), made AS (
    SELECT event_id, sum(n) AS n, max(n) AS most FROM original GROUP BY event_id
)
SELECT 'evt_' || e.id || ': ' || coalesce(made.n, 0) || ' of ' || e.fanout || ' deliveries, '
       || coalesce(made.most, 0) || ' to one endpoint'
FROM dispatcher.events e LEFT JOIN made ON made.event_id = e.id
WHERE e.id >= :since AND (e.fanout <> coalesce(made.n, 0) OR made.most > 1)
"""

# What is charged is told by the decision, which a late answer that replaces `worker_lost` leaves as it was.
_CHARGED: Final = "(a.decision LIKE 'retry %' OR a.decision = 'exhausted')"

_EXHAUSTED: Final = f"""
SELECT 'dlv_' || d.id || ': ' || d.attempts || ' charged, ' || logged.n || ' logged, ' || declared.n || ' declared'
FROM dispatcher.ended_deliveries d
JOIN dispatcher.schedule_versions v ON v.id = d.schedule_id
CROSS JOIN LATERAL (SELECT json_array_length(CAST(v.body AS json) -> 'waits_ms') AS n) declared
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(DISTINCT a.number) AS numbers, max(a.number) AS highest FROM dispatcher.attempts a
    WHERE a.delivery_id = d.id AND {_CHARGED}
) logged
WHERE d.state = 'exhausted' AND d.id >= :since
  AND (d.attempts, logged.n, logged.numbers, logged.highest) IS DISTINCT FROM
      (declared.n, declared.n, declared.n, declared.n)
"""

_EARLY: Final = (
    """
WITH attempt AS (
    SELECT a.delivery_id, a.claim_seq, a.number, a.outcome, a.started_at,
           lag(a.decision) OVER w AS decision,
           lag(a.outcome) OVER w AS outcome_before,
           lag(a.started_at) OVER w + make_interval(secs => lag(a.duration_ms) OVER w / 1000.0) AS failed_at
    FROM dispatcher.attempts a WHERE a.delivery_id >= :since
    WINDOW w AS (PARTITION BY a.delivery_id ORDER BY a.claim_seq)
), declared AS (
    SELECT v.id, CAST(v.body AS json) ->> 'relative_to' AS relative_to, w.number,
           make_interval(secs => CAST(w.ms AS float8) / 1000) AS wait
    FROM dispatcher.schedule_versions v
    CROSS JOIN LATERAL json_array_elements_text(CAST(v.body AS json) -> 'waits_ms')
                       WITH ORDINALITY AS w(ms, number)
), delivery AS (
"""
    + _BOTH.format(columns="d.id, d.schedule_id, d.created_at, d.first_attempt_at")
    + """
), bound AS (
    SELECT a.*, CASE WHEN a.decision IS NULL AND a.claim_seq = 1 THEN d.created_at
                     WHEN s.relative_to = 'first_attempt' THEN d.first_attempt_at
                     WHEN a.decision LIKE 'retry in %' AND a.outcome_before <> 'ok' THEN a.failed_at
                END + s.wait AS due_at
    FROM attempt a
    JOIN delivery d ON d.id = a.delivery_id
    JOIN declared s ON s.id = d.schedule_id AND s.number = a.number
    WHERE a.outcome <> 'worker_lost'
)
SELECT 'dlv_' || delivery_id || ': attempt ' || number || ' ' || (due_at - started_at) || ' early'
FROM bound WHERE started_at < due_at - make_interval(secs => :tolerance_s)
"""
)

_ASLEEP: Final = """
SELECT 'ep_' || e.id || ': due since ' || due.since || ', lane ready at ' || l.ready_at
FROM dispatcher.endpoints e
JOIN dispatcher.lanes l ON l.endpoint_id = e.id
CROSS JOIN LATERAL (
    SELECT min(d.due_at) AS since FROM dispatcher.deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting'
) due
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM dispatcher.deliveries d WHERE d.endpoint_id = e.id AND d.state = 'in_flight'
) busy
WHERE e.status = 'active' AND due.since < statement_timestamp() - make_interval(secs => :settle_s)
  AND busy.n < least(l.cap, e.max_in_flight) AND l.ready_at > statement_timestamp()
  AND NOT EXISTS (SELECT FROM dispatcher.wakes w
                  WHERE w.endpoint_id = e.id AND (l.capped OR w.due_at <= statement_timestamp()))
"""

# A retired worker has no row any more: its claim is then dated by when the delivery was due, which is no later.
_DEAD: Final = """
SELECT 'dlv_' || d.id || ': claimed by ' || d.claimed_by
FROM dispatcher.deliveries d LEFT JOIN dispatcher.workers w ON w.id = d.claimed_by
WHERE d.state = 'in_flight'
  AND coalesce(w.heartbeat_until, d.due_at) < statement_timestamp() - make_interval(secs => :settle_s)
"""

CHECKS: Final = (
    Check(1, "an event whose original deliveries are not its fanout, one an endpoint", _FANOUT),
    Check(
        1,
        "a delivery that is both live and ended",
        "SELECT 'dlv_' || id FROM dispatcher.deliveries JOIN dispatcher.ended_deliveries USING (id) WHERE id >= :since",
    ),
    Check(
        1,
        "a delivery of an event that is not there",
        "SELECT 'dlv_' || d.id FROM (" + _BOTH.format(columns="d.id, d.event_id") + ") d "
        "WHERE NOT EXISTS (SELECT FROM dispatcher.events e WHERE e.id = d.event_id)",
    ),
    Check(
        2,
        "delivered without a successful attempt",
        "SELECT 'dlv_' || d.id FROM dispatcher.ended_deliveries d WHERE d.state = 'delivered' AND d.id >= :since "
        "AND NOT EXISTS (SELECT FROM dispatcher.attempts a WHERE a.delivery_id = d.id AND a.outcome = 'ok')",
    ),
    Check(3, "exhausted without exactly the declared number of charged attempts", _EXHAUSTED),
    Check(
        3,
        "an attempt that started after its delivery had ended",
        "SELECT 'dlv_' || d.id || ': claim ' || a.claim_seq FROM dispatcher.ended_deliveries d "
        "JOIN dispatcher.attempts a ON a.delivery_id = d.id "
        "WHERE d.id >= :since AND a.started_at > d.ended_at + make_interval(secs => :tolerance_s)",
    ),
    Check(
        4,
        "more than one attempt of one claim",
        "SELECT 'dlv_' || delivery_id || ': claim ' || claim_seq FROM dispatcher.attempts "
        "WHERE delivery_id >= :since GROUP BY delivery_id, claim_seq HAVING count(*) > 1",
    ),
    Check(
        4,
        "an attempt without a delivery that was claimed so often",
        "SELECT 'dlv_' || a.delivery_id || ': claim ' || a.claim_seq FROM dispatcher.attempts a LEFT JOIN ("
        + _BOTH.format(columns="d.id, d.claim_seq")
        + ") d ON d.id = a.delivery_id WHERE a.delivery_id >= :since AND a.claim_seq > coalesce(d.claim_seq, 0)",
    ),
    Check(5, "an attempt that started before its schedule allows, unless an operator hurried it", _EARLY),
    Check(8, "in flight although its worker is dead", _DEAD),
    Check(8, "an endpoint below its cap with due work that nobody would find", _ASLEEP),
    Check(
        9,
        "attempts of one event to one endpoint with different bodies",
        "SELECT 'evt_' || d.event_id || ' to ep_' || d.endpoint_id FROM ("
        + _BOTH.format(columns="d.id, d.event_id, d.endpoint_id")
        + ") d JOIN dispatcher.attempts a ON a.delivery_id = d.id "
        "WHERE a.delivery_id >= :since GROUP BY d.event_id, d.endpoint_id HAVING count(DISTINCT a.body_sha256) > 1",
    ),
)


def snapshot(connection: Connection) -> None:
    """Has everything that follows in this transaction see one and the same state, and write nothing.

    Must be the transaction's first statement.
    """
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def breaches(
    connection: Connection, *, since: datetime, since_a_day_before: datetime, tolerance_s: float, settle_s: float
) -> Iterator[tuple[Check, int, tuple[str, ...]]]:
    """Runs the checks in turn: each with how many rows break it and the first of them. Locks nothing."""
    values: dict[str, Any] = {
        "since": first_id(since),
        "since_a_day_before": first_id(since_a_day_before),
        "tolerance_s": tolerance_s,
        "settle_s": settle_s,
    }
    for check in CHECKS:
        statement = text(
            f"SELECT count(*), (array_agg(breach ORDER BY breach))[1:{EXAMPLES}] FROM ({check.sql}) x(breach)"
        )
        used = {name: values[name] for name in values if f":{name}" in check.sql}
        count, examples = connection.execute(statement, used).one()
        yield check, count, tuple(examples or ())
