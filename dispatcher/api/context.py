"""The application's parts, which every route gets: settings, connections, keys, and transactions."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import orjson
from fastapi import Depends, Request, Response

from dispatcher import telemetry
from dispatcher.api.ingest import Ingest
from dispatcher.api.key_lookup import KeyLookup
from dispatcher.api.traffic import Traffic
from dispatcher.egress import PinnedTransport
from dispatcher.errors import Unavailable
from dispatcher.flow.ping import Ping
from dispatcher.flow.requests import Requests
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.store import limits, metrics
from dispatcher.wiring import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.api.command_line import CommandLine
    from dispatcher.clock import Clock
    from dispatcher.config import Settings
    from dispatcher.flow.register import Register
    from dispatcher.model.profile import Profile
    from dispatcher.signing import Keyring
    from dispatcher.store.metrics import Figures
    from dispatcher.wakeup import Wakeup

_log = logging.getLogger(__name__)

T = TypeVar("T")


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
        return KeyLookup(self)

    async def warnings_of_address(self, url: str, *, is_operator: bool) -> list[str]:
        """What to say at its registration of a URL whose host leads, at this moment, to an address that we do not dial.

        Looks up only where the operator has allowed networks that are not public: elsewhere such a name is a mistake of
        its owner that the first delivery tells. Only an operator learns the address. Its tenant learns that it is
        refused, as from the outcome of each delivery. Takes as long as a look-up may. One without an answer warns of
        nothing.
        """
        if not self.settings.allow_networks or not isinstance(self.transport, PinnedTransport):
            return []
        refusal = await self.transport.refusal(url)
        if refusal is None:
            return []
        if is_operator:
            return [f"{refusal}: {refusal.address}; DISPATCHER_ALLOW_NETWORKS says which networks may be"]
        return [str(refusal)]

    @cached_property
    def ping(self) -> Ping:
        """Asks URLs whether anybody answers there; counts how often."""
        requests = Requests(self.keyring, self.profiles, PlatformKeys, USER_AGENT, self.settings.allow_networks)
        return Ping(self.transport, requests, self.clock)


async def _transaction(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


def _ended_late(running: asyncio.Future[Any]) -> None:
    """Logs what became of a transaction whose caller has been answered."""
    error = None if running.cancelled() else running.exception()
    committed = not running.cancelled() and error is None
    telemetry.log(_log, logging.WARNING, "api.ended_late", committed=committed, error=error)


async def context(request: Request) -> Context:
    """The application's parts."""
    found: Context = request.app.state.context
    return found


ContextOf = Annotated[Context, Depends(context)]


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; times are RFC 3339 in UTC."""
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), status, headers=headers, media_type="application/json")
