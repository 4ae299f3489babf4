"""One request, to the address that was checked, once."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from dispatcher.clock import SYSTEM
from dispatcher.egress import AddressPolicy, PinnedTransport, Pool, UrlPolicy, build_request, parse_url, send
from dispatcher.egress import transport as transport_module
from dispatcher.egress.connection import Connection
from dispatcher.egress.failures import BlockedAddress, DnsFailure, InvalidRequest, LocalFailure
from dispatcher.egress.transport import BODY_BYTES_KEY, DEADLINE_KEY
from dispatcher.egress.url import ANY_HOST
from dispatcher.model.outcome import BodyEnd, Outcome, OutcomeClass, Phase
from tests.egress.conftest import LOOPBACK
from tests.support.patience import eventually
from tests.support.receivers import (
    FIN,
    HANG,
    OK,
    RST,
    Drip,
    Flood,
    LedgerReceiver,
    Names,
    RawReceiver,
    dead_port,
    play,
    play_each,
)
from tests.support.tls import Authority

BODY = b'{"payment": 1}'


async def post(
    transport: httpx.AsyncBaseTransport,
    url: str,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes = BODY,
    method: str = "POST",
    deadline_s: float = 60.0,
    **settings: Any,
) -> Outcome:
    request = build_request(parse_url(url, ANY_HOST), headers or [(b"webhook-id", b"evt_1")], body, method)
    return await send(transport, request, success="any_2xx", clock=SYSTEM, deadline_s=deadline_s, **settings)


# What is on the wire.


async def test_the_receiver_gets_exactly_what_was_built(transport: PinnedTransport) -> None:
    async with RawReceiver(play(OK)) as receiver:
        outcome = await post(
            transport, f"http://shop.example.com:{receiver.port}/a%20b?c=%C3%A9&d[]=1", headers=[(b"X-Sign", b"\xe9=")]
        )
    assert outcome.ok
    assert outcome.phase is Phase.BODY
    assert outcome.response_headers == (("Content-Length", "2"),)
    assert outcome.response_body == b"ok"
    assert receiver.requests[0].head == (
        b"POST /a%%20b?c=%%C3%%A9&d[]=1 HTTP/1.1\r\nHost: shop.example.com:%d\r\n"
        b"Content-Length: 14\r\nX-Sign: \xe9=\r\n\r\n" % receiver.port
    )
    assert receiver.requests[0].body == BODY


async def test_a_large_body_arrives_whole(transport: PinnedTransport) -> None:
    body = bytes(range(256)) * 4_000
    async with LedgerReceiver() as receiver:
        assert (await post(transport, receiver.url, body=body)).ok
    assert receiver.ledger[0].body == body


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X", b"a\r\nInjected: 1")],
        [(b"X", b"a\nInjected: 1")],
        [(b"X", b"a\rb")],
        [(b"X", b"a\0b")],
        [(b"X", b"\x1b[0m")],
        [(b"X\r\nInjected", b"1")],
        [(b"X Y", b"1")],
        [(b"X:", b"1")],
        [(b"", b"1")],
        [(b"\xe9", b"1")],
        [(b"Host", b"127.0.0.1")],
        [(b"host", b"shop.example.com")],
        [(b"Content-Length", b"3")],
        [(b"Content-Length", b"14")],
    ],
)
async def test_a_header_that_could_make_another_request_is_never_sent(
    transport: PinnedTransport, headers: list[tuple[bytes, bytes]]
) -> None:
    async with RawReceiver(play(OK)) as receiver:
        outcome = await post(transport, receiver.url, headers=headers)
        foreign = await post(httpx.MockTransport(lambda _: httpx.Response(200)), receiver.url, headers=headers)
    assert outcome.kind is OutcomeClass.INVALID_CONFIG
    assert outcome.known
    assert receiver.connections == 0
    if b"ength" not in headers[0][0] and b"ost" not in headers[0][0]:
        assert foreign.kind is OutcomeClass.INVALID_CONFIG


@pytest.mark.parametrize("method", ["CONNECT", "PO ST", "GET / HTTP/1.1\r\nX:", "PÖST", ""])
async def test_a_method_that_is_no_token_is_never_sent(transport: PinnedTransport, method: str) -> None:
    async with RawReceiver(play(OK)) as receiver:
        outcome = await post(transport, receiver.url, method=method)
    assert outcome.kind is OutcomeClass.INVALID_CONFIG
    assert receiver.connections == 0


# Connections: kept, and never used twice for one request.


async def test_a_connection_is_kept_and_used_again(transport: PinnedTransport) -> None:
    async with LedgerReceiver() as receiver:
        for _ in range(5):
            assert (await post(transport, receiver.url)).ok
            await asyncio.sleep(0.005)  # long enough for the kernel to be asked
    assert len(receiver.ledger) == 5
    assert receiver.connections == 1


async def test_connections_are_not_shared_between_names(transport: PinnedTransport) -> None:
    async with LedgerReceiver() as receiver:
        for name in ("a.example", "b.example", "a.example"):
            assert (await post(transport, f"http://{name}:{receiver.port}/")).ok
    assert receiver.connections == 2


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("end", [RST, FIN])
async def test_a_kept_connection_that_dies_under_a_request_is_no_reason_to_send_it_again(
    transport: PinnedTransport, method: str, end: Any
) -> None:
    async with RawReceiver(play_each([OK], [end], [OK])) as receiver:
        first = await post(transport, receiver.url, method=method)
        second = await post(transport, receiver.url, method=method)
        assert (first.kind, second.known) == (OutcomeClass.OK, False)
        assert second.kind is (OutcomeClass.RESET if end is RST else OutcomeClass.CLOSED)
        await asyncio.sleep(0.05)
        assert len(receiver.requests) == 2, "one POST on the wire per call"
        assert receiver.connections == 1


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_before_a_byte_is_written(
    transport: PinnedTransport,
) -> None:
    async with RawReceiver(play(OK, FIN)) as receiver:
        for _ in range(3):
            assert (await post(transport, receiver.url)).ok
            await eventually(lambda: not transport.pool.idle_count)
    assert (len(receiver.requests), receiver.connections) == (3, 3)


async def test_the_kernel_is_asked_whether_an_idle_connection_is_still_open(transport: PinnedTransport) -> None:
    """The FIN has arrived, but the loop was too busy to hear of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def answer(end: bool) -> socket.socket:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(OK)
            if end:
                connection.close()
            return connection

        first, kept = await asyncio.gather(post(transport, url), asyncio.to_thread(answer, False))
        assert first.ok
        kept.close()
        time.sleep(0.01)  # noqa: ASYNC251 - the loop must not run
        second, other = await asyncio.gather(post(transport, url), asyncio.to_thread(answer, True))
        assert second.ok
        other.close()


async def test_an_origin_that_breaks_its_keep_alive_gets_one_request_per_connection(
    transport: PinnedTransport,
) -> None:
    async with RawReceiver(play_each([OK], [RST], [OK])) as receiver:
        kinds = [(await post(transport, receiver.url)).kind for _ in range(5)]
    assert kinds == [OutcomeClass.OK, OutcomeClass.RESET, OutcomeClass.OK, OutcomeClass.OK, OutcomeClass.OK]
    assert receiver.connections == 4


async def test_a_second_request_waits_for_no_connection_in_use(transport: PinnedTransport) -> None:
    async with LedgerReceiver(answer=lambda _: (0.3, OK)) as receiver:
        outcomes = await asyncio.gather(*(post(transport, receiver.url) for _ in range(10)))
        assert all(outcome.ok for outcome in outcomes)
        assert receiver.most_at_once == 10
        assert transport.pool.idle_count == 10


async def test_the_pool_is_bounded() -> None:
    pool = Pool(max_connections=3, max_idle=2, max_idle_per_origin=1)
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(), pool=pool)
    async with LedgerReceiver(answer=lambda _: (0.3, OK)) as receiver:
        urls = [f"http://{name}.example:{receiver.port}/" for name in "abcd"]
        outcomes = await asyncio.gather(*(post(transport, url) for url in urls))
        assert [outcome.kind for outcome in outcomes].count(OutcomeClass.INTERNAL) == 1
        assert all(outcome.known for outcome in outcomes)
        assert pool.idle_count == 2
        await asyncio.gather(*(post(transport, urls[0]) for _ in range(2)))
        assert pool.idle_count <= 2
        for url in urls:  # idle ones make room
            assert (await post(transport, url)).ok
        await eventually(lambda: pool.open_count <= 3)
    await transport.aclose()
    assert (await post(transport, urls[0])).kind is OutcomeClass.INTERNAL


async def test_idle_connections_are_closed_in_time() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(), pool=Pool(idle_s=0.05))
    async with LedgerReceiver() as receiver:
        assert (await post(transport, receiver.url)).ok
        assert transport.pool.open_count == 1
        await eventually(lambda: transport.pool.open_count == 0)
    await transport.aclose()


async def test_a_cancelled_request_closes_its_connection_and_raises(transport: PinnedTransport) -> None:
    async with RawReceiver(play(HANG)) as receiver:
        task = asyncio.create_task(post(transport, receiver.url))
        await eventually(lambda: receiver.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: transport.pool.open_count == 0)


# Time.


async def test_one_deadline_covers_the_whole_attempt(transport: PinnedTransport) -> None:
    """A deadline for each read would never end what sends something in each."""
    drip = Drip(b"X: 1\r\n", 0.01, forever=True)
    async with RawReceiver(play(b"HTTP/1.1 200 OK\r\n", drip)) as receiver:
        outcome = await post(transport, receiver.url, deadline_s=0.2)
    assert outcome.kind is OutcomeClass.DEADLINE
    assert outcome.duration_ms >= 190


async def test_a_kept_connections_timer_serves_the_next_request(transport: PinnedTransport) -> None:
    async with RawReceiver(play_each([OK], [OK], [HANG])) as receiver:
        assert (await post(transport, receiver.url, deadline_s=2)).ok
        await asyncio.sleep(0.1)
        assert (await post(transport, receiver.url, deadline_s=3_600)).ok
        # With the timer of the second request this would take an hour.
        outcome = await post(transport, receiver.url, deadline_s=0.2)
        assert outcome.kind is OutcomeClass.DEADLINE
        assert outcome.duration_ms >= 190
        assert receiver.connections == 1


async def test_a_slow_look_up_ends_in_time() -> None:
    names = Names({"shop.example.com": HANG})
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=names, dns_timeout_s=0.05)
    outcome = await post(transport, "http://shop.example.com/")
    assert (outcome.kind, outcome.phase, outcome.known) == (OutcomeClass.DNS, Phase.DNS, True)
    await transport.aclose()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose SYNs are dropped: its queue of unaccepted connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


async def test_a_connection_that_nobody_accepts_ends_in_time() -> None:
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(), connect_timeout_s=0.1)
    with black_hole() as port:
        outcome = await post(transport, f"http://shop.example.com:{port}/")
    assert (outcome.kind, outcome.phase, outcome.known) == (OutcomeClass.CONNECT, Phase.CONNECT, True)
    assert outcome.peer_ip == "127.0.0.1"
    assert outcome.duration_ms >= 90
    await transport.aclose()


async def test_a_refused_connection_is_said_to_be_refused(transport: PinnedTransport) -> None:
    async with dead_port() as port:
        outcome = await post(transport, f"http://shop.example.com:{port}/")
    assert (outcome.kind, outcome.phase, outcome.known) == (OutcomeClass.CONNECT, Phase.CONNECT, True)
    assert outcome.error == "the receiver cannot be reached: ECONNREFUSED"


# Addresses.


@pytest.mark.parametrize("answer", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "::ffff:10.0.0.1"]])
async def test_nothing_is_dialled_if_any_answer_is_denied(answer: list[str]) -> None:
    dialled: list[tuple[str, int]] = []
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK), resolver=Names(default=answer), on_dial=lambda *to: dialled.append(to)
    )
    outcome = await post(transport, "http://shop.example.com/")
    assert (outcome.kind, outcome.phase, outcome.known) == (OutcomeClass.BLOCKED_ADDRESS, Phase.DNS, True)
    assert dialled == []
    assert "10.0" not in (outcome.error or ""), "the inner address is not for the tenant"
    await transport.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/", "http://[::1]/", "http://10.0.0.1/"])
async def test_an_address_in_the_url_is_checked_too(url: str) -> None:
    dialled: list[tuple[str, int]] = []
    transport = PinnedTransport(on_dial=lambda *to: dialled.append(to))
    assert (await post(transport, url)).kind is OutcomeClass.BLOCKED_ADDRESS
    assert dialled == []
    await transport.aclose()


async def test_a_name_that_is_bound_anew_to_a_denied_address_is_blocked_even_on_a_kept_connection() -> None:
    names = Names({"shop.example.com": [["127.0.0.1"], ["127.0.0.1"], ["192.168.0.1"]]})
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=names)
    async with LedgerReceiver() as receiver:
        url = f"http://shop.example.com:{receiver.port}/"
        kinds = [(await post(transport, url)).kind for _ in range(3)]
    assert kinds == [OutcomeClass.OK, OutcomeClass.OK, OutcomeClass.BLOCKED_ADDRESS]
    assert len(receiver.ledger) == 2
    await transport.aclose()


async def test_the_address_that_was_checked_is_dialled_and_the_name_is_kept(authority: Authority) -> None:
    dialled: list[tuple[str, int]] = []
    sni: list[str | None] = []
    context = authority.server_context("shop.example.com")
    context.sni_callback = lambda _socket, name, _context: sni.append(name)
    names = Names({"shop.example.com": ["127.0.0.2"]})
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK),
        resolver=names,
        ssl_context=authority.client_context(),
        on_dial=lambda *to: dialled.append(to),
    )
    async with LedgerReceiver(ssl_context=context, host="127.0.0.2") as receiver:
        outcomes = [await post(transport, f"https://shop.example.com:{receiver.port}/") for _ in range(3)]
    assert [outcome.kind for outcome in outcomes] == [OutcomeClass.OK] * 3
    assert outcomes[0].peer_ip == "127.0.0.2"
    assert dialled == [("127.0.0.2", receiver.port)], "one dial, then the connection was kept"
    assert sni == ["shop.example.com"]
    assert receiver.ledger[0].headers["host"] == f"shop.example.com:{receiver.port}"
    await transport.aclose()


async def test_the_next_address_is_tried_when_one_refuses_and_three_at_most() -> None:
    dialled: list[str] = []
    addresses = ["127.0.0.9", "127.0.0.8", "::1", "127.0.0.7", "127.0.0.1"]
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK),
        resolver=Names({"all.example": addresses, "two.example": ["127.0.0.9", "127.0.0.1"]}),
        on_dial=lambda address, _port: dialled.append(address),
    )
    async with LedgerReceiver() as receiver:
        assert (await post(transport, f"http://two.example:{receiver.port}/")).ok
        outcome = await post(transport, f"http://all.example:{receiver.port}/")
    assert outcome.kind is OutcomeClass.CONNECT
    assert dialled == ["127.0.0.9", "127.0.0.1", "127.0.0.9", "::1", "127.0.0.8"]
    assert len(receiver.ledger) == 1
    await transport.aclose()


async def test_a_broken_address_leaves_time_for_the_next() -> None:
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK), resolver=Names(default=["127.0.0.1", "127.0.0.2"]), connect_timeout_s=0.3
    )
    with black_hole() as port:
        receiver = LedgerReceiver(host="127.0.0.2")
        receiver.port = port
        async with receiver:
            outcome = await post(transport, f"http://shop.example.com:{port}/")
    assert outcome.ok
    assert outcome.peer_ip == "127.0.0.2"
    await transport.aclose()


async def test_a_connection_whose_address_left_the_answer_is_not_used() -> None:
    names = Names({"shop.example.com": [["127.0.0.1"], ["127.0.0.2"]]})
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=names)
    async with LedgerReceiver() as first:
        second = LedgerReceiver(host="127.0.0.2")
        second.port = first.port
        async with second:
            outcomes = [await post(transport, f"http://shop.example.com:{first.port}/") for _ in range(2)]
    assert [outcome.peer_ip for outcome in outcomes] == ["127.0.0.1", "127.0.0.2"]
    await transport.aclose()


async def test_environment_proxies_are_not_read(transport: PinnedTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    async with LedgerReceiver() as receiver:
        assert (await post(transport, receiver.url)).ok


# Our own failures.


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
async def test_a_shortage_on_our_side_is_internal(
    transport: PinnedTransport, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_socket(*_: object) -> socket.socket:
        raise OSError(number, "none left")

    monkeypatch.setattr(socket, "socket", no_socket)
    outcome = await post(transport, "http://shop.example.com/")
    assert (outcome.kind, outcome.known) == (OutcomeClass.INTERNAL, True)
    assert transport.pool.open_count == 0


async def test_an_address_that_this_machine_has_no_way_to_leaves_room_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dial = transport_module._connected_socket

    async def without_ipv6(address: str, port: int, limit: float) -> socket.socket:
        if ":" in address:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return await dial(address, port, limit)

    monkeypatch.setattr(transport_module, "_connected_socket", without_ipv6)
    transport = PinnedTransport(addresses=AddressPolicy(LOOPBACK), resolver=Names(default=["::1", "127.0.0.1"]))
    async with LedgerReceiver() as receiver:
        outcome = await post(transport, f"http://localhost:{receiver.port}/")
    assert (outcome.kind, outcome.peer_ip) == (OutcomeClass.OK, "127.0.0.1"), outcome.error
    await transport.aclose()


async def test_a_bug_is_an_internal_outcome_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, transport: PinnedTransport, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(transport, "_resolve", broken)
    with caplog.at_level(logging.ERROR):
        outcome = await post(transport, "http://shop.example.com/")
    assert outcome.kind is OutcomeClass.INTERNAL
    assert caplog.records[0].message == "attempt.failed_internally"


# Inside httpx.


async def test_it_works_inside_an_httpx_client(transport: PinnedTransport) -> None:
    async def parts() -> Any:
        yield b"streamed "
        yield b"body"

    async with httpx.AsyncClient(transport=transport) as client:
        async with LedgerReceiver() as receiver:
            response = await client.post(receiver.url, json={"a": 1}, headers={"X-Name": "value"})
            assert response.status_code == 200
            assert response.text == "ok"
            assert response.extensions["peer_ip"] == "127.0.0.1"
            assert response.extensions["body_end"] is BodyEnd.COMPLETE
            assert response.extensions["connect_ms"] >= 0
            assert response.extensions["tls_ms"] is None
            assert response.http_version == "HTTP/1.1"
            assert response.reason_phrase == "OK"
            again = await client.post(receiver.url, content=parts())
            assert again.extensions["connect_ms"] is None
            assert (await client.get(receiver.url)).status_code == 200
        assert [entry.body for entry in receiver.ledger] == [b'{"a":1}', b"streamed body", b""]
        assert receiver.connections == 1
        assert "transfer-encoding" not in receiver.ledger[1].headers


async def test_head_needs_no_body(transport: PinnedTransport) -> None:
    async with (
        httpx.AsyncClient(transport=transport) as client,
        RawReceiver(play(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as receiver,
    ):
        assert (await client.head(receiver.url)).status_code == 200


async def test_an_httpx_client_sees_errors_of_httpx(transport: PinnedTransport) -> None:
    transport._resolver = Names({"gone.example": DnsFailure("gone.example cannot be resolved")})
    async with httpx.AsyncClient(transport=transport) as client:
        async with dead_port() as port:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://shop.example.com:{port}/")
        with pytest.raises(httpx.ConnectError):
            await client.get("http://gone.example/")
        with pytest.raises(BlockedAddress) as blocked:
            await client.get("http://10.0.0.1/")
        assert blocked.value.address == "10.0.0.1"
        with pytest.raises(InvalidRequest):
            await client.get("http://shop_1.example.com/")
        async with RawReceiver(play(HANG)) as receiver:
            with pytest.raises(httpx.TimeoutException):
                await client.get(receiver.url, extensions={DEADLINE_KEY: 0.05})
        async with RawReceiver(play(FIN)) as receiver:
            with pytest.raises(httpx.NetworkError):
                await client.get(receiver.url)
        async with RawReceiver(play(b"garbage")) as receiver:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(receiver.url)
        async with RawReceiver(play(OK)) as receiver:
            response = await client.get(receiver.url, extensions={BODY_BYTES_KEY: 1})
            assert response.content == b"o"
            assert response.extensions["body_end"] is BodyEnd.CAPPED


async def test_a_redirect_followed_by_a_foreign_client_goes_where_it_leads(transport: PinnedTransport) -> None:
    async with LedgerReceiver() as second:
        location = f"http://other.example.com:{second.port}/moved".encode()
        redirect = b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
        async with RawReceiver(play(redirect)) as first:
            request = build_request(parse_url(first.url, ANY_HOST), [], BODY)
            async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
                assert (await client.send(request)).status_code == 200
    assert second.ledger[0].headers["host"] == f"other.example.com:{second.port}"


# Over other transports.


async def test_send_works_over_a_mock_transport() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.read() == BODY
        return httpx.Response(503, headers={"Retry-After": "7"}, content=b"x" * 100)

    outcome = await post(httpx.MockTransport(answer), "https://shop.example.com/", body_bytes=10)
    assert (outcome.kind, outcome.status_code, outcome.retry_after_s) == (OutcomeClass.THROTTLED, 503, 7.0)
    assert (outcome.response_body, outcome.body_end) == (b"x" * 10, BodyEnd.CAPPED)


class _Broken(httpx.AsyncByteStream):
    def __init__(self, end: str) -> None:
        self._end = end

    async def __aiter__(self) -> Any:
        yield b"ok"
        if self._end == "hang":
            await asyncio.Event().wait()
        raise httpx.ReadError("gone")


@pytest.mark.parametrize(("end", "expected"), [("hang", BodyEnd.DEADLINE), ("lost", BodyEnd.INCOMPLETE)])
async def test_a_body_lost_over_a_foreign_transport_does_not_change_the_outcome(end: str, expected: BodyEnd) -> None:
    mock = httpx.MockTransport(lambda _: httpx.Response(200, stream=_Broken(end)))
    outcome = await post(mock, "https://shop.example.com/", deadline_s=0.05)
    assert (outcome.kind, outcome.body_end, outcome.response_body) == (OutcomeClass.OK, expected, b"ok")


@pytest.mark.parametrize(
    ("error", "kind", "known"),
    [
        (httpx.ConnectError("x"), OutcomeClass.CONNECT, True),
        (httpx.ConnectTimeout("x"), OutcomeClass.CONNECT, True),
        (httpx.ReadTimeout("x"), OutcomeClass.DEADLINE, False),
        (httpx.WriteTimeout("x"), OutcomeClass.DEADLINE, False),
        (httpx.WriteError("x"), OutcomeClass.RESET, False),
        (httpx.ReadError("x"), OutcomeClass.RESET, False),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), OutcomeClass.CLOSED, False),
        (httpx.RemoteProtocolError("illegal status line"), OutcomeClass.PROTOCOL, True),
        (httpx.LocalProtocolError("x"), OutcomeClass.INVALID_CONFIG, True),
        (httpx.UnsupportedProtocol("x"), OutcomeClass.INVALID_CONFIG, True),
        (httpx.InvalidURL("x"), OutcomeClass.INVALID_CONFIG, True),
        (UnicodeError("label too long"), OutcomeClass.INVALID_CONFIG, True),
        (OSError(errno.EMFILE, "x"), OutcomeClass.INTERNAL, True),
        (RuntimeError("x"), OutcomeClass.INTERNAL, False),
        (LocalFailure("full", phase=None), OutcomeClass.INTERNAL, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_send_names_every_exception(error: Exception, kind: OutcomeClass, known: bool) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    outcome = await post(httpx.MockTransport(fail), "https://shop.example.com/")
    assert (outcome.kind, outcome.known) == (kind, known)
    assert outcome.error


async def test_a_foreign_transport_that_hangs_meets_the_deadline() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    outcome = await post(httpx.MockTransport(hang), "https://shop.example.com/", deadline_s=0.05)
    assert (outcome.kind, outcome.known) == (OutcomeClass.DEADLINE, False)


async def test_being_cancelled_gets_through_send() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(post(httpx.MockTransport(hang), "https://shop.example.com/"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_flood_costs_little_once_it_is_known_to_be_one(transport: PinnedTransport) -> None:
    async with RawReceiver(play(Flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000))) as receiver:
        calls = 0
        original = Connection.data_received

        class Counting(Connection):
            __slots__ = ()

            def data_received(self, data: bytes) -> None:
                nonlocal calls
                calls += 1
                original(self, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport_module, "Connection", Counting)
            outcome = await post(transport, receiver.url, deadline_s=0.2)
    assert outcome.kind is OutcomeClass.DEADLINE
    assert calls < 10


def test_the_default_context_demands_tls_1_2_and_a_matching_name() -> None:
    from dispatcher.egress import default_ssl_context

    context = default_ssl_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_request_goes_where_its_url_was_checked_to_go() -> None:
    target = parse_url("https://shop.example.com/a", UrlPolicy())
    request = build_request(target, [], b"")
    assert request.checked_target is target  # type: ignore[attr-defined]
    request.url = httpx.URL("https://other.example.com/")
    assert request.checked_target is None  # type: ignore[attr-defined]


async def test_a_blocked_address_is_told_to_the_operator_once(caplog: pytest.LogCaptureFixture) -> None:
    transport = PinnedTransport(
        resolver=Names({"inside.example.com": ["10.0.0.1"], "gone.example.com": DnsFailure("?")})
    )
    for _ in range(3):
        assert (await transport.refusal("https://inside.example.com/hook")).address == "10.0.0.1"  # type: ignore[union-attr]
    assert await transport.refusal("https://gone.example.com/") is None
    await transport.aclose()
    assert [record.getMessage() for record in caplog.records] == [
        "address.blocked receiver_host=inside.example.com address=10.0.0.1"
    ]
