"""Pings an endpoint: asks its URL, as a delivery would, whether anybody answers there.

Before an endpoint is registered its merchant does not hold the secret yet, so that ping is not signed; the ping of an
endpoint that is registered is signed as its deliveries are. Nothing is stored of either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Final

from dispatcher.egress import build_request, parse_url, send
from dispatcher.errors import InvalidInput, TooMany, Unavailable
from dispatcher.flow.deliver import Deliver
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import format_id, uuid7
from dispatcher.model.bucket import Bucket, take
from dispatcher.model.event import BodyForm, Mode, StoredEvent, body, get_url
from dispatcher.model.outcome import Outcome, OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

    import httpx

    from dispatcher.clock import Clock
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.profile import Profile
    from dispatcher.signing import Keyring

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
    """What a ping needs besides its endpoint. `networks` are those that may be dialled although not public."""

    transport: httpx.AsyncBaseTransport
    keyring: Keyring
    profiles: Mapping[str, Profile]
    clock: Clock
    user_agent: bytes
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
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
        success = self.profiles[endpoint.profile].success
        allowed = "2xx" if success == "any_2xx" else " or ".join(map(str, sorted(success)))
        raise InvalidInput("/url", f"{answered} to a ping{why}: {outcome.kind}", allowed, code=FAILED)

    async def __call__(self, endpoint: Endpoint, keys: PlatformKeys | None) -> Outcome:
        """What came of one ping, signed as deliveries are; without the platform's `keys`, unsigned. Raises TooMany."""
        deliver = Deliver(
            transport=self.transport,
            keyring=self.keyring,
            schedules={},
            profiles=self.profiles,
            platform_keys=lambda: keys or PlatformKeys(),
            clock=self.clock,
            worker_id=endpoint.id,
            user_agent=self.user_agent,
            may_post=lambda: True,
            networks=self.networks,
        )
        route = deliver.route(endpoint)
        if route.fault is not None or route.target is None:
            return route.fault or Outcome(OutcomeClass.INVALID_CONFIG, error="its URLs stand on the deliveries")
        at = self.clock.now()
        event = StoredEvent(uuid7(at), EVENT_TYPE, Mode.TEST, b"{}", at)
        message_id = format_id("evt", event.id)
        try:
            target = route.target
            headers = [(b"user-agent", self.user_agent)]
            if endpoint.method == "GET":
                target = parse_url(get_url(target.canonical, event), route.policy)
                content, signed_content = b"", target.target
            else:
                headers.insert(0, (b"content-type", b"application/json"))
                content = signed_content = body(event, BodyForm.ENVELOPE)
            if keys is None:
                headers += [(b"webhook-id", message_id.encode()), (b"webhook-timestamp", b"%d" % at.timestamp())]
            else:
                signed = deliver.sign(route, message_id, at, signed_content)
                if isinstance(signed, Outcome):
                    return signed
                headers += signed
            request = build_request(target, [*headers, *route.extra], content, method=endpoint.method)
        except (ValueError, InvalidInput) as error:
            return Outcome(OutcomeClass.INVALID_CONFIG, error=str(error))
        self.allowance.take(target.host, self.clock.monotonic())
        profile = route.profile
        return await send(
            self.transport, request, deadline_s=profile.deadline_s, success=profile.success, clock=self.clock
        )
