"""Bounds on the API's connections: how many, how long each may take, how much each may send before it is known.

uvicorn parses HTTP and runs the application; it bounds none of this. `Connection` is its protocol class with limits:

    IDLE ──first byte──► HEAD ──head complete──► BODY ──body complete──► ANSWER ──answer sent──► IDLE
                          │ 431, 408, 400         │ 408, 503               │ answered before the body was complete
                          ▼                       ▼                        ▼
                          LINGER: the answer is out, what still comes is dropped, and soon the connection is closed

Nothing here knows a route. Which body a caller may send is the gate's business (`dispatcher.api.gate`).
"""

from __future__ import annotations

import logging
import resource
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httptools
import orjson
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from dispatcher import pulse, telemetry
from dispatcher.api import problems
from dispatcher.ids import uuid7

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from starlette.types import Scope

    from dispatcher.config import Settings

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and its headers. nginx takes 32 KiB by default, Node.js 16."""

MAX_HEADERS: Final = 100

MAX_FRAMING_BYTES: Final = 64 * 1024
"""Of a chunked body's sizes, extensions and trailers; and FRAMING_PER_BYTE more for each byte of the body."""

FRAMING_PER_BYTE: Final = 16
"""A client that sends chunks of one byte needs five more for each, `1 CR LF x CR LF`, or twelve with a padded size."""

MAX_PIPELINED: Final = 16
"""Requests that one connection may send ahead of their answers."""

LINGER_S: Final = 3.0
"""How long a connection stays open, read but not heard, after an answer that came before the request was complete.
Closed at once, it would be reset, and the client would lose the answer."""

RESERVED_FILES: Final = 128
"""File descriptors that are not for callers: the database's connections, the broker's, files."""

SWEEP_S: Final = 1.0

EVERY_ANSWER: Final = {"x-content-type-options": "nosniff"}
"""Headers of every answer: a browser must not take JSON that a caller wrote for a page. uvicorn writes them in its own
answers too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process allows all its connections. Times are in seconds."""

    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    connections: int = 4096
    body_bytes: int = 256 * 1024 * 1024

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """As the operator has set them."""
        return cls(
            head_s=settings.api_head_timeout_s,
            body_s=settings.api_body_timeout_s,
            idle_s=settings.api_idle_timeout_s,
            connections=settings.api_max_connections,
            body_bytes=settings.api_max_unfinished_bytes,
        )


def _room_for_files(wanted: int) -> int:
    """How many connections the process may have files for, after it has asked for as many as `wanted` needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            telemetry.log(
                _log, logging.WARNING, "api.few_files", limit=soft, connections=soft - RESERVED_FILES, wanted=wanted
            )
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_FILES))


class Phase(Enum):
    """What a connection is doing. Every phase but ANSWER has a deadline."""

    IDLE = auto()
    """Nothing of a request has come."""
    HEAD = auto()
    """Some of a head has come."""
    BODY = auto()
    """The head is complete; the application may be at work, but cannot end before it has the body."""
    ANSWER = auto()
    """The request is complete; the application is at work."""
    LINGER = auto()
    """The last answer is out. What comes is dropped."""


class Lobby:
    """Every connection of this process: how many, how long each waits, and what their unfinished bodies hold.

    `closed` counts connections that were closed for a limit, by its reason in REASONS.
    """

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self.limits = limits
        self.monotonic = monotonic
        self.open: set[Connection] = set()
        self.unheard: dict[Connection, None] = {}
        """Connections in IDLE and HEAD; the one that has waited longest comes first."""
        self.sending: dict[Connection, None] = {}
        """Connections in BODY; the one that began first comes first."""
        self.lingering: dict[Connection, None] = {}
        """Connections in LINGER."""
        self.held_bytes = 0
        """Of unfinished bodies."""
        self.closed: Counter[str] = Counter()
        self._swept_s = 0.0

    def fit_files(self) -> None:
        """Asks for as many open files as the connections need, or lowers their number to what the process may have."""
        self.limits = replace(self.limits, connections=_room_for_files(self.limits.connections))

    def admit(self, connection: Connection) -> None:
        """Takes a new connection; beyond the limit another one makes room, or, if all are at work, it is closed."""
        self.open.add(connection)
        if len(self.open) > self.limits.connections:
            (self._idle_longest() or connection).drop("crowded_out")
        if connection in self.open:
            self.unheard[connection] = None

    def _idle_longest(self) -> Connection | None:
        """The connection that has kept us waiting longest; None where all are being answered."""
        if self.lingering:
            return next(iter(self.lingering))
        firsts = [next(iter(waiting)) for waiting in (self.unheard, self.sending) if waiting]
        return min(firsts, key=lambda connection: connection.since_s, default=None)

    def hold(self, size: int) -> None:
        """Counts bytes of an unfinished body. Beyond the limit the connection that began first is refused."""
        self.held_bytes += size
        while self.held_bytes > self.limits.body_bytes and self.sending:
            next(iter(self.sending)).refuse(
                503,
                "the bodies of unfinished requests hold too much memory; repeat the request",
                "bodies",
            )

    def sweep(self) -> None:
        """Ends each connection whose deadline has passed. Called often; looks once a second."""
        now_s = self.monotonic()
        if now_s - self._swept_s < min(SWEEP_S, self.limits.head_s / 4, self.limits.body_s / 4):
            return
        self._swept_s = now_s
        for connection in [one for one in self.open if one.deadline_s < now_s]:
            connection.expire()
        self._bound_answers()

    def _bound_answers(self) -> None:
        """Closes the connections that hold most of their answers, while all hold more than bodies may."""
        unsent = {one: one.unsent_bytes for one in self.open if one.flow.write_paused}
        total = sum(unsent.values())
        for connection in sorted(unsent, key=unsent.__getitem__, reverse=True):
            if total <= self.limits.body_bytes:
                break
            total -= unsent[connection]
            connection.drop("answers")


REASONS: Final = {
    "crowded_out": "another connection was admitted in its place",
    "head": "its head was too large, or had too many headers",
    "head_timeout": "its head took too long, or it sent nothing",
    "body_timeout": "its body took too long",
    "idle_timeout": "it was idle between two requests",
    "write_timeout": "it did not take its answer",
    "bodies": "all unfinished bodies together held too much",
    "answers": "all answers that were not taken together held too much, and its own the most",
    "malformed": "it did not speak HTTP as RFC 9112 has it",
}
"""Why connections are closed, as `/metrics` counts them."""

_NEVER: Final = float("inf")


class _Refused(Exception):
    """Leaves a parser's callback: the request has been answered."""


class _Flow(FlowControl):
    """Tells its connection when reading stops, and when the application asks for more of a body."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__(transport)
        self._connection = connection

    def pause_reading(self) -> None:
        if not self.read_paused:
            self._connection.reading_paused()
        super().pause_reading()

    def resume_reading(self) -> None:
        self._connection.more_is_wanted()
        super().resume_reading()


class _Part(Enum):
    """Where the parser is in a request."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class Connection(HttpToolsProtocol):
    """One connection. Its limits are those of the lobby; uvicorn does the rest."""

    def __init__(self, *, lobby: Lobby, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.lobby = lobby
        self.phase = Phase.IDLE
        self.since_s = lobby.monotonic()
        self.deadline_s = self.since_s + lobby.limits.head_s
        self._left_s: float | None = None  # of the body's time, while we do not read
        self._part = _Part.BETWEEN
        self._requests = 0  # begun
        self._head_bytes = 0
        self._body_bytes = 0
        self._raw_bytes = 0  # of everything after the head
        self._held_bytes = 0
        self._is_wanted = False
        self._unsent_bytes = 0  # when the write deadline was set
        self._framing: bytes | None = None  # of the body of a request that asks for an upgrade
        self._is_repeated = False  # the parser reads a head again

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits the connection."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self.lobby.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection, and what its body held."""
        self._release()
        self.lobby.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what has come, in pieces that keep the head within its bound."""
        start = 0
        while start < len(data):
            if self.parser is None or self.phase is Phase.LINGER or self.transport.is_closing():
                return
            end = start + MAX_HEAD_BYTES - self._head_bytes
            self._feed(data if start == 0 and end >= len(data) else data[start:end])
            start = end
        self._settle()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. If its request is complete, it still gets its answer."""
        if self.phase is Phase.ANSWER and not self.pipeline:
            self.cycle.keep_alive = False
            return True
        return False

    def pause_writing(self) -> None:
        """The client does not take its answer: to take a part of it, it has as long as for a body."""
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        """The client takes its answer."""
        super().resume_writing()
        if self.phase is Phase.ANSWER:
            self.deadline_s = _NEVER
        elif self.phase is Phase.IDLE:
            self._enter(Phase.IDLE, self.lobby.limits.idle_s)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_repeated:
            return
        self._part = _Part.HEAD
        self._requests += 1
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Keeps the target."""
        if not self._is_repeated:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a header; trailers are not kept."""
        if self._part is not _Part.HEAD or self._is_repeated:
            return
        if len(self.headers) >= MAX_HEADERS:
            self._refuse_head(f"more than {MAX_HEADERS} headers")
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Starts the application."""
        if self._is_repeated:
            return
        self._part = _Part.BODY
        self._body_bytes = self._raw_bytes = 0
        self._is_wanted = False
        if len(self.pipeline) >= MAX_PIPELINED:
            self.drop("malformed")  # an answer here would be taken for that of an earlier request
            raise _Refused
        self.scope["dispatcher.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._framing = self._framing_of_upgrade() if self.parser.should_upgrade() else None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hands on a part of the body."""
        self._body_bytes += len(body)
        self._is_wanted = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._framing is not None:
            return  # httptools takes what follows for another protocol: the body is still to come
        self._part = _Part.BETWEEN
        super().on_message_complete()

    # What uvicorn calls

    def on_response_complete(self) -> None:
        """Goes on with the next request, or closes where this one was answered before it was complete."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():  # once the client has taken the answer
            self._expect_progress()
        elif self.phase is Phase.BODY and self.cycle.response_complete:
            self._linger()
        elif self.pipeline:
            self.flow.resume_reading()
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.flow.resume_reading()
            if self._part is _Part.HEAD:
                self._wait(Phase.HEAD, self.lobby.limits.head_s)
            else:
                self._wait(Phase.IDLE, self.lobby.limits.idle_s)
            if self.flow.write_paused:  # what is left of the answer has not been taken
                self._expect_progress()

    # Phases

    def is_incomplete(self, scope: Scope) -> bool:
        """Whether the request of this scope, which is being answered, has not come as a whole."""
        return self.phase is Phase.BODY and self.cycle.scope is scope

    @property
    def unsent_bytes(self) -> int:
        """What the client has not taken of its answers."""
        return self.transport.get_write_buffer_size()

    def keep_open(self) -> None:
        """Has uvicorn leave the connection open after an answer that says `connection: close`, so that it lingers."""
        self.cycle.keep_alive = True

    def reading_paused(self) -> None:
        """We do not read: the body's time stands still, since the client is not to blame."""
        if self.phase is Phase.BODY and self._left_s is None:
            self._left_s = self.deadline_s - self.lobby.monotonic()
            self.deadline_s = _NEVER

    def more_is_wanted(self) -> None:
        """The application waits for more of the body, and we read."""
        self._is_wanted = True
        if self.phase is Phase.BODY and self._left_s is not None:
            self.deadline_s = self.lobby.monotonic() + self._left_s
            self._left_s = None

    def _expect_progress(self) -> None:
        """Sets the deadline by which the client has taken some of its answer."""
        self._unsent_bytes = self.unsent_bytes
        self.deadline_s = self.lobby.monotonic() + self.lobby.limits.body_s

    def expire(self) -> None:
        """The deadline has passed: says so where the client can hear it, and closes."""
        if self.phase is not Phase.LINGER and 0 < self.unsent_bytes < self._unsent_bytes:
            self._expect_progress()
            return
        match self.phase:
            case Phase.HEAD:
                allowed = f"{self.lobby.limits.head_s:g} s"
                self.refuse(408, f"found an incomplete head; allowed: {allowed}", "head_timeout")
            case Phase.BODY if not self.cycle.response_started:
                allowed = f"{self.lobby.limits.body_s:g} s"
                self.refuse(408, f"found an incomplete body; allowed: {allowed}", "body_timeout")
            case Phase.IDLE if not self.flow.write_paused:
                self.drop("idle_timeout" if self._requests else "head_timeout")
            case Phase.LINGER:
                self._abort()
            case _:
                self.drop("write_timeout")

    def refuse(self, status: int, detail: str, reason: str) -> None:
        """Answers the request that is coming in without the application, and closes.

        Where an earlier request is still being answered, that answer is the last; what comes is not read any more.
        """
        if self.phase is Phase.LINGER or self.transport.is_closing():
            return
        self.lobby.closed[reason] += 1
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.scope is not self.scope and not self.pipeline:
                self.cycle.keep_alive = False
                self.parser = None  # type: ignore[assignment]
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self._abort()
                return
        self.transport.write(_problem(status, detail))
        self._linger()

    def drop(self, reason: str) -> None:
        """Closes without a word."""
        self.lobby.closed[reason] += 1
        self._abort()

    def _refuse_head(self, found: str) -> None:
        allowed = f"{MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers"
        self.refuse(431, f"found a head of {found}; allowed: {allowed}", "head")

    def _abort(self) -> None:
        self._release()
        self.lobby.open.discard(self)
        self.deadline_s = _NEVER
        self.transport.abort()

    def _linger(self) -> None:
        """Ends what we send, and drops what the client still sends until it has seen that."""
        self._release()
        self._enter(Phase.LINGER, LINGER_S)
        self.lobby.lingering[self] = None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:  # TLS has no half-closed connections
            self.transport.close()

    def _wait(self, phase: Phase, limit_s: float) -> None:
        """Waits for a request, or for the rest of its head."""
        self._release()
        self._enter(phase, limit_s)
        self.lobby.unheard[self] = None

    def _enter(self, phase: Phase, limit_s: float) -> None:
        self.phase = phase
        self.since_s = self.lobby.monotonic()
        self.deadline_s = self.since_s + limit_s

    def _release(self) -> None:
        """Leaves the lobby's lists, and gives back what the body held."""
        self.lobby.unheard.pop(self, None)
        self.lobby.sending.pop(self, None)
        self.lobby.lingering.pop(self, None)
        self.lobby.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._left_s = None

    def _feed(self, data: bytes) -> None:
        """Parses at most MAX_HEAD_BYTES, and counts what is not body."""
        part, requests = self._part, self._requests
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._go_on(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(400, "found something else than HTTP/1.1; allowed: RFC 9112", "malformed")
            return
        is_same = part is self._part and requests == self._requests  # nothing has begun or ended in these bytes
        if self._part is _Part.BODY:
            self._head_bytes = 0
            self._raw_bytes += len(data) if is_same else 0
            if self._raw_bytes - self._body_bytes > MAX_FRAMING_BYTES + FRAMING_PER_BYTE * self._body_bytes:
                self.refuse(400, "found more chunk framing than body", "malformed")
        elif is_same or self._part is _Part.HEAD:
            self._head_bytes = len(data) + (self._head_bytes if is_same else 0)
            if self._head_bytes >= MAX_HEAD_BYTES:
                self._refuse_head(f"more than {MAX_HEAD_BYTES} bytes")
        else:
            self._head_bytes = 0

    def _framing_of_upgrade(self) -> bytes | None:
        """The headers that say where the body ends, of a request that asks for another protocol and has a body."""
        lines = [
            name + b": " + value + b"\r\n"
            for name, value in self.headers
            if (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
        ]
        return b"".join(lines) or None

    def _go_on(self, rest: bytes) -> None:
        """Parses on in HTTP/1.1, the only protocol that we speak, after a request that asked for another one.

        httptools ends there, and has not read the body: Java's client, which asks for `h2c`, would send none, and a
        body would be taken for the next request. A new parser is brought to the same place by the headers that matter.
        """
        framing, self._framing = self._framing, None
        self.parser = httptools.HttpRequestParser(self)
        if framing is not None:
            self._is_repeated = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
            self._is_repeated = False
        if rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                self._go_on(rest[upgrade.args[0] :])

    def _settle(self) -> None:
        """After what has come: the phase that the connection is in, and what its body holds."""
        if self.phase is Phase.LINGER or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self.phase is Phase.IDLE:
                self._wait(Phase.HEAD, self.lobby.limits.head_s)
        elif not self.cycle.more_body:
            if self.phase is not Phase.ANSWER:
                self._release()
                self.phase = Phase.ANSWER
                self.deadline_s = _NEVER
        else:
            if self.phase is not Phase.BODY:
                self._release()
                self._enter(Phase.BODY, self.lobby.limits.body_s)
                self.lobby.sending[self] = None
            more = self._body_bytes - self._held_bytes
            self._held_bytes = self._body_bytes
            self.lobby.hold(more)
            if self.phase is Phase.BODY and not self._is_wanted:
                # Nothing more is read before the application asks for it: it may not want to know this caller.
                self.flow.pause_reading()
                self.reading_paused()


def _problem(status: int, detail: str) -> bytes:
    """An answer of ours to a request that no application sees, with everything on the wire."""
    number = f"req_{uuid7()}"
    body = orjson.dumps(problems.document(status, problems.code_of(status), detail, instance="", request_id=number))
    headers = {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "x-request-id": number,
        "connection": "close",
    } | EVERY_ANSWER
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[status] + lines.encode() + b"\r\n" + body


class Server(uvicorn.Server):
    """uvicorn's server, whose connections are bounded by a lobby."""

    def __init__(self, config: uvicorn.Config, lobby: Lobby, pulse_pipe: str | None = None) -> None:
        super().__init__(config)
        self._lobby = lobby
        self._pulse_pipe = pulse_pipe

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, in the event loop."""
        pulse.start(self._pulse_pipe)
        await super().startup(sockets=sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        self._lobby.sweep()
        return await super().on_tick(counter)
