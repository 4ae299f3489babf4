"""One attempt of one delivery, from claim to result: prepare → send → decide.

First send, retry and replay all pass here; nothing else in the project posts an event. The value that is walked:
`Claim` → `Prepared` → `Outcome` → `Result`. No transaction is open meanwhile: a POST may take 15 s and must not
hold a row's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dispatcher.egress import build_request, parse_url, send
from dispatcher.errors import InvalidInput
from dispatcher.flow.rules import url_policy
from dispatcher.ids import format_id, uuid7
from dispatcher.model.delivery import Attempt, Released, Result, Stop
from dispatcher.model.event import BodyForm, body
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import DEFAULT, decide
from dispatcher.signing import SCHEMES, SealError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network
    from uuid import UUID

    import httpx

    from dispatcher.clock import Clock
    from dispatcher.egress import TargetUrl
    from dispatcher.model.delivery import Claim
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.profile import Profile
    from dispatcher.retry import RetrySchedule
    from dispatcher.signing import Keyring, Scheme

SECRET_PURPOSE: Final = "signing"  # noqa: S105 - a label
"""What a signing secret is sealed for: part of the associated data, so that a sealed value fits one place only."""

DEADLINE_S: Final = 15.0
"""For the whole attempt. The time that the `checkout` system's documentation grants a receiver."""


@dataclass(frozen=True, slots=True)
class Route:
    """What every attempt of an endpoint has in common, parsed and unsealed once for each of its versions.

    `keys` are (secret, expiry) with the newest first; `fault` says why nothing can be sent, if so.
    """

    endpoint: Endpoint
    target: TargetUrl | None
    scheme: Scheme
    keys: tuple[tuple[bytes, datetime | None], ...]
    fault: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signed request, ready for the wire."""

    request: httpx.Request
    headers: list[tuple[bytes, bytes]]
    body: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Deliver:
    """What an attempt needs besides its claim.

    `schedules` maps a version's id to its schedule; `may_post` is False once the worker's heartbeat is too old to
    be sure of its claims.
    """

    transport: httpx.AsyncBaseTransport
    keyring: Keyring
    schedules: Mapping[int, RetrySchedule]
    clock: Clock
    worker_id: UUID
    user_agent: bytes
    profiles: Mapping[str, Profile]
    may_post: Callable[[], bool]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    deadline_s: float = DEADLINE_S

    def route(self, endpoint: Endpoint) -> Route:
        """Parses and unseals what the endpoint's attempts need."""
        scheme = SCHEMES["standard_webhooks_v1"]
        try:
            target = parse_url(endpoint.url, url_policy(self.profiles[endpoint.profile], self.networks))
            keys = tuple(
                (
                    self.keyring.open(
                        secret.sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=SECRET_PURPOSE
                    ).reveal(),
                    secret.expires_at,
                )
                for secret in endpoint.secrets
            )
        except InvalidInput as error:
            return Route(endpoint, None, scheme, (), Outcome(OutcomeClass.INVALID_CONFIG, error=str(error)))
        except SealError as error:  # the keyring is ours to mend; the merchant's attempts must not run out meanwhile
            return Route(endpoint, None, scheme, (), Outcome(OutcomeClass.INTERNAL, error=str(error)))
        return Route(endpoint, target, scheme, keys)

    async def __call__(self, claim: Claim, route: Route) -> Result:
        """Attempts the delivery once. Raises only what is a defect of ours, and CancelledError."""
        if claim.expired:
            return Result(claim, None, Stop("expired", "expired before it was delivered"), self.clock.monotonic())
        if not self.may_post():
            return Result(claim, None, Released(), self.clock.monotonic())
        prepared = self.prepare(claim, route)
        if isinstance(prepared, Outcome):
            return self._result(claim, route, None, prepared, self.clock.now())
        outcome = await send(
            self.transport, prepared.request, deadline_s=self.deadline_s, success="any_2xx", clock=self.clock
        )
        return self._result(claim, route, prepared, outcome, prepared.at)

    def prepare(self, claim: Claim, route: Route) -> Prepared | Outcome:
        """Builds and signs the request; an Outcome says why that can never work, or not now."""
        if route.fault is not None:
            return route.fault
        assert route.target is not None
        at = self.clock.now()
        content = body(claim.event, BodyForm.ENVELOPE)
        keys = [key for key, expires_at in route.keys if expires_at is None or expires_at > at]
        try:
            headers = [
                (b"content-type", b"application/json"),
                (b"user-agent", self.user_agent),
                *route.scheme.sign(
                    message_id=format_id("evt", claim.event.id), timestamp=int(at.timestamp()), body=content, keys=keys
                ),
            ]
            request = build_request(route.target, headers, content, method=route.endpoint.method)
        except ValueError as error:
            return Outcome(OutcomeClass.INVALID_CONFIG, error=str(error))
        return Prepared(request, headers, content, at)

    def _result(self, claim: Claim, route: Route, prepared: Prepared | None, outcome: Outcome, at: datetime) -> Result:
        change = decide(
            outcome,
            schedule=self.schedules[claim.schedule_id],
            attempt=claim.number,
            refunds=claim.refunds,
            rules=DEFAULT,
            uniform=self.clock.uniform,
        )
        attempt = Attempt(
            id=uuid7(at),
            worker_id=self.worker_id,
            started_at=at,
            method=route.endpoint.method,
            url=route.endpoint.url,
            request_headers=[] if prepared is None else prepared.headers,
            body_sha256=None if prepared is None else sha256(prepared.body).digest(),
            outcome=outcome,
        )
        return Result(claim, attempt, change, self.clock.monotonic())
