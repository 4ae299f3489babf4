"""Callers of the HTTP API: a process of its own that posts over kept connections, each as soon as it was answered.

It shares the machine with what is measured, so it does next to nothing: requests are bytes that were made beforehand,
and of an answer it reads the status and where it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Self
from uuid import UUID

import orjson
import uvloop

from bench import processes
from bench.generator import payload
from dispatcher.ids import format_id


@dataclass(frozen=True, slots=True)
class Answered:
    """How long it took, and how often which status was answered; `latencies_s` is of each call."""

    seconds: float
    statuses: Counter[int]
    latencies_s: list[float] = field(repr=False)


class _Caller(asyncio.Protocol):
    """One connection: posts what is next until nothing is left."""

    def __init__(self, requests: list[bytes], answered: Answered, done: asyncio.Event) -> None:
        self._requests = requests
        self._answered = answered
        self._done = done
        self._buffer = b""
        self._sent_at_s = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def post(self) -> None:
        if not self._requests:
            self._transport.close()
            self._done.set()
            return
        self._sent_at_s = time.monotonic()
        self._transport.write(self._requests.pop())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            at = buffer.index(b"content-length:") + 15
            length = int(buffer[at : buffer.index(b"\r\n", at)])
            if len(buffer) >= end + 4 + length:
                self._buffer = b""
                self._answered.statuses[int(buffer[9:12])] += 1
                self._answered.latencies_s.append(time.monotonic() - self._sent_at_s)
                self.post()
                return
        self._buffer = buffer

    def connection_lost(self, _: Exception | None) -> None:
        self._done.set()  # what it leaves undone is missing in the statuses


class _Callers:
    def __init__(self, port: int, key: str, tenants: Sequence[UUID], payload_bytes: int) -> None:
        self._port = port
        self._head = f"POST {{}} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n{{}}"
        self._head += "content-type: application/json\r\ncontent-length: {}\r\n\r\n"
        self._tenants = [format_id("ten", tenant_id) for tenant_id in tenants]
        self._payload = orjson.dumps(payload(payload_bytes))
        self._ready: list[bytes] = []
        self.result: Answered | None = None

    def _event(self, n: int) -> bytes:
        tenant = self._tenants[n % len(self._tenants)].encode()
        return b'{"type":"payment.completed","tenant_id":"%b","object_id":"pay_%d","payload":%b}' % (
            tenant,
            n,
            self._payload,
        )

    def prepare_singles(self, first: int, count: int, *, keyed: bool) -> None:
        """Makes the requests of `singles`."""
        self._ready = []
        for n in range(first, first + count):
            body = self._event(n)
            key = f"idempotency-key: key-{n}\r\n" if keyed else ""
            self._ready.append(self._head.format("/v1/events", key, len(body)).encode() + body)

    def prepare_batches(self, first: int, count: int, size: int) -> None:
        """Makes the requests of `batches` with so many events each."""
        self._ready = []
        for start in range(first, first + count * size, size):
            body = b'{"events":[%b]}' % b",".join(self._event(n) for n in range(start, start + size))
            self._ready.append(self._head.format("/v1/events/batch", "", len(body)).encode() + body)

    def post(self, connections: int) -> None:
        """Posts what was prepared over so many connections."""
        self.result = uvloop.run(self._post(connections))

    async def _post(self, connections: int) -> Answered:
        loop = asyncio.get_running_loop()
        answered = Answered(0.0, Counter(), [])
        ends = [asyncio.Event() for _ in range(connections)]
        callers = [
            (await loop.create_connection(partial(_Caller, self._ready, answered, end), "127.0.0.1", self._port))[1]
            for end in ends
        ]
        start_s = time.monotonic()
        for caller in callers:
            caller.post()
        for end in ends:
            await end.wait()
        return Answered(time.monotonic() - start_s, answered.statuses, answered.latencies_s)


def _run(pipe: Connection, *arguments: Any) -> None:
    callers = _Callers(*arguments)
    try:
        while True:
            what, values = pipe.recv()
            getattr(callers, what)(**values)
            pipe.send(callers.result)
    except EOFError:  # whoever started us is gone
        return


class Callers:
    """The callers' process. Tenants take turns: event n is of tenant n modulo their number."""

    def __init__(self, port: int, key: str, tenants: Sequence[UUID], *, payload_bytes: int) -> None:
        context = processes.context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(theirs, port, key, tenants, payload_bytes), daemon=True, name="bench-callers"
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def prepare_singles(self, first: int, count: int, *, keyed: bool = False) -> None:
        """Makes `count` requests with an event each, the first of number `first`."""
        self._ask("prepare_singles", first=first, count=count, keyed=keyed)

    def prepare_batches(self, first: int, count: int, *, size: int) -> None:
        """Makes `count` requests with `size` events each."""
        self._ask("prepare_batches", first=first, count=count, size=size)

    def post(self, *, connections: int) -> Answered:
        """Posts what was prepared; each connection posts again once it was answered."""
        found: Answered = self._ask("post", connections=connections)
        return found

    def _ask(self, what: str, **values: Any) -> Any:
        self._pipe.send((what, values))
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise RuntimeError("the callers failed: their traceback stands above") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()
