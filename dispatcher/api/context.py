"""What every route needs: the caller, transactions, pages, and answers that a repeat gets again."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Header, Query, Request, Response
from pydantic import AfterValidator

from dispatcher import telemetry
from dispatcher.api.strict import check_query
from dispatcher.api.traffic import Traffic
from dispatcher.errors import Forbidden, IdempotencyConflict, InvalidInput, NotFound, Unavailable
from dispatcher.flow.ping import Ping
from dispatcher.ids import DEFAULT_TENANT, parse_id
from dispatcher.model.access import Scope
from dispatcher.shapes.values import ReadInstant
from dispatcher.store import idempotency, limits, metrics
from dispatcher.wiring import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.api.authenticate import Identity
    from dispatcher.api.command_line import CommandLine
    from dispatcher.api.ingest import Ingest
    from dispatcher.api.key_lookup import KeyLookup
    from dispatcher.clock import Clock
    from dispatcher.config import Settings
    from dispatcher.flow.register import Register
    from dispatcher.model.profile import Profile
    from dispatcher.signing import Keyring
    from dispatcher.store.metrics import Figures
    from dispatcher.wakeup import Wakeup

_log = logging.getLogger(__name__)

T = TypeVar("T")

NOBODY: Final = UUID(int=0)
"""Whose the idempotency keys of operators are."""

KEY_LIFETIME_S: Final = 24 * 3600.0
"""How long an idempotency key is remembered."""


FIGURES_S: Final = 1.0

STALLED_S: Final = 20.0
"""How long a caller waits for the database: longer than any statement runs (`dispatcher.wiring.api_engine`)."""


@dataclass(frozen=True)
class Context:
    """The application's parts, made once. `traffic` counts what this process answered.

    Events have connections of their own, `ingest_engine`, and so has the look-up of keys, `lookups`: whatever holds
    up the statements of `engine`, such as a locked table, holds up neither. `command_line` recognises the commands of
    this machine; None where `up` did not start this process.
    """

    settings: Settings
    engine: AsyncEngine
    ingest_engine: AsyncEngine
    lookups: AsyncEngine
    keyring: Keyring
    clock: Clock
    profiles: Mapping[str, Profile]
    register: Register
    transport: httpx.AsyncBaseTransport
    wakeup: Wakeup
    traffic: Traffic = field(default_factory=Traffic)
    _figures: tuple[float, asyncio.Future[Figures]] | None = None
    command_line: CommandLine | None = None

    async def transaction(
        self, work: Callable[[Connection], T], *, engine: AsyncEngine | None = None, within_s: float | None = None
    ) -> T:
        """Runs `work` in one transaction: committed when this returns, rolled back when it raises.

        Raises Unavailable where the database has not answered within `within_s`, by default STALLED_S. Nothing can
        interrupt a statement whose server stands still, so the transaction is left to end by itself, one way or the
        other.
        """
        running = asyncio.ensure_future(_transaction(engine or self.engine, work))
        try:
            done, _ = await asyncio.wait({running}, timeout=STALLED_S if within_s is None else within_s)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if not done:
            running.add_done_callback(_ended_late)
            raise Unavailable("the database does not answer; repeat the request with its idempotency key")
        return running.result()

    async def search(
        self, work: Callable[[Connection], T], *, pointer: str = "/limit", narrow: str = limits.NARROW
    ) -> T:
        """Runs `work`, which reads what a caller has chosen, in a transaction whose statements are limited in time.

        Raises InvalidInput with the code SEARCH_TOO_BROAD for one that takes longer; `pointer` and `narrow` say what
        the caller can do about it.
        """

        def limited(connection: Connection) -> T:
            with limits.limited(connection, pointer=pointer, narrow=narrow):
                return work(connection)

        return await self.transaction(limited)

    @cached_property
    def ingest(self) -> Ingest:
        """Accepts events, those that come at once in one commit."""
        from dispatcher.api.ingest import Ingest  # noqa: PLC0415 - it needs this module

        return Ingest(self)

    async def figures(self) -> Figures:
        """How the system stands. All who ask within a second share one reading: anybody may ask."""
        now_s = time.monotonic()
        if self._figures is None or (self._figures[1].done() and now_s - self._figures[0] >= FIGURES_S):
            reading = asyncio.ensure_future(self.transaction(metrics.read))
            object.__setattr__(self, "_figures", (now_s, reading))
        assert self._figures is not None
        return await asyncio.shield(self._figures[1])

    @cached_property
    def keys(self) -> KeyLookup:
        """Finds callers by their keys, those of many requests at once."""
        from dispatcher.api.key_lookup import KeyLookup  # noqa: PLC0415 - it needs this module

        return KeyLookup(self)

    @cached_property
    def ping(self) -> Ping:
        """Asks URLs whether anybody answers there; counts how often."""
        return Ping(self.transport, self.keyring, self.profiles, self.clock, USER_AGENT, self.settings.allow_networks)


async def _transaction(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


def _ended_late(running: asyncio.Future[Any]) -> None:
    """Logs what became of a transaction whose caller has been answered."""
    error = None if running.cancelled() else running.exception()
    _log.warning("api.ended_late error=%s", "none" if error is None else telemetry.one_line(error))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: `tenant_id` None is an operator; `key_id` None is somebody on this machine."""

    tenant_id: UUID | None
    scopes: frozenset[Scope]
    actor: str
    key_id: UUID | None = None

    @property
    def is_operator(self) -> bool:
        """Whether every tenant is theirs to see."""
        return self.tenant_id is None

    def may(self, scope: Scope) -> bool:
        """Whether their key has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def tenant(self, asked: str | None) -> UUID:
        """The tenant to act for: the caller's own or, for an operator, the one asked for or the default one.

        Raises NotFound where a tenant's key asks for another tenant.
        """
        wanted = None if asked is None else parse_id("ten", asked, pointer="/tenant_id")
        if self.tenant_id is None:
            return wanted or DEFAULT_TENANT
        if wanted not in (None, self.tenant_id):
            raise NotFound("there is no such tenant")
        return self.tenant_id

    def scope(self, asked: str | None) -> UUID | None:
        """The tenant that a search is limited to; None, for an operator who asks for none, means all."""
        return None if self.tenant_id is None and asked is None else self.tenant(asked)


async def context(request: Request) -> Context:
    """The application's parts."""
    found: Context = request.app.state.context
    return found


async def caller(request: Request) -> Caller:
    """Who calls: `Gate` has found out."""
    found: Identity = request.scope["dispatcher.caller"]
    return Caller(found.tenant_id, found.scopes, found.actor, None if found.key is None else found.key.id)


async def any_caller(request: Request) -> Caller:
    """A caller with any valid key."""
    found = await caller(request)
    check_query(request)
    return found


def needs(*scopes: Scope) -> Any:
    """A caller whose key has one of the scopes. Raises Forbidden."""

    async def check(request: Request) -> Caller:
        found = await caller(request)
        if not any(found.may(scope) for scope in scopes):
            allowed = " or ".join(dict.fromkeys((*scopes, Scope.ADMIN)))
            raise Forbidden(f"this key may do {', '.join(sorted(found.scopes))}; allowed: {allowed}")
        check_query(request)
        return found

    return Depends(check)


async def operator(request: Request) -> Caller:
    """An operator who may do everything. Raises Forbidden."""
    found = await caller(request)
    if not found.is_operator or not found.may(Scope.ADMIN):
        raise Forbidden("this is for operators' keys with the scope admin")
    check_query(request)
    return found


ContextOf = Annotated[Context, Depends(context)]
CallerOf = Annotated[Caller, Depends(any_caller)]
"""Any valid key."""
EventWriter = Annotated[Caller, needs(Scope.EVENTS_WRITE)]
EndpointWriter = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE)]
Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
EventReader = Annotated[Caller, needs(Scope.DELIVERIES_READ, Scope.EVENTS_WRITE)]
EndpointReader = Annotated[Caller, needs(Scope.DELIVERIES_READ, Scope.ENDPOINTS_WRITE)]
Replayer = Annotated[Caller, needs(Scope.DELIVERIES_REPLAY)]
Admin = Annotated[Caller, needs(Scope.ADMIN)]
Operator = Annotated[Caller, Depends(operator)]


def _tenant_id(text: str | None) -> str | None:
    if text is not None:
        parse_id("ten", text, pointer="tenant_id")
    return text


TenantId = Annotated[
    str | None,
    AfterValidator(_tenant_id),  # looked at even where the body names the tenant
    Query(description="The tenant to act for. Operators name it; a tenant's key may only name its own."),
]
Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the page before.",
        examples=["AZytzj9AfB6dK19qe4ydDg"],
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"},
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.", examples=[50])]


InstantParameter = Annotated[datetime, ReadInstant()]
"""An instant in a query, in RFC 3339."""

CreatedAfter = Annotated[
    InstantParameter | None, Query(description="Only those made then or later.", examples=["2026-03-02T09:00:00Z"])
]
CreatedBefore = Annotated[
    InstantParameter | None, Query(description="Only those made before.", examples=["2026-03-09T09:00:00Z"])
]


# Answers


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; times are RFC 3339 in UTC."""
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), status, headers=headers, media_type="application/json")


def read_cursor(cursor: str | None) -> UUID | None:
    """The id after which a page starts. Raises InvalidInput for a cursor that was not ours."""
    if cursor is None:
        return None
    try:
        found = UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
        if write_cursor(found) != cursor:  # base64 has several spellings
            raise ValueError(cursor)
    except (ValueError, binascii.Error) as error:
        raise InvalidInput("cursor", repr(cursor)[:80], "a next_cursor of an earlier page") from error
    return found


def write_cursor(last: UUID) -> str:
    """The cursor of a page that starts after this id."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def page(found: list[Any], limit: int, form: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """A page of at most `limit` of the objects found; one more was asked for, to know whether there are more."""
    more = len(found) > limit
    cursor = write_cursor(found[limit - 1].id) if more else None
    return {"data": [form(one) for one in found[:limit]], "has_more": more, "next_cursor": cursor}


def whole(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All there is, in the form of a page."""
    return {"data": found, "has_more": False, "next_cursor": None}


# Repeats


@dataclass(frozen=True, slots=True)
class Once:
    """A POST that may be repeated: the same Idempotency-Key and the same request get the first answer again.

    What is secret in an answer is told the first time only.
    """

    context: Context
    owner: UUID
    key: str | None
    request_sha256: bytes

    async def recall(self) -> Response | None:
        """The first answer, before anything is done that a transaction cannot take back. Raises IdempotencyConflict."""
        return None if self.key is None else await self.context.transaction(self._recall)

    async def run(
        self, work: Callable[[Connection], Mapping[str, Any]], *, status: int = 200, secret: tuple[str, ...] = ()
    ) -> Response:
        """Does `work` in one transaction with the note of its answer; `secret` names the fields that are told once.

        Raises what `work` raises, which leaves the key free, and IdempotencyConflict.
        """
        return await self.context.transaction(lambda connection: self._run(connection, work, status, secret))

    def _run(
        self,
        connection: Connection,
        work: Callable[[Connection], Mapping[str, Any]],
        status: int,
        secret: tuple[str, ...],
    ) -> Response:
        if self.key is not None:
            idempotency.lock(connection, self.owner, self.key)
            if (before := self._recall(connection)) is not None:
                return before
        body = work(connection)
        if self.key is not None:
            kept = _without(body, secret)
            text = orjson.dumps(kept, option=orjson.OPT_UTC_Z).decode()
            answered = idempotency.Answered(self.request_sha256, status, text)
            idempotency.remember(connection, self.owner, self.key, answered, lifetime_s=KEY_LIFETIME_S)
        return reply(body, status)

    def _recall(self, connection: Connection) -> Response | None:
        assert self.key is not None
        found = idempotency.recall(connection, self.owner, self.key)
        if found is None:
            return None
        if found.request_sha256 != self.request_sha256:
            raise IdempotencyConflict(f"the key {self.key!r} was already used with a different request")
        headers = {"idempotency-replayed": "true"}
        return Response(found.body, found.status, headers=headers, media_type="application/json")


def _without(body: Any, secret: tuple[str, ...]) -> Any:
    """The same answer without the fields that are secret, at any depth."""
    if isinstance(body, dict):
        return {name: _without(value, secret) for name, value in body.items() if name not in secret}
    if isinstance(body, list):
        return [_without(value, secret) for value in body]
    return body


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A repeat with the same key and the same request gets the first answer, for 24 hours; "
        "with another request it is refused.",
        examples=["order-8127-paid"],
    ),
]


async def once(request: Request, idempotency_key: IdempotencyKey = None) -> Once:
    """How a POST is done once. Raises InvalidInput for a key that cannot be kept."""
    if idempotency_key is not None and not idempotency_key.isprintable():
        raise InvalidInput("idempotency-key", repr(idempotency_key)[:80], "1 to 255 printable characters")
    who = await caller(request)
    asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + await request.body()
    return Once(await context(request), who.tenant_id or NOBODY, idempotency_key, sha256(asked).digest())


OnceOf = Annotated[Once, Depends(once)]
