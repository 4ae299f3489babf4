"""One request to one checked address."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from dispatcher import telemetry
from dispatcher.egress.addresses import AddressPolicy, plain_address
from dispatcher.egress.authorities import default_ssl_context
from dispatcher.egress.connection import Connection
from dispatcher.egress.failures import (
    AttemptFailure,
    BlockedAddress,
    DeadlineExceeded,
    DialFailure,
    DnsFailure,
    DnsTimeout,
    InvalidRequest,
    LocalFailure,
    TlsFailure,
)
from dispatcher.egress.pool import Pool
from dispatcher.egress.request import PreparedRequest, encode_head
from dispatcher.egress.resolver import DnsResolver
from dispatcher.egress.tls import tls_failure
from dispatcher.egress.url import ANY_HOST, parse_url
from dispatcher.errors import InvalidInput
from dispatcher.model.outcome import Phase, Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dispatcher.egress.answer import Answer
    from dispatcher.egress.resolver import Resolver
    from dispatcher.egress.url import TargetUrl, UrlPolicy

DEADLINE_S = 15.0
DNS_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 5.0  # TLS included
BODY_BYTES = 16_384
_ADDRESSES_TRIED = 3
_TOLD = 10_000  # names and addresses that the operator has been told of

_log = logging.getLogger(__name__)

# Keys of `httpx.Request.extensions`, for a caller that comes through an httpx.AsyncClient.
DEADLINE_KEY = "dispatcher.deadline_s"
BODY_BYTES_KEY = "dispatcher.body_bytes"

# Not the receiver's doing: no file descriptor, no memory, no free local port.
_OUR_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


@lru_cache(maxsize=4_096)
def _literal(host: str) -> tuple[str, ...]:
    return (str(plain_address(host)),)


class PinnedTransport(httpx.AsyncBaseTransport):
    """Sends a request to exactly the address that was checked, once.

    It works inside any `httpx.AsyncClient`; `dispatcher.egress.send` calls `exchange`, which spares the httpx
    response. Redirects are not followed, environment proxies and httpx time-outs are not read, bodies are cut at
    `body_bytes` and never decompressed here. One instance belongs to one event loop.

    `deadline_s` is for requests that carry none of their own (DEADLINE_KEY). `on_dial` is called with address and
    port before each dial. `proxy` is reserved for a forward proxy and must be None.
    """

    def __init__(
        self,
        *,
        addresses: AddressPolicy | None = None,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        pool: Pool | None = None,
        url_policy: UrlPolicy = ANY_HOST,
        deadline_s: float = DEADLINE_S,
        dns_timeout_s: float = DNS_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        body_bytes: int = BODY_BYTES,
        on_dial: Callable[[str, int], None] | None = None,
        proxy: None = None,
    ) -> None:
        self.pool = pool or Pool()
        self._addresses = addresses or AddressPolicy()
        # A little less, so that it can say itself why it has no answer.
        self._resolver = resolver or DnsResolver(timeout_s=dns_timeout_s * 0.95)
        self._ssl_context = ssl_context
        self._url_policy = url_policy
        self._deadline_s = deadline_s
        self._dns_timeout_s = dns_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._body_bytes = body_bytes
        self._on_dial = on_dial
        self._proxy = proxy
        self._told: set[tuple[str, str]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` once; raises an AttemptFailure, which is an httpx.TransportError.

        The body is read before this returns. `extensions` hold peer_ip, body_end, http_version, reason_phrase,
        ttfb_ms, and for a new connection dns_ms, connect_ms, tls_ms.
        """
        await request.aread()
        extensions = request.extensions
        answer = await self.exchange(
            request,
            deadline_s=extensions.get(DEADLINE_KEY, self._deadline_s),
            body_bytes=extensions.get(BODY_BYTES_KEY, self._body_bytes),
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=httpx.ByteStream(answer.body),
            extensions={
                "http_version": answer.http_version,
                "reason_phrase": answer.reason,
                "peer_ip": answer.peer_ip,
                "body_end": answer.body_end,
                "ttfb_ms": answer.ttfb_ms,
                "dns_ms": answer.dns_ms,
                "connect_ms": answer.connect_ms,
                "tls_ms": answer.tls_ms,
            },
        )

    async def exchange(self, request: httpx.Request, *, deadline_s: float, body_bytes: int) -> Answer:
        """Send `request`, whose body has been read, within `deadline_s`; keep at most `body_bytes` of the answer."""
        target = request.checked_target if isinstance(request, PreparedRequest) else None
        if target is None:
            target = self._parse(request.url)
        body = request.content
        head = encode_head(request, target, len(body))
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        deadline = started_at + deadline_s
        resolved_at: float | None = None
        dialled: tuple[float, float, float | None] | None = None
        connection: Connection | None = None
        waiter: asyncio.Future[Answer] | None = None
        try:
            addresses = await self._resolve(target, deadline)
            connection = self.pool.take(target, addresses, started_at)
            if connection is None:
                resolved_at = loop.time()
                connection, connected_at, secured_at = await self._dial(target, addresses, deadline)
                dialled = (
                    (resolved_at - started_at) * 1_000,
                    (connected_at - resolved_at) * 1_000,
                    (secured_at - connected_at) * 1_000 if target.scheme == "https" else None,
                )
            waiter = connection.begin(
                head, body, deadline=deadline, body_limit=body_bytes, head_only=request.method == "HEAD"
            )
            answer = await waiter
        except AttemptFailure as failure:
            now = loop.time()
            if waiter is not None:  # so there is a connection
                waited_ms = connection.waited_s(now) * 1_000  # type: ignore[union-attr]
                failure.timings_ms = (*(dialled or (None, None, None)), waited_ms)
            elif connection is None:
                failure.timings_ms = _until_dialled(failure, started_at, resolved_at, now)
            elif dialled is not None:
                failure.timings_ms = (*dialled, None)
            raise
        except asyncio.CancelledError:
            if waiter is not None:
                connection.abort()  # type: ignore[union-attr]
            raise
        if dialled is not None:
            answer.dns_ms, answer.connect_ms, answer.tls_ms = dialled
        return answer

    async def refusal(self, url: str) -> BlockedAddress | None:
        """Why a look-up at this moment would have nothing dialled; None where it would, or where it has no answer.

        Takes as long as a look-up may, `dns_timeout_s`.
        """
        try:
            await self._resolve(parse_url(url, self._url_policy), math.inf)
        except BlockedAddress as error:
            return error
        except AttemptFailure:
            return None
        return None

    def _parse(self, url: httpx.URL) -> TargetUrl:
        try:
            return parse_url(str(url), self._url_policy)
        except InvalidInput as error:
            raise InvalidRequest(f"the URL cannot be sent to: found {error.found}; allowed: {error.allowed}") from error

    async def _resolve(self, target: TargetUrl, deadline: float) -> tuple[str, ...]:
        if target.is_ip:
            addresses: tuple[str, ...] | None = _literal(target.host)
        else:
            addresses = self._resolver.cached(target.host)
        if addresses is None:
            limit = min(asyncio.get_running_loop().time() + self._dns_timeout_s, deadline)
            try:
                async with asyncio.timeout_at(limit):
                    addresses = await self._resolver.resolve(target.host)
            except TimeoutError as error:
                raise DnsTimeout(f"the look-up of {target.host} took too long") from error
        permits = self._addresses.permits
        for address in addresses:
            if not permits(address):
                self._tell_blocked(target.host, address)
                raise BlockedAddress(target.host, address)
        return addresses

    def _tell_blocked(self, host: str, address: str) -> None:
        """Tells the operator, who alone learns the address, once for each that a name leads to."""
        if (host, address) in self._told:
            return
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told.add((host, address))
        telemetry.log(_log, logging.WARNING, "address.blocked", receiver_host=host, address=address)

    async def _dial(
        self, target: TargetUrl, addresses: Sequence[str], deadline: float
    ) -> tuple[Connection, float, float]:
        """Return a new connection, and when it was connected and secured, in the loop's time."""
        self.pool.reserve()
        connection: Connection | None = None
        try:
            loop = asyncio.get_running_loop()
            limit = min(loop.time() + self._connect_timeout_s, deadline)
            sock, address = await self._connect(target.port, _in_turn(addresses), limit)
            connected_at = loop.time()
            try:
                connection = await self._secure(sock, target, address, limit)
            except AttemptFailure as failure:
                failure.connected_at = connected_at
                raise
        finally:
            if connection is None:
                self.pool.release()
        self.pool.adopt(connection)
        return connection, connected_at, loop.time()

    async def _connect(self, port: int, addresses: Sequence[str], limit: float) -> tuple[socket.socket, str]:
        """Dial `addresses` in turn; each has its share of what is left until `limit`."""
        loop = asyncio.get_running_loop()
        failure: DialFailure | None = None
        for tried, address in enumerate(addresses):
            now = loop.time()
            share = now + (limit - now) / (len(addresses) - tried)
            if self._on_dial is not None:
                self._on_dial(address, port)
            try:
                return await _connected_socket(address, port, share), address
            except TimeoutError:
                failure = DialFailure(
                    "the receiver has not accepted a connection in time", phase=Phase.CONNECT, peer_ip=address
                )
            except OSError as error:
                why = errno.errorcode.get(error.errno or 0, type(error).__name__)
                if error.errno == errno.EADDRNOTAVAIL and ":" in address and tried + 1 < len(addresses):
                    # No IPv6 here, as in many containers, where localhost leads to ::1 all the same. Of an IPv4
                    # address it means that no local port is free, which must not be blamed on the receiver.
                    continue
                if error.errno in _OUR_ERRORS:
                    raise LocalFailure(f"no connection can be opened here: {why}", phase=Phase.CONNECT) from error
                failure = DialFailure(f"the receiver cannot be reached: {why}", phase=Phase.CONNECT, peer_ip=address)
        if failure is None:
            raise DnsFailure("the name has no address")
        raise failure

    async def _secure(self, sock: socket.socket, target: TargetUrl, address: str, limit: float) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(
            loop,
            sock,
            origin=target.origin,
            peer_ip=address,
            idle_s=self.pool.idle_s,
            on_idle=self.pool.keep,
            on_lost=self.pool.forget,
        )
        if target.scheme == "http":
            await loop.create_connection(lambda: connection, sock=sock)
            return connection
        if self._ssl_context is None:
            self._ssl_context = default_ssl_context()
        try:
            async with asyncio.timeout_at(limit):
                await loop.create_connection(
                    lambda: connection, sock=sock, ssl=self._ssl_context, server_hostname=target.host
                )
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the receiver has not finished the TLS handshake in time", phase=Phase.TLS, peer_ip=address
            ) from error
        except (ssl.SSLError, ConnectionError, ssl.CertificateError) as error:
            raise tls_failure(error, address) from error
        except OSError as error:
            raise TlsFailure("the TLS handshake failed", phase=Phase.TLS, peer_ip=address) from error
        return connection

    async def aclose(self) -> None:
        """Close every connection and the resolver."""
        await self.pool.aclose()
        await self._resolver.aclose()


def _until_dialled(failure: AttemptFailure, started_at: float, resolved_at: float | None, now: float) -> Timings:
    """How long the steps took of an attempt that got no connection; instants in the loop's time."""
    if resolved_at is None:
        return (now - started_at) * 1_000, None, None, None
    dns_ms = (resolved_at - started_at) * 1_000
    connected_at = failure.connected_at
    if connected_at is None:
        return dns_ms, (now - resolved_at) * 1_000, None, None
    return dns_ms, (connected_at - resolved_at) * 1_000, (now - connected_at) * 1_000, None


def _in_turn(addresses: Sequence[str]) -> list[str]:
    """Return at most three addresses; the second is of the other family, so that a broken one costs one step."""
    first = addresses[0]
    others = [address for address in addresses[1:] if (":" in address) != (":" in first)]
    same = [address for address in addresses[1:] if (":" in address) == (":" in first)]
    return [first, *others[:1], *same, *others[1:]][:_ADDRESSES_TRIED]


async def _connected_socket(address: str, port: int, limit: float) -> socket.socket:
    """Dial an address, never a name; raises TimeoutError or OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout_at(limit):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
