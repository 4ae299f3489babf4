"""Builds the requests that an endpoint gets: its deliveries and its pings.

What all requests of an endpoint share is parsed and unsealed once, into a `Route`; `Requests.prepare` then builds and
signs one request for an event. Nothing is sent here.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import orjson

from dispatcher.egress import build_request, parse_url
from dispatcher.errors import InvalidInput
from dispatcher.flow.rules import decision_rules, url_policy
from dispatcher.ids import format_id
from dispatcher.model.event import BodyForm, get_url
from dispatcher.model.event import body as body_of
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.model.profile import Profile
from dispatcher.retry import DEFAULT
from dispatcher.signing import SCHEMES, SealError, sign_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network

    import httpx

    from dispatcher.egress import TargetUrl, UrlPolicy
    from dispatcher.flow.signing_keys import PlatformKeys
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.event import StoredEvent
    from dispatcher.retry import DecisionRules
    from dispatcher.signing import Keyring, RawHeaders, Scheme

SECRET_PURPOSE: Final = "signing"  # noqa: S105 - a label
"""What a signing secret is sealed for: part of the associated data, so that a sealed value fits one place only."""

HEADERS_PURPOSE: Final = "headers"
AUTH_PURPOSE: Final = "auth"

MASK: Final = b"***"
"""What the log holds instead of the value of an endpoint's own header."""

_JSON: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Signer:
    """A scheme and, if it signs with the endpoint's keys, those keys: (secret, expiry), the newest first."""

    scheme: Scheme
    keys: tuple[tuple[bytes, datetime | None], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """What all requests of an endpoint share, parsed and unsealed once for each version of the endpoint.

    `target` is None where each delivery has its own URL. `extra` holds the endpoint's own headers and its
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
    """A request that is ready to be sent. `headers` are those that the log stores; `content` is what was signed."""

    request: httpx.Request
    headers: list[tuple[bytes, bytes]]
    content: bytes
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class Requests:
    """What is needed to build requests.

    `profiles` maps a profile's name to it; `platform_keys` returns the platform's current keys; `networks` may be
    dialled although they are not public.
    """

    keyring: Keyring
    profiles: Mapping[str, Profile]
    platform_keys: Callable[[], PlatformKeys]
    user_agent: bytes
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def route(self, endpoint: Endpoint) -> Route:
        """Parses and unseals what the endpoint's requests share."""
        profile = self.profiles.get(endpoint.profile)
        if profile is None:  # its file is on another machine, or deleted: the operator's to repair
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
        except SealError as error:  # the operator must repair the keyring; it must not use up the merchant's attempts
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
            headers = orjson.loads(self._open(endpoint, endpoint.headers, HEADERS_PURPOSE))
            extra += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if endpoint.auth is not None:
            auth = orjson.loads(self._open(endpoint, endpoint.auth, AUTH_PURPOSE))
            credentials = b64encode(f"{auth['username']}:{auth['password']}".encode())
            extra.append((b"authorization", b"Basic " + credentials))
        return tuple(extra)

    def _open(self, endpoint: Endpoint, sealed: str, purpose: str) -> bytes:
        return self.keyring.open(sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=purpose).reveal()

    def prepare(
        self,
        event: StoredEvent,
        route: Route,
        at: datetime,
        target_url: str | None = None,
        target_method: str | None = None,
        *,
        unsigned: bool = False,
    ) -> Prepared | Outcome:
        """Builds the request and signs it with the time `at`; an Outcome says why that is impossible, or is so now.

        `target_url` and `target_method` are those of the delivery, if it has its own. An `unsigned` request has the
        event's id and the time in headers, as Standard Webhooks names them, and no signature.
        """
        if route.fault is not None:
            return route.fault
        method = target_method or route.endpoint.method
        try:
            target = route.target
            if target_url is not None:
                target = parse_url(target_url, route.policy)
            assert target is not None  # every delivery of an implicit endpoint has its own target
            headers = [(b"user-agent", self.user_agent)]
            if method == "GET":  # a GET has no body: its request target is signed
                target = parse_url(get_url(target.canonical, event), route.policy)
                body, content = b"", target.target
            else:
                body = content = body_of(event, route.form, route.profile.envelope_members)
                headers.insert(0, _JSON)
                if route.form is BodyForm.VERBATIM:
                    headers += [(b"webhook-event-type", event.type.encode()), (b"webhook-mode", event.mode.encode())]
            message_id = format_id("evt", event.id)
            if unsigned:
                headers += [(b"webhook-id", message_id.encode()), (b"webhook-timestamp", b"%d" % at.timestamp())]
            else:
                signature = self.sign(route, message_id, at, content)
                if isinstance(signature, Outcome):
                    return signature
                headers += signature
            request = build_request(target, [*headers, *route.extra], body, method=method)
        except (ValueError, InvalidInput) as error:
            return Outcome(OutcomeClass.INVALID_CONFIG, error=str(error))
        headers += [(name, MASK) for name, _ in route.extra]
        return Prepared(request, headers, content, method, target.canonical)

    def sign(self, route: Route, message_id: str, at: datetime, content: bytes) -> RawHeaders | Outcome:
        """The headers of all the schemes; an Outcome if one of them has no key now, which the operator must repair."""
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
            headers = scheme.sign(message_id=message_id, timestamp=timestamp, body=content, keys=keys)
        else:
            headers = sign_all(signers, message_id=message_id, timestamp=timestamp, body=content)
        if route.renamed:
            headers = [(route.renamed.get(name, name), value) for name, value in headers]
        return headers
