"""What counts cannot tell of an endpoint: its latest attempts, and how many may be in flight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from dispatcher.store import limits

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.event import Mode

NEWEST: Final = 500
"""Of so many deliveries that have ended, the newest, and as many that live, the latest attempts are looked for."""

# Of what waits, that which is due last: what is tried again is due later than what has just come.
_LATEST = text("""
WITH recent AS MATERIALIZED (
    (SELECT id, mode FROM dispatcher.ended_deliveries WHERE endpoint_id = :endpoint_id ORDER BY id DESC LIMIT :newest)
    UNION ALL
    (SELECT id, mode FROM dispatcher.deliveries WHERE endpoint_id = :endpoint_id AND state = 'in_flight' LIMIT :newest)
    UNION ALL
    (SELECT id, mode FROM dispatcher.deliveries WHERE endpoint_id = :endpoint_id AND state = 'waiting'
     ORDER BY due_at DESC, id DESC LIMIT :newest)
), attempt AS MATERIALIZED (
    SELECT a.*
    FROM (SELECT id FROM recent WHERE mode = :mode) r CROSS JOIN LATERAL (
        SELECT started_at, outcome, status_code, error FROM dispatcher.attempts
        WHERE delivery_id = r.id ORDER BY claim_seq DESC LIMIT 100
    ) a
), failure AS (
    SELECT * FROM attempt WHERE outcome <> 'ok' ORDER BY started_at DESC LIMIT 1
)
SELECT a.last, a.succeeded, f.started_at, f.outcome, f.status_code, f.error
FROM (SELECT max(started_at) AS last, max(started_at) FILTER (WHERE outcome = 'ok') AS succeeded FROM attempt) a
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
class Latest:
    """The latest attempts of one mode among those of an endpoint's `NEWEST` deliveries; `cap` may be in flight."""

    attempt_at: datetime | None
    success_at: datetime | None
    failure: Failure | None
    cap: int


def latest(connection: Connection, endpoint_id: UUID, mode: Mode) -> Latest:
    """What the endpoint did last in one mode.

    Reads ended deliveries by the index ended_endpoint, the others by deliveries_due.
    Pins the plans of its transaction, so it comes last there.
    """
    limits.pin_plans(connection)
    values: dict[str, Any] = {"endpoint_id": endpoint_id, "newest": NEWEST, "mode": mode}
    last, succeeded, *failure = connection.execute(_LATEST, values).one()
    return Latest(
        attempt_at=last,
        success_at=succeeded,
        failure=None if failure[0] is None else Failure(*failure),
        cap=connection.execute(_CAP, values).scalar_one(),
    )
