"""One attempt of one delivery, from claim to result: prepare → send → decide.

First send, retry and replay all pass here; nothing else in the project posts an event. The values in turn:
`Claim` → `Prepared` → `Outcome` → `Result`. No transaction is open meanwhile: a POST may take 15 s and must not
hold a row's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from dispatcher.egress import send
from dispatcher.ids import uuid7
from dispatcher.model.delivery import Attempt, Released, Result, Stop
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from uuid import UUID

    import httpx

    from dispatcher.clock import Clock
    from dispatcher.flow.requests import Prepared, Requests, Route
    from dispatcher.model.delivery import Claim
    from dispatcher.retry import RetrySchedule


@dataclass(frozen=True, slots=True)
class Deliver:
    """What an attempt needs besides its claim.

    `requests` builds what is sent; `schedules` maps a version's id to its schedule; `may_post` returns False once the
    worker's heartbeat is too old to be sure of its claims. `stamp` turns the host's time into that of the due clock,
    which the ids of attempts contain.
    """

    transport: httpx.AsyncBaseTransport
    requests: Requests
    schedules: Mapping[int, RetrySchedule]
    clock: Clock
    worker_id: UUID
    may_post: Callable[[], bool]
    stamp: Callable[[datetime], datetime] = lambda at: at

    async def __call__(self, claim: Claim, route: Route) -> Result:
        """Attempts the delivery once. Raises only what is a defect of ours, and CancelledError."""
        if claim.expired:
            return Result(claim, None, Stop("expired", "expired before it was delivered"), self.clock.monotonic())
        if claim.event.payload is None:
            gone = Stop("cancelled", "the event's payload is gone: it was erased, or is past its retention")
            return Result(claim, None, gone, self.clock.monotonic())
        if not self.may_post():
            return Result(claim, None, Released(), self.clock.monotonic())
        at = self.clock.now()
        prepared = self.requests.prepare(claim.event, route, at, claim.target_url, claim.target_method)
        attempt_id = uuid7(self.stamp(at))
        if isinstance(prepared, Outcome):
            return self._result(claim, route, None, prepared, at, attempt_id)
        profile = route.profile
        outcome = await send(
            self.transport,
            prepared.request,
            deadline_s=profile.deadline_s,
            success=profile.success,
            clock=self.clock,
        )
        return self._result(claim, route, prepared, outcome, at, attempt_id)

    def _result(
        self,
        claim: Claim,
        route: Route,
        prepared: Prepared | None,
        outcome: Outcome,
        at: datetime,
        attempt_id: UUID,
    ) -> Result:
        change = decide(
            outcome,
            schedule=self.schedules[claim.schedule_id],
            attempt=claim.number,
            refunds=claim.refunds,
            rules=route.rules,
            uniform=self.clock.uniform,
        )
        endpoint = route.endpoint
        attempt = Attempt(
            id=attempt_id,
            worker_id=self.worker_id,
            started_at=at,
            method=prepared.method if prepared else claim.target_method or endpoint.method,
            url=prepared.url if prepared else claim.target_url or endpoint.url,
            request_headers=[] if prepared is None else prepared.headers,
            body_sha256=None if prepared is None else sha256(prepared.content).digest(),
            outcome=outcome,
        )
        blocked = outcome.kind is OutcomeClass.BLOCKED_ADDRESS
        return Result(claim, attempt, change, self.clock.monotonic(), route.profile.blocked_limit if blocked else None)
