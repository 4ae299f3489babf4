"""The API's connections: what a caller who never gets further than HTTP can do to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from dispatcher.api.connections import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, REASONS, Limits, Lobby
from tests.support.patience import PATIENCE_S, until
from tests.support.served import Served, served

SHORT_S = 0.2
LARGE = 64 * 1024 * 1024


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_app(entered: Event | None = None, let_go: Event | None = None) -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/refused")
    async def refused() -> Response:
        return Response(b"no", 401)

    @app.post("/length")
    async def length(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    @app.get("/slow")
    async def slow() -> dict[str, str]:
        assert entered is not None
        assert let_go is not None
        entered.set()
        await asyncio.to_thread(let_go.wait, PATIENCE_S)
        return {"status": "slow"}

    @app.get("/large")
    async def large() -> Response:
        return Response(b"x" * LARGE)

    @app.get("/unread")
    async def unread() -> Response:
        return Response(b"ok")

    return app


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    with served(make_app()) as found:
        yield found


@pytest.fixture
def hasty() -> Iterator[Served]:
    """One whose patience is short, for callers that only wait."""
    with served(
        make_app(), api_head_timeout_s=SHORT_S, api_body_timeout_s=SHORT_S, api_idle_timeout_s=SHORT_S
    ) as found:
        yield found


GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


def problem(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


# Heads


def test_a_head_without_an_end_is_refused_at_its_bound(api: Served) -> None:
    with api.connect() as caller:
        caller.send(GET + b"x: ", *[b"a" * 16384] * 400)
        status, headers, body = caller.answer()
    assert status == 431
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert problem(body)["code"] == "HEAD_TOO_LARGE"
    assert str(MAX_HEAD_BYTES) in problem(body)["detail"]


def test_a_head_that_comes_byte_by_byte_is_bounded_too(api: Served) -> None:
    with api.connect() as caller:
        caller.send(GET, *[b"x: " + b"a" * 995 + b"\r\n"] * 70)
        assert caller.answer()[0] == 431


def test_a_url_without_an_end_is_refused(api: Served) -> None:
    with api.connect() as caller:
        caller.send(b"GET /", *[b"a" * 16384] * 40)
        assert caller.answer()[0] == 431


def test_blank_lines_without_an_end_are_no_way_around_the_bound(api: Served) -> None:
    with api.connect() as caller:
        caller.send(*[b"\r\n" * 8192] * 40)
        assert caller.answer()[0] == 431


def test_a_head_may_have_as_much_as_is_allowed(api: Served) -> None:
    with api.connect() as caller:
        rest = MAX_HEAD_BYTES - len(GET) - len(b"x: \r\n\r\n")
        for _ in range(3):
            caller.send(GET + b"x: " + b"a" * rest + b"\r\n\r\n")
            assert caller.answer()[0] == 200
        caller.send(GET + b"x: " + b"a" * (rest + 1) + b"\r\n\r\n")
        assert caller.answer()[0] == 431


def test_headers_are_counted(api: Served) -> None:
    lines = [b"x-%d: 1\r\n" % n for n in range(MAX_HEADERS)]
    with api.connect() as caller:
        assert caller.send(GET, *lines[1:], b"\r\n").answer()[0] == 200
        status, _, body = caller.send(GET, *lines, b"\r\n").answer()
    assert status == 431
    assert f"more than {MAX_HEADERS} headers" in problem(body)["detail"]


def test_a_large_body_does_not_count_as_the_next_head(api: Served) -> None:
    body = b"b" * 60_000
    post = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    long = GET + b"x: " + b"a" * 20_000 + b"\r\n\r\n"
    with api.connect() as caller:
        assert json.loads(caller.send(post + body).answer()[2]) == {"length": len(body)}
        assert caller.send(long).answer()[0] == 200
        assert json.loads(caller.send(post, body[:100], body[100:]).answer()[2]) == {"length": len(body)}
        assert caller.send(long[:15_000], long[15_000:]).answer()[0] == 200


def test_what_is_not_http_is_told_so(api: Served) -> None:
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"hello\r\n\r\n"):
        with api.connect() as caller:
            status, _, body = caller.send(junk).answer()
            assert (status, problem(body)["code"]) == (400, "BAD_REQUEST")
            assert caller.is_closed()


def test_no_refusal_is_mixed_into_an_earlier_answer() -> None:
    entered, let_go = Event(), Event()
    with served(make_app(entered, let_go)) as api, api.connect() as caller:
        caller.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert entered.wait(PATIENCE_S)
        caller.send(b"\x00 junk\r\n\r\n")
        until(lambda: api.lobby.closed["malformed"], "the junk is seen")
        let_go.set()
        status, headers, body = caller.answer()
        assert (status, json.loads(body)) == (200, {"status": "slow"})
        assert headers["connection"] == "close"
        assert caller.is_closed()


def test_requests_ahead_of_their_answers_are_bounded(api: Served) -> None:
    few = MAX_PIPELINED - 1
    with api.connect() as caller:
        caller.send((GET + b"\r\n") * few)
        assert [caller.answer()[0] for _ in range(few)] == [200] * few
    before = api.lobby.closed["malformed"]
    with api.connect() as caller:
        caller.send((GET + b"\r\n") * 2000)
        assert caller.is_closed() or api.lobby.closed["malformed"] > before


# Bodies


def test_a_trailer_without_an_end_is_refused(api: Served) -> None:
    with api.connect() as caller:
        caller.send(b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n")
        caller.send(*[b"x: " + b"a" * 16000 + b"\r\n"] * 40)
        status, _, body = caller.answer()
    assert (status, problem(body)["code"]) == (400, "BAD_REQUEST")
    assert api.lobby.held_bytes == 0


def test_a_chunk_extension_without_an_end_is_refused(api: Served) -> None:
    with api.connect() as caller:
        caller.send(b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;x=")
        caller.send(*[b"a" * 16000] * 40)
        assert caller.answer()[0] == 400


def test_a_body_is_waited_for_whatever_comes_between_its_parts(api: Served) -> None:
    head = b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for parts in (
        [b"1", b"\r\n", b"b", b"\r", b"\n0\r\n", b"\r\n"],
        [b"1;name=", b"value", b"\r\nb\r\n", b"0\r\nx-trailer:", b" 1\r\n", b"\r\n"],
    ):
        with api.connect() as caller, api.connect() as other:
            caller.send(head)
            for part in parts:  # an answer between two parts: the server has had time to read the first
                assert other.send(GET, b"\r\n").answer()[0] == 200
                caller.send(part)
            assert json.loads(caller.answer()[2]) == {"length": 1}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("framing", "body", "length"),
    [
        (b"content-length: 36", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n--", 36),
        (b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", 5),
        (b"content-length: 0", b"", 0),
        (b"x-none: 1", b"", 0),
    ],
)
def test_a_request_that_asks_for_another_protocol_is_answered_in_ours(
    api: Served, framing: bytes, body: bytes, length: int, split: bool
) -> None:
    head = (
        b"POST /length HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n" + framing + b"\r\n\r\n"
    )
    with api.connect() as caller:
        if split:
            caller.send(head)
            with api.connect() as other:
                assert other.send(GET, b"\r\n").answer()[0] == 200
            caller.send(body)
        else:
            caller.send(head + body)
        assert json.loads(caller.answer()[2]) == {"length": length}, "and no part of it is another request"
        assert json.loads(caller.send(GET, b"\r\n").answer()[2]) == {"status": "ok"}


def test_a_request_after_one_that_asks_for_another_protocol_is_answered(api: Served) -> None:
    upgrade = GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with api.connect() as caller:
        caller.send(upgrade + upgrade + GET + b"\r\n")
        assert [caller.answer()[0] for _ in range(3)] == [200] * 3


def test_a_request_behind_another_one_may_come_in_parts(api: Served) -> None:
    post = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
    with api.connect() as caller:
        caller.send(GET + b"\r\n" + post + b"hello")
        status, headers, _ = caller.answer()
        assert (status, headers.get("connection")) == (200, None)
        assert json.loads(caller.send(b"hello").answer()[2]) == {"length": 10}


def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    entered, let_go = Event(), Event()
    with served(make_app(entered, let_go)) as api, api.connect() as caller:
        caller.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert entered.wait(PATIENCE_S)
        caller.socket.shutdown(socket.SHUT_WR)
        let_go.set()
        status, headers, body = caller.answer()
        assert (status, headers["connection"], json.loads(body)) == (200, "close", {"status": "slow"})


def test_chunks_of_one_byte_are_taken(api: Served) -> None:
    with api.connect() as caller:
        caller.send(b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        caller.send(b"1\r\nb\r\n" * 50_000, b"0\r\n\r\n")
        assert json.loads(caller.answer()[2]) == {"length": 50_000}
        assert caller.send(GET, b"\r\n").answer()[0] == 200


def test_nothing_of_a_body_is_read_that_nobody_asked_for(api: Served) -> None:
    with api.connect() as caller:
        caller.send(b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n", b"b" * 1000)
        status, headers, body = caller.answer()
        assert (status, body) == (401, b"no")
        assert headers.get("content-length") == "2"
        caller.send(*[b"b" * 65536] * 8)  # it is dropped: the answer above was not lost to a reset
        assert caller.is_closed()
    until(lambda: api.lobby.held_bytes == 0, "nothing is held")


def test_unfinished_bodies_share_a_bound() -> None:
    with served(make_app(), api_max_unfinished_bytes=1024 * 1024) as api:
        head = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 700000\r\n\r\n"
        with api.connect() as first, api.connect() as second, api.connect() as third:
            first.send(head, b"b" * 600_000)
            until(lambda: api.lobby.held_bytes == 600_000, "the first body is held")
            second.send(head, b"b" * 600_000)
            status, headers, body = first.answer()
            assert (status, problem(body)["code"]) == (503, "UNAVAILABLE"), "the one that began first makes room"
            assert headers["retry-after"] == "1"
            until(lambda: api.lobby.held_bytes == 600_000, "the second body is held")
            assert json.loads(second.send(b"b" * 100_000).answer()[2]) == {"length": 700_000}
            assert third.send(GET, b"\r\n").answer()[0] == 200
        until(lambda: api.lobby.held_bytes == 0, "nothing is held")


# Time


def test_a_head_that_takes_too_long_is_408(hasty: Served) -> None:
    with hasty.connect() as caller:
        status, headers, body = caller.send(GET).answer()
        assert (status, problem(body)["code"]) == (408, "REQUEST_TIMEOUT")
        assert headers["connection"] == "close"
        assert caller.is_closed()
    assert hasty.lobby.closed["head_timeout"] == 1


def test_a_drip_does_not_prolong_a_head(hasty: Served) -> None:
    with hasty.connect() as caller:
        caller.send(GET)
        caller.socket.settimeout(0.01)
        answer = b""
        while not answer:
            caller.send(b"x: 1\r\n")
            try:
                answer = caller.socket.recv(12)
            except TimeoutError:
                continue
    assert answer == b"HTTP/1.1 408"


def test_a_body_that_takes_too_long_is_408(hasty: Served) -> None:
    with hasty.connect() as caller:
        caller.send(b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nb")
        status, _, body = caller.answer()
        assert (status, problem(body)["code"]) == (408, "REQUEST_TIMEOUT")
        assert caller.is_closed()
    assert hasty.lobby.closed["body_timeout"] == 1


def test_who_says_nothing_is_closed_without_a_word(hasty: Served) -> None:
    with hasty.connect() as caller:
        assert caller.answer() == (0, {}, b"")
    assert hasty.lobby.closed["head_timeout"] == 1


def test_an_idle_connection_is_closed(hasty: Served) -> None:
    with served(make_app(), api_idle_timeout_s=SHORT_S) as api, api.connect() as caller:
        assert caller.send(GET, b"\r\n").answer()[0] == 200
        assert caller.is_closed()
        assert api.lobby.closed["idle_timeout"] == 1


def test_work_that_takes_longer_than_every_limit_is_waited_for() -> None:
    entered, let_go = Event(), Event()
    short = {f"api_{name}_timeout_s": SHORT_S for name in ("head", "body", "idle")}
    with served(make_app(entered, let_go), **short) as api, api.connect() as caller:
        caller.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert entered.wait(PATIENCE_S)
        with api.connect() as other:
            assert other.answer()[0] == 0, "a limit has passed meanwhile"
        let_go.set()
        assert caller.answer()[0] == 200


def test_who_does_not_take_an_answer_is_closed(hasty: Served) -> None:
    with hasty.connect() as caller:
        caller.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        until(lambda: hasty.lobby.closed["write_timeout"], "it is closed")
        assert not hasty.lobby.open


def test_who_takes_an_answer_slowly_gets_all_of_it() -> None:
    clock = Clock()
    lobby = Lobby(Limits(body_s=30.0, idle_s=30.0), clock)
    with served(make_app(), lobby=lobby) as api, api.connect() as caller:
        caller.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        taken = 0
        while taken < LARGE:
            part = caller.socket.recv(1024 * 1024)
            assert part, f"cut after {taken} bytes"
            taken += len(part)
            if taken % 7 == 0:
                clock.now_s += 29.0
    assert api.lobby.closed["write_timeout"] == 0


def test_answers_that_nobody_takes_share_a_bound() -> None:
    with served(make_app(), api_max_unfinished_bytes=LARGE + LARGE // 2) as api:
        with api.connect() as first, api.connect() as second:
            first.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda: any(one.unsent_bytes > LARGE // 2 for one in tuple(api.lobby.open)), "one answer is held")
            second.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda: api.lobby.closed["answers"], "one of the two is closed")
            with api.connect() as other:
                assert other.send(GET, b"\r\n").answer()[0] == 200
        assert api.lobby.closed["answers"] == 1


# Numbers


def test_the_connection_that_is_idle_longest_makes_room() -> None:
    with served(make_app(), api_max_connections=3) as api:
        callers = []
        for n in range(3):
            callers.append(api.connect())
            assert callers[n].send(GET, b"\r\n").answer()[0] == 200
        assert callers[0].send(GET, b"\r\n").answer()[0] == 200  # the second is idle longest now
        callers.append(api.connect())
        assert callers[3].send(GET, b"\r\n").answer()[0] == 200
        assert callers[1].is_closed()
        assert callers[0].send(GET, b"\r\n").answer()[0] == 200
        assert callers[2].send(GET, b"\r\n").answer()[0] == 200
        assert api.lobby.closed == {"crowded_out": 1}
        for caller in callers:
            caller.close()


def test_a_new_connection_is_refused_where_all_others_are_at_work() -> None:
    entered, let_go = Event(), Event()
    with served(make_app(entered, let_go), api_max_connections=1) as api, api.connect() as busy:
        busy.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert entered.wait(PATIENCE_S)
        with api.connect() as late:
            assert late.is_closed()
        let_go.set()
        assert busy.answer()[0] == 200


def test_many_half_sent_requests_leave_room_for_whole_ones() -> None:
    with served(make_app(), api_max_connections=20) as api:
        silent = [api.connect().send(GET) for _ in range(60)]
        with api.connect() as caller:
            assert caller.send(GET, b"\r\n").answer()[0] == 200
        assert len(api.lobby.open) <= 20
        for one in silent:
            one.close()
        until(lambda: not api.lobby.open, "all have left")
        assert not api.lobby.unheard
        assert not api.lobby.sending
        assert not api.lobby.lingering


def test_refused_requests_that_linger_make_room_first() -> None:
    with served(make_app(), api_max_connections=10) as api:
        with api.connect() as healthy:
            assert healthy.send(GET, b"\r\n").answer()[0] == 200
            refused = []
            for _ in range(30):
                refused.append(api.connect())
                refused[-1].send(b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
                assert refused[-1].answer()[0] == 401
            assert healthy.send(GET, b"\r\n").answer()[0] == 200
        for one in refused:
            one.close()


def test_every_reason_is_declared(api: Served) -> None:
    assert set(api.lobby.closed) <= set(REASONS)
