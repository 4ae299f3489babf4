"""The statements that say how an endpoint is doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from dispatcher.ids import first_id

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

SAMPLE: Final = 10_000
"""Of how many deliveries, the newest, the attempts are read."""

_LIVE = text("""
SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'in_flight'),
       min(created_at) FILTER (WHERE state = 'waiting')
FROM dispatcher.deliveries WHERE endpoint_id = :endpoint_id
""")

_ENDED = text("""
SELECT count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'exhausted'),
       count(*) FILTER (WHERE state = 'rejected'), count(*) FILTER (WHERE state = 'expired'),
       count(*) FILTER (WHERE state = 'cancelled'),
       CAST(avg(attempts) FILTER (WHERE state = 'delivered') AS float8)
FROM dispatcher.ended_deliveries WHERE endpoint_id = :endpoint_id AND id >= :first
""")

_ATTEMPTS = text("""
WITH recent AS MATERIALIZED (
    (SELECT id FROM dispatcher.ended_deliveries WHERE endpoint_id = :endpoint_id AND id >= :first
     ORDER BY id DESC LIMIT :sample)
    UNION ALL
    (SELECT id FROM dispatcher.deliveries WHERE endpoint_id = :endpoint_id AND id >= :first AND claim_seq > 0
     ORDER BY id DESC LIMIT :sample)
), attempt AS MATERIALIZED (
    SELECT a.started_at, a.duration_ms, a.outcome, a.status_code, a.error
    FROM recent r JOIN dispatcher.attempts a ON a.delivery_id = r.id
    WHERE a.delivery_id >= :first
), failure AS (
    SELECT started_at, outcome, status_code, error FROM attempt WHERE outcome <> 'ok' ORDER BY started_at DESC LIMIT 1
)
SELECT a.p50, a.p95, a.last, a.succeeded, f.started_at, f.outcome, f.status_code, f.error
FROM (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome <> 'worker_lost') AS p50,
             percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE outcome <> 'worker_lost') AS p95,
             max(started_at) AS last, max(started_at) FILTER (WHERE outcome = 'ok') AS succeeded
      FROM attempt) a
LEFT JOIN failure f ON true
""")

_CAP = text("""
SELECT least(CASE WHEN e.ordered THEN 1 ELSE e.max_in_flight END, l.cap)
FROM dispatcher.lanes l JOIN dispatcher.endpoints e ON e.id = l.endpoint_id WHERE l.endpoint_id = :endpoint_id
""")


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that did not succeed."""

    at: datetime
    outcome: str
    status_code: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How an endpoint is doing. What waits and is in flight is of now, the rest of deliveries of the window.

    `attempts_p50_ms` and those after it, but `cap`, are of the attempts of the newest `SAMPLE` deliveries that have
    ended, and as many that live; None where there were none. `cap` is how many attempts may be in flight now.
    """

    waiting: int
    in_flight: int
    oldest_waiting_at: datetime | None
    delivered: int
    exhausted: int
    rejected: int
    expired: int
    cancelled: int
    attempts_to_success_mean: float | None
    attempts_p50_ms: float | None
    attempts_p95_ms: float | None
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_failure: Failure | None
    cap: int

    @property
    def success_rate(self) -> float | None:
        """Delivered, of all that ended by themselves; None where none did."""
        ended = self.delivered + self.exhausted + self.rejected + self.expired
        return self.delivered / ended if ended else None


def read(connection: Connection, endpoint_id: UUID, *, since: datetime) -> Stats:
    """How an endpoint is doing, and did with deliveries made since then.

    Live deliveries by the index deliveries_due, ended ones and attempts by their range of ids: only the partitions
    of the window are read.
    """
    values: dict[str, Any] = {"endpoint_id": endpoint_id, "first": first_id(since), "sample": SAMPLE}
    waiting, in_flight, oldest = connection.execute(_LIVE, values).one()
    delivered, exhausted, rejected, expired, cancelled, to_success = connection.execute(_ENDED, values).one()
    p50, p95, last, succeeded, *failure = connection.execute(_ATTEMPTS, values).one()
    return Stats(
        waiting=waiting,
        in_flight=in_flight,
        oldest_waiting_at=oldest,
        delivered=delivered,
        exhausted=exhausted,
        rejected=rejected,
        expired=expired,
        cancelled=cancelled,
        attempts_to_success_mean=to_success,
        attempts_p50_ms=p50,
        attempts_p95_ms=p95,
        last_attempt_at=last,
        last_success_at=succeeded,
        last_failure=None if failure[0] is None else Failure(*failure),
        cap=connection.execute(_CAP, values).scalar_one(),
    )
