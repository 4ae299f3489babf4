"""The statements that read the delivery log, and those that choose from it what to replay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from dispatcher.ids import first_id
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import Mode
from dispatcher.store.decisions import DECIDED

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter

COLUMNS: Final = """
d.id, d.event_id, d.event_type, d.object_id, d.mode, d.endpoint_id, coalesce(d.target_url, e.url) AS url, d.tenant_id,
d.attempts, d.refunds, d.reason, d.last_outcome, d.last_status_code, d.replay_of, d.replay_id, d.created_at,
d.first_attempt_at - dispatcher.clock_correction() AS first_attempt_at, v.name AS schedule, v.hash AS schedule_version
"""

JOINS: Final = """
JOIN dispatcher.endpoints e ON e.id = d.endpoint_id
JOIN dispatcher.schedule_versions v ON v.id = d.schedule_id
"""

# Scalar, so that it is looked up for the rows of the page only, after they are sorted.
HELD: Final = """
CASE WHEN d.state <> 'waiting' THEN NULL
     WHEN e.status <> 'active' THEN 'the endpoint is ' || e.status || coalesce(': ' || e.status_reason, '')
     ELSE (SELECT 'paused'
                  || coalesce(' (' || nullif(concat_ws(', ', p.event_type, p.mode || ' mode'), '') || ')', '')
                  || ': ' || p.reason
           FROM dispatcher.pauses p
           WHERE (p.tenant_id IS NULL OR p.tenant_id = e.tenant_id)
             AND (p.endpoint_id IS NULL OR p.endpoint_id = e.id)
             AND (p.type_pattern IS NULL OR d.event_type LIKE p.type_pattern)
             AND (p.mode IS NULL OR p.mode = d.mode)
           ORDER BY p.created_at, p.id LIMIT 1) END AS held
"""


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A delivery as the log shows it, live or ended.

    `url` is the endpoint's, or that of the event's target. `due_at` is when the next attempt may start, None once it
    has ended; `held` says why it waits although due.
    """

    id: UUID
    event_id: UUID
    event_type: str
    object_id: str | None
    mode: str
    endpoint_id: UUID
    url: str
    tenant_id: UUID
    attempts: int
    refunds: int
    reason: str | None
    last_outcome: str | None
    last_status_code: int | None
    replay_of: UUID | None
    replay_id: UUID | None
    created_at: datetime
    first_attempt_at: datetime | None
    schedule: str
    schedule_version: str
    state: DeliveryState
    due_at: datetime | None
    ended_at: datetime | None
    held: str | None


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """An attempt as the log shows it; headers are [name, value] pairs, `timings` as in `model.outcome`.

    `decision` is "retry" or the final state. `wait_s` is how long after the attempt the retry was to start or, with
    `from_first_attempt`, how long after the start of attempt 1; None unless it is "retry".
    """

    id: UUID
    claim_seq: int
    number: int
    worker_id: UUID
    started_at: datetime
    duration_ms: float
    outcome: str
    outcome_known: bool
    phase: str | None
    status_code: int | None
    error: str | None
    peer_ip: str | None
    method: str
    url: str
    request_headers: list[list[str]]
    response_headers: list[list[str]]
    response_body: bytes
    body_end: str
    body_sha256: bytes | None
    retry_after_s: float | None
    decision: str
    charged: bool
    wait_s: float | None
    from_first_attempt: bool
    timings: list[float | None] | None = None


HOST_OF: Final = r"lower(substring(e.url FROM '^[A-Za-z]+://(?:[^/?#@]*@)?(\[[^]]*\]|[^/:?#]+)'))"
"""Of an endpoint `e`."""

# Whatever is asked for becomes words by the server's own parser, which refuses nothing, and never operators.
WORDS: Final = "CAST(nullif(CAST(plainto_tsquery('simple', :error) AS text), '') || ':*' AS tsquery)"

_CONDITIONS: Final = {
    "delivery_id": "d.id = :delivery_id",
    "tenant_id": "d.tenant_id = :tenant_id",
    "endpoint_id": "d.endpoint_id = :endpoint_id",
    "event_id": "d.event_id = :event_id",
    "event_type": "d.event_type = :event_type",
    "object_id": "d.object_id = :object_id",
    "host": f"d.endpoint_id IN (SELECT e.id FROM dispatcher.endpoints e WHERE {HOST_OF} = lower(:host))",
    "outcome": "d.last_outcome = :outcome",
    "status_code": "d.last_status_code = :status_code",
    "attempts_min": "d.attempts >= :attempts_min",
    "attempts_max": "d.attempts <= :attempts_max",
    "error": f"d.last_error IS NOT NULL AND to_tsvector('simple', d.last_error) @@ {WORDS}",
    "replay_id": "d.replay_id = :replay_id",
    "target_url": "d.target_url = :target_url",
}


_CLOCKS: Final = timedelta(minutes=1)

MAX_LIFE: Final = timedelta(days=30)
"""How long after its delivery an attempt is looked for by its id."""


def _earlier(value: UUID, span: timedelta) -> UUID:
    """The smallest id so long before another one; no instants, since those of ids reach beyond the calendar."""
    at_ms = (value.int >> 80) - span // timedelta(milliseconds=1)
    return UUID(int=min(max(0, at_ms), (1 << 48) - 1) << 80)


_WAS_DELIVERED: Final = """
(d.state = 'delivered' OR EXISTS (
    SELECT FROM dispatcher.ended_deliveries o
    WHERE o.event_id = d.event_id AND o.endpoint_id = d.endpoint_id AND o.state = 'delivered'))
"""


def condition(chosen: Filter, table: Literal["deliveries", "ended_deliveries"]) -> tuple[str, dict[str, Any]]:
    """The condition and its parameters. A range of time is a range of ids, so partitions are pruned by it."""
    parts, values = ["true"], {}
    for name, condition in _CONDITIONS.items():
        if (value := getattr(chosen, name)) is not None:
            parts.append(condition)
            values[name] = value
    if chosen.mode is not None:  # not a parameter: the partial indexes of test mode have it as a constant
        parts.append(f"d.mode = '{Mode(chosen.mode)}'")
    if chosen.object_id is not None and table == "deliveries":  # the live table is found through the event
        parts.append("d.event_id IN (SELECT ev.id FROM dispatcher.events ev WHERE ev.object_id = :object_id)")
    if chosen.replay_id is not None:  # its deliveries are younger than itself, but for what clocks differ
        parts.append("d.id >= :replayed")
        values["replayed"] = _earlier(chosen.replay_id, _CLOCKS)
    if chosen.delivery_ids:
        parts.append("d.id = ANY(:delivery_ids)")
        values["delivery_ids"] = list(chosen.delivery_ids)
    if chosen.created_after is not None:
        parts.append("d.id >= :first")
        values["first"] = first_id(chosen.created_after)
    if chosen.created_before is not None:
        parts.append("d.id < :last")
        values["last"] = first_id(chosen.created_before)
    if chosen.states:
        parts.append("d.state = ANY(:states)")
        values["states"] = [str(state) for state in chosen.states]
    no_delivered = chosen.undelivered or (bool(chosen.states) and DeliveryState.DELIVERED not in chosen.states)
    if chosen.attempts_min is not None and chosen.attempts_min > 1 and table == "ended_deliveries":
        parts.append("d.attempts > 1")  # as the partial index ended_retried has it
    if no_delivered and table == "ended_deliveries":
        parts.append("d.state <> 'delivered'")  # as the partial index ended_failed has it
    if chosen.but_delivered:
        parts.append(f"NOT {_WAS_DELIVERED}")
    if chosen.ended_after is not None:
        parts.append("d.ended_at >= :ended_after" if table == "ended_deliveries" else "false")
        values["ended_after"] = chosen.ended_after
    if chosen.ended_before is not None:
        parts.append("d.ended_at < :ended_before" if table == "ended_deliveries" else "false")
        values["ended_before"] = chosen.ended_before
    if chosen.as_of is not None:
        parts.append("d.ended_at < :as_of" if table == "ended_deliveries" else "d.created_at < :as_of")
        values["as_of"] = chosen.as_of
    return " AND ".join(parts), values


def read_delivery(row: Any) -> LoggedDelivery:
    """A row with the names of `COLUMNS`, and what differs between the live and the ended."""
    return LoggedDelivery(**{**row, "state": DeliveryState(row["state"])})


def find(connection: Connection, delivery_id: UUID) -> LoggedDelivery | None:
    """The delivery with this id, live or ended."""
    rows = connection.execute(
        text(f"""
        SELECT {COLUMNS}, d.state, d.due_at - dispatcher.clock_correction() AS due_at,
               CAST(NULL AS timestamptz) AS ended_at, {HELD}
        FROM dispatcher.deliveries d {JOINS} WHERE d.id = :id
        UNION ALL
        SELECT {COLUMNS}, d.state, NULL, d.ended_at, NULL
        FROM dispatcher.ended_deliveries d {JOINS} WHERE d.id = :id"""),
        {"id": delivery_id},
    )
    row = rows.first()
    return None if row is None else read_delivery(row._mapping)  # noqa: SLF001


_ATTEMPT: Final = """
a.id, a.claim_seq, a.number, a.worker_id, a.started_at, a.duration_ms, a.outcome, a.outcome_known, a.phase,
a.status_code, a.error, a.peer_ip, a.method, a.url, a.request_headers, a.response_headers, a.response_body, a.body_end,
a.body_sha256, a.retry_after_s, decided.kind, decided.charged, decided.wait_s, decided.from_first_attempt, a.timings
"""
"""The columns in the order of `LoggedAttempt`."""

_ATTEMPTS = text(f"""
SELECT {_ATTEMPT}
FROM dispatcher.attempts a {DECIDED} WHERE a.delivery_id = :id ORDER BY a.claim_seq
""")


def attempts(connection: Connection, delivery_id: UUID) -> list[LoggedAttempt]:
    """Every attempt of a delivery, the first one first."""
    return [LoggedAttempt(*row) for row in connection.execute(_ATTEMPTS, {"id": delivery_id})]


_FIND_ATTEMPT = text(f"""
SELECT a.delivery_id, {_ATTEMPT}
FROM dispatcher.attempts a {DECIDED}
WHERE a.id = :id AND a.delivery_id BETWEEN :oldest AND :newest LIMIT 1
""")


def find_attempt(connection: Connection, attempt_id: UUID) -> tuple[UUID, LoggedAttempt] | None:
    """The attempt with this id, and its delivery's id.

    Attempts are appended about in the order of their ids, so the index attempts_id has the pages that may hold it: a
    few of each day from `MAX_LIFE` before it on.
    """
    values = {
        "id": attempt_id,
        "oldest": _earlier(attempt_id, MAX_LIFE),
        "newest": _earlier(attempt_id, -_CLOCKS),
    }
    row = connection.execute(_FIND_ATTEMPT, values).first()
    return None if row is None else (row[0], LoggedAttempt(*row[1:]))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a filter chooses, and when: `at` is the database's clock.

    `oldest` and `newest` are when deliveries were made. `already_delivered` counts those whose event has reached their
    endpoint; they are in `count` unless the filter is `but_delivered`. `endpoints_disabled` counts endpoints.
    `longest_s` is what the slowest of the endpoints with a rate limit takes. `in_flight` counts those that cannot be
    called back; they are not in `count`.
    """

    count: int
    oldest: datetime | None
    newest: datetime | None
    already_delivered: int
    endpoints_disabled: int
    longest_s: float
    in_flight: int
    at: datetime


_SUMMARY: Final = """
WITH matched AS MATERIALIZED (
    SELECT d.endpoint_id, d.created_at, d.state = 'in_flight' AS in_flight, {was_delivered} AS was_delivered,
           e.status = 'disabled' AS is_disabled, e.rate_limit
    FROM {matched}
), endpoint AS (
    SELECT count(*) AS n, min(created_at) AS oldest, max(created_at) AS newest, bool_or(is_disabled) AS is_disabled,
           max(rate_limit) AS rate_limit
    FROM matched
    WHERE NOT in_flight AND NOT (was_delivered AND CAST(:but_delivered AS boolean))
    GROUP BY endpoint_id
)
SELECT CAST(coalesce(sum(n), 0) AS bigint), min(oldest), max(newest),
       (SELECT count(*) FROM matched WHERE was_delivered), count(*) FILTER (WHERE is_disabled),
       CAST(coalesce(max(n / rate_limit), 0) AS float8), (SELECT count(*) FROM matched WHERE in_flight),
       coalesce(CAST(:now AS timestamptz), statement_timestamp())
FROM endpoint
"""


_LIVE: Final = "dispatcher.deliveries d JOIN dispatcher.endpoints e ON e.id = d.endpoint_id"


def summarise_live(connection: Connection, chosen: Filter, *, now: datetime | None = None) -> Summary:
    """What `choose_waiting` would find in all, and what is in flight. Reads every delivery that the filter chooses."""
    where, values = condition(chosen, "deliveries")
    return _summarise(connection, f"{_LIVE} WHERE {where}", {**values, "but_delivered": False, "now": now})


def _summarise(connection: Connection, matched: str, values: dict[str, Any]) -> Summary:
    statement = text(_SUMMARY.format(matched=matched, was_delivered=_WAS_DELIVERED))
    return Summary(*connection.execute(statement, values).one())


def choose_waiting(connection: Connection, chosen: Filter, *, limit: int) -> list[UUID]:
    """Up to `limit` waiting deliveries, locked until the transaction ends.

    What a claimer has locked is passed over: while we waited for it, it could wait for what we hold.
    """
    where, values = condition(chosen, "deliveries")
    rows = connection.execute(
        text(f"""
        SELECT d.id FROM {_LIVE} WHERE {where} AND d.state = 'waiting'
        LIMIT :limit FOR NO KEY UPDATE OF d SKIP LOCKED"""),
        {**values, "limit": limit},
    )
    return list(rows.scalars())


def has_live(connection: Connection, chosen: Filter) -> bool:
    """Whether any delivery that the filter chooses waits or is in flight."""
    where, values = condition(chosen, "deliveries")
    found: bool = connection.execute(text(f"SELECT EXISTS (SELECT FROM {_LIVE} WHERE {where})"), values).scalar_one()
    return found


_EVENT = text("""
SELECT id, tenant_id, type, mode, object_id, payload, fanout, created_at, erased_at
FROM dispatcher.events WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as it was accepted, and how many deliveries it had then.

    `payload` None is gone: erased at `erased_at` or, without that, past its retention.
    """

    id: UUID
    tenant_id: UUID
    type: str
    mode: str
    object_id: str | None
    payload: bytes | None
    fanout: int
    created_at: datetime
    erased_at: datetime | None = None

    @property
    def payload_gone(self) -> Literal["erased", "retention"] | None:
        """Why there is no payload; None where there is."""
        if self.payload is not None:
            return None
        return "retention" if self.erased_at is None else "erased"


def find_event(connection: Connection, event_id: UUID) -> LoggedEvent | None:
    """The event with this id."""
    row = connection.execute(_EVENT, {"id": event_id}).first()
    return None if row is None else LoggedEvent(*row)
