"""One connection to one checked address, speaking HTTP/1.1.

llhttp parses, with leniencies where receivers are sloppy but clear: bare LF, folded headers, a body after 204. What
llhttp lets through and we do not: versions other than 1.0 and 1.1, a status below 100, NUL in a header, a
Transfer-Encoding whose last coding is not chunked.

The outcome is decided at the final status line and headers. Whatever goes wrong later only ends the body. Two
choices follow from "a duplicate is worse than a sloppy answer":

- Content-Length beside Transfer-Encoding: the status counts, the body is read as chunked (RFC 9112, section 6.3),
  and the connection is closed.
- Reason phrase and headers of at most 64 KiB together count, however they are divided; beyond that the outcome is
  headers_too_large. Of them 200 bytes of reason and 256 headers are kept.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import httptools

from dispatcher.egress.answer import Answer
from dispatcher.egress.failures import (
    AttemptFailure,
    ConnectionClosed,
    ConnectionReset,
    DeadlineExceeded,
    HeadersTooLarge,
    ProtocolViolation,
)
from dispatcher.egress.tls import tls_failure
from dispatcher.model.outcome import BodyEnd, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 65_536  # of reason phrase and headers; beyond it the outcome is headers_too_large
_MAX_REASON_BYTES = 200  # kept of a reason phrase
_MAX_HEADERS = 256  # kept; 64 KiB of tiny ones would be megabytes of objects
_MAX_PIECES = 64  # of a body before they are joined, for the same reason
# A flood is no longer read after this much and waits for its deadline, so that it costs no processor time.
_MAX_FRAMING_BYTES = 262_144  # after the headers: chunk extensions, trailers
_MAX_INFORMATIONAL = 64  # 1xx answers
_PEEK_AFTER_S = 0.002  # idle for longer: ask the kernel whether the peer has closed meanwhile, for 1.5 µs
_WRITE_AT_ONCE = 65_536  # a larger body is not copied behind its head


class Connection(asyncio.Protocol):
    """A keep-alive connection. One request is in flight at most; nothing is ever sent twice.

    `on_idle` is called when it is fit for another request, `on_lost` once, when it is gone.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_limit",
        "_chunked",
        "_chunked_last",
        "_deadline",
        "_done",
        "_eof",
        "_framing_bytes",
        "_has_length",
        "_head_bytes",
        "_head_done",
        "_head_only",
        "_headers",
        "_idle_since",
        "_idle_until",
        "_informational",
        "_informational_count",
        "_keep_alive",
        "_loop",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_reason",
        "_reused",
        "_sock",
        "_started_at",
        "_status",
        "_timer",
        "_timer_at",
        "_transport",
        "_ttfb_at",
        "_unsolicited",
        "_version",
        "_violation",
        "_waiter",
        "broke_keep_alive",
        "idle_s",
        "origin",
        "peer_ip",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        origin: tuple[str, str, int],
        peer_ip: str,
        idle_s: float,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.origin = origin
        self.peer_ip = peer_ip
        self.idle_s = idle_s
        self.broke_keep_alive = False  # it was kept, and died under the next request
        self._loop = loop
        self._sock = sock
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
        )
        self._waiter: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._eof = False
        self._unsolicited = False
        self._reused = False
        self._idle_since = 0.0
        self._idle_until = 0.0

    # The pool's side.

    def is_open(self) -> bool:
        """Tell whether a request may be written. Nothing is known of a FIN that the loop has not seen yet."""
        transport = self._transport
        return transport is not None and not self._eof and not self._unsolicited and not transport.is_closing()

    def is_reusable(self, now: float) -> bool:
        """Tell whether a kept connection may take another request at `now` (the loop's time, seconds)."""
        if not self.is_open() or now >= self._idle_until:
            return False
        return now - self._idle_since < _PEEK_AFTER_S or self._kernel_says_open()

    def _kernel_says_open(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # a FIN, or bytes that nobody asked for

    def waited_s(self, now: float) -> float:
        """How long the request in flight, or the last one, has been under way at `now` (the loop's time)."""
        return now - self._started_at

    def abort(self) -> None:
        """Close now, without a TLS goodbye: that would wait for the peer."""
        self._eof = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # One request.

    def begin(
        self, head: bytes, body: bytes, *, deadline: float, body_limit: int, head_only: bool
    ) -> asyncio.Future[Answer]:
        """Write one request; the future holds its Answer or raises an AttemptFailure.

        `deadline` is in the loop's time. Raises where the peer has closed or spoken before any byte was written.
        """
        transport = self._transport
        if self._unsolicited:
            raise ProtocolViolation("the receiver spoke before it was asked", phase=Phase.WRITE, peer_ip=self.peer_ip)
        if transport is None or not self.is_open():
            raise ConnectionClosed(
                "the receiver closed the connection before the request", phase=Phase.WRITE, peer_ip=self.peer_ip
            )
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_limit = body_limit
        self._reason = b""
        self._version = "1.1"
        self._head_bytes = 0
        self._framing_bytes = 0
        self._informational = False
        self._informational_count = 0
        self._head_done = False
        self._head_only = head_only
        self._done = False
        self._keep_alive = True
        self._has_length = False
        self._chunked = False
        self._chunked_last = False
        self._violation: AttemptFailure | None = None
        self._ttfb_at = 0.0
        self._deadline = deadline
        self._started_at = self._loop.time()
        waiter = self._waiter = self._loop.create_future()
        # The timer of the request before is left to run: it finds this deadline when it fires. A time-out per
        # request would cost more than parsing the answer.
        if self._timer is None or self._timer_at > deadline:
            self._arm(deadline)
        if len(body) > _WRITE_AT_ONCE:
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body)
        return waiter

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._loop.time()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._deadline - self._loop.time() > 0.002:  # loops round to a millisecond
            self._arm(self._deadline)
        elif self._head_done:
            self._finish(BodyEnd.DEADLINE, "the body did not end in time")
        else:
            phase = self._phase()
            what = "read the request" if phase is Phase.WRITE else "answered"
            self._fail(
                DeadlineExceeded(f"the receiver has not {what} in time", phase=phase, known=False, peer_ip=self.peer_ip)
            )

    def _phase(self) -> Phase:
        transport = self._transport
        return Phase.WRITE if transport is not None and transport.get_write_buffer_size() else Phase.HEADERS

    def _fail(self, failure: AttemptFailure) -> None:
        waiter, self._waiter = self._waiter, None
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(failure)

    def _finish(self, end: BodyEnd, error: str | None = None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            body = self._body
            waiter.set_result(
                Answer(
                    self._status,
                    self._headers,
                    body[0] if len(body) == 1 else b"".join(body),
                    end,
                    error,
                    self.peer_ip,
                    b"HTTP/1.0" if self._version == "1.0" else b"HTTP/1.1",
                    self._reason,
                    (self._ttfb_at - self._started_at) * 1_000,
                )
            )
        transport = self._transport
        if (
            end is BodyEnd.COMPLETE
            and self._keep_alive
            and not self._eof
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        ):
            self._reused = True
            now = self._idle_since = self._loop.time()
            self._idle_until = now + self.idle_s
            self._on_idle(self)
        else:
            self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop has the socket."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed llhttp, then see how far the answer has got."""
        parser = self._parser
        if self._waiter is None or parser is None:
            self._unsolicited = True
            self.abort()
            return
        error: str | None = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            error = "the receiver switched protocols"
        except httptools.HttpParserError as violation:
            error = str(violation)
        if self._violation is not None:
            self._fail(self._violation)
        elif self._head_done and self._body_bytes > self._body_limit:
            self._finish(BodyEnd.CAPPED, f"the body is longer than {self._body_limit} bytes")
        elif self._done:
            if error is not None:
                self._keep_alive = False
            self._finish(BodyEnd.COMPLETE)
        elif self._head_done:
            self._framing_bytes += len(data)
            if error is not None:
                self._finish(BodyEnd.INCOMPLETE, f"the body is malformed: {error}")
            elif self._framing_bytes - self._body_bytes > _MAX_FRAMING_BYTES:
                self._stop_reading()
        elif error is not None:
            self._fail(self._protocol(error))
        elif self._informational_count > _MAX_INFORMATIONAL:
            self._stop_reading()
        else:
            # llhttp holds a header that has not ended yet, so what was fed is bounded, too.
            self._framing_bytes = len(data) if self._informational else self._framing_bytes + len(data)
            self._informational = False
            if self._framing_bytes > MAX_HEAD_BYTES:
                self._fail(self._too_large())

    def eof_received(self) -> bool | None:
        """A FIN came."""
        self._eof = True
        self._lost(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone; `exc` is None after a FIN or an abort of ours."""
        self._eof = True
        self._lost(exc)
        self._transport = None
        self._parser = None  # it refers to us
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_lost(self)

    def _lost(self, exc: Exception | None) -> None:
        if self._waiter is None:
            self.abort()
            return
        self.broke_keep_alive = self._reused and not self._head_done
        if self._head_done:
            if exc is None and not self._has_length and not self._chunked:
                self._finish(BodyEnd.COMPLETE)  # the close was the end of the body
            else:
                self._finish(BodyEnd.INCOMPLETE, "the connection was lost inside the body")
        elif isinstance(exc, ssl.SSLError):
            self._fail(tls_failure(exc, self.peer_ip, known=False))
        elif exc is None:
            self._fail(
                ConnectionClosed(
                    "the receiver closed the connection without an answer",
                    phase=self._phase(),
                    known=False,
                    peer_ip=self.peer_ip,
                )
            )
        else:
            self._fail(
                ConnectionReset(
                    "the receiver reset the connection without an answer",
                    phase=self._phase(),
                    known=False,
                    peer_ip=self.peer_ip,
                )
            )

    def _stop_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _protocol(self, why: str) -> ProtocolViolation:
        return ProtocolViolation(
            f"the receiver's answer is not an HTTP/1 answer: {why}", phase=Phase.HEADERS, peer_ip=self.peer_ip
        )

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the receiver's headers are larger than {MAX_HEAD_BYTES} bytes",
            phase=Phase.HEADERS,
            peer_ip=self.peer_ip,
        )

    # Called by httptools. None of them may raise; after `_done` they see what follows the answer.

    def on_message_begin(self) -> None:
        """An answer begins, or something behind it."""
        if self._done:
            self._keep_alive = False  # bytes behind the answer

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        self._head_bytes += len(reason)
        if len(self._reason) < _MAX_REASON_BYTES and not self._done:
            self._reason += reason[:_MAX_REASON_BYTES]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or a trailer."""
        if self._head_done:
            return  # a trailer
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            return
        if len(self._headers) < _MAX_HEADERS:
            self._headers.append((name, value))
        if b"\0" in value:
            self._violation = self._protocol("NUL in a header")
        length = len(name)
        if length == 14:
            if name.lower() == b"content-length":
                self._has_length = True
        elif length == 17:
            if name.lower() == b"transfer-encoding":
                self._chunked = True
                coding = value.strip(b" \t").lower()
                self._chunked_last = coding.rpartition(b",")[2].strip(b" \t") == b"chunked"
                if coding != b"chunked":
                    self._keep_alive = False
        elif length == 10:
            if name.lower() == b"keep-alive":
                self._heed_keep_alive(value)
        elif name[-1:] in b" \t":  # llhttp was lenient
            self._keep_alive = False

    def _heed_keep_alive(self, value: bytes) -> None:
        # Sending just when the receiver closes would make an attempt of unknown outcome: stop a second before.
        seconds = value.lower().partition(b"timeout=")[2].partition(b",")[0].strip()
        if seconds.isdigit() and len(seconds) < 7:
            self.idle_s = min(self.idle_s, int(seconds) - 1.0)

    def on_headers_complete(self) -> None:
        """The outcome is decided here, unless this was a 1xx."""
        parser = self._parser
        if self._head_done or parser is None:
            return
        status = parser.get_status_code()
        version = parser.get_http_version()
        if self._head_bytes > MAX_HEAD_BYTES:
            self._violation = self._too_large()
        elif version not in {"1.1", "1.0"}:
            self._violation = self._protocol(f"version {version}")
        elif status < 100 or status == 101:
            self._violation = self._protocol(f"status {status:03d}")
        elif self._chunked and not self._chunked_last:
            self._violation = self._protocol("a Transfer-Encoding that does not end in chunked")
        if self._violation is not None:
            self._head_done = True
            return
        if status < 200:
            self._informational = True
            self._informational_count += 1
            self._headers = []
            self._reason = b""
            self._head_bytes = 0
            self._has_length = self._chunked = False
            return
        self._informational = False
        self._head_done = True
        self._status = status
        self._version = version
        self._framing_bytes = 0
        self._ttfb_at = self._loop.time()
        if not parser.should_keep_alive() or (self._has_length and self._chunked):
            self._keep_alive = False
        if self._head_only:
            self._done = True
            self._keep_alive = False  # llhttp would wait for the body that a HEAD does not get

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunk framing removed."""
        if self._done:
            return
        room = self._body_limit - self._body_bytes
        self._body_bytes += len(body)
        if room > 0:
            pieces = self._body
            if len(pieces) == _MAX_PIECES:
                pieces[:] = [b"".join(pieces)]
            pieces.append(body if len(body) <= room else body[:room])

    def on_message_complete(self) -> None:
        """The answer, or a 1xx, is whole."""
        if self._head_done:
            self._done = True
