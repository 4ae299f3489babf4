"""The statements that move a delivery: claim, record, release, and what operators do to a waiting one.

Every statement takes `now`, as `dispatcher.store.clock` has it: None means the due clock, which decides what is due.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_never
from uuid import UUID

from sqlalchemy import text

from dispatcher.ids import uuid7
from dispatcher.model.delivery import Claim, DeliveryState, Released, RetryAt, Stop
from dispatcher.model.event import StoredEvent
from dispatcher.model.outcome import OutcomeClass
from dispatcher.store.clock import READING, Reading, bind
from dispatcher.store.decisions import sentence
from dispatcher.store.endpoints import HEARD
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection, TextClause

    from dispatcher.model.delivery import Result
    from dispatcher.store.clock import Now

LANES_A_BELL: Final = 64
"""Lanes or wakes that are due for each worker that is rung: a claim takes 300 deliveries, of as many lanes."""

# OFFSET 0 keeps the lanes that are capped, which are few, in front: as a join, a plan that was made on empty tables
# read all wakes, of which every endpoint that answers has one for a minute.
_LOCK_LANES = text("""
WITH clock AS MATERIALIZED (
    SELECT dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) AS now
), ready AS MATERIALIZED (
    SELECT endpoint_id FROM dispatcher.lanes
    WHERE ready_at <= (SELECT now FROM clock)
    ORDER BY ready_at LIMIT :lanes
    FOR NO KEY UPDATE SKIP LOCKED
), woken AS MATERIALIZED (
    SELECT l.endpoint_id
    FROM (SELECT endpoint_id FROM (SELECT endpoint_id, due_at FROM dispatcher.wakes
                                   WHERE due_at <= (SELECT now FROM clock)
                                   ORDER BY due_at LIMIT 4 * :lanes) due
          GROUP BY endpoint_id ORDER BY min(due_at)) w
    JOIN dispatcher.lanes l ON l.endpoint_id = ANY (ARRAY[w.endpoint_id])
    LIMIT :lanes
    FOR NO KEY UPDATE OF l SKIP LOCKED
), capped AS MATERIALIZED (
    SELECT l.endpoint_id FROM dispatcher.lanes l
    WHERE l.capped AND EXISTS (SELECT FROM dispatcher.wakes w WHERE w.endpoint_id = l.endpoint_id OFFSET 0)
    LIMIT :lanes
    FOR NO KEY UPDATE SKIP LOCKED
), found AS MATERIALIZED (
    SELECT endpoint_id FROM ready UNION SELECT endpoint_id FROM woken UNION SELECT endpoint_id FROM capped
), contended AS MATERIALIZED (  -- as `Claimed.more`
    SELECT WHERE NOT EXISTS (SELECT FROM found)
             AND EXISTS (SELECT FROM dispatcher.lanes WHERE ready_at <= (SELECT now FROM clock))
), resting AS (
    UPDATE dispatcher.workers SET going = EXISTS (SELECT FROM contended), room = :room
    WHERE id = :worker AND (going <> EXISTS (SELECT FROM contended) OR room = 0) AND NOT EXISTS (SELECT FROM found)
)
SELECT endpoint_id FROM found UNION ALL SELECT NULL FROM contended
""")

# Each failure that takes a second or more halves the lane's cap, to 1 at least: an endpoint that hangs costs one slot.
# Each answer within a second adds one, up to the endpoint's limit, whether it is a success or not: it holds its slot
# only briefly, and the next declared attempts are due. A cap that a fast failure lowered, or left at 1, would let a
# backlog crawl: each claim, POST and record of a slot takes some 0.2 s, so 6,357 refusals took 14 minutes.
#
# The usual lane is read by an index-only scan, which touches the rows of none that it does not take. Only a lane whose
# deliveries are held in part, by mode or type, needs the rows: these are compared with patterns as `test:payment.%`.
#
# What has to come together for each lane is stacked by UNION ALL and grouped, never joined: a join of two CTEs is a
# nested loop here (see PLANS), and its n × m comparisons were half the cost of a claim of 300 (measured).
#
# A worker keeps its plans, and the tables that they were made on may have been empty, and be full now. So no row may be
# found but by its key, whatever the statistics say:
# - A key is compared by `= ANY (ARRAY[…])`. A plain `=` was also a reason to read the whole table in the order of the
#   key and to compare each with each, where few rows lived as the plan was made (measured: 40 µs more a delivery after
#   the first ANALYZE, at 3,000 a second; beside ten million it would be the end).
#   For the same reason no other index has the key among its own keys, unless it is partial.
# - A state is checked by `<>`, which no index answers. With `=`, a plan that was made on empty tables read everything
#   that waited, for each claim (measured: 400 µs a delivery for 110).
_CLAIM = text("""
WITH clock AS MATERIALIZED (
    SELECT dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) AS now
), locked AS MATERIALIZED (
    SELECT CAST(value AS uuid) AS endpoint_id FROM json_array_elements_text(CAST(CAST(:lanes AS text) AS json))
), woken AS (
    DELETE FROM dispatcher.wakes w USING locked WHERE w.endpoint_id = ANY (ARRAY[locked.endpoint_id])
    RETURNING w.endpoint_id, w.succeeded, w.failed, w.stalled
), folded AS (
    SELECT endpoint_id, sum(succeeded)::int AS succeeded, sum(failed)::int AS failed, sum(stalled)::int AS stalled
    FROM (SELECT endpoint_id, 0 AS succeeded, 0 AS failed, 0 AS stalled FROM locked
          UNION ALL SELECT * FROM woken) x
    GROUP BY endpoint_id
), lane AS MATERIALIZED (
    SELECT l.endpoint_id, e.version, e.ordered, held.kinds AS held_kinds, tuned.cap, e.rate_limit, bucket.tokens,
           e.status = 'active' AND NOT held.whole AS active, space.whole,
           greatest(0, least(space.whole, CAST(:lane_limit AS int) - busy.n)) AS room
    FROM clock, folded f
    JOIN dispatcher.lanes l ON l.endpoint_id = ANY (ARRAY[f.endpoint_id])
    JOIN dispatcher.endpoints e ON e.id = ANY (ARRAY[f.endpoint_id])
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(p.type_pattern IS NULL AND p.mode IS NULL), false) AS whole,
               array_agg(coalesce(p.mode, '____') || ':' || coalesce(p.type_pattern, '%'))
                   FILTER (WHERE p.type_pattern IS NOT NULL OR p.mode IS NOT NULL) AS kinds
        FROM dispatcher.pauses p
        WHERE (p.tenant_id IS NULL OR p.tenant_id = e.tenant_id) AND (p.endpoint_id IS NULL OR p.endpoint_id = e.id)
    ) held
    CROSS JOIN LATERAL (  -- holds what a second brings, and at least one
        SELECT least(greatest(1, e.rate_limit),
                     coalesce(l.tokens + e.rate_limit * extract(epoch FROM greatest(clock.now - l.tokens_at,
                                                                                    interval '0')),
                              greatest(1, e.rate_limit))) AS tokens
        WHERE e.rate_limit IS NOT NULL
        UNION ALL SELECT NULL WHERE e.rate_limit IS NULL
    ) bucket
    CROSS JOIN LATERAL (
        SELECT least(CASE WHEN e.ordered THEN 1 ELSE e.max_in_flight END,
                     greatest(1, l.cap >> least(f.stalled, 10)) + f.succeeded + f.failed)::int AS cap
    ) tuned
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS n FROM dispatcher.deliveries d
        WHERE d.endpoint_id = f.endpoint_id AND d.state = 'in_flight'
    ) busy
    CROSS JOIN LATERAL (  -- what anybody may take of it; least() passes over what is null: no limit
        SELECT CASE WHEN e.status = 'active' AND NOT held.whole
                    THEN greatest(0, least(tuned.cap - busy.n, floor(bucket.tokens)::int)) ELSE 0 END AS whole
    ) space
), candidate AS (
    SELECT lane.endpoint_id, lane.version, lane.ordered, d.id, d.due_at, d.n,
           d.due_at <= clock.now AND d.n <= least(lane.room, :quantum) AS eligible
    FROM clock, lane
    CROSS JOIN LATERAL (
        (SELECT id, due_at, row_number() OVER (ORDER BY due_at) AS n FROM dispatcher.deliveries
         WHERE NOT lane.ordered AND lane.held_kinds IS NULL AND endpoint_id = lane.endpoint_id AND state = 'waiting'
         ORDER BY due_at
         LIMIT least(lane.room, :quantum) + 1)
        UNION ALL
        (SELECT id, due_at, row_number() OVER (ORDER BY due_at) AS n FROM dispatcher.deliveries
         WHERE NOT lane.ordered AND lane.held_kinds IS NOT NULL
           AND endpoint_id = lane.endpoint_id AND state = 'waiting'
           AND mode || ':' || event_type NOT LIKE ALL (lane.held_kinds)
         ORDER BY due_at
         LIMIT least(lane.room, :quantum) + 1)
        UNION ALL  -- in order, only the oldest counts: what comes after it waits, even where that is held
        (SELECT id, CASE WHEN mode || ':' || event_type LIKE ANY (lane.held_kinds) THEN 'infinity' ELSE due_at END, 1
         FROM dispatcher.deliveries
         WHERE lane.ordered AND endpoint_id = lane.endpoint_id AND ordered
         ORDER BY id
         LIMIT 1)
    ) d
    WHERE lane.active
), ranked AS MATERIALIZED (
    SELECT *, eligible AND row_number() OVER (ORDER BY eligible DESC, n, due_at) <= :batch AS picked FROM candidate
), claimed AS (
    UPDATE dispatcher.deliveries d
    SET state = 'in_flight', claimed_by = :worker, claim_seq = d.claim_seq + 1,
        first_attempt_at = coalesce(d.first_attempt_at, clock.now)
    FROM ranked, clock
    WHERE ranked.picked AND d.id = ANY (ARRAY[ranked.id]) AND d.state <> 'in_flight'
    RETURNING d.id, d.endpoint_id, ranked.version, d.event_id, d.claim_seq, d.attempts, d.refunds, d.schedule_id,
              d.expires_at <= clock.now AS expired, d.target_url, d.target_method
), outlook AS (
    SELECT endpoint_id, max(cap) AS cap, max(whole) <= sum(taken) AS full_up, max(room) <= sum(taken) AS held_back,
           min(next_due_at) AS next_due_at,
           max(tokens) - sum(taken) AS tokens, max(rate_limit) AS rate_limit,
           max(tokens) - sum(taken) < 1 AS spent, bool_or(ordered) AS ordered
    FROM (SELECT endpoint_id, cap, whole, room, tokens, rate_limit, ordered, 0 AS taken,
                 CAST(NULL AS timestamptz) AS next_due_at
          FROM lane
          UNION ALL SELECT endpoint_id, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL FROM claimed
          UNION ALL  -- the one of an ordered lane too: if it was cancelled under us, others may come after it
          SELECT endpoint_id, NULL, NULL, NULL, NULL, NULL, NULL, 0, due_at FROM ranked WHERE NOT picked OR ordered) x
    GROUP BY endpoint_id
), parked AS (
    UPDATE dispatcher.lanes l
    SET cap = o.cap,
        tokens = o.tokens, tokens_at = clock.now,
        capped = coalesce(CASE WHEN o.ordered THEN o.full_up  -- what comes after the one in flight was not looked at
                               ELSE o.next_due_at <= clock.now AND o.held_back AND o.spent IS NOT TRUE END, false),
        ready_at = CASE WHEN o.next_due_at IS NULL THEN 'infinity'
                        WHEN o.next_due_at > clock.now THEN o.next_due_at
                        WHEN o.spent THEN clock.now + make_interval(secs => (1 - o.tokens) / o.rate_limit)
                        WHEN o.full_up THEN 'infinity'
                        WHEN o.held_back THEN clock.now + interval '250 milliseconds'  -- another worker may have room
                        ELSE clock.now END
    FROM outlook o, clock
    WHERE l.endpoint_id = ANY (ARRAY[o.endpoint_id])
    RETURNING l.ready_at <= clock.now AS ready
), reported AS (
    UPDATE dispatcher.workers
    SET room = greatest(0, :room - (SELECT count(*) FROM claimed)),
        going = EXISTS (SELECT FROM claimed) AND EXISTS (SELECT FROM parked WHERE ready)  -- as `Claimed.more`
    WHERE id = :worker
)
SELECT c.id, c.endpoint_id, c.version, c.claim_seq, c.attempts, c.refunds, c.schedule_id,
       coalesce(c.expired, false), c.target_url, c.target_method,
       e.id, e.type, e.mode, e.payload, e.created_at, e.object_id,
       (SELECT coalesce(bool_or(ready), false) FROM parked)
FROM claimed c
CROSS JOIN LATERAL (SELECT * FROM dispatcher.events e WHERE e.id = ANY (ARRAY[c.event_id])) e
""")

LATENCY: Final = "CAST(floor(4 * ln(greatest(1, duration_ms)) / ln(2)) AS smallint)"
"""The span of an attempt's duration for statistics, four an octave: n is 2^(n/4) ms to 2^((n+1)/4) ms."""

_TALLY: Final = """
    INSERT INTO dispatcher.tallies (at, body)
    SELECT clock.wall, t.body FROM clock, (
        SELECT json_agg(g) AS body
        FROM (SELECT endpoint_id, event_type, kind, what, size, sum(n) AS n
              FROM ({counted}) x GROUP BY endpoint_id, event_type, kind, what, size) g) t
    WHERE t.body IS NOT NULL
"""
"""One row for all that a batch adds to the statistics."""

_ATTEMPT_KIND: Final = "CASE WHEN mode = 'test' THEN 'test_attempt' ELSE 'attempt' END"
_END_KIND: Final = "CASE WHEN mode = 'test' THEN 'test_end' ELSE 'end' END"
"""What is of test mode is counted by kinds of its own. Of a result that is live, the mode is null."""

# Only what is new in the log: a batch may be run again, in halves too, since the answer of the first run was lost. What
# was counted as lost with its worker, and is recorded after all, is counted as what it was instead. `IS TRUE` has the
# evidence hashed, where a join would compare each with each.
_TALLY_RECORD: Final = _TALLY.format(
    counted=f"""
    SELECT endpoint_id, event_type, {_ATTEMPT_KIND} AS kind, outcome AS what, {LATENCY} AS size, 1 AS n
    FROM result WHERE (id IN (SELECT id FROM evidence)) IS TRUE
    UNION ALL
    SELECT endpoint_id, event_type, {_ATTEMPT_KIND}, 'worker_lost', 0, -1
    FROM result WHERE (id IN (SELECT id FROM evidence WHERE was_lost)) IS TRUE
    UNION ALL
    SELECT endpoint_id, event_type, {_END_KIND}, final_state, attempts + charged::int, 1 FROM gone"""
)

_RECORD = text(f"""
WITH clock AS MATERIALIZED (
    SELECT now, now - dispatcher.clock_correction() AS wall
    FROM dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) now
), result AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS x(
        delivery_id uuid, claim_seq int, endpoint_id uuid, event_type text, mode text, state text, reason text,
        wait_s float8, from_first_attempt bool, not_before_s float8, began_s_ago float8, charged bool, refunded bool,
        id uuid, worker_id uuid, started_at timestamptz, duration_ms real, number smallint, status_code int,
        outcome_known bool, outcome text, phase text, error text, peer_ip text, method text, url text,
        request_headers json, body_sha256 text, response_headers json, response_body text, body_end text,
        retry_after_s real, timings real[], decided_wait_s real, sentence text)
), evidence AS (
    INSERT INTO dispatcher.attempts AS a
        (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, status_code, outcome_known, outcome,
         phase, error, peer_ip, method, url, request_headers, body_sha256, response_headers, response_body, body_end,
         retry_after_s, timings, decision, charged, wait_s, from_first_attempt)
    SELECT delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, status_code, outcome_known, outcome,
           phase, error, peer_ip, method, url, request_headers, decode(body_sha256, 'hex'), response_headers,
           decode(response_body, 'base64'), body_end, retry_after_s, timings, coalesce(state, sentence), charged,
           decided_wait_s, from_first_attempt
    FROM result WHERE outcome IS NOT NULL
    ON CONFLICT (delivery_id, claim_seq) DO UPDATE
    SET id = excluded.id, started_at = excluded.started_at, duration_ms = excluded.duration_ms,
        status_code = excluded.status_code, outcome_known = excluded.outcome_known, outcome = excluded.outcome,
        phase = excluded.phase, error = excluded.error, peer_ip = excluded.peer_ip, url = excluded.url,
        request_headers = excluded.request_headers, body_sha256 = excluded.body_sha256,
        response_headers = excluded.response_headers, response_body = excluded.response_body,
        body_end = excluded.body_end, retry_after_s = excluded.retry_after_s, timings = excluded.timings,
        was_lost = true,
        (decision, charged, wait_s, from_first_attempt) = (
            SELECT CASE WHEN x.ends_it THEN 'delivered' ELSE a.decision END,
                   CASE WHEN x.ends_it THEN true ELSE a.charged END,
                   CASE WHEN NOT x.ends_it THEN a.wait_s END, CASE WHEN NOT x.ends_it THEN a.from_first_attempt END
            FROM (SELECT excluded.decision = 'delivered' AND (  -- counted, since EXISTS may be hashed by a scan
                             SELECT count(*) FROM dispatcher.deliveries d
                             WHERE d.id = a.delivery_id AND d.claim_seq = a.claim_seq) > 0 AS ends_it) x)
    WHERE a.outcome = 'worker_lost' AND excluded.outcome <> 'worker_lost'
    RETURNING a.id, a.was_lost
), gone AS (
    DELETE FROM dispatcher.deliveries d
    USING result r
    WHERE d.id = ANY (ARRAY[r.delivery_id]) AND d.claim_seq = r.claim_seq AND r.state IS NOT NULL
      AND (d.state = 'in_flight' OR r.state = 'delivered')
    RETURNING d.*, r.state AS final_state, r.reason AS final_reason, r.charged, r.outcome, r.status_code, r.error
), ended AS (
    INSERT INTO dispatcher.ended_deliveries
        (id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, ended_at, replay_id, replay_of, claim_seq,
         schedule_id, attempts, refunds, state, event_type, mode, object_id, reason, last_outcome, last_status_code,
         last_error, target_url, target_method)
    SELECT id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, clock.wall, replay_id, replay_of,
           claim_seq, schedule_id, attempts + charged::int, refunds, final_state, event_type, mode, object_id,
           final_reason, coalesce(outcome, last_outcome), coalesce(status_code, last_status_code),
           CASE WHEN outcome IS NULL THEN last_error ELSE error END, target_url, target_method
    FROM gone, clock
), tallied AS (
{_TALLY_RECORD}
), kept AS (
    UPDATE dispatcher.deliveries d
    SET state = 'waiting', claimed_by = NULL,
        attempts = d.attempts + r.charged::int, refunds = d.refunds + r.refunded::int,
        first_attempt_at = coalesce(clock.now - make_interval(secs => r.began_s_ago), d.first_attempt_at),
        due_at = CASE WHEN r.wait_s IS NULL THEN d.due_at
                      WHEN r.from_first_attempt
                      THEN greatest(coalesce(clock.now - make_interval(secs => r.began_s_ago), d.first_attempt_at)
                                    + make_interval(secs => r.wait_s),
                                    clock.now + make_interval(secs => r.not_before_s))
                      ELSE clock.now + make_interval(secs => greatest(r.wait_s, r.not_before_s)) END,
        reason = coalesce(r.reason, d.reason),
        last_outcome = coalesce(r.outcome, d.last_outcome),
        last_status_code = CASE WHEN r.outcome IS NULL THEN d.last_status_code ELSE r.status_code END,
        last_error = CASE WHEN r.outcome IS NULL THEN d.last_error ELSE r.error END
    FROM result r, clock
    WHERE d.id = ANY (ARRAY[r.delivery_id]) AND d.claim_seq = r.claim_seq AND r.state IS NULL AND d.state <> 'waiting'
    RETURNING d.endpoint_id, d.due_at
), woken AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at, succeeded, failed, stalled)
    SELECT endpoint_id, -- Sixty seconds: a wake that only reports successes is folded then, or at once if capped.
           least(min(due_at), max(clock.now) + interval '60 seconds'), sum(succeeded),
           sum(failed), sum(stalled)
    FROM clock, (SELECT endpoint_id, CAST(NULL AS timestamptz) AS due_at,
                        coalesce(outcome = 'ok', false)::int AS succeeded,
                        coalesce(bad AND duration_ms < 1000, false)::int AS failed,
                        coalesce(bad AND duration_ms >= 1000, false)::int AS stalled
                 FROM result CROSS JOIN LATERAL (SELECT outcome NOT IN ('ok', 'internal', 'worker_lost') AS bad) b
                 UNION ALL SELECT endpoint_id, due_at, 0, 0, 0 FROM kept) x
    GROUP BY endpoint_id
), verdict AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(CAST(:verdicts AS text) AS json))
        AS x(endpoint_id uuid, id uuid, reason text, blocked int, blocked_limit int)
), judged AS (  -- an answer that disables, or too many attempts in a row at an address that may not be dialled
    UPDATE dispatcher.endpoints e
    SET status = CASE WHEN v.reason IS NULL THEN e.status ELSE 'disabled' END, status_reason = v.reason,
        blocked = CASE WHEN v.reason IS NULL THEN v.blocked ELSE 0 END,
        version = e.version + (v.reason IS NOT NULL)::int,
        updated_at = CASE WHEN v.reason IS NULL THEN e.updated_at ELSE clock.wall END
    FROM clock, verdict r
    CROSS JOIN LATERAL (
        SELECT b.blocked + r.blocked AS blocked,
               coalesce(r.reason, CASE WHEN b.blocked + r.blocked >= r.blocked_limit THEN
                   b.blocked + r.blocked || ' attempts in a row met an address that may not be dialled' END) AS reason
        FROM dispatcher.endpoints b WHERE b.id = ANY (ARRAY[r.endpoint_id])
    ) v
    -- Twice, since that they are active is a reason too to read all that are: by the index endpoints_tenant.
    WHERE e.id = ANY (ARRAY(SELECT endpoint_id FROM verdict)) AND e.id = r.endpoint_id AND e.status = 'active'
    RETURNING e.id, e.tenant_id, e.version, e.type_patterns, e.status, e.status_reason
), dialled AS (
    UPDATE dispatcher.endpoints e SET blocked = 0
    FROM (SELECT DISTINCT endpoint_id FROM result
          WHERE outcome NOT IN ('blocked_address', 'internal', 'worker_lost', 'dns')) r
    WHERE e.blocked > 0 AND e.id = ANY (ARRAY[r.endpoint_id]) AND NOT EXISTS (SELECT FROM judged WHERE judged.id = e.id)
), history AS (
    INSERT INTO dispatcher.endpoint_history (endpoint_id, version, changed_at, event_types, status, status_reason)
    SELECT id, version, clock.wall, {HEARD}, status, status_reason FROM judged, clock
    WHERE status = 'disabled'
), trail AS (
    INSERT INTO dispatcher.audit_log (id, at, actor, action, object, tenant_id, before, after)
    SELECT x.id, clock.wall, 'worker', 'endpoint.disabled', 'ep_' || d.id, d.tenant_id,
           CAST('{{"status": "active"}}' AS jsonb),
           jsonb_build_object('status', 'disabled', 'status_reason', d.status_reason)
    FROM judged d JOIN verdict x ON x.endpoint_id = d.id, clock
    WHERE d.status = 'disabled'
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM kept)
""")

_GIVE_UP = text("""
WITH given_up AS (
    UPDATE dispatcher.deliveries d
    SET state = 'waiting', claimed_by = NULL
    WHERE d.claimed_by = :worker AND d.state = 'in_flight' AND d.id NOT IN (
        SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST(CAST(:held AS text) AS json)))
    RETURNING d.endpoint_id, d.due_at
), woken AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at)
    SELECT endpoint_id, min(due_at) FROM given_up GROUP BY endpoint_id
)
SELECT count(*) FROM given_up
""")

_LOST = text("""
WITH lost AS MATERIALIZED (  -- or the planner may begin with all endpoints and read everything that waits for them
    SELECT d.* FROM dispatcher.deliveries d
    WHERE d.claimed_by IS NOT NULL AND NOT EXISTS (
        SELECT FROM dispatcher.workers w
        WHERE w.id = d.claimed_by
          AND w.heartbeat_until > dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])))
    LIMIT :batch
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT d.id, d.endpoint_id, e.version, d.claim_seq, d.attempts, d.refunds, d.schedule_id, false,
       d.target_url, d.target_method, d.event_id, d.event_type, d.mode, CAST('' AS bytea), d.created_at, d.object_id,
       d.claimed_by, coalesce(d.target_method, e.method), coalesce(d.target_url, e.url)
FROM lost d JOIN dispatcher.endpoints e ON e.id = ANY (ARRAY[d.endpoint_id])
""")

_HURRY = text("""
WITH hurried AS (
    UPDATE dispatcher.deliveries d
    SET due_at = dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))
    WHERE d.id = :id AND d.state <> 'in_flight'
    RETURNING d.endpoint_id, d.due_at
), woken AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT endpoint_id, due_at FROM hurried
)
SELECT count(*) FROM hurried
""")

# A statement's time is that of its start, and this one may have waited for a row that a claim had locked, which an
# attempt has released since. So it ends deliveries at the moment at which it has them.
_WAITED: Final = """
CASE WHEN cardinality(CAST(CAST(:now AS text) AS timestamptz[])) = 1 THEN interval '0'
     ELSE clock_timestamp() - statement_timestamp() END
""".strip()

# The ids are an array that is made once, and found by the primary key: as `d.id IN (SELECT … LIMIT)`, a plan that was
# made on empty tables went through all deliveries and ran the sub-select anew for each of them (measured: 162 s on
# 2,000,000 that waited, until it was cancelled). States are checked by `<>`, and keys compared, as in _CLAIM.
_MOVE = (
    """
WITH clock AS MATERIALIZED (
    SELECT now, now - dispatcher.clock_correction() AS wall
    FROM dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) now
), gone AS (
    DELETE FROM dispatcher.deliveries d
    WHERE d.id = ANY (ARRAY({which})) AND d.state <> 'in_flight'
    RETURNING d.*
), tallied AS (
"""
    + _TALLY.format(
        counted=f"""
    SELECT endpoint_id, event_type, {_END_KIND} AS kind, :state AS what, attempts AS size, 1 AS n FROM gone"""
    )
    + """
)
INSERT INTO dispatcher.ended_deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, ended_at, replay_id, replay_of, claim_seq,
     schedule_id, attempts, refunds, state, event_type, mode, object_id, reason, last_outcome, last_status_code,
     last_error, target_url, target_method)
SELECT id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, clock.wall + {waited}, replay_id, replay_of,
       claim_seq, schedule_id, attempts, refunds, :state, event_type, mode, object_id, :reason, last_outcome,
       last_status_code, last_error, target_url, target_method
FROM gone, clock
RETURNING id
"""
).replace("{waited}", _WAITED)

_CANCEL = text(_MOVE.format(which="SELECT CAST(:id AS uuid)"))

_CANCEL_CHOSEN = text(
    _MOVE.format(which="SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))")
)

_CANCEL_ALL_OF = text(
    _MOVE.format(
        which="""
        SELECT id FROM dispatcher.deliveries WHERE endpoint_id = :endpoint_id AND state = 'waiting' LIMIT :batch"""
    )
)

# What follows goes along the endpoints, a span of ids at a time (`:after` to `:until`), and has one look into
# deliveries_due for each. LIMIT keeps the look inside, where a join could begin with all that waits; OFFSET 0 keeps the
# span by the primary key, where a status could be a reason to read all endpoints by the index endpoints_tenant.
_SPAN = text("""
SELECT id FROM dispatcher.endpoints WHERE id > :after ORDER BY id LIMIT 1 OFFSET :most - 1
""")

_OF_SPAN: Final = """
SELECT w.id FROM (SELECT * FROM dispatcher.endpoints WHERE id > :after AND id <= :until OFFSET 0) e
CROSS JOIN LATERAL (
    SELECT d.id FROM dispatcher.deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting' {which} LIMIT :batch
) w
WHERE {of}
LIMIT :batch
"""

_HELD_TOO_LONG: Final = """
AND d.due_at <= dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) - interval '7 days'
AND d.expires_at IS NULL
"""

_CANCEL_DELETED = text(_MOVE.format(which=_OF_SPAN.format(which="", of="e.status = 'deleted'")))

_EXPIRE_HELD = text(_MOVE.format(which=_OF_SPAN.format(which=_HELD_TOO_LONG, of="e.status = 'disabled'")))

_EXPIRE_PAUSED = text(
    _MOVE.format(
        which=_OF_SPAN.format(
            which=_HELD_TOO_LONG
            + """
          AND EXISTS (SELECT FROM dispatcher.pauses p
                      WHERE (p.tenant_id IS NULL OR p.tenant_id = e.tenant_id)
                        AND (p.endpoint_id IS NULL OR p.endpoint_id = e.id)
                        AND (p.type_pattern IS NULL OR d.event_type LIKE p.type_pattern)
                        AND (p.mode IS NULL OR p.mode = d.mode) OFFSET 0)""",
            of="EXISTS (SELECT FROM dispatcher.pauses)",  # once, before anything is read
        )
    )
)

# Looks at those that are due first: what has no order yet was accepted as the endpoint became ordered, before what has
# one, and whatever is due before it goes.
_SET_ORDER = text("""
UPDATE dispatcher.deliveries d SET ordered = true
WHERE NOT d.ordered AND d.id = ANY (ARRAY(
    SELECT w.id FROM (SELECT * FROM dispatcher.endpoints WHERE id > :after AND id <= :until OFFSET 0) e
    CROSS JOIN LATERAL (
        SELECT d.id, d.ordered FROM dispatcher.deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting'
        ORDER BY d.due_at LIMIT :batch
    ) w
    WHERE e.ordered AND NOT w.ordered
    LIMIT :batch))
""")

_EXPIRE = text(
    _MOVE.format(
        which="""
        SELECT w.id FROM dispatcher.deliveries w
        WHERE w.state <> 'in_flight' AND w.expires_at <= dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))
        LIMIT :batch"""
    )
)

_WAKE = text("""
INSERT INTO dispatcher.wakes (endpoint_id, due_at)
VALUES (:endpoint_id, dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])))
""")

# Counts no further than makes a difference: see `Demand.bells`. It reads the clock too, which saves a statement.
_DEMAND = text(f"""
WITH clock AS MATERIALIZED (
    SELECT dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) AS now
), idle AS MATERIALIZED (
    SELECT count(*) AS workers FROM dispatcher.workers
    WHERE room > 0 AND NOT going AND heartbeat_until > (SELECT now FROM clock)
)
SELECT (SELECT workers FROM idle),
       (SELECT count(*) FROM (SELECT FROM dispatcher.lanes WHERE ready_at <= (SELECT now FROM clock)
                              LIMIT greatest(1, :lanes * (SELECT workers FROM idle))) l),
       (SELECT count(*) FROM (SELECT FROM dispatcher.wakes WHERE due_at <= (SELECT now FROM clock)
                              LIMIT greatest(1, :lanes * (SELECT workers FROM idle))) w),
       EXISTS (SELECT FROM dispatcher.lanes l
               WHERE l.capped AND EXISTS (SELECT FROM dispatcher.wakes w WHERE w.endpoint_id = l.endpoint_id OFFSET 0)),
       {READING}
FROM dispatcher.clock c
""")


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim took.

    `more` is true where some lane it looked at still has due work below its cap, or where it could look at none, since
    others had locked those that are due.
    """

    claims: list[Claim]
    more: bool


def claim(
    connection: Connection,
    *,
    worker_id: UUID,
    room: int,
    batch: int,
    lane_limit: int | None = None,
    now: Now = None,
) -> Claimed:
    """Claims up to min(room, batch) due deliveries for the worker, fairly over the lanes that have any.

    First statement: locks the ready lanes (FOR NO KEY UPDATE SKIP LOCKED, so claimers never wait for one another),
    by the indexes lanes_ready, wakes_due and lanes_capped. Second statement, whose snapshot is newer than those
    locks, so nothing that another claimer did is missed: folds the lanes' wakes, counts what is in flight, takes
    from each lane at most a quantum and never above its cap (index deliveries_due), and parks each lane until its
    next due delivery, or until a wake where it is at its cap or empty. Run both in one transaction.

    `lane_limit` is how many of one lane may be in flight for it to get more, below its cap: for a worker with little
    room left, which it keeps for lanes that answer.
    """
    limit = min(room, batch)
    values = {"lanes": limit, "worker": worker_id, "room": room, "now": bind(now)}
    lanes = list(connection.execute(_LOCK_LANES, values).scalars())
    if lanes in ([], [None]):
        return Claimed([], more=bool(lanes))
    rows = connection.execute(
        _CLAIM,
        {
            "lanes": to_json(lanes),
            "quantum": max(1, -(-2 * limit // len(lanes))),
            "batch": limit,
            "worker": worker_id,
            "room": room,
            "lane_limit": lane_limit,
            "now": bind(now),
        },
    ).all()
    claims = [_read_claim(row[:-1]) for row in rows]
    return Claimed(claims, more=bool(rows) and rows[0][-1])


def record(
    connection: Connection,
    results: Sequence[Result],
    *,
    monotonic_s: float,
    now: Now = None,
) -> int:
    """Records what came of claims; returns how many of the deliveries were still theirs to move.

    One statement: inserts the attempts, moves each delivery on if its `claim_seq` is still the result's, and wakes
    the lanes. A result whose claim died is kept as evidence (its attempt replaces the `worker_lost` row) and, if it
    is a success and nobody has claimed since, ends the delivery. Running it twice changes nothing the second time,
    so a transaction whose outcome is unknown can be run again. `monotonic_s` is the caller's monotonic clock now:
    what a result has waited is taken off its wait.
    """
    rows = [_row(result, monotonic_s - result.ended_monotonic_s) for result in results]
    moved: int = connection.execute(
        _RECORD,
        {
            "rows": _rows_json(rows),
            "verdicts": to_json(_verdicts(results)),
            "now": bind(now),
        },
    ).scalar_one()
    return moved


def _read_claim(row: Sequence[Any]) -> Claim:
    """The columns in the order in which a claim's statement returns them, the event's last."""
    id_, endpoint_id, version, seq, attempts, refunds, schedule_id, expired, target_url, target_method, *event = row
    # Positional: this runs for every delivery.
    return Claim(
        id_,
        endpoint_id,
        version,
        seq,
        attempts,
        refunds,
        schedule_id,
        expired,
        StoredEvent(*event),
        target_url,
        target_method,
    )


def _verdicts(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What speaks against endpoints, one entry each: an answer that disables, or addresses that may not be dialled."""
    found: dict[UUID, dict[str, Any]] = {}
    for result in results:
        change = result.change
        disables = isinstance(change, Stop) and change.disable_endpoint
        if not disables and result.blocked_limit is None:
            continue
        endpoint_id = result.claim.endpoint_id
        entry = found.setdefault(endpoint_id, {"endpoint_id": endpoint_id, "id": uuid7(), "reason": None, "blocked": 0})
        if isinstance(change, Stop) and disables:
            entry["reason"] = change.reason
        else:
            entry["blocked"] += 1
            entry["blocked_limit"] = result.blocked_limit
    return list(found.values())


def _row(result: Result, waited_s: float) -> dict[str, Any]:
    claim, attempt, change = result.claim, result.attempt, result.change
    row: dict[str, Any] = {
        "delivery_id": claim.delivery_id,
        "claim_seq": claim.seq,
        "endpoint_id": claim.endpoint_id,
        "event_type": claim.event.type,
        "charged": False,
        "refunded": False,
    }
    if claim.event.mode == "test":  # most are live, and say nothing: this is the hot path
        row["mode"] = claim.event.mode
    match change:
        case Stop():
            row |= {"state": change.state, "reason": change.reason, "charged": attempt is not None}
        case RetryAt():
            row |= {
                "reason": change.reason,
                "wait_s": change.wait_s if change.from_first_attempt else max(0.0, change.wait_s - waited_s),
                "from_first_attempt": change.from_first_attempt,
                "not_before_s": None if change.retry_after_s is None else max(0.0, change.retry_after_s - waited_s),
                "charged": change.charged,
                "decided_wait_s": change.wait_s,
                "sentence": sentence(change),
            }
        case Released():
            pass
        case _:  # pragma: no cover - mypy proves that every change is above
            assert_never(change)
    if attempt is not None:
        outcome = attempt.outcome
        lost = outcome.kind is OutcomeClass.WORKER_LOST
        row["refunded"] = lost and not row["charged"]
        if claim.number == 1 and not lost:  # offsets run from here: its claim was a little earlier
            row["began_s_ago"] = waited_s + outcome.duration_ms / 1000
        row |= {
            "id": attempt.id,
            "worker_id": attempt.worker_id,
            "started_at": attempt.started_at,
            "duration_ms": outcome.duration_ms,
            "number": claim.number,
            "status_code": outcome.status_code,
            "outcome_known": outcome.known,
            "outcome": outcome.kind,
            "phase": outcome.phase,
            "error": None if outcome.error is None else _storable(outcome.error),
            "peer_ip": outcome.peer_ip,
            "method": attempt.method,
            "url": attempt.url,
            "request_headers": [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in attempt.request_headers
            ],
            "body_sha256": None if attempt.body_sha256 is None else attempt.body_sha256.hex(),
            "response_headers": outcome.response_headers,
            "response_body": b64encode(outcome.response_body).decode(),
            "body_end": outcome.body_end,
            "retry_after_s": outcome.retry_after_s,
            "timings": outcome.timings_ms,
        }
    return row


def _rows_json(rows: list[dict[str, Any]]) -> str:
    """The rows as JSON without NUL in headers, which the server refuses in json too. It is looked for in the whole
    and not in each value, since this is the hot path.
    """
    dumped = to_json(rows)
    if "\\u0000" in dumped:
        for row in rows:
            for name in ("request_headers", "response_headers"):
                row[name] = [[part.replace("\0", "\ufffd") for part in pair] for pair in row.get(name, ())]
        dumped = to_json(rows)
    return dumped


def _storable(line: str) -> str:
    """The line without what PostgreSQL's text cannot hold: NUL, and surrogates from the names of files."""
    return line.encode(errors="replace").decode().replace("\0", "\ufffd")


def give_up(connection: Connection, worker_id: UUID, held: Collection[UUID]) -> int:
    """Returns to `waiting` what the worker has claimed beside the deliveries that it knows it holds; how many.

    For a worker whose claim may have been committed although the answer was lost: as long as it lives nobody rescues
    what it has never heard of. Nothing was sent, so nothing is logged. Reads by the index deliveries_claimed.
    """
    given_up: int = connection.execute(_GIVE_UP, {"worker": worker_id, "held": to_json(list(held))}).scalar_one()
    return given_up


@dataclass(frozen=True, slots=True)
class Lost:
    """A claim whose worker's heartbeat has passed, with what the log says of the attempt that may have been made."""

    claim: Claim
    worker_id: UUID
    method: str
    url: str


def lost(connection: Connection, *, batch: int, now: Now = None) -> list[Lost]:
    """Up to `batch` claims of dead workers, locked until the transaction ends so that `record` can take them back.

    Reads by the partial index deliveries_claimed; skips what a worker or another rescuer is recording right now.
    """
    return [
        Lost(_read_claim(row[:-3]), *row[-3:]) for row in connection.execute(_LOST, {"batch": batch, "now": bind(now)})
    ]


def hurry(connection: Connection, delivery_id: UUID, *, now: Now = None) -> bool:
    """Makes a waiting delivery due now. False where it is not waiting."""
    moved: int = connection.execute(_HURRY, {"id": delivery_id, "now": bind(now)}).scalar_one()
    return moved > 0


def cancel(connection: Connection, delivery_id: UUID, reason: str, *, now: Now = None) -> bool:
    """Ends a waiting delivery as `cancelled`. False where it is not waiting: a POST cannot be called back."""
    done = connection.execute(
        _CANCEL, {"id": delivery_id, "state": DeliveryState.CANCELLED, "reason": reason, "now": bind(now)}
    )
    return len(done.all()) > 0


def cancel_chosen(connection: Connection, ids: Collection[UUID], reason: str, *, now: Now = None) -> int:
    """Ends those of the deliveries that wait as `cancelled`; returns how many."""
    done = connection.execute(
        _CANCEL_CHOSEN,
        {"ids": to_json(list(ids)), "state": DeliveryState.CANCELLED, "reason": reason, "now": bind(now)},
    )
    return len(done.all())


def cancel_all_of(connection: Connection, endpoint_id: UUID, reason: str, *, batch: int, now: Now = None) -> int:
    """Ends up to `batch` waiting deliveries of an endpoint as `cancelled`; returns how many."""
    done = connection.execute(
        _CANCEL_ALL_OF,
        {
            "endpoint_id": endpoint_id,
            "batch": batch,
            "state": DeliveryState.CANCELLED,
            "reason": reason,
            "now": bind(now),
        },
    )
    return len(done.all())


def expire(connection: Connection, *, batch: int, now: Now = None) -> int:
    """Ends up to `batch` waiting deliveries whose `expires_at` has passed, by its index; returns how many."""
    return _end(
        connection,
        _EXPIRE,
        DeliveryState.EXPIRED,
        "expired before it was delivered",
        {"batch": batch, "now": bind(now)},
    )


@dataclass(frozen=True, slots=True)
class Swept:
    """What a span of endpoints had: at most so many rows of one kind, and the last endpoint of it, None at the end."""

    most: int
    last: UUID | None


def sweep(connection: Connection, *, after: UUID, endpoints: int, batch: int, now: Now = None) -> Swept:
    """Puts right what waits for the next so many endpoints behind `after`, up to `batch` deliveries of each kind.

    Cancels deliveries of deleted endpoints: in flight, or being emitted, at the deletion. Ends those without an
    `expires_at` that a disabled endpoint or a pause has kept from being sent for 7 days. Orders those that were being
    accepted while their endpoint became ordered: its lane looks at no others. By the primary key of endpoints and the
    index deliveries_due.
    """
    last = connection.execute(_SPAN, {"after": after, "most": endpoints}).scalar_one_or_none()
    values = {
        "after": after,
        "until": UUID(int=(1 << 128) - 1) if last is None else last,
        "batch": batch,
        "now": bind(now),
    }
    held = "held for 7 days, until it expired"
    most = max(
        _end(connection, _CANCEL_DELETED, DeliveryState.CANCELLED, "the endpoint was deleted", values),
        _end(connection, _EXPIRE_HELD, DeliveryState.EXPIRED, held, values),
        _end(connection, _EXPIRE_PAUSED, DeliveryState.EXPIRED, held, values),
        connection.execute(_SET_ORDER, values).rowcount,
    )
    return Swept(most, last)


def _end(connection: Connection, statement: TextClause, state: str, reason: str, values: dict[str, Any]) -> int:
    return len(connection.execute(statement, values | {"state": state, "reason": reason}).all())


def wake(connection: Connection, endpoint_id: UUID, *, now: Now = None) -> None:
    """Has the next claim look at the endpoint's lane."""
    connection.execute(_WAKE, {"endpoint_id": endpoint_id, "now": bind(now)})


@dataclass(frozen=True, slots=True)
class Demand:
    """What is due, counted as far as it matters, and how many live workers have room and wait for a bell."""

    lanes: int
    workers: int
    reading: Reading

    @property
    def bells(self) -> int:
        """How many to ring: one worker takes many lanes at once, and the next look is a tick away.

        >>> from dispatcher.clock import SYSTEM
        >>> reading = Reading(SYSTEM.now(), seq=0, oldest_xid="1")
        >>> lanes = (0, 1, LANES_A_BELL, LANES_A_BELL + 1, 9 * LANES_A_BELL)
        >>> [Demand(n, workers=3, reading=reading).bells for n in lanes]
        [0, 1, 1, 2, 3]
        """
        return min(self.workers, -(-self.lanes // LANES_A_BELL))


def demand(connection: Connection, *, now: Now = None) -> Demand:
    """What the scheduler rings for. Reads the ends of the indexes lanes_ready, wakes_due and lanes_capped."""
    row = connection.execute(_DEMAND, {"lanes": LANES_A_BELL, "now": bind(now)}).one()
    workers, ready, woken, capped = row[:4]
    return Demand(ready + woken + capped, workers, Reading(*row[4:]))
