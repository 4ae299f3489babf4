"""What receivers do, row by row of the fault table, and what must come of it."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from dispatcher.clock import SYSTEM
from dispatcher.egress import AddressPolicy, PinnedTransport, SuccessRule, build_request, parse_url, send
from dispatcher.egress.url import ANY_HOST
from dispatcher.model.outcome import BodyEnd, Outcome, OutcomeClass, Phase
from tests.support.patience import eventually
from tests.support.receivers import FIN, HANG, OK, RST, Drip, Flood, Names, Peer, RawReceiver, Script, pause, play
from tests.support.tls import Authority, blocking_tls_server

PATIENT_S = 60.0
"""The deadline of what must end by itself."""

DEADLINES_S = (0.3, 3.0, 30.0)
"""Of what must meet its deadline; a longer one where the machine was too slow to get as far as the row says."""

ZIPPED = gzip.compress(b"\0" * 9_000_000)
BODY = b'{"payment": 1}'


@dataclass(frozen=True)
class Row:
    """One receiver; `known` is judged always, the rest where it is given."""

    number: int
    name: str
    steps: Script
    kind: OutcomeClass
    known: bool = True
    body_end: BodyEnd | None = None
    status: int | None = None
    body: bytes | None = None
    reused: bool | None = None
    success: SuccessRule = "any_2xx"
    read_first: bool = True
    body_sent: bytes = BODY
    phase: Phase | None = None

    @property
    def deadlines_s(self) -> tuple[float, ...]:
        return DEADLINES_S if self.kind is K.DEADLINE or self.body_end is BodyEnd.DEADLINE else (PATIENT_S,)

    def __str__(self) -> str:
        return f"{self.number}-{self.name}".replace(" ", "-")


def status(code: int | str, *headers: bytes, body: bytes = b"ok", length: bool = True) -> bytes:
    lines = [b"HTTP/1.1 %s Reason" % str(code).encode(), *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
K = OutcomeClass
ROWS = [
    *(Row(1, str(code), [status(code)], K.OK, status=code, reused=True) for code in (200, 201, 202, 299)),
    Row(1, "204", [b"HTTP/1.1 204 No Content\r\n\r\n"], K.OK, status=204, body=b"", reused=True),
    Row(1, "no reason phrase", [b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"], K.OK, reused=True),
    Row(1, "in pieces", [b"HTT", pause(0.02), b"P/1.1 2", pause(0.02), b"00 OK\r\nContent-Le", pause(0.02),
                         b"ngth: 2\r\n\r", pause(0.02), b"\no", pause(0.02), b"k"], K.OK, body=b"ok", reused=True),
    Row(1, "chunked", [CHUNKED + b"2\r\nok\r\n3;x=y\r\nay!\r\n0\r\nX-Trailer: 1\r\n\r\n"], K.OK, body=b"okay!",
        reused=True),
    Row(2, "204 with a body", [status(204)], K.OK, body=b"", reused=False),
    Row(2, "HTTP/1.0 without length", [b"HTTP/1.0 200 OK\r\n\r\nhello", FIN], K.OK, body=b"hello",
        body_end=BodyEnd.COMPLETE, reused=False),
    Row(2, "HTTP/1.1 until the end", [b"HTTP/1.1 200 OK\r\n\r\nhello", FIN], K.OK, body=b"hello",
        body_end=BodyEnd.COMPLETE, reused=False),
    Row(2, "folded header", [status(200, b"X: a\r\n b")], K.OK, body=b"ok"),
    Row(2, "bare LF", [b"HTTP/1.1 200 OK\nX: a\nContent-Length: 2\n\nok"], K.OK, body=b"ok"),
    Row(2, "header not UTF-8", [status(200, b"X: \xff\xfe")], K.OK),
    Row(2, "NUL in the body", [status(200, body=b"a\0b")], K.OK, body=b"a\0b"),
    Row(2, "UTF-16 body", [status(200, b"Content-Type: text/plain; charset=nonsense", body="hé".encode("utf-16"))],
        K.OK, body="hé".encode("utf-16")),
    *(Row(3, f"{code} {location!r}", [status(code, b"Location: " + location)], K.REDIRECT_REFUSED, status=code)
      for code in (300, 301, 302, 303, 307, 308)
      for location in (b"http://127.0.0.1:1/", b"//\\@\xff", b"")),
    Row(3, "304", [b"HTTP/1.1 304 Not Modified\r\n\r\n"], K.REDIRECT_REFUSED, status=304),
    *(Row(4, str(code), [status(code)], K.HTTP_4XX, status=code) for code in (400, 401, 403, 404, 405, 409, 422)),
    *(Row(5, str(code), [status(code)], K.HTTP_RETRYABLE, status=code)
      for code in (408, 425, 500, 502, 503, 504, 520, 599, 600, 999)),
    Row(6, "410", [status(410)], K.GONE),
    *(Row(7, str(code), [status(code)], K.TOO_LARGE) for code in (413, 414, 431)),
    Row(8, "429", [status(429)], K.THROTTLED),
    *(Row(8, f"{code} Retry-After {value!r}", [status(code, b"Retry-After: " + value)], K.THROTTLED)
      for code in (429, 503) for value in (b"7", b"-1", b"1e12", b"1" * 5_000, b"\xff", b"Wed, 99 Foo")),
    Row(9, "status 000", [status("000")], K.PROTOCOL),
    Row(9, "status 099", [status("099")], K.PROTOCOL),
    Row(9, "status 99999", [status("99999")], K.PROTOCOL),
    Row(9, "status 2 digits", [status("20")], K.PROTOCOL),
    Row(9, "garbage", [b"\x16\x03\x01\x02\x00 what"], K.PROTOCOL),
    Row(9, "HTTP/0.9", [b"<html>hello</html>", FIN], K.PROTOCOL),
    Row(9, "HTTP/2 preface", [b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"], K.PROTOCOL),
    Row(9, "HTTP/2.0 status line", [status(200).replace(b"HTTP/1.1", b"HTTP/2.0")], K.PROTOCOL),
    Row(9, "another protocol", [b"220 mail.example.com ESMTP\r\n"], K.PROTOCOL),
    Row(9, "a banner before the request", [b"SSH-2.0-OpenSSH_9.6\r\n", HANG], K.PROTOCOL, read_first=False),
    Row(9, "101", [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], K.PROTOCOL),
    Row(9, "101 without Upgrade", [b"HTTP/1.1 101 Switching\r\n\r\n"], K.PROTOCOL),
    Row(10, "two lengths", [status(200, b"Content-Length: 3")], K.PROTOCOL),
    Row(10, "the same length twice", [status(200, b"Content-Length: 2")], K.PROTOCOL),
    Row(10, "negative length", [b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"], K.PROTOCOL),
    Row(10, "length in hexadecimal", [b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok"], K.PROTOCOL),
    Row(10, "TE gzip", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"], K.PROTOCOL),
    Row(10, "TE chunked, gzip", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok"], K.PROTOCOL),
    Row(10, "NUL in a header", [status(200, b"X: a\0b")], K.PROTOCOL),
    Row(10, "no colon", [status(200, b"nonsense")], K.PROTOCOL),
    Row(11, "length and chunked", [CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
                                   + b"2\r\nok\r\n0\r\n\r\n"], K.OK, body=b"ok", reused=False),
    Row(12, "1 MB header", [status(200, b"X: " + b"a" * 1_000_000)], K.HEADERS_TOO_LARGE),
    Row(12, "a header without end", [b"HTTP/1.1 200 OK\r\nX: ", Flood(b"a" * 10_000)], K.HEADERS_TOO_LARGE),
    Row(12, "a header name without end", [b"HTTP/1.1 200 OK\r\n", Flood(b"a" * 10_000)], K.HEADERS_TOO_LARGE),
    Row(13, "90 kB of headers", [status(200, *(b"X-%d: " % n + b"a" * 900 for n in range(100)))],
        K.HEADERS_TOO_LARGE),
    Row(13, "90 kB of headers slowly", [status(200, *(b"X-%d: " % n + b"a" * 900 for n in range(100)))[:80_000],
                                        HANG], K.HEADERS_TOO_LARGE),
    Row(13, "60 kB reason phrase", [b"HTTP/1.1 200 " + b"R" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nok"], K.OK),
    Row(14, "header drip", [b"HTTP/1.1 200 OK\r\n", Drip(b"X: a\r\n", 0.01, forever=True)], K.DEADLINE, known=False),
    Row(14, "status line drip", [Drip(b"HTTP/1.1 200 OK" + b"K" * 99, 0.02)], K.DEADLINE, known=False),
    Row(15, "flood of 1xx", [Flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)], K.DEADLINE, known=False),
    Row(15, "slow 1xx", [Drip(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.002, forever=True)], K.DEADLINE, known=False),
    Row(16, "100 then 200", [b"HTTP/1.1 100 Continue\r\n\r\n", status(200)], K.OK, status=200, reused=True),
    Row(16, "100, 103 and 200 at once", [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
                                         + status(200)], K.OK, status=200, reused=True),
    Row(17, "never answers", [HANG], K.DEADLINE, known=False, phase=Phase.HEADERS),
    Row(17, "never reads", [HANG], K.DEADLINE, known=False, read_first=False, body_sent=b"x" * 20_000_000,
        phase=Phase.WRITE),
    Row(18, "FIN before the answer", [FIN], K.CLOSED, known=False),
    Row(18, "FIN inside the headers", [b"HTTP/1.1 200 OK\r\nX: ", FIN], K.CLOSED, known=False),
    Row(18, "FIN after 100", [b"HTTP/1.1 100 Continue\r\n\r\n", FIN], K.CLOSED, known=False),
    Row(19, "RST before the headers", [RST], K.RESET, known=False),
    Row(19, "RST inside the headers", [b"HTTP/1.1 200 OK\r\nX: ", pause(0.02), RST], K.RESET, known=False),
    Row(13, "a thousand headers", [status(200, *(b"X: %d" % n for n in range(1_000)))], K.OK, reused=True),
    Row(20, "200 then RST", [status(200, b"Content-Length: 9", length=False, body=b"ok"), pause(0.02), RST], K.OK,
        body_end=BodyEnd.INCOMPLETE, body=b"ok", reused=False),
    Row(20, "short body", [status(200, b"Content-Length: 9", length=False, body=b"ok"), FIN], K.OK,
        body_end=BodyEnd.INCOMPLETE, body=b"ok", reused=False),
    Row(20, "bad chunk with the headers", [CHUNKED + b"zz\r\nok\r\n"], K.OK, body_end=BodyEnd.INCOMPLETE,
        reused=False),
    Row(20, "bad chunk later", [CHUNKED + b"2\r\nok\r\n", pause(0.02), b"zz\r\n"], K.OK,
        body_end=BodyEnd.INCOMPLETE, body=b"ok", reused=False),
    Row(20, "huge chunk", [CHUNKED + b"f" * 40 + b"\r\nok"], K.OK, body_end=BodyEnd.INCOMPLETE, reused=False),
    Row(20, "length of 10^14", [status(200, b"Content-Length: 100000000000000", length=False, body=b"ok"), FIN],
        K.OK, body_end=BodyEnd.INCOMPLETE, reused=False),
    Row(20, "chunks without end mark", [CHUNKED + b"2\r\nok\r\n", FIN], K.OK, body_end=BodyEnd.INCOMPLETE),
    Row(20, "HTTP/1.0 until a reset", [b"HTTP/1.0 200 OK\r\n\r\nhello", pause(0.02), RST], K.OK,
        body_end=BodyEnd.INCOMPLETE, body=b"hello", reused=False),
    Row(21, "body drip", [status(200, b"Content-Length: 99", length=False, body=b""),
                          Drip(b"x" * 99, 0.02)], K.OK, body_end=BodyEnd.DEADLINE, reused=False),
    Row(21, "endless trailers", [CHUNKED + b"0\r\n", Flood(b"X: aaaaaaaaaaaaaaaaaaa\r\n")], K.OK,
        body_end=BodyEnd.DEADLINE),
    Row(21, "endless chunk extension", [CHUNKED + b"2;", Flood(b"a=bbbbbbbbbbbbbbbbbbb;")], K.OK,
        body_end=BodyEnd.DEADLINE),
    Row(21, "nothing after the headers", [b"HTTP/1.1 200 OK\r\n\r\n", HANG], K.OK, body_end=BodyEnd.DEADLINE),
    Row(22, "endless chunks", [CHUNKED, Flood(b"400\r\n" + b"x" * 1_024 + b"\r\n")], K.OK, body_end=BodyEnd.CAPPED,
        body=b"x" * 16_384, reused=False),
    Row(22, "a body in bytes", [CHUNKED + b"1\r\nx\r\n" * 16_384 + b"0\r\n\r\n"], K.OK,
        body_end=BodyEnd.COMPLETE, body=b"x" * 16_384, reused=True),
    Row(22, "a long body at once", [status(200, body=b"x" * 20_000)], K.OK, body_end=BodyEnd.CAPPED,
        body=b"x" * 16_384, reused=False),
    Row(22, "a body of just the cap", [status(200, body=b"x" * 16_384)], K.OK, body_end=BodyEnd.COMPLETE,
        body=b"x" * 16_384, reused=True),
    Row(23, "500 with endless chunks", [CHUNKED.replace(b"200 OK", b"500 No"),
                                        Flood(b"400\r\n" + b"x" * 1_024 + b"\r\n")], K.HTTP_RETRYABLE, status=500),
    Row(24, "gzip", [status(200, b"Content-Encoding: gzip", body=ZIPPED)], K.OK, body=ZIPPED),
    Row(24, "bad gzip", [status(200, b"Content-Encoding: gzip, br", body=b"nonsense")], K.OK, body=b"nonsense"),
    Row(25, "an extra answer", [status(200) + status(500)], K.OK, status=200, body=b"ok", reused=False),
    Row(25, "an extra answer later", [status(200), pause(0.02), status(500)], K.OK, status=200, reused=False),
    Row(25, "extra garbage", [status(200) + b"garbage"], K.OK, status=200, reused=False),
    Row(25, "Connection: close", [status(200, b"Connection: close")], K.OK, reused=False),
    Row(25, "HTTP/1.0", [status(200).replace(b"HTTP/1.1", b"HTTP/1.0")], K.OK, reused=False),
    Row(25, "Keep-Alive: timeout=1", [status(200, b"Keep-Alive: timeout=1, max=9")], K.OK, reused=False),
    Row(25, "Keep-Alive: timeout=5", [status(200, b"Keep-Alive: timeout=5")], K.OK, reused=True),
    Row(34, "204 where only 200 is right", [b"HTTP/1.1 204 No Content\r\n\r\n"], K.UNEXPECTED_2XX,
        success=frozenset({200})),
    Row(34, "200 where only 200 is right", [status(200)], K.OK, success=frozenset({200})),
]  # fmt: skip


def transport_for(**settings: Any) -> PinnedTransport:
    return PinnedTransport(addresses=AddressPolicy(["127.0.0.0/8", "::1/128"]), resolver=Names(), **settings)


async def post(
    transport: PinnedTransport, url: str, *, body: bytes = BODY, deadline_s: float = PATIENT_S, **settings: Any
) -> Outcome:
    request = build_request(parse_url(url, ANY_HOST), [(b"webhook-id", b"evt_1")], body)
    return await send(transport, request, deadline_s=deadline_s, **{"success": "any_2xx", "clock": SYSTEM, **settings})


async def attempt(row: Row, deadline_s: float) -> tuple[Outcome, bool, int]:
    transport = transport_for()
    try:
        async with RawReceiver(play(*row.steps, read_first=row.read_first)) as receiver:
            outcome = await post(
                transport, receiver.url, body=row.body_sent, success=row.success, deadline_s=deadline_s
            )
            await asyncio.sleep(0)
            if row.number == 25 and row.reused is False:  # what ends the connection may come after the answer
                await eventually(lambda: not transport.pool.idle_count)
            reused = transport.pool.idle_count == 1
            return outcome, reused, len(receiver.requests)
    finally:
        await transport.aclose()
        assert transport.pool.open_count == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_a_receiver_does_has_its_outcome(row: Row, loop: str) -> None:
    run = asyncio.run if loop == "asyncio" else uvloop.run
    for deadline_s in row.deadlines_s:
        outcome, reused, requests = run(attempt(row, deadline_s))
        got_there = (row.phase in (None, outcome.phase)) and (row.body_end in (None, outcome.body_end))
        if outcome.kind is row.kind and outcome.known is row.known and got_there:
            break
    assert outcome.kind is row.kind, outcome.error
    assert outcome.known is row.known
    assert outcome.peer_ip == "127.0.0.1"
    if row.read_first:
        assert requests == 1, "one POST on the wire"
    if row.body_end is not None:
        assert outcome.body_end is row.body_end
    if row.status is not None:
        assert outcome.status_code == row.status
    if row.body is not None:
        assert outcome.response_body == row.body
    if row.reused is not None:
        assert reused is row.reused
    if row.phase is not None:
        assert outcome.phase is row.phase
    if outcome.status_code is None:
        assert outcome.error
    assert len(outcome.response_body) <= 16_384


@dataclass(frozen=True)
class TlsRow:
    number: int
    name: str
    kind: OutcomeClass
    phase: Phase = Phase.TLS
    known: bool = True
    names: tuple[str, ...] = ("shop.example.com",)
    expired: bool = False
    trusted: bool = True
    maximum: ssl.TLSVersion | None = None
    client_cert: bool = False
    plain: Script | None = None  # what a receiver without TLS does

    def __str__(self) -> str:
        return f"{self.number}-{self.name}".replace(" ", "-")


TLS_ROWS = [
    TlsRow(1, "a good one", K.OK, phase=Phase.BODY),
    TlsRow(1, "TLS 1.2", K.OK, phase=Phase.BODY, maximum=ssl.TLSVersion.TLSv1_2),
    TlsRow(26, "expired", K.TLS_CERT, expired=True),
    TlsRow(26, "wrong host", K.TLS_CERT, names=("other.example.com", "127.0.0.1")),
    TlsRow(26, "unknown CA", K.TLS_CERT, trusted=False),
    TlsRow(27, "TLS 1.1 only", K.TLS_PROTOCOL, maximum=ssl.TLSVersion.TLSv1_1),
    TlsRow(27, "plain HTTP", K.TLS_PROTOCOL, plain=[b"HTTP/1.1 400 Bad Request\r\n\r\n", pause(0.05)]),
    TlsRow(27, "FIN in the handshake", K.TLS_PROTOCOL, plain=[FIN]),
    TlsRow(27, "RST in the handshake", K.TLS_PROTOCOL, plain=[RST]),
    TlsRow(28, "silent", K.DEADLINE, plain=[HANG]),
    TlsRow(28, "dripped", K.DEADLINE, plain=[Drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 500, 0.02)]),
    TlsRow(29, "client certificate", K.TLS_CLIENT_CERT, client_cert=True),
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("row", TLS_ROWS, ids=str)
def test_what_goes_wrong_in_tls_has_its_outcome(row: TlsRow, loop: str, authority: Authority) -> None:
    async def attempt(deadline_s: float) -> Outcome:
        client = authority.client_context() if row.trusted else ssl.create_default_context()
        transport = transport_for(ssl_context=client)
        if row.client_cert:
            context = authority.server_context(*row.names, client_cert=True)
            with blocking_tls_server(context) as port:
                try:
                    return await post(transport, f"https://shop.example.com:{port}/", deadline_s=deadline_s)
                finally:
                    await transport.aclose()
        if row.plain is None:
            server = authority.server_context(*row.names, expired=row.expired, maximum=row.maximum)
            receiver = RawReceiver(play(OK), ssl_context=server)
        else:
            receiver = RawReceiver(play(*row.plain, read_first=False))
        try:
            async with receiver:
                return await post(transport, f"https://shop.example.com:{receiver.port}/", deadline_s=deadline_s)
        finally:
            await transport.aclose()

    for deadline_s in DEADLINES_S if row.kind is K.DEADLINE else (PATIENT_S,):
        outcome = (asyncio.run if loop == "asyncio" else uvloop.run)(attempt(deadline_s))
        if (outcome.kind, outcome.phase) == (row.kind, row.phase):
            break
    assert (outcome.kind, outcome.phase, outcome.known) == (row.kind, row.phase, row.known), outcome.error
    assert outcome.peer_ip == "127.0.0.1"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_answer_that_comes_before_the_body_was_read_counts_and_ends_the_connection(loop: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.do(status(413))
        await asyncio.sleep(0.1)
        peer.reset()

    async def attempt() -> tuple[Outcome, int]:
        transport = transport_for()
        try:
            async with RawReceiver(refuse) as receiver:
                outcome = await post(transport, receiver.url, body=b"x" * 20_000_000)
                return outcome, transport.pool.idle_count
        finally:
            await transport.aclose()

    outcome, idle = (asyncio.run if loop == "asyncio" else uvloop.run)(attempt())
    assert (outcome.kind, outcome.status_code, idle) == (OutcomeClass.TOO_LARGE, 413, 0)
