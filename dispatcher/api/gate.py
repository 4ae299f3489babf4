"""What every request passes before the application sees it: a number, a bound, a caller, a rate.

One ASGI middleware rather than several: it stands on the path of every event that is accepted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.requests import Request

from dispatcher.api import problems
from dispatcher.api.authenticate import Identity, by_bearer, by_signature, local, of_key
from dispatcher.errors import TooMany
from dispatcher.ids import uuid7
from dispatcher.model.event import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dispatcher.api.context import Context
    from dispatcher.store.tenants import ApiKey

MAX_BODY_BYTES: Final = MAX_PAYLOAD_BYTES + 16 * 1024
"""Of a request: the payload's limit, and room for the fields around it."""

MAX_BULK_BYTES: Final = 16 * 1024 * 1024
"""Of a request that carries many objects."""

BULK_PATHS: Final = frozenset({"/v1/events/batch", "/v1/endpoints/import"})

PUBLIC_PATHS: Final = frozenset({"/v1/public_keys"})
"""Below /v1, and answered to everybody."""

INGEST_PATHS: Final = frozenset({"/v1/events", "/v1/events/batch"})
"""Where a POST's key, once known, is not looked up by itself again: `Ingest` does so, for many requests at once, in the
transaction that accepts their events. A key that was revoked meanwhile accepts nothing."""

KEYS: Final = 10_000
"""How many keys are remembered for that."""


class Gate:
    """Numbers the request, bounds its body, refuses what is no JSON, finds the caller, and counts their requests.

    The caller is put in `scope["dispatcher.caller"]`. A scope that came with `dispatcher.actor` came from this
    machine and not from a server: it is an operator's.
    """

    def __init__(self, app: ASGIApp, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._keys: dict[str, Identity] = {}
        self._buckets: dict[UUID, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        limit = MAX_BULK_BYTES if path in BULK_PATHS else MAX_BODY_BYTES
        body = _Body(receive, limit)
        number = f"req_{uuid7()}"
        scope["dispatcher.request_id"] = number

        is_head = scope["method"] == "HEAD"
        context: Context = scope["app"].state.context
        began_s = self._monotonic()

        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", number.encode()))
                context.traffic.count(scope, message["status"], self._monotonic() - began_s)
            elif is_head:
                message["body"] = b""
            await send(message)

        try:
            problems.check_length(scope, limit)
            if path.startswith("/v1/") and path not in PUBLIC_PATHS:
                scope["dispatcher.caller"] = identity = await self._identify(scope, body)
                if identity.key is not None and identity.key.rate_limit is not None:
                    self._count(identity.key, identity.key.rate_limit)
            problems.check_content_type(scope)
        except Exception as error:
            answer = problems.answer(Request(scope), error)
            if answer is None:
                raise
            await answer(scope, receive, numbered)
            return
        if is_head:  # what can be got can be asked for without its content; the server keeps its own scope
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, body, numbered)
        except Exception:  # a defect, which the server answers behind our back
            context.traffic.count(scope, 500, self._monotonic() - began_s)
            raise

    async def _identify(self, scope: Scope, body: _Body) -> Identity:
        if (actor := scope.get("dispatcher.actor")) is not None:
            return local(actor)
        context: Context = scope["app"].state.context
        headers = Request(scope).headers
        if "x-api-key" in headers and "authorization" not in headers:
            content = await body.whole()
            target = _target(scope)
            key = await context.transaction(
                lambda connection: by_signature(
                    connection,
                    headers,
                    method=scope["method"],
                    target=target,
                    body=content,
                    keyring=context.keyring,
                    clock=context.clock,
                )
            )
            return of_key(key)
        authorization = headers.get("authorization", "")
        if scope["method"] == "POST" and scope["path"] in INGEST_PATHS and authorization in self._keys:
            return self._keys[authorization]
        self._keys.pop(authorization, None)
        key = await context.transaction(lambda connection: by_bearer(connection, authorization))
        if len(self._keys) >= KEYS:
            self._keys.clear()
        self._keys[authorization] = identity = of_key(key)
        return identity

    def _count(self, key: ApiKey, rate: float) -> None:
        """Takes a token from the key's bucket, which holds what a second brings. Raises TooMany."""
        now_s = self._monotonic()
        most = max(1.0, rate)
        tokens, at_s = self._buckets.get(key.id, (most, now_s))
        tokens = min(most, tokens + (now_s - at_s) * rate)
        if tokens < 1:
            self._buckets[key.id] = (tokens, now_s)
            wait_s = max(1, -int(-(1 - tokens) // rate))
            raise TooMany(
                f"found more than {rate:g} requests a second by this key; allowed: {rate:g}", retry_after_s=wait_s
            )
        self._buckets[key.id] = (tokens - 1, now_s)


class _Body:
    """The request's messages, bounded: more than `limit` bytes raise a 413, whoever reads them."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._bytes = 0
        self._read: bytes | None = None

    async def __call__(self) -> Message:
        if self._read is not None:
            body, self._read = self._read, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limit:
            raise problems.too_large(self._limit)
        return message

    async def whole(self) -> bytes:
        """All of it, which the application can still read after."""
        parts, more = [], True
        while more:
            message = await self()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._read = b"".join(parts)
        return self._read


def _target(scope: Scope) -> str:
    """Path and query as the client wrote them, or as near as the server tells."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope.get("query_string", b"")
    path = raw.partition(b"?")[0]
    return (path + (b"?" + query if query else b"")).decode("latin-1")
