"""What every request passes before the application sees it: a number, a caller, a rate, a bound.

One ASGI middleware rather than several: it stands on the path of every event that is accepted. The order matters:
nothing of a body is read before its caller is known, and only callers who are known may send the large ones.
"""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect, Request

from dispatcher.api import problems
from dispatcher.api.authenticate import Identity, SignedHeaders, bearer, local, of_key, unknown_key
from dispatcher.errors import TooMany
from dispatcher.ids import uuid7
from dispatcher.model.bucket import Bucket, take
from dispatcher.model.event import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dispatcher.api.connections import Connection
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
transaction that accepts their events. A key that was revoked meanwhile accepts nothing, and where the request is
refused for another reason, the key is looked up before the caller learns it."""

KEYS: Final = 10_000
"""How many keys are remembered for that."""


class Gate:
    """Numbers the request, finds the caller, bounds its body, refuses invalid JSON, and counts their requests.

    The caller is put in `scope["dispatcher.caller"]`. A scope that came with `dispatcher.actor` came from this
    machine and not from a server: it is an operator's.
    """

    def __init__(self, app: ASGIApp, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._keys: dict[str, Identity] = {}
        self._buckets: dict[UUID, Bucket] = {}

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
        connection: Connection | None = scope.get("dispatcher.connection")
        servers = scope
        began_s = self._monotonic()

        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", number.encode()))
                if not body.is_abandoned:
                    context.traffic.count(scope, message["status"], self._monotonic() - began_s)
                if connection is not None and connection.is_incomplete(servers):
                    message["headers"].append((b"connection", b"close"))
                    await send(message)
                    connection.keep_open()
                    return
            elif is_head:
                message["body"] = b""
            await send(message)

        remembered: str | None = None
        try:
            if path.startswith("/v1/") and path not in PUBLIC_PATHS:
                remembered = self._remembered(scope)
                identity = self._keys[remembered] if remembered is not None else await self._identify(scope, body)
                scope["dispatcher.caller"] = identity
                if identity.key is not None and identity.key.rate_limit is not None:
                    self._count(identity.key, identity.key.rate_limit)
            problems.check_length(scope, limit)
            problems.check_content_type(scope)
        except Exception as error:  # noqa: BLE001 - `_refuse` raises what is a defect
            if not body.is_abandoned:
                await self._refuse(scope, receive, numbered, error, remembered)
            return
        if is_head:  # what can be got can be asked for without its content
            scope = {**scope, "method": "GET"}
        answered = numbered if remembered is None else self._rechecked(scope, receive, numbered, remembered)
        try:
            await self._app(scope, body, answered)
        except ClientDisconnect:  # before its body was complete: there is nobody to answer
            return
        except Exception:  # a defect, which the server answers behind our back
            context.traffic.count(scope, 500, self._monotonic() - began_s)
            raise

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, error: Exception, remembered: str | None = None
    ) -> None:
        """Answers with a problem. Raises what is a defect of ours."""
        if remembered is not None and not await self._holds(scope, remembered):
            error = unknown_key()
        answer = problems.answer(Request(scope), error)
        if answer is None:
            raise error
        await answer(scope, receive, send)

    def _remembered(self, scope: Scope) -> str | None:
        """The Authorization header by which this caller's key was found before, where that is enough."""
        if scope["method"] != "POST" or scope["path"] not in INGEST_PATHS or "dispatcher.actor" in scope:
            return None
        authorization = Request(scope).headers.get("authorization", "")
        return authorization if authorization in self._keys else None

    async def _holds(self, scope: Scope, authorization: str) -> bool:
        """Whether a key that was remembered has not been revoked meanwhile."""
        context: Context = scope["app"].state.context
        if await context.keys.find(bearer(authorization)) is not None:
            return True
        self._keys.pop(authorization, None)
        return False

    def _rechecked(self, scope: Scope, receive: Receive, send: Send, authorization: str) -> Send:
        """Sends an answer, but one that refuses the request only if the key still holds: otherwise it is a 401."""
        is_replaced = False

        async def rechecked(message: Message) -> None:
            nonlocal is_replaced
            if is_replaced:
                return
            if message["type"] == "http.response.start" and 400 <= message["status"] < 500:
                try:
                    is_replaced = not await self._holds(scope, authorization)
                except Exception as error:  # noqa: BLE001 - it is answered, or raised if it is a defect
                    is_replaced = True
                    await self._refuse(scope, receive, send, error)
                    return
                if is_replaced:
                    await self._refuse(scope, receive, send, unknown_key())
                    return
            await send(message)

        return rechecked

    async def _identify(self, scope: Scope, body: _Body) -> Identity:
        if (actor := scope.get("dispatcher.actor")) is not None:
            return local(actor)
        context: Context = scope["app"].state.context
        headers = Request(scope).headers
        if context.command_line is not None and (operator := context.command_line.identify(headers)) is not None:
            return operator
        if "x-api-key" in headers and "authorization" not in headers:
            return await self._identify_signed(scope, body, SignedHeaders.read(headers, context.clock))
        authorization = headers.get("authorization", "")
        key = await context.keys.find(bearer(authorization))
        if key is None:
            self._keys.pop(authorization, None)
            raise unknown_key()
        if len(self._keys) >= KEYS:
            self._keys.clear()
        self._keys[authorization] = identity = of_key(key)
        return identity

    async def _identify_signed(self, scope: Scope, body: _Body, signed: SignedHeaders) -> Identity:
        """The holder of the key that signed this request. Nothing of the body is read for an unknown key."""
        context: Context = scope["app"].state.context
        key, secret = await context.transaction(
            lambda connection: signed.find_key(connection, context.keyring), engine=context.lookups
        )
        problems.check_length(scope, body.limit)
        content = await body.whole()
        signed.verify(secret, method=scope["method"], target=_target(scope), body=content)
        try:
            await context.transaction(signed.take, engine=context.lookups)
        except DBAPIError as error:
            # A copy of a request that only reads tells nobody more than its first answer did.
            if not problems.is_read_only(error) or scope["method"] not in ("GET", "HEAD"):
                raise
        context.keys.note(key)
        return of_key(key)

    def _count(self, key: ApiKey, rate: float) -> None:
        """Takes a token from the key's bucket, which holds what a second brings. Raises TooMany."""
        held = self._buckets.get(key.id)
        self._buckets[key.id], wait_s = take(held, self._monotonic(), rate=rate, most=max(1.0, rate))
        if wait_s > 0:
            raise TooMany(
                f"found more than {rate:g} requests a second by this key; allowed: {rate:g}",
                retry_after_s=max(1, ceil(wait_s)),
            )


class _Body:
    """The request's messages, bounded: more than `limit` bytes raise a 413, whoever reads them."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.limit = limit
        self.is_abandoned = False
        """Whether the client has left before its body was complete: nobody answers it, and it is not an error."""
        self._receive = receive
        self._is_complete = False
        self._bytes = 0
        self._read: bytes | None = None

    async def __call__(self) -> Message:
        if self._read is not None:
            body, self._read = self._read, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_abandoned = not self._is_complete
        self._is_complete = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self.limit:
            raise problems.too_large(self.limit)
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
