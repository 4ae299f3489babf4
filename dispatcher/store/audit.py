"""The checks of what the database itself can prove or refute of the invariants: read only, one statement each.

They scan, so they want an engine that plans freely (`wiring.engine`), never a worker's, and one snapshot for all of
them. A `Span` narrows them to ids, which prunes partitions; each costs time in proportion to what is in it. What is
past its retention breaks nothing: rows are missed only from where on the log is whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from dispatcher.store.decisions import DECIDED
from dispatcher.store.retention import kept_since

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

EXAMPLES: Final = 5
"""How many of the rows that break an invariant are named."""

LEAST: Final = UUID(int=0)
GREATEST: Final = UUID(int=(1 << 128) - 1)

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Check:
    """One statement that yields a row, a text naming it, for each breach of the invariant with this number.

    `name` is unique and for programs, `what` is for people. `of_now` is one that looks at what lives now, whatever the
    span.
    """

    invariant: int
    name: str
    what: str
    sql: str
    of_now: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Ids from `first` to before `last`; by default all."""

    first: UUID = LEAST
    last: UUID = GREATEST

    def wider(self, days: int = 1) -> Span:
        """The same with so many days more at either end."""
        return Span(_moved(self.first, -days), _moved(self.last, days))


def _moved(id_: UUID, days: int) -> UUID:
    if id_ in (LEAST, GREATEST):
        return id_
    at_ms = (id_.int >> 80) + days * DAY_MS
    return UUID(int=min(max(0, at_ms), (1 << 48) - 1) << 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is in a span: its events, and what was made of them.

    `unmatched` events went to nobody; `expected` is the sum of the events' fanouts, `live` and `ended` are the
    deliveries that there are for them, by state, replays apart. `replays`, `attempts` and `unknown`, the attempts that
    perhaps arrived, are of the deliveries made in the span.
    """

    events: int = 0
    unmatched: int = 0
    expected: int = 0
    live: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    replays: int = 0
    attempts: int = 0
    unknown: int = 0


_BOTH: Final = """
SELECT {columns} FROM dispatcher.deliveries d WHERE d.id >= :first AND d.id < :last
UNION ALL
SELECT {columns} FROM dispatcher.ended_deliveries d WHERE d.id >= :first AND d.id < :last
"""

# An event's deliveries are made at its acceptance, which a producer's own id may precede or follow by a day. Those of a
# replay are others, also where it chose events anew and so replays no delivery.
_ORIGINALS: Final = """
SELECT event_id, endpoint_id, state FROM dispatcher.deliveries
WHERE replay_of IS NULL AND replay_id IS NULL AND id >= :wide_first AND id < :wide_last
  AND event_id >= :first AND event_id < :last
UNION ALL
SELECT event_id, endpoint_id, state FROM dispatcher.ended_deliveries
WHERE replay_of IS NULL AND replay_id IS NULL AND id >= :wide_first AND id < :wide_last
  AND event_id >= :first AND event_id < :last
"""

_FANOUT: Final = f"""
WITH original AS (
    SELECT event_id, endpoint_id, count(*) AS n FROM ({_ORIGINALS}) x GROUP BY event_id, endpoint_id
), made AS (
    SELECT event_id, sum(n) AS n, max(n) AS most FROM original GROUP BY event_id
)
SELECT 'evt_' || e.id || ': ' || coalesce(made.n, 0) || ' of ' || e.fanout || ' deliveries, '
       || coalesce(made.most, 0) || ' to one endpoint'
FROM dispatcher.events e LEFT JOIN made ON made.event_id = e.id
WHERE e.id >= :first AND e.id < :last AND e.id >= :all_made_kept
  AND (e.fanout <> coalesce(made.n, 0) OR made.most > 1)
"""

# What was added to the database's clock while it showed these instants. A step back makes it show some of them twice.
_CLOCKS: Final = """
regime AS MATERIALIZED (
    SELECT correction, after AS first, coalesce(lead(before) OVER (ORDER BY seq), 'infinity') AS last
    FROM dispatcher.clock_steps
    UNION ALL
    SELECT interval '0', '-infinity',
           coalesce((SELECT before FROM dispatcher.clock_steps ORDER BY seq LIMIT 1), 'infinity')
)
"""


def _correction(which: Literal["min", "max"], instant: str) -> str:
    """SQL for the least or the largest correction of the database's clock at an instant that it, or a host, showed.

    Beyond the margin, a host's clock may show what the database's never did: then it may be any of them.
    """
    return f"""
        coalesce((SELECT {which}(correction) FROM regime
                  WHERE {instant} BETWEEN first - interval '1 minute' AND last + interval '1 minute'),
                 (SELECT {which}(correction) FROM regime))"""


_STAMPED: Final = (
    "to_timestamp(CAST(CAST('x' || translate(left(CAST(a.id AS text), 13), '-', '') AS bit(48)) AS bigint) / 1000.0)"
)
"""When an attempt started, by the due clock, which does not step: in its id, to the millisecond."""

# Who should have heard an event, as `flow.explain` tells it of one: by the versions of the endpoints' history. What
# changed within the margin of the acceptance may have been seen by it or not, so either is right.
_WANTS: Final = f"""
WITH RECURSIVE {_CLOCKS.strip()}, event AS MATERIALIZED (
    SELECT id, tenant_id, type, created_at FROM dispatcher.events
    WHERE id >= :first AND id < :last AND id >= :all_made_kept
), asked AS MATERIALIZED (
    SELECT DISTINCT tenant_id, type FROM event
), owner AS (
    SELECT DISTINCT tenant_id AS heir_id, tenant_id AS id FROM asked
    UNION
    SELECT o.heir_id, t.parent_id FROM owner o JOIN dispatcher.tenants t ON t.id = o.id WHERE t.parent_id IS NOT NULL
), version AS (
    SELECT h.endpoint_id, e.tenant_id, h.status, h.event_types, h.earliest AS since, h.latest AS surely_since,
           lead(h.latest) OVER (PARTITION BY h.endpoint_id ORDER BY h.version) AS until,
           lead(h.earliest) OVER (PARTITION BY h.endpoint_id ORDER BY h.version) AS surely_until
    FROM (SELECT *, changed_at + least(interval '0', {_correction("min", "changed_at")}) AS earliest,
                 changed_at + greatest(interval '0', {_correction("max", "changed_at")}) AS latest
          FROM dispatcher.endpoint_history) h
    JOIN dispatcher.endpoints e ON e.id = h.endpoint_id
    WHERE e.origin IS NULL
), wants AS MATERIALIZED (
    SELECT a.tenant_id, a.type, v.endpoint_id, v.tenant_id = a.tenant_id AS own,
           v.since, coalesce(v.until, 'infinity') AS until,
           v.surely_since, coalesce(v.surely_until, 'infinity') AS surely_until
    FROM asked a
    JOIN owner o ON o.heir_id = a.tenant_id
    JOIN version v ON v.tenant_id = o.id
    WHERE v.status <> 'deleted'
      AND (v.event_types IS NULL
           OR EXISTS (SELECT FROM unnest(v.event_types) AS p
                      WHERE p IN ('*', a.type) OR (right(p, 2) = '.*' AND starts_with(a.type, left(p, -1)))))
), original AS MATERIALIZED ({_ORIGINALS})
"""

_NOT_MADE: Final = (
    _WANTS
    + """
, targeted AS (
    SELECT DISTINCT o.event_id FROM original o
    JOIN dispatcher.endpoints e ON e.id = o.endpoint_id WHERE e.origin IS NOT NULL
)
SELECT 'evt_' || e.id || ': none to ep_' || w.endpoint_id
FROM event e
JOIN wants w ON w.tenant_id = e.tenant_id AND w.type = e.type
LEFT JOIN targeted t ON t.event_id = e.id
LEFT JOIN original o ON o.event_id = e.id AND o.endpoint_id = w.endpoint_id
WHERE e.created_at >= w.surely_since + make_interval(secs => :margin_s)
  AND e.created_at < w.surely_until - make_interval(secs => :margin_s)
  AND o.event_id IS NULL AND NOT (w.own AND t.event_id IS NOT NULL)
"""
)

_NOT_WANTED: Final = (
    _WANTS
    + """
SELECT 'evt_' || o.event_id || ': one to ep_' || o.endpoint_id
FROM original o
JOIN event e ON e.id = o.event_id
JOIN dispatcher.endpoints p ON p.id = o.endpoint_id AND p.origin IS NULL
WHERE NOT EXISTS (
    SELECT FROM wants w
    WHERE w.tenant_id = e.tenant_id AND w.type = e.type AND w.endpoint_id = o.endpoint_id
      AND e.created_at >= w.since - make_interval(secs => :margin_s)
      AND e.created_at < w.until + make_interval(secs => :margin_s))
"""
)

# A late answer that replaces `worker_lost` leaves the decision as it was. A late success may say `delivered` although
# another claim has ended the delivery, so it does not count.
_CHARGED: Final = "decided.charged AND decided.kind <> 'delivered'"

_EXHAUSTED: Final = f"""
SELECT 'dlv_' || d.id || ': ' || d.attempts || ' charged, ' || coalesce(logged.n, 0) || ' logged, '
       || declared.n || ' declared'
FROM dispatcher.ended_deliveries d
JOIN (SELECT v.id, json_array_length(CAST(v.body AS json) -> 'waits_ms') AS n FROM dispatcher.schedule_versions v)
     declared ON declared.id = d.schedule_id
LEFT JOIN (
    SELECT a.delivery_id, count(*) AS n, count(DISTINCT a.number) AS numbers, max(a.number) AS highest
    FROM dispatcher.attempts a {DECIDED}
    WHERE a.delivery_id >= :first AND a.delivery_id < :last AND {_CHARGED}
    GROUP BY a.delivery_id
) logged ON logged.delivery_id = d.id
WHERE d.state = 'exhausted' AND d.id >= :first AND d.id < :last AND d.id >= :kept
  AND (d.attempts, logged.n, logged.numbers, logged.highest) IS DISTINCT FROM
      (declared.n, declared.n, declared.n, declared.n)
"""

_EARLY: Final = (
    f"""
WITH {_CLOCKS.strip()}, attempt AS (
    SELECT a.delivery_id, a.claim_seq, a.number, a.outcome, {_STAMPED} AS started_at,
           lag(decided.kind) OVER w AS kind_before, lag(decided.charged) OVER w AS charged_before,
           lag(a.outcome) OVER w AS outcome_before,
           lag({_STAMPED}) OVER w + make_interval(secs => lag(a.duration_ms) OVER w / 1000.0) AS failed_at
    FROM dispatcher.attempts a {DECIDED} WHERE a.delivery_id >= :first AND a.delivery_id < :last
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
    + f"""
), bound AS (  -- the first attempt: the producer's clock; the others: the due clock
    SELECT a.*, CASE WHEN a.kind_before IS NULL AND a.claim_seq = 1 AND s.wait > interval '0'
                     THEN d.created_at + least(interval '0', {_correction("min", "d.created_at")})
                     WHEN s.relative_to = 'first_attempt' THEN d.first_attempt_at
                     WHEN a.kind_before = 'retry' AND a.charged_before AND a.outcome_before <> 'ok' THEN a.failed_at
                END + s.wait AS due_at
    FROM attempt a
    JOIN delivery d ON d.id = a.delivery_id
    JOIN declared s ON s.id = d.schedule_id AND s.number = a.number
    WHERE a.outcome <> 'worker_lost'
)
SELECT 'dlv_' || delivery_id || ': attempt ' || number || ' ' || (due_at - started_at) || ' early'
FROM bound
WHERE started_at < due_at - make_interval(secs => :tolerance_s)
  AND NOT EXISTS (SELECT FROM dispatcher.audit_log g
                  WHERE g.action IN ('delivery.retried', 'delivery.advanced')
                    AND g.object = 'dlv_' || bound.delivery_id)
"""
)

# The bodies of one event to one endpoint: of the span's deliveries, and of those, older, that they replay. A profile
# says what is made of an event, and where there is a body: what was sent before it was changed may differ.
_BODIES: Final = (
    """
WITH delivery AS (
"""
    + _BOTH.format(columns="d.id, d.event_id, d.endpoint_id, d.replay_of")
    + """
), body AS (
    SELECT d.event_id, d.endpoint_id, a.body_sha256
    FROM delivery d JOIN dispatcher.attempts a ON a.delivery_id = d.id
    WHERE a.delivery_id >= :first AND a.delivery_id < :last
    UNION
    SELECT d.event_id, d.endpoint_id, a.body_sha256
    FROM delivery d
    CROSS JOIN LATERAL (
        SELECT a.body_sha256
        FROM dispatcher.ended_deliveries o JOIN dispatcher.attempts a ON a.delivery_id = o.id
        WHERE o.id = d.replay_of AND o.endpoint_id = d.endpoint_id
        LIMIT 100
    ) a
    WHERE d.replay_of < :first
)
SELECT 'evt_' || event_id || ' to ep_' || endpoint_id
FROM body b
WHERE NOT EXISTS (SELECT FROM dispatcher.audit_log g
                  WHERE g.action = 'endpoint.updated' AND g.object = 'ep_' || b.endpoint_id
                    AND (g.after ? 'profile' OR g.after ? 'method'))
GROUP BY event_id, endpoint_id HAVING count(DISTINCT body_sha256) > 1
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
WHERE e.status = 'active' AND due.since < dispatcher.due_time() - make_interval(secs => :settle_s)
  AND busy.n < least(l.cap, e.max_in_flight) AND l.ready_at > dispatcher.due_time()
  AND NOT EXISTS (SELECT FROM dispatcher.wakes w
                  WHERE w.endpoint_id = e.id AND (l.capped OR w.due_at <= dispatcher.due_time()))
"""

# A retired worker has no row any more: its claim is then dated by when the delivery was due, which is not later.
_DEAD: Final = """
SELECT 'dlv_' || d.id || ': claimed by ' || d.claimed_by
FROM dispatcher.deliveries d LEFT JOIN dispatcher.workers w ON w.id = d.claimed_by
WHERE d.state = 'in_flight' AND d.claimed_by IS NOT NULL
  AND coalesce(w.heartbeat_until, d.due_at) < dispatcher.due_time() - make_interval(secs => :settle_s)
"""

CLAIM_OF_DEAD_WORKER: Final = "claim_of_dead_worker"
ENDPOINT_ASLEEP: Final = "endpoint_asleep"
"""Names of the checks of what lives now."""

CHECKS: Final = (
    Check(1, "fanout", "an event whose original deliveries are not its fanout, one an endpoint", _FANOUT),
    Check(
        1,
        "delivery_missing",
        "an event that an endpoint wanted when it was accepted, and no delivery of it there",
        _NOT_MADE,
    ),
    Check(
        1,
        "delivery_not_wanted",
        "a delivery of an event that its endpoint did not want when it was accepted",
        _NOT_WANTED,
    ),
    Check(
        1,
        "live_and_ended",
        "a delivery that is both live and ended",
        "SELECT 'dlv_' || id FROM dispatcher.deliveries JOIN dispatcher.ended_deliveries e USING (id) "
        "WHERE id >= :first AND id < :last AND e.id >= :first AND e.id < :last",
    ),
    Check(
        1,
        "event_missing",
        "a delivery of an event that is not there",
        "SELECT 'dlv_' || d.id FROM ("
        + _BOTH.format(columns="d.id, d.event_id")
        + ") d LEFT JOIN dispatcher.events e ON e.id = d.event_id WHERE e.id IS NULL AND d.event_id >= :kept",
    ),
    Check(
        2,
        "delivered_without_success",
        "delivered without a successful attempt",
        "SELECT 'dlv_' || d.id FROM dispatcher.ended_deliveries d "
        "WHERE d.state = 'delivered' AND d.id >= :first AND d.id < :last AND d.id >= :kept "
        "AND NOT EXISTS (SELECT FROM dispatcher.attempts a WHERE a.delivery_id = d.id AND a.outcome = 'ok' "
        "AND a.delivery_id >= :first AND a.delivery_id < :last)",
    ),
    Check(3, "charged_attempts", "exhausted without exactly the declared number of charged attempts", _EXHAUSTED),
    Check(
        3,
        "attempt_after_end",
        "an attempt that started after its delivery had ended",
        f"WITH {_CLOCKS} SELECT 'dlv_' || d.id || ': claim ' || a.claim_seq FROM dispatcher.ended_deliveries d "
        "JOIN dispatcher.attempts a ON a.delivery_id = d.id "
        "WHERE d.id >= :first AND d.id < :last AND a.delivery_id >= :first AND a.delivery_id < :last "
        f"AND {_STAMPED} > d.ended_at + {_correction('max', 'd.ended_at')} + make_interval(secs => :tolerance_s)",
    ),
    Check(
        4,
        "claim_attempted_twice",
        "more than one attempt of one claim",
        "SELECT 'dlv_' || delivery_id || ': claim ' || claim_seq FROM dispatcher.attempts "
        "WHERE delivery_id >= :first AND delivery_id < :last GROUP BY delivery_id, claim_seq HAVING count(*) > 1",
    ),
    Check(
        4,
        "attempt_without_claim",
        "an attempt without a delivery that was claimed so often",
        "SELECT 'dlv_' || a.delivery_id || ': claim ' || a.claim_seq FROM dispatcher.attempts a LEFT JOIN ("
        + _BOTH.format(columns="d.id, d.claim_seq")
        + ") d ON d.id = a.delivery_id "
        "WHERE a.delivery_id >= :first AND a.delivery_id < :last AND a.delivery_id >= :kept "
        "AND a.claim_seq > coalesce(d.claim_seq, 0)",
    ),
    Check(
        5,
        "attempt_too_early",
        "an attempt that started before its schedule allows, unless an operator hurried it",
        _EARLY,
    ),
    Check(8, CLAIM_OF_DEAD_WORKER, "in flight although its worker is dead", _DEAD, of_now=True),
    Check(8, ENDPOINT_ASLEEP, "an endpoint below its cap with due work that nobody would find", _ASLEEP, of_now=True),
    Check(9, "bodies_differ", "attempts of one event to one endpoint with different bodies", _BODIES),
)

_COUNTS: Final = f"""
WITH original AS (
    SELECT state, count(*) AS n FROM ({_ORIGINALS}) x GROUP BY state
), event AS (
    SELECT count(*) AS events, count(*) FILTER (WHERE fanout = 0) AS unmatched, coalesce(sum(fanout), 0) AS expected
    FROM dispatcher.events WHERE id >= :first AND id < :last
), attempt AS (
    SELECT count(*) AS attempts, count(*) FILTER (WHERE NOT outcome_known) AS unknown
    FROM dispatcher.attempts WHERE delivery_id >= :first AND delivery_id < :last
)
SELECT e.events, e.unmatched, e.expected,
       (SELECT coalesce(json_object_agg(state, n), '{{}}') FROM original WHERE state IN ('waiting', 'in_flight')),
       (SELECT coalesce(json_object_agg(state, n), '{{}}') FROM original WHERE state NOT IN ('waiting', 'in_flight')),
       (SELECT count(*) FROM ({_BOTH.format(columns="d.replay_of, d.replay_id")}) d
        WHERE d.replay_of IS NOT NULL OR d.replay_id IS NOT NULL),
       a.attempts, a.unknown
FROM event e CROSS JOIN attempt a
"""

_NEXT: Final = """
SELECT least((SELECT id FROM dispatcher.events WHERE id >= :first ORDER BY id LIMIT 1),
             (SELECT id FROM dispatcher.deliveries WHERE id >= :first ORDER BY id LIMIT 1),
             (SELECT id FROM dispatcher.ended_deliveries WHERE id >= :first ORDER BY id LIMIT 1),
             (SELECT delivery_id FROM dispatcher.attempts WHERE delivery_id >= :first ORDER BY delivery_id LIMIT 1))
"""

# What is joined here is large on both sides and often not analysed yet: hashing it costs the same whatever the
# statistics say, where a loop would cost the product.
_PLAN: Final = """
SELECT set_config('enable_nestloop', :loops, true), set_config('work_mem', '64MB', true),
       set_config('jit', 'off', true)
"""


def snapshot(connection: Connection) -> None:
    """Has everything that follows in this transaction see one and the same state, and write nothing.

    Must be the transaction's first statement.
    """
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def next_id(connection: Connection, first: UUID) -> UUID | None:
    """The first id, from that one on, of an event, a delivery or an attempt's delivery; None where there is none.

    By the primary keys' indexes.
    """
    found: UUID | None = connection.execute(text(_NEXT), {"first": first}).scalar_one()
    return found


def breaches(
    connection: Connection,
    span: Span,
    *,
    of_now: bool | None = None,
    tolerance_s: float,
    settle_s: float,
    margin_s: float,
) -> Iterator[tuple[Check, int, tuple[str, ...]]]:
    """Runs the checks in turn: each with how many rows break it and the first of them. Locks nothing.

    Those `of_now` or the others; by default all.
    """
    values = _values(connection, span) | {"tolerance_s": tolerance_s, "settle_s": settle_s, "margin_s": margin_s}
    for check in CHECKS:
        if of_now is not None and check.of_now is not of_now:
            continue
        statement = f"SELECT count(*), (array_agg(breach ORDER BY breach))[1:{EXAMPLES}] FROM ({check.sql}) x(breach)"
        connection.execute(text(_PLAN), {"loops": "on" if check.of_now else "off"})
        count, examples = connection.execute(text(statement), _used(values, statement)).one()
        yield check, count, tuple(examples or ())


def counts(connection: Connection, span: Span) -> Counts:
    """How much there is in the span."""
    connection.execute(text(_PLAN), {"loops": "off"})
    values = _used(_values(connection, span), _COUNTS)
    events, unmatched, expected, live, ended, replays, attempts, unknown = connection.execute(
        text(_COUNTS), values
    ).one()
    return Counts(
        events=events,
        unmatched=unmatched,
        expected=int(expected),
        live=dict(sorted(live.items())),
        ended=dict(sorted(ended.items())),
        replays=replays,
        attempts=attempts,
        unknown=unknown,
    )


def _values(connection: Connection, span: Span) -> dict[str, Any]:
    wide, kept = span.wider(), kept_since(connection)
    return {
        "first": span.first,
        "last": span.last,
        "wide_first": wide.first,
        "wide_last": wide.last,
        "kept": kept,
        "all_made_kept": _moved(kept, 1),  # an event's deliveries may be of the day before
    }


def _used(values: dict[str, Any], statement: str) -> dict[str, Any]:
    return {name: values[name] for name in values if re.search(rf":{name}\b", statement)}
