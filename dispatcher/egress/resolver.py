"""Names to addresses, bounded in time and number.

`getaddrinfo` in the loop's default executor is a head-of-line block: a few dead names fill its threads, and every
other look-up waits behind them. c-ares asks all of them at once; it reads /etc/hosts as the system does.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import aiodns
import pycares

from dispatcher.egress.addresses import plain_address
from dispatcher.egress.failures import AttemptFailure, DnsFailure, DnsTimeout, LocalFailure
from dispatcher.model.outcome import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ANSWERS = 64  # more addresses than this under one name is an attack or a mistake
_ALL_NAMES = 8  # so many different names in a row that time out are our resolver's failure, not theirs

# Failures of c-ares, or of the servers that it asks for us, which say nothing about the name.
_OURS = frozenset(
    {
        pycares.errno.ARES_ECONNREFUSED,
        pycares.errno.ARES_ENOMEM,
        pycares.errno.ARES_EFILE,
        pycares.errno.ARES_ENOTINITIALIZED,
        pycares.errno.ARES_EDESTRUCTION,
        pycares.errno.ARES_ECANCELLED,
    }
)


class Resolver(Protocol):
    """Turns a name into addresses; a test may supply one that leads every name to loopback."""

    def cached(self, host: str) -> tuple[str, ...] | None:
        """Return the addresses if they are at hand and fresh, else None."""
        ...

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return at least one address, each as its shortest text; raises DnsFailure or LocalFailure."""
        ...

    async def aclose(self) -> None:
        """Give back sockets and threads."""
        ...


@dataclass(frozen=True, slots=True)
class _Fresh:
    addresses: tuple[str, ...]
    until: float


class DnsResolver:
    """A and AAAA look-ups by c-ares, with one look-up per name at a time.

    `timeout_s` bounds a look-up, in seconds; answers are kept for their TTL, at least 1 s and at most `ttl_s`;
    `max_names` bounds the cache, `max_lookups` the look-ups under way. Failures are not kept. `nameservers` are
    addresses, with an optional ":port"; by default the system's.
    """

    def __init__(
        self,
        *,
        nameservers: Sequence[str] | None = None,
        timeout_s: float = 3.0,
        ttl_s: float = 30.0,
        max_names: int = 4_096,
        max_lookups: int = 256,
    ) -> None:
        self._nameservers = nameservers
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._max_names = max_names
        self._max_lookups = max_lookups
        self._fresh: dict[str, _Fresh] = {}
        self._under_way: dict[str, asyncio.Task[tuple[str, ...] | AttemptFailure]] = {}
        self._timed_out: set[str] = set()
        self._dns: aiodns.DNSResolver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def cached(self, host: str) -> tuple[str, ...] | None:
        """Return the addresses if they are at hand and fresh, else None."""
        fresh = self._fresh.get(host)
        if fresh is None or self._loop is None or self._loop.time() >= fresh.until:
            return None
        return fresh.addresses

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Look `host` up; raises DnsFailure, or LocalFailure where the fault is our resolver's."""
        addresses = self.cached(host)
        if addresses is not None:
            return addresses
        look_up = self._under_way.get(host)
        if look_up is None:
            if len(self._under_way) >= self._max_lookups:
                raise LocalFailure(f"{self._max_lookups} look-ups are under way already", phase=Phase.DNS)
            look_up = asyncio.create_task(self._look_up(host), name=f"look up {host}")
            self._under_way[host] = look_up
            look_up.add_done_callback(lambda _: self._under_way.pop(host, None))
        # Shielded: whoever gives up must not end the look-up that others wait for.
        result = await asyncio.shield(look_up)
        if isinstance(result, AttemptFailure):
            raise _again(result)
        return result

    async def _look_up(self, host: str) -> tuple[str, ...] | AttemptFailure:
        loop = asyncio.get_running_loop()
        if self._dns is None:
            self._loop = loop
            # No search list: a name is what was registered, never that name below a domain of ours.
            self._dns = aiodns.DNSResolver(
                loop=loop,
                nameservers=self._nameservers,
                timeout=max(0.05, self._timeout_s / 3),
                tries=2,
                flags=pycares.ARES_FLAG_NOSEARCH,
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._dns.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except TimeoutError:
            return self._no_answer(host)
        except aiodns.error.DNSError as error:
            code, text = error.args[0], error.args[1]
            if code == pycares.errno.ARES_ETIMEOUT:
                return self._no_answer(host)
            if code in _OURS:
                return LocalFailure(f"our resolver failed: {text}", phase=Phase.DNS)
            self._timed_out.clear()
            return DnsFailure(f"{host} cannot be resolved: {text}")
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "an error")
            return LocalFailure(f"our resolver failed: {name}", phase=Phase.DNS)
        self._timed_out.clear()
        addresses = tuple(dict.fromkeys(str(plain_address(node.addr[0].decode("ascii"))) for node in found.nodes))
        if not addresses:
            return DnsFailure(f"{host} has no address")
        if len(addresses) > MAX_ANSWERS:
            return DnsFailure(f"{host} has {len(addresses)} addresses; at most {MAX_ANSWERS} are accepted")
        ttl_s = min(max(1.0, float(min(node.ttl for node in found.nodes))), self._ttl_s)
        if len(self._fresh) >= self._max_names:
            self._fresh.clear()
        self._fresh[host] = _Fresh(addresses, loop.time() + ttl_s)
        return addresses

    def _no_answer(self, host: str) -> AttemptFailure:
        self._timed_out.add(host)
        if len(self._timed_out) >= _ALL_NAMES:
            return LocalFailure("our resolver has not answered for any name lately", phase=Phase.DNS)
        return DnsTimeout(f"the look-up of {host} took longer than {self._timeout_s:g} s")

    async def aclose(self) -> None:
        """End look-ups under way and c-ares' thread."""
        for look_up in list(self._under_way.values()):
            look_up.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        if self._dns is not None:
            await self._dns.close()
            self._dns = None


def _again(failure: AttemptFailure) -> AttemptFailure:
    """Return a copy: one exception raised to several waiters would gather all their tracebacks."""
    if isinstance(failure, DnsFailure):
        return type(failure)(str(failure))
    return LocalFailure(str(failure), phase=failure.phase)
