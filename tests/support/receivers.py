r"""Receivers on loopback: one that follows a script of raw bytes, one that keeps a ledger of what it was sent.

async with RawReceiver(play(b"HTTP/1.1 200 OK\r\n", pause(0.1), FIN)) as receiver: ...
async with LedgerReceiver() as receiver: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Self, cast

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Drip:
    """Send `data` byte after byte, `every` seconds; start again at its end if `forever`."""

    data: bytes
    every: float
    forever: bool = False


@dataclass(frozen=True)
class Flood:
    """Send `data` again and again, as fast as the other side reads."""

    data: bytes


class _Mark:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


FIN = _Mark("FIN")  # close in good order
RST = _Mark("RST")  # close with a reset
HANG = _Mark("HANG")  # keep the connection open and do nothing, until the receiver is closed

Step = bytes | Pause | Drip | Flood | _Mark
Script = Sequence[Step]
Handler = Callable[["Peer"], Awaitable[None]]


def pause(seconds: float) -> Pause:
    return Pause(seconds)


def play(*steps: Step, read_first: bool = True) -> Handler:
    """Return a handler that answers each request of a connection by `steps`, then waits for the next request."""

    async def handler(peer: Peer) -> None:
        while not read_first or await peer.read_request() is not None:
            for step in steps:
                if await peer.do(step):
                    return
            if not read_first:
                return

    return handler


def play_each(*scripts: Script) -> Handler:
    """Return a handler that answers the n-th request of the whole receiver by the n-th script, then by the last."""
    count = 0

    async def handler(peer: Peer) -> None:
        nonlocal count
        while await peer.read_request() is not None:
            script = scripts[min(count, len(scripts) - 1)]
            count += 1
            for step in script:
                if await peer.do(step):
                    return

    return handler


@dataclass(frozen=True)
class Request:
    """What a receiver read: `head` up to the empty line, and the body."""

    head: bytes
    body: bytes
    received_at: float

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split(b"\r\n")[1:]
        pairs = (line.partition(b":") for line in lines if line)
        return {name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, _, value in pairs}


class Peer:
    """One connection, seen from the receiver."""

    def __init__(self, receiver: RawReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.receiver = receiver
        self.reader = reader
        self.writer = writer

    async def read_request(self) -> Request | None:
        """Read one request whole; None when the sender has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            request = Request(head, b"", time.monotonic())
            body = await self.reader.readexactly(int(request.headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        request = Request(head, body, time.monotonic())
        self.receiver.requests.append(request)
        return request

    async def do(self, step: Step) -> bool:
        """Do one step; True when the connection is over."""
        match step:
            case bytes():
                self.writer.write(step)
                await self.writer.drain()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Drip(data, every, forever):
                while True:
                    for byte in data:
                        self.writer.write(bytes([byte]))
                        await self.writer.drain()
                        await asyncio.sleep(every)
                    if not forever:
                        break
            case Flood(data):
                while not self.writer.transport.is_closing():
                    self.writer.write(data)
                    await self.writer.drain()
                    await asyncio.sleep(0)
            case _ if step is HANG:
                await asyncio.Event().wait()
            case _ if step is RST:
                self.reset()
                return True
            case _:
                return True
        return False

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawReceiver:
    """Runs `handler` for each connection; counts connections, keeps requests."""

    handler: Handler
    ssl_context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        # start_server() with a callback that is no coroutine: the tasks are ours, so that we can end them.
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, ssl=self.ssl_context, limit=1_048_576
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    @property
    def scheme(self) -> str:
        return "http" if self.ssl_context is None else "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/hooks"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError):
                await self.handler(Peer(self, reader, writer))
                if not writer.transport.is_closing() and self.ssl_context is None and writer.can_write_eof():
                    writer.write_eof()
                    await writer.drain()
                    # A close with unread bytes would be a reset.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            while await reader.read(65_536):
                                pass
        finally:
            writer.transport.abort()


@dataclass(frozen=True)
class LedgerEntry:
    """One POST that was read whole."""

    webhook_id: str
    body_sha256: str
    received_at: float  # time.time(), seconds
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[LedgerEntry], tuple[float, bytes]]


class LedgerReceiver:
    """A quick receiver that writes down what it accepts.

    `answer` gives, for each entry, the delay in seconds and the raw bytes of the answer; by default 200 at once.
    """

    def __init__(
        self, *, answer: Answer | None = None, ssl_context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.ledger: list[LedgerEntry] = []
        self.connections = 0
        self.at_once = 0  # requests being answered now
        self.most_at_once = 0
        self.host = host
        self.port = 0
        self._answer = answer
        self._ssl_context = ssl_context
        self._server: asyncio.Server | None = None
        self._open: set[_LedgerConnection] = set()

    @property
    def url(self) -> str:
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{self.host}:{self.port}/hooks"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _LedgerConnection(self), self.host, self.port, ssl=self._ssl_context
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0.01)


class _LedgerConnection(asyncio.Protocol):
    def __init__(self, receiver: LedgerReceiver) -> None:
        self._receiver = receiver
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._receiver.connections += 1
        self._receiver._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver._open.discard(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", "0"))
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._accept(lines[0].split(" ")[1], headers, body)

    def _accept(self, path: str, headers: dict[str, str], body: bytes) -> None:
        receiver = self._receiver
        entry = LedgerEntry(
            headers.get("webhook-id", ""), hashlib.sha256(body).hexdigest(), time.time(), path, headers, body
        )
        receiver.ledger.append(entry)
        receiver.at_once += 1
        receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
        delay_s, answer = (0.0, OK) if receiver._answer is None else receiver._answer(entry)
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._reply, answer)
        else:
            self._reply(answer)

    def _reply(self, answer: bytes) -> None:
        self._receiver.at_once -= 1
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


class Names:
    """A resolver for tests: names lead where the test says, by default to loopback; nothing is kept.

    `answers` maps a name to its addresses, or to an exception; a list of lists gives one answer per look-up, the
    last one again and again.
    """

    def __init__(self, answers: dict[str, object] | None = None, *, default: Sequence[str] = ("127.0.0.1",)) -> None:
        self.answers = answers or {}
        self.default = tuple(default)
        self.asked: list[str] = []

    def cached(self, host: str) -> tuple[str, ...] | None:
        return None

    async def resolve(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        answer = self.answers.get(host, self.default)
        if isinstance(answer, Exception):
            raise answer
        if answer is HANG:
            await asyncio.Event().wait()
        if isinstance(answer, list) and not isinstance(answer[0], str):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return tuple(cast(Sequence[str], answer))

    async def aclose(self) -> None:
        pass


@contextlib.asynccontextmanager
async def dead_port() -> AsyncIterator[int]:
    """A port on which nobody listens."""
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    yield port
