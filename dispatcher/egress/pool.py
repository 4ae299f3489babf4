"""The connections that are open, and which of them wait for another request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dispatcher.egress.failures import LocalFailure

if TYPE_CHECKING:
    from collections.abc import Collection

    from dispatcher.egress.connection import Connection
    from dispatcher.egress.url import TargetUrl

_DISTRUST_S = 300.0  # how long an origin that broke its keep-alive gets one request per connection
_DISTRUSTED = 1_024  # origins
_CLOSING_S = 2.0  # how long aclose() waits for the loop to say that a connection is gone


class Pool:
    """Kept connections per (scheme, host, port), the newest first, each with its address.

    `max_connections` bounds the open ones, `max_idle` the waiting ones, `max_idle_per_origin` those of one origin;
    what waits longer than `idle_s` seconds, or longer than the receiver's own Keep-Alive allows, is closed.

    Some receivers announce keep-alive and close all the same. A request that met the close has an unknown outcome,
    and may have to be repeated; so such an origin's connections are not kept for the next 5 minutes.
    """

    def __init__(
        self,
        *,
        max_connections: int = 4_096,
        max_idle: int = 1_024,
        max_idle_per_origin: int = 512,
        idle_s: float = 15.0,
    ) -> None:
        self.max_connections = max_connections
        self.max_idle = max_idle
        self.max_idle_per_origin = max_idle_per_origin
        self.idle_s = idle_s
        self._open: set[Connection] = set()
        self._dialling = 0
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._idle_order: dict[Connection, None] = {}  # oldest first
        self._distrusted: dict[tuple[str, str, int], float] = {}  # until when, in the loop's time
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def open_count(self) -> int:
        """How many connections are open, those being dialled included."""
        return len(self._open) + self._dialling

    @property
    def idle_count(self) -> int:
        """How many of them wait for a request."""
        return len(self._idle_order)

    def take(self, target: TargetUrl, addresses: Collection[str], now: float) -> Connection | None:
        """Return a kept connection to one of `addresses` that no request uses, None if there is none.

        A connection whose address has left the name's answer is passed over, and closed when its time is up.
        """
        kept = self._idle.get(target.origin)
        if not kept:
            return None
        for index in range(len(kept) - 1, -1, -1):
            connection = kept[index]
            if connection.peer_ip in addresses:
                del kept[index]
                del self._idle_order[connection]
                if connection.is_reusable(now):
                    return connection
                connection.abort()
        return None

    def reserve(self) -> None:
        """Make room for one more connection, which `adopt` or `release` follows; raises LocalFailure if full."""
        if self._closed:
            raise LocalFailure("the transport is closed", phase=None)
        if self.open_count >= self.max_connections:
            oldest = next(iter(self._idle_order), None)
            if oldest is None:
                raise LocalFailure(f"all {self.max_connections} connections are in use", phase=None)
            self._discard(oldest)
        self._dialling += 1

    def release(self) -> None:
        """Give back what `reserve` took: the dial has failed."""
        self._dialling -= 1

    def adopt(self, connection: Connection) -> None:
        """Count `connection` as open: the dial that `reserve` announced has succeeded."""
        self._dialling -= 1
        self._open.add(connection)
        if self._closed:
            connection.abort()

    def keep(self, connection: Connection) -> None:
        """Keep `connection` for another request; the oldest one goes if that is too many."""
        if self._closed or connection.idle_s <= 0 or (self._distrusted and self._is_distrusted(connection)):
            connection.abort()
            return
        kept = self._idle.get(connection.origin)
        if kept is not None and len(kept) >= self.max_idle_per_origin:
            self._discard(kept[0])
        elif len(self._idle_order) >= self.max_idle:
            self._discard(next(iter(self._idle_order)))
        self._idle.setdefault(connection.origin, []).append(connection)
        self._idle_order[connection] = None
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self.idle_s, self._sweep)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is gone."""
        self._open.discard(connection)
        if connection in self._idle_order:
            self._discard(connection)
        if connection.broke_keep_alive:
            if len(self._distrusted) >= _DISTRUSTED:
                self._distrusted.clear()
            self._distrusted[connection.origin] = asyncio.get_running_loop().time() + _DISTRUST_S
        if not self._open and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _is_distrusted(self, connection: Connection) -> bool:
        until = self._distrusted.get(connection.origin)
        if until is not None and asyncio.get_running_loop().time() >= until:
            del self._distrusted[connection.origin]
            return False
        return until is not None

    def _discard(self, connection: Connection) -> None:
        del self._idle_order[connection]
        kept = self._idle[connection.origin]
        kept.remove(connection)
        if not kept:
            del self._idle[connection.origin]
        # Aborted ones leave `_open` in the loop's next turn; `reserve` may count one of them for that long.
        self._open.discard(connection)
        connection.abort()

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._idle_order):
            if not connection.is_reusable(now):
                self._discard(connection)
        for origin in [origin for origin, kept in self._idle.items() if not kept]:
            del self._idle[origin]
        if self._idle_order:
            self._sweeper = loop.call_later(min(self.idle_s, 5.0), self._sweep)

    async def aclose(self) -> None:
        """Close every connection, those with a request in flight too, and wait until they are gone."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        closing = set(self._open)
        self._idle.clear()
        self._idle_order.clear()
        if not closing:
            await asyncio.sleep(0)
            return
        self._emptied = asyncio.get_running_loop().create_future()
        for connection in closing:
            connection.abort()
        await asyncio.wait([self._emptied], timeout=_CLOSING_S)
        await asyncio.sleep(0)  # the loop closes the socket after it has told us
