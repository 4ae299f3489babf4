"""Pings an endpoint: asks its URL, as a delivery would, whether anybody answers there.

Before an endpoint is registered its merchant does not hold the secret yet, so that ping is not signed; the ping of an
endpoint that is registered is signed as its deliveries are. Nothing is stored of either.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Final

from dispatcher.egress import send
from dispatcher.errors import InvalidInput, TooMany, Unavailable
from dispatcher.ids import uuid7
from dispatcher.model.bucket import Bucket, take
from dispatcher.model.event import BodyForm, Mode, StoredEvent
from dispatcher.model.outcome import Outcome, OutcomeClass

if TYPE_CHECKING:
    import httpx

    from dispatcher.clock import Clock
    from dispatcher.flow.requests import Requests
    from dispatcher.flow.signing_keys import PlatformKeys
    from dispatcher.model.endpoint import Endpoint

EVENT_TYPE: Final = "endpoint.ping"

FAILED: Final = "ENDPOINT_VALIDATION_FAILED"

PER_MINUTE: Final = 120
"""Pings of one host, by one process: room for a tenant that registers its 16 endpoints and gets some of them wrong."""

_HOSTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many pings each host may still get: a bucket of a minute's, which fills as the minute passes.

    Whoever registers URLs of somebody else's host would otherwise have us knock there as often as they like.
    """

    per_minute: int = PER_MINUTE
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def take(self, host: str, now_s: float) -> None:
        """Takes one, at `now_s` of the monotonic clock. Raises TooMany."""
        rate, most = self.per_minute / 60, float(self.per_minute)
        if host not in self._buckets and len(self._buckets) >= _HOSTS:
            full = [known for known, held in self._buckets.items() if held.tokens + (now_s - held.at_s) * rate >= most]
            for known in full or list(self._buckets)[:1]:
                del self._buckets[known]
        self._buckets[host], wait_s = take(self._buckets.get(host), now_s, rate=rate, most=most)
        if wait_s > 0:
            raise TooMany(
                f"found more than {self.per_minute} pings of {host} in a minute; allowed: {self.per_minute}",
                retry_after_s=max(1, ceil(wait_s)),
            )


@dataclass(frozen=True, slots=True)
class Ping:
    """What a ping needs besides its endpoint. `requests` builds what is sent, as it does for deliveries."""

    transport: httpx.AsyncBaseTransport
    requests: Requests
    clock: Clock
    allowance: Allowance = field(default_factory=Allowance)

    async def validate(self, endpoint: Endpoint) -> None:
        """Pings, without a signature, the URL of an endpoint that is not stored yet.

        Raises InvalidInput with the code ENDPOINT_VALIDATION_FAILED where the answer is not a success of its profile,
        TooMany, and Unavailable for a cause of our own.
        """
        outcome = await self(endpoint, None)
        if outcome.ok:
            return
        if outcome.kind is OutcomeClass.INTERNAL:
            raise Unavailable(f"the URL could not be pinged: {outcome.error}")
        answered = f"the answer {outcome.status_code}" if outcome.status_code is not None else "no answer"
        why = "" if outcome.error is None else f" ({outcome.error})"
        success = self.requests.profiles[endpoint.profile].success
        allowed = "2xx" if success == "any_2xx" else " or ".join(map(str, sorted(success)))
        raise InvalidInput("/url", f"{answered} to a ping{why}: {outcome.kind}", allowed, code=FAILED)

    async def __call__(self, endpoint: Endpoint, keys: PlatformKeys | None) -> Outcome:
        """The outcome of one ping, signed as deliveries are, or unsigned without the platform's `keys`.

        Raises TooMany.
        """
        requests = self.requests if keys is None else replace(self.requests, platform_keys=lambda: keys)
        route = replace(requests.route(endpoint), form=BodyForm.ENVELOPE)
        if route.target is None:
            return route.fault or Outcome(OutcomeClass.INVALID_CONFIG, error="its URLs stand on the deliveries")
        at = self.clock.now()
        event = StoredEvent(uuid7(at), EVENT_TYPE, Mode.TEST, b"{}", at)
        prepared = requests.prepare(event, route, at, unsigned=keys is None)
        if isinstance(prepared, Outcome):
            return prepared
        self.allowance.take(route.target.host, self.clock.monotonic())
        profile = route.profile
        return await send(
            self.transport, prepared.request, deadline_s=profile.deadline_s, success=profile.success, clock=self.clock
        )
