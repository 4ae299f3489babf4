"""One attempt of one delivery, from claim to result: prepare → send → decide.

First send, retry and replay all pass here; nothing else in the project posts an event. The value that is walked:
`Claim` → `Prepared` → `Outcome` → `Result`. No transaction is open meanwhile: a POST may take 15 s and must not
hold a row's lock.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson

from dispatcher.egress import build_request, parse_url, send
from dispatcher.errors import InvalidInput
from dispatcher.flow.rules import decision_rules, url_policy
from dispatcher.ids import format_id, uuid7
from dispatcher.model.delivery import Attempt, Released, Result, Stop
from dispatcher.model.event import BodyForm, get_url
from dispatcher.model.event import body as body_of
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.model.profile import Profile
from dispatcher.retry import DEFAULT, decide
from dispatcher.signing import SCHEMES, SealError, sign_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network
    from uuid import UUID

    import httpx

    from dispatcher.clock import Clock
    from dispatcher.egress import TargetUrl, UrlPolicy
    from dispatcher.flow.signing_keys import PlatformKeys
    from dispatcher.model.delivery import Claim
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.retry import DecisionRules, RetrySchedule
    from dispatcher.signing import Keyring, RawHeaders, Scheme

SECRET_PURPOSE: Final = "signing"  # noqa: S105 - a label
"""What a signing secret is sealed for: part of the associated data, so that a sealed value fits one place only."""

HEADERS_PURPOSE: Final = "headers"
AUTH_PURPOSE: Final = "auth"

MASK: Final = b"***"
"""What the log has of a header's value that is the endpoint's own business."""

_JSON: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Signer:
    """A scheme and, where they are the endpoint's own, its keys: (secret, expiry), the newest first."""

    scheme: Scheme
    keys: tuple[tuple[bytes, datetime | None], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """What every attempt of an endpoint has in common, parsed and unsealed once for each of its versions.

    `target` is None where the URL stands on the deliveries. `extra` are headers of the endpoint's own and its
    authentication, whose values the log masks. `fault` says why nothing can be sent, if so.
    """

    endpoint: Endpoint
    profile: Profile
    policy: UrlPolicy
    rules: DecisionRules
    form: BodyForm
    target: TargetUrl | None = None
    signers: tuple[Signer, ...] = ()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)
    extra: tuple[tuple[bytes, bytes], ...] = ()
    fault: Outcome | None = None


@dataclass(slots=True)  # as StoredEvent
class Prepared:
    """A signed request, ready for the wire. `headers` are as the log has them; `content` is what was signed."""

    request: httpx.Request
    headers: list[tuple[bytes, bytes]]
    content: bytes
    method: str
    url: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Deliver:
    """What an attempt needs besides its claim.

    `schedules` maps a version's id to its schedule, `profiles` a profile's name to it; `platform_keys` answers the
    platform's keys of the moment; `networks` are those that may be dialled although not public; `may_post` is False
    once the worker's heartbeat is too old to be sure of its claims. `stamp` turns the host's time into that of the due
    clock, of which attempts' ids are.
    """

    transport: httpx.AsyncBaseTransport
    keyring: Keyring
    schedules: Mapping[int, RetrySchedule]
    profiles: Mapping[str, Profile]
    platform_keys: Callable[[], PlatformKeys]
    clock: Clock
    worker_id: UUID
    user_agent: bytes
    may_post: Callable[[], bool]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    stamp: Callable[[datetime], datetime] = lambda at: at

    def route(self, endpoint: Endpoint) -> Route:
        """Parses and unseals what the endpoint's attempts need."""
        profile = self.profiles.get(endpoint.profile)
        if profile is None:  # its file is elsewhere, or gone: ours to mend
            unknown = Profile(name=endpoint.profile)
            fault = Outcome(OutcomeClass.INTERNAL, error=f"this worker has no profile {endpoint.profile!r}")
            return Route(endpoint, unknown, url_policy(unknown), DEFAULT, BodyForm.ENVELOPE, fault=fault)
        form = BodyForm(profile.body)
        route = Route(endpoint, profile, url_policy(profile, self.networks), decision_rules(profile), form)
        try:
            return replace(
                route,
                target=None if endpoint.origin is not None else parse_url(endpoint.url, route.policy),
                signers=self._signers(endpoint, profile),
                renamed={old.encode(): new.encode() for old, new in profile.signature_headers},
                extra=self._extra(endpoint),
            )
        except InvalidInput as error:
            return replace(route, fault=Outcome(OutcomeClass.INVALID_CONFIG, error=str(error)))
        except SealError as error:  # the keyring is ours to mend; the merchant's attempts must not run out meanwhile
            return replace(route, fault=Outcome(OutcomeClass.INTERNAL, error=str(error)))

    def _signers(self, endpoint: Endpoint, profile: Profile) -> tuple[Signer, ...]:
        schemes = [SCHEMES[name] for name in endpoint.signature or profile.signature_schemes]
        own: tuple[tuple[bytes, datetime | None], ...] = ()
        if any(scheme.key_owner == "endpoint" for scheme in schemes):
            # The secrets of a target are its tenant's.
            place = endpoint.id if endpoint.origin is None else ""
            own = tuple(
                (
                    self.keyring.open(
                        secret.sealed, tenant=endpoint.tenant_id, endpoint=place, purpose=SECRET_PURPOSE
                    ).reveal(),
                    secret.expires_at,
                )
                for secret in endpoint.secrets
            )
        return tuple(Signer(scheme, own if scheme.key_owner == "endpoint" else ()) for scheme in schemes)

    def _extra(self, endpoint: Endpoint) -> tuple[tuple[bytes, bytes], ...]:
        extra: list[tuple[bytes, bytes]] = []
        if endpoint.headers is not None:
            own = orjson.loads(self._open(endpoint, endpoint.headers, HEADERS_PURPOSE))
            extra += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own]
        if endpoint.auth is not None:
            auth = orjson.loads(self._open(endpoint, endpoint.auth, AUTH_PURPOSE))
            credentials = b64encode(f"{auth['username']}:{auth['password']}".encode())
            extra.append((b"authorization", b"Basic " + credentials))
        return tuple(extra)

    def _open(self, endpoint: Endpoint, sealed: str, purpose: str) -> bytes:
        return self.keyring.open(sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=purpose).reveal()

    async def __call__(self, claim: Claim, route: Route) -> Result:
        """Attempts the delivery once. Raises only what is a defect of ours, and CancelledError."""
        if claim.expired:
            return Result(claim, None, Stop("expired", "expired before it was delivered"), self.clock.monotonic())
        if claim.event.payload is None:
            gone = Stop("cancelled", "the event's payload is gone: it was erased, or is past its retention")
            return Result(claim, None, gone, self.clock.monotonic())
        if not self.may_post():
            return Result(claim, None, Released(), self.clock.monotonic())
        prepared = self.prepare(claim, route)
        if isinstance(prepared, Outcome):
            at = self.clock.now()
            return self._result(claim, route, None, prepared, at, uuid7(self.stamp(at)))
        attempt_id = uuid7(self.stamp(prepared.at))
        profile = route.profile
        outcome = await send(
            self.transport,
            prepared.request,
            deadline_s=profile.deadline_s,
            success=profile.success,
            clock=self.clock,
        )
        return self._result(claim, route, prepared, outcome, prepared.at, attempt_id)

    def prepare(self, claim: Claim, route: Route) -> Prepared | Outcome:
        """Builds and signs the request; an Outcome says why that can never work, or not now."""
        if route.fault is not None:
            return route.fault
        at = self.clock.now()
        method = claim.target_method or route.endpoint.method
        event = claim.event
        try:
            target = route.target
            if claim.target_url is not None:
                target = parse_url(claim.target_url, route.policy)
            assert target is not None  # an implicit endpoint has deliveries with targets only
            headers = [(b"user-agent", self.user_agent)]
            if method == "GET":  # what is signed is what is asked for
                target = parse_url(get_url(target.canonical, event), route.policy)
                body, content = b"", target.target
            else:
                body = content = body_of(event, route.form)
                headers.insert(0, _JSON)
                if route.form is BodyForm.VERBATIM:
                    headers += [(b"webhook-event-type", event.type.encode()), (b"webhook-mode", event.mode.encode())]
            signed = self.sign(route, format_id("evt", event.id), at, content)
            if isinstance(signed, Outcome):
                return signed
            headers += signed
            request = build_request(target, [*headers, *route.extra], body, method=method)
        except (ValueError, InvalidInput) as error:
            return Outcome(OutcomeClass.INVALID_CONFIG, error=str(error))
        headers += [(name, MASK) for name, _ in route.extra]
        return Prepared(request, headers, content, method, target.canonical, at)

    def sign(self, route: Route, message_id: str, at: datetime, content: bytes) -> RawHeaders | Outcome:
        """The headers of all the schemes; an Outcome where one of them has no key now, which is ours to mend."""
        signers: list[tuple[Scheme, Sequence[bytes]]] = []
        for signer in route.signers:
            scheme = signer.scheme
            keys: Sequence[bytes]
            if scheme.key_owner == "platform":
                keys = self.platform_keys().signing(scheme, at)
            else:
                keys = [key for key, expires_at in signer.keys if expires_at is None or expires_at > at]
            if not keys:
                fault = self.platform_keys().fault(scheme, at) or "the endpoint, or its tenant, has no secret"
                return Outcome(OutcomeClass.INTERNAL, error=f"{scheme.name}: {fault}")
            signers.append((scheme, keys))
        timestamp = int(at.timestamp())
        if len(signers) == 1:
            ((scheme, keys),) = signers
            signed = scheme.sign(message_id=message_id, timestamp=timestamp, body=content, keys=keys)
        else:
            signed = sign_all(signers, message_id=message_id, timestamp=timestamp, body=content)
        if route.renamed:
            signed = [(route.renamed.get(name, name), value) for name, value in signed]
        return signed

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
