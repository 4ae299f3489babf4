"""Takes back what dead workers had claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.ids import uuid7
from dispatcher.model.delivery import Attempt, Result
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import decide
from dispatcher.store import deliveries as store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.clock import Clock
    from dispatcher.retry import RetrySchedule

_LOST = Outcome(
    OutcomeClass.WORKER_LOST, known=False, error="the worker died after its claim; it may have sent the event or not"
)


def rescue(
    connection: Connection,
    schedules: Mapping[int, RetrySchedule],
    *,
    clock: Clock,
    batch: int = 500,
    now: datetime | None = None,
) -> int:
    """Records up to `batch` claims of dead workers as lost; returns how many.

    They are decided and recorded as every other result, so a kill in between leaves them to the next rescue. The
    rows are locked from the first statement to the commit: a worker that records late waits, and then finds its
    claim gone or, if it delivered, ends the delivery all the same.
    """
    at, monotonic_s = now or clock.now(), clock.monotonic()
    results = [
        Result(
            lost.claim,
            Attempt(
                id=uuid7(at),
                worker_id=lost.worker_id,
                started_at=at,
                method=lost.method,
                url=lost.url,
                request_headers=[],
                body_sha256=None,
                outcome=_LOST,
            ),
            decide(
                _LOST,
                schedule=schedules[lost.claim.schedule_id],
                attempt=lost.claim.number,
                refunds=lost.claim.refunds,
                uniform=clock.uniform,
            ),
            monotonic_s,
        )
        for lost in store.lost(connection, batch=batch, now=now)
    ]
    if results:
        store.record(connection, results, monotonic_s=monotonic_s, now=now)
    return len(results)
