"""`Client` and `AsyncClient`: the same operations, one to wait for and one to await."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import httpx

from dispatcher.client.answer import read_page, read_text
from dispatcher.client.auth import BearerAuth, HmacAuth
from dispatcher.client.call import Call, path, query
from dispatcher.client.catalogs import EventTypes, Schedules
from dispatcher.client.deliveries import Cancellations, Deliveries, Replays
from dispatcher.client.endpoints import Endpoints
from dispatcher.client.erasures import Erasures
from dispatcher.client.events import Events, is_header
from dispatcher.client.exchange import Exchange
from dispatcher.client.executor import AsyncExecutor, Executor
from dispatcher.client.pauses import Pauses
from dispatcher.client.resource import Resource, X, operation
from dispatcher.client.tenants import AuditLog, Keys, Tenants
from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import ConfigurationError, InvalidInput, Problem
from dispatcher.ids import uuid7
from dispatcher.model.access import API_KEY, API_URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Self

    from dispatcher.shapes import (
        Found,
        Jwks,
        Liveness,
        MatchingIds,
        Page,
        PublicKey,
        Readiness,
        SenderAddress,
        Statistics,
    )


class Options(TypedDict, total=False):
    """What both clients take.

    Who calls: `api_key`, or `api_key_id` and `signing_secret` to sign requests by HMAC. `timeout_s` is for each of
    connecting, sending and waiting, and again for an answer to come in; `max_retries` counts the tries after the
    first; `max_wait_s` bounds every wait between tries. `verify` False or an SSL context is for servers of a
    private authority. `clock` is for tests.
    """

    api_key: str | None
    api_key_id: str | None
    signing_secret: str | None
    timeout_s: float
    max_retries: int
    max_wait_s: float
    verify: ssl.SSLContext | bool
    clock: Clock


class Api(Resource[X]):
    """Every operation of the API."""

    def __init__(self, executor: X) -> None:
        super().__init__(executor)
        self.tenants = Tenants(executor)
        self.keys = Keys(executor)
        self.audit_log = AuditLog(executor)
        self.events = Events(executor)
        self.endpoints = Endpoints(executor)
        self.pauses = Pauses(executor)
        self.erasures = Erasures(executor)
        self.deliveries = Deliveries(executor)
        self.replays = Replays(executor)
        self.cancellations = Cancellations(executor)
        self.schedules = Schedules(executor)
        self.event_types = EventTypes(executor)

    @operation
    def find(
        self, q: str, *, mode: Literal["live", "test"] | None = None, tenant_id: str | None = None
    ) -> Call[Page[Found]]:
        """Whatever an id, an object id, a URL or a host names; of one mode, if given."""
        return Call("GET", path("find"), read_page, query({"q": q, "mode": mode, "tenant_id": tenant_id}))

    @operation
    def resolve_id(self, short_id: str, *, limit: int | None = None) -> Call[MatchingIds]:
        """The ids that begin with these characters: the newest 10, or so many. Raises NotFound if there are none."""
        return Call("GET", path("ids", short_id), query=query({"limit": limit}))

    @operation
    def statistics(
        self,
        *,
        window: Literal["1h", "24h", "7d", "30d"] | None = None,
        tenant_id: str | None = None,
        endpoint_id: str | None = None,
        event_type: str | None = None,
        mode: Literal["live", "test"] | None = None,
        by: Literal["endpoint", "event_type", "tenant", "none"] | None = None,
        limit: int | None = None,
    ) -> Call[Statistics]:
        """How deliveries of one mode, live unless given, fare in the window, 24h unless given.

        With the `limit` groups that fail most where `by`.
        """
        chosen = {"window": window, "tenant_id": tenant_id, "endpoint_id": endpoint_id, "event_type": event_type}
        return Call("GET", path("statistics"), query=query({**chosen, "mode": mode, "by": by, "limit": limit}))

    @operation
    def profile(self, name: str) -> Call[dict[str, Any]]:
        """One profile, with every field of its file."""
        return Call("GET", path("profiles", name))

    @operation
    def profiles(self) -> Call[Page[dict[str, Any]]]:
        """The profiles of this installation: the rules that endpoints can follow."""
        return Call("GET", path("profiles"), read_page)

    @operation
    def public_keys(self) -> Call[Page[PublicKey]]:
        """The platform's public keys, by which receivers verify; needs no key."""
        return Call("GET", path("public_keys"), read_page)

    @operation
    def jwks(self) -> Call[Jwks]:
        """The same as a JSON Web Key Set; needs no key."""
        return Call("GET", "/.well-known/jwks.json")

    @operation
    def sender_addresses(self) -> Call[Page[SenderAddress]]:
        """The addresses that deliveries come from."""
        return Call("GET", path("sender_addresses"), read_page)

    @operation
    def healthz(self) -> Call[Liveness]:
        """Whether the API's process lives; needs no key."""
        return Call("GET", "/healthz")

    @operation
    def readyz(self) -> Call[Readiness]:
        """Whether the API can accept events; needs no key. Raises Unavailable."""
        return Call("GET", "/readyz")

    @operation
    def metrics(self) -> Call[str]:
        """The metrics, in the text format of Prometheus."""
        return Call("GET", "/metrics", read_text)


class Client(Api[Executor]):
    """Calls the API at `base_url` and waits. Safe to share between threads; close it, or use it as a context.

    Raises InvalidInput for a URL or an option that cannot be. What operations raise: `dispatcher.client.errors`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
        **options: Unpack[Options],
    ) -> None:
        setup = _set_up(base_url, options)
        self._http = httpx.Client(transport=transport, **setup.http)
        super().__init__(Executor(self._http, setup.exchange(self._http.build_request), sleep, setup.timeout_s))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **options: Unpack[Options]) -> Self:
        """A client of the API that DISPATCHER_API_URL and DISPATCHER_API_KEY name. Raises ConfigurationError."""
        url, named = _from_environment(environ, options)
        return cls(url, **named)

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Api[AsyncExecutor]):
    """Calls the API at `base_url` on an asyncio event loop: the same as `Client`, with everything awaited."""

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] | None = None,
        **options: Unpack[Options],
    ) -> None:
        from asyncio import sleep as asyncio_sleep  # noqa: PLC0415 - slow to import; `Client` does without it

        sleep = sleep or asyncio_sleep
        setup = _set_up(base_url, options)
        self._http = httpx.AsyncClient(transport=transport, **setup.http)
        super().__init__(AsyncExecutor(self._http, setup.exchange(self._http.build_request), sleep, setup.timeout_s))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **options: Unpack[Options]) -> Self:
        """A client of the API that DISPATCHER_API_URL and DISPATCHER_API_KEY name. Raises ConfigurationError."""
        url, named = _from_environment(environ, options)
        return cls(url, **named)

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class _Setup:
    """What both clients are made of: the arguments of httpx's client, and how calls are made."""

    http: dict[str, Any]
    clock: Clock
    timeout_s: float
    max_retries: int
    max_wait_s: float

    def exchange(self, build_request: Callable[..., httpx.Request]) -> Exchange:
        """How calls are made, of requests as httpx's client builds them."""

        def build(call: Call[Any]) -> httpx.Request:
            return build_request(
                call.method, call.path, params=call.query or None, content=call.body, headers=_headers(call)
            )

        return Exchange(build, self.clock, self.max_retries, max_wait_s=self.max_wait_s)


def _set_up(base_url: str, options: Options) -> _Setup:
    clock = options.get("clock", SYSTEM)
    timeout_s = options.get("timeout_s", 30.0)
    max_retries = options.get("max_retries", 4)
    max_wait_s = options.get("max_wait_s", 30.0)
    if timeout_s <= 0:
        raise InvalidInput("/timeout_s", str(timeout_s), "seconds, more than 0")
    if max_retries < 0:
        raise InvalidInput("/max_retries", str(max_retries), "a whole number, 0 for no retry")
    if max_wait_s < 0:
        raise InvalidInput("/max_wait_s", str(max_wait_s), "seconds, 0 or more")
    http: dict[str, Any] = {
        "base_url": _checked_url(base_url),
        "auth": _auth(options, clock),
        "timeout": timeout_s,
        "verify": options.get("verify", True),
        "headers": {
            "user-agent": f"dispatcher-client httpx/{httpx.__version__}",
            "accept": "application/json, application/problem+json, text/plain;q=0.5",
            "accept-encoding": "identity",
        },
    }
    return _Setup(http, clock, timeout_s, max_retries, max_wait_s)


def _checked_url(text: str) -> httpx.URL:
    allowed = "https://host or http://host, with a port and a path if need be"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidInput("/base_url", "an invalid URL", allowed) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidInput("/base_url", repr(str(url.copy_with(username=None, password=None)))[:80], allowed)
    if url.userinfo or url.query or url.fragment:
        raise InvalidInput("/base_url", "a user, a query or a fragment in the URL", allowed)
    return url


def _auth(options: Options, clock: Clock) -> httpx.Auth:
    api_key, key_id, secret = (options.get(name) for name in ("api_key", "api_key_id", "signing_secret"))
    match api_key, key_id, secret:
        case str(), None, None:
            return BearerAuth(api_key)
        case None, str(), str():
            return HmacAuth(key_id, secret, clock=clock)
        case None, None, None:
            return httpx.Auth()  # some operations need none
    raise InvalidInput("/api_key", "parts of two ways to call", "api_key; or api_key_id and signing_secret")


def _headers(call: Call[Any]) -> dict[str, str]:
    headers = {} if call.body is None else {"content-type": "application/json"}
    if call.method == "POST" and not call.has_key_in_body:
        key = call.idempotency_key
        if key is not None and not is_header(key):
            raise InvalidInput("/idempotency_key", repr(key)[:80], "printable ASCII characters")
        headers["idempotency-key"] = key or str(uuid7())
    return headers


def _from_environment(environ: Mapping[str, str], options: Options) -> tuple[str, Options]:
    url = environ.get(API_URL, "")
    if not url:
        raise ConfigurationError([Problem(API_URL, "", "nothing", "the URL of an API, such as https://host")])
    named = options.copy()
    if not {"api_key", "api_key_id", "signing_secret"} & options.keys():
        named["api_key"] = environ.get(API_KEY) or None
    try:
        _set_up(url, named)
    except InvalidInput as error:
        variable = {"/base_url": API_URL, "/api_key": API_KEY}.get(error.pointer, error.pointer)
        raise ConfigurationError([Problem(variable, "", error.found, error.allowed)]) from error
    return url, named
