"""The merchants' side: an HTTP server of its own process that answers at once and keeps a ledger of every POST.

The first part of the path says what it does: `/ok/7` answers 200, `/slow/7` after a delay, `/fail/7` answers 500,
`/hang/7` never, `/close/7` answers 200 and closes the connection, `/flaky/7` 200 or 500 as it is told. It reads no more
of a request than it must (the header `webhook-id`, the length of the body), since it shares the machine with what is
measured. The ledger maps `<path> <webhook-id>` to the instant of the first POST, on the monotonic clock that all
processes of the machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import ssl
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import uvloop

from bench import processes

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
FAIL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nfail"

SAMPLE_EVERY = 100
"""Every so many POSTs one is kept whole, for its signature to be verified."""


@dataclass(slots=True)
class Sample:
    """One POST as it came: `head` is the request line and the headers."""

    path: str
    head: bytes
    body: bytes

    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass(slots=True)
class Ledger:
    """What was received since the last `clear`."""

    posts: int = 0
    first_at_s: dict[bytes, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    waiting: int = 0
    most_waiting: int = 0

    def clear(self) -> None:
        self.posts = 0
        self.most_waiting = self.waiting
        self.first_at_s.clear()
        self.samples.clear()


class _Protocol(asyncio.Protocol):
    def __init__(self, ledger: Ledger, delay_s: list[float]) -> None:
        self._ledger = ledger
        self._delay_s = delay_s
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end]
            lower = head.lower()
            at = lower.find(b"\r\ncontent-length:")
            length = int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = end + 4 + length
            if len(buffer) < whole:
                break
            self._request(head, lower, buffer[end + 4 : whole])
            buffer = buffer[whole:]
        self._buffer = buffer

    def _request(self, head: bytes, lower: bytes, body: bytes) -> None:
        ledger = self._ledger
        path = head.split(b" ", 2)[1]
        at = lower.find(b"\r\nwebhook-id:")
        key = path + b" " + (lower[at + 13 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b"")
        ledger.first_at_s.setdefault(key, time.monotonic())
        ledger.posts += 1
        if ledger.posts % SAMPLE_EVERY == 0:
            ledger.samples.append(Sample(path.decode(), head, body))
        if path.startswith(b"/ok"):
            self._transport.write(OK)
        elif path.startswith(b"/slow"):
            ledger.waiting += 1
            ledger.most_waiting = max(ledger.most_waiting, ledger.waiting)
            asyncio.get_running_loop().call_later(self._delay_s[0], self._answer_late)
        elif path.startswith(b"/close"):
            self._transport.write(CLOSE)
            self._transport.close()
        elif path.startswith(b"/flaky"):
            self._transport.write(FAIL if self._delay_s[0] else OK)
        elif path.startswith(b"/fail"):
            self._transport.write(FAIL)

    def _answer_late(self) -> None:
        self._ledger.waiting -= 1
        if not self._transport.is_closing():
            self._transport.write(OK)


def _serve(pipe: Connection, certificate: Path | None) -> None:
    ledger = Ledger()
    delay_s = [0.1]

    def answer() -> None:
        try:
            asked, value = pipe.recv()
        except EOFError:  # whoever started us is gone
            os._exit(0)
        if asked == "posts":
            pipe.send((ledger.posts, len(ledger.first_at_s)))
        elif asked == "ledger":
            pipe.send(ledger)
        elif asked == "waiting":
            pipe.send(ledger.waiting)
        elif asked == "clear":
            ledger.clear()
            pipe.send(None)
        elif asked == "delay":
            delay_s[0] = value
            pipe.send(None)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        server = await loop.create_server(lambda: _Protocol(ledger, delay_s), "127.0.0.1", 0, backlog=4096, ssl=context)
        loop.add_reader(pipe.fileno(), answer)
        os.set_blocking(pipe.fileno(), True)  # uvloop has made it non-blocking, and a ledger is larger than a pipe
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    gc.disable()  # the ledger makes no cycles
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems call a limit unlimited and refuse it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536) if most > 0 else 65_536, most))
    uvloop.run(serve())


class Receiver:
    """The receiver's process, and what one asks of it. A context manager. With a certificate it speaks TLS."""

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate

    def __enter__(self) -> Self:
        context = processes.context()
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._certificate)
        self._process = context.Process(target=_serve, args=arguments, daemon=True, name="bench-receiver")
        self._process.start()
        theirs.close()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def url(self, kind: str, number: int) -> str:
        """A URL that is answered as `kind` says: ok, slow, close, flaky, fail or hang."""
        return f"{'http' if self._certificate is None else 'https'}://127.0.0.1:{self.port}/{kind}/{number}"

    def posts(self) -> tuple[int, int]:
        """How many POSTs came, and how many different ones."""
        counted: tuple[int, int] = self._ask("posts")
        return counted

    def ledger(self) -> Ledger:
        ledger: Ledger = self._ask("ledger")
        return ledger

    def waiting(self) -> int:
        """How many POSTs to `/slow` are not answered yet."""
        return int(self._ask("waiting"))

    def clear(self) -> None:
        self._ask("clear")

    def delay(self, seconds: float) -> None:
        """How long `/slow` takes to answer from now on; `/flaky` answers 500 unless it is 0."""
        self._ask("delay", seconds)

    def _ask(self, what: str, value: float = 0.0) -> Any:
        self._pipe.send((what, value))
        if not self._pipe.poll(60):
            raise RuntimeError("the receiver does not answer: its traceback stands above")
        return self._pipe.recv()
