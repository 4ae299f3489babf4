"""How calls are made: keys, signatures, retries, pages, bodies, errors, and answers that are none."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import pickle
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from dispatcher import errors
from dispatcher.client import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    ForeignAnswer,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    Unprocessable,
    Unreachable,
    answer,
    body,
)
from dispatcher.clock import Clock
from dispatcher.errors import ConfigurationError, InvalidInput

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MOST = Clock(now=lambda: NOW, uniform=lambda _, high: high)
ACCEPTED = {"id": "evt_1", "type": "a", "tenant_id": "ten_1", "mode": "live", "object_id": None, "duplicate": False}

Given = httpx.Response | Exception


class Server:
    """Answers with what it is given, in turn, and keeps what it was asked."""

    def __init__(self, *given: Given) -> None:
        self._given = iter(given)
        self.asked: list[httpx.Request] = []
        self.headers: list[httpx.Headers] = []
        self.transport = httpx.MockTransport(self._answer)
        self.waits: list[float] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self.headers.append(request.headers.copy())
        one = next(self._given)
        if isinstance(one, Exception):
            raise one
        return one

    def client(self, **options: Any) -> Client:
        options = {"clock": MOST, "api_key": "k"} | options
        return Client("https://api.example", transport=self.transport, sleep=self.waits.append, **options)

    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for headers in self.headers]


def ok() -> httpx.Response:
    return httpx.Response(200, json={"id": "x"})


def problem(status: int, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    fields = {"title": "t", "status": status, "detail": "no", "code": "CODE", "errors": [], "request_id": "r"} | fields
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=orjson.dumps(fields), headers={**kind, **(headers or {})})


# Retries


def test_a_post_keeps_its_key_and_its_bytes_over_retries() -> None:
    server = Server(problem(503), httpx.ReadTimeout("slow"), httpx.Response(202, json=ACCEPTED))
    assert server.client().events.create(type="a", payload={"b": 1})["id"] == "evt_1"
    assert len(set(server.keys())) == 1
    assert {request.content for request in server.asked} == {b'{"type":"a","payload":{"b":1}}'}


def test_each_post_has_a_key_of_its_own_and_a_given_one_is_used() -> None:
    server = Server(*[httpx.Response(200, json={}) for _ in range(3)])
    client = server.client()
    client.deliveries.retry("dlv_1")
    client.deliveries.retry("dlv_1")
    client.deliveries.retry("dlv_1", idempotency_key="mine")
    first, second, third = server.keys()
    assert first != second
    assert third == "mine"
    with pytest.raises(InvalidInput, match="printable ASCII"):
        client.deliveries.retry("dlv_1", idempotency_key="a\r\nx: y")


def test_an_events_own_id_or_a_key_that_no_header_carries_goes_in_the_body_alone() -> None:
    server = Server(*[httpx.Response(202, json=ACCEPTED) for _ in range(4)])
    client = server.client()
    client.events.create(type="a", payload=1, id="evt_1")
    client.events.create(type="a", payload=1, idempotency_key="zahlung-ü")
    client.events.create(type="a", payload=1, idempotency_key="mine")
    bodies = [orjson.loads(request.content) for request in server.asked]
    assert bodies[0]["id"] == "evt_1"
    assert bodies[1]["idempotency_key"] == "zahlung-ü"
    assert [headers.get("idempotency-key") for headers in server.headers] == [None, None, "mine"]
    client.events.create(type="a", payload=1, id=None, idempotency_key=None)
    assert server.headers[-1]["idempotency-key"]
    with pytest.raises(InvalidInput, match="one of the two"):
        client.events.create(type="a", payload=1, id="evt_1", idempotency_key="mine")


def test_a_wait_is_what_retry_after_says_within_bounds() -> None:
    at = (NOW + timedelta(seconds=5)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    server = Server(
        problem(429, headers={"retry-after": "7"}),
        problem(503, headers={"retry-after": at}),
        problem(429, headers={"retry-after": "999999999999"}),
        problem(429, headers={"retry-after": "Mon, 02 Mar 2020 09:00:00 -0000"}),
        ok(),
    )
    server.client().events.get("evt_1")
    assert server.waits == [7.0, 5.0, 30.0, 0.0]


def test_without_retry_after_the_wait_is_drawn_up_to_a_bound_that_doubles() -> None:
    answers = [problem(503, headers={"retry-after": text} if text else None) for text in ("", "soon", "-1", "1e9", "")]
    server = Server(*answers, *[problem(503) for _ in range(3)], ok())
    server.client(max_retries=8).events.get("evt_1")
    assert server.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    server = Server(problem(503), ok())
    server.client(clock=Clock(now=lambda: NOW, uniform=lambda low, _: low)).events.get("evt_1")
    assert server.waits == [0.0]


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.PoolTimeout("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_fails_is_tried_again_and_then_told(error: httpx.TransportError) -> None:
    server = Server(error, error, ok())
    assert server.client().events.get("evt_1") == {"id": "x"}
    server = Server(*[error] * 3)
    with pytest.raises(Unreachable, match=r"no answer from https://api\.example/") as told:
        server.client(max_retries=2).deliveries.retry("dlv_1")
    assert isinstance(told.value, errors.Unavailable)
    assert told.value.__cause__ is error
    assert len(server.asked) == 3


def test_a_change_whose_answer_was_lost_is_not_made_again() -> None:
    server = Server(httpx.ReadTimeout("slow"), ok())
    with pytest.raises(Unreachable):
        server.client().endpoints.update("ep_1", name="a")
    assert len(server.asked) == 1
    server = Server(httpx.ConnectError("refused"), problem(503), ok())
    assert server.client().endpoints.update("ep_1", name="a") == {"id": "x"}


def test_a_deletion_whose_answer_was_lost_is_done_when_nothing_is_there() -> None:
    server = Server(httpx.ReadError("reset"), problem(404))
    server.client().endpoints.delete("ep_1")
    for before in ((), (httpx.ConnectError("refused"),), (problem(503),)):
        with pytest.raises(NotFound):
            Server(*before, problem(404)).client().endpoints.delete("ep_1")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 502])
def test_nothing_else_is_tried_again(status: int) -> None:
    server = Server(problem(status))
    with pytest.raises(ApiError):
        server.client().events.create(type="a", payload=1)
    assert len(server.asked) == 1


def test_no_retry_means_none() -> None:
    with pytest.raises(TooMany):
        Server(problem(429)).client(max_retries=0).events.get("evt_1")


async def test_the_asynchronous_client_retries_alike() -> None:
    server = Server(problem(429, headers={"retry-after": "2"}), httpx.ConnectError("refused"), ok())

    async def sleep(seconds: float) -> None:
        server.waits.append(seconds)

    client = AsyncClient("https://api.example", transport=server.transport, sleep=sleep, clock=MOST, api_key="k")
    async with client:
        assert await client.events.get("evt_1") == {"id": "x"}
    assert server.waits == [2.0, 1.0]


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, TooLarge),
        (422, Unprocessable),
        (429, TooMany),
        (500, ApiError),
        (503, Unavailable),
    ],
)
def test_a_problem_is_the_error_of_its_status(status: int, kind: type[ApiError]) -> None:
    fault = {"pointer": "/type", "detail": "found 1; allowed: a string"}
    given = problem(status, code="SOME_CODE", detail="found 1", errors=[fault], request_id="req_1")
    with pytest.raises(kind) as raised:
        Server(given).client(max_retries=0).events.get("evt_1")
    error = raised.value
    assert type(error) is kind
    assert isinstance(error, errors.DispatcherError)
    assert (error.status, error.code, error.detail, error.request_id) == (status, "SOME_CODE", "found 1", "req_1")
    assert error.errors == (fault,)
    assert str(error) == f"found 1 ({status} SOME_CODE, req_1)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_error_is_also_of_the_projects_own_kind() -> None:
    pairs = [
        (Unauthorized, errors.Unauthorized),
        (Forbidden, errors.Forbidden),
        (NotFound, errors.NotFound),
        (Conflict, errors.Conflict),
        (Unavailable, errors.Unavailable),
    ]
    assert all(issubclass(ours, theirs) for ours, theirs in pairs)


def chunks(size: int) -> Iterator[bytes]:
    piece = b"x" * 65536
    for _ in range(size // len(piece) + 1):
        yield piece


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (httpx.Response(502, html="<h1>Bad gateway</h1>"), "502, text/html"),
        (httpx.Response(404, text=""), "404, text/plain"),
        (httpx.Response(200, html="<h1>Welcome</h1>"), "200, text/html"),
        (httpx.Response(200, content=b"[1]"), "no content type"),
        (httpx.Response(200, content=b"[" * 100_000), "200"),
        (httpx.Response(302, headers={"location": "http://evil.example/"}), "302"),
        (httpx.Response(500, json={"error": "theirs"}), "500, application/json"),
        (httpx.Response(200, content=b"\xff\x1b[2J"), "200"),
    ],
)
def test_what_is_not_the_apis_is_told_as_such(given: httpx.Response, found: str) -> None:
    with pytest.raises(ForeignAnswer) as raised:
        Server(given).client().events.get("evt_1")
    assert found in str(raised.value)
    assert "GET /v1/events/evt_1" in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert raised.value.code == "FOREIGN_ANSWER"


def test_a_busy_proxy_is_waited_for() -> None:
    server = Server(httpx.Response(503, html="<h1>Busy</h1>"), ok())
    assert server.client().events.get("evt_1") == {"id": "x"}


def test_a_refusal_is_bounded_whatever_it_says() -> None:
    given = problem(
        422,
        detail="d\x1b[31m" + "x" * 100_000,
        code="C" * 100_000,
        request_id=7,
        errors=[{"pointer": 1}, "x", *[{"pointer": "/a", "detail": "x" * 9999}] * 1000],
    )
    with pytest.raises(Unprocessable) as raised:
        Server(given).client().events.get("evt_1")
    assert len(str(raised.value)) < 5000
    assert "\x1b" not in str(raised.value)
    assert len(raised.value.errors) < 101
    assert raised.value.errors[0] == {"pointer": "", "detail": ""}


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MAX_BYTES", 1024 * 1024)
    with pytest.raises(ForeignAnswer, match="more than 1048576 bytes"):
        Server(httpx.Response(200, content=chunks(2 * 1024 * 1024))).client().events.get("evt_1")


def test_an_answer_that_would_unfold_is_not_read() -> None:
    bomb = httpx.Response(200, stream=httpx.ByteStream(gzip.compress(b"{}")), headers={"content-encoding": "gzip"})
    server = Server(bomb)
    with pytest.raises(ForeignAnswer, match="content encoding 'gzip'"):
        server.client().events.get("evt_1")
    assert server.headers[0]["accept-encoding"] == "identity"


def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    seconds = iter(range(0, 10_000, 20))
    clock = Clock(now=lambda: NOW, monotonic=lambda: float(next(seconds)), uniform=lambda low, _: low)

    def drip() -> Iterable[bytes]:
        while True:
            yield b" "

    server = Server(*[httpx.Response(200, content=drip()) for _ in range(2)])
    with pytest.raises(Unreachable, match="too slowly"):
        server.client(clock=clock, max_retries=1).events.get("evt_1")


# Pages


def page(*data: object, cursor: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"data": list(data), "has_more": cursor is not None, "next_cursor": cursor})


def test_iterating_asks_for_a_page_when_it_is_come_to() -> None:
    server = Server(page(1, 2, cursor="c2"), page(3, cursor="c3"), page())
    found = server.client().deliveries.iterate(object_id="pay_1", limit=2)
    assert server.asked == []
    assert next(found) == 1
    assert len(server.asked) == 1
    assert list(found) == [2, 3]
    asked = [dict(request.url.params) for request in server.asked]
    same = {"object_id": "pay_1", "limit": "2"}
    assert asked == [same, same | {"cursor": "c2"}, same | {"cursor": "c3"}]


async def test_iterating_asynchronously_too() -> None:
    server = Server(page(1, 2, cursor="c2"), page(3))
    async with AsyncClient("https://api.example", transport=server.transport) as client:
        assert [one async for one in client.deliveries.iterate()] == [1, 2, 3]


@pytest.mark.parametrize("cursor", ["same", None, 7])
def test_pages_without_end_are_told(cursor: Any) -> None:
    endless = {"data": [1], "has_more": True, "next_cursor": cursor}
    server = Server(*[httpx.Response(200, json=endless) for _ in range(3)])
    with pytest.raises(ForeignAnswer, match="no cursor"):
        list(server.client().deliveries.iterate())
    assert len(server.asked) <= 2


# Bodies


def test_a_payload_of_bytes_is_sent_as_it_is() -> None:
    payload = b'{"amount": 12345678901234567890.10, "rate": 1.10}'
    server = Server(httpx.Response(202, json=ACCEPTED))
    server.client().events.create(type="fx.rate", payload=payload)
    assert server.asked[0].content == b'{"type":"fx.rate","payload":' + payload + b"}"


def test_null_is_a_payload() -> None:
    server = Server(httpx.Response(202, json=ACCEPTED))
    server.client().events.create(type="a", payload=None, object_id=None)
    assert server.asked[0].content == b'{"type":"a","payload":null}'


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (b'1},"tenant_id":"ten_2"', "/payload"),
        (b"\xff", "/payload"),
        (b" " * 2_000_000, "/payload"),
        ({"a": [1.0, float("nan")]}, "/payload/a/1"),
        (float("inf"), "/payload"),
        ({1, 2}, "/"),
        ({"at": datetime(2026, 1, 1)}, "/"),
        (2**64, "/"),
        ("\ud800", "/"),
    ],
    ids=str,
)
def test_what_json_does_not_have_is_refused_before_it_is_sent(payload: Any, pointer: str) -> None:
    server = Server()
    with pytest.raises(InvalidInput) as raised:
        server.client().events.create(type="a", payload=payload)
    assert raised.value.pointer == pointer
    assert server.asked == []


@pytest.mark.parametrize("id_", ["", ".", "..", None])
def test_an_id_that_would_name_another_object_is_refused(id_: Any) -> None:
    with pytest.raises(InvalidInput, match="an id or a name"):
        Server().client().endpoints.delete(id_)


def test_an_id_stays_within_its_place_in_the_path() -> None:
    server = Server(ok())
    server.client().events.get("a/../b?c#d é")
    assert server.asked[0].url.raw_path == b"/v1/events/a%2F..%2Fb%3Fc%23d%20%C3%A9"


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="/created_after: found 2026-01-01 00:00:00; allowed: an instant"):
        Server().client().events.list(created_after=datetime(2026, 1, 1))


def batch(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        202, json={"data": [{"type": one["type"]} for one in orjson.loads(request.content)["events"]]}
    )


def test_many_events_go_in_batches_that_the_api_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    committed: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sizes.append(len(orjson.loads(request.content)["events"]))
        return batch(request)

    client = Client("https://api.example", transport=httpx.MockTransport(answer))
    events = ({"type": f"t{n}", "payload": b"[1]"} for n in range(2500))
    found = client.events.create_many(events, on_batch=lambda results: committed.append(len(results)))
    assert sizes == committed == [1000, 1000, 500]
    assert [one["type"] for one in found] == [f"t{n}" for n in range(2500)]  # type: ignore[typeddict-item]
    sizes.clear()
    monkeypatch.setattr(body, "MAX_BYTES", 100)
    client.events.create_many([{"type": "t", "payload": "x" * length} for length in (10, 10, 200, 10)])
    assert sizes == [2, 1, 1]
    assert client.events.create_many([]) == []


def test_what_was_accepted_before_a_failure_is_known() -> None:
    answers = iter([batch, lambda _: problem(401)])

    def answer(request: httpx.Request) -> httpx.Response:
        return next(answers)(request)

    client = Client("https://api.example", transport=httpx.MockTransport(answer))
    accepted: list[Any] = []
    with pytest.raises(Unauthorized):
        client.events.create_many([{"type": "t", "payload": 1}] * 1500, on_batch=accepted.extend)
    assert len(accepted) == 1000


def test_an_event_of_many_that_json_cannot_have_is_named() -> None:
    with pytest.raises(InvalidInput, match="/1/payload"):
        Server().client().events.create_many([{"type": "t", "payload": 1}, {"type": "t", "payload": b"no"}])


# Who calls


SECRET = bytes(range(32))
SIGNING_SECRET = "hmsec_" + base64.b64encode(SECRET).decode()


def independent_signature(request: httpx.Request, timestamp: str) -> str:
    path = str(request.url).removeprefix("https://api.example")
    text = timestamp + "\n" + request.method + "\n" + path + "\n" + hashlib.sha256(request.content).hexdigest()
    return base64.b64encode(hmac.new(SECRET, text.encode("ascii"), "sha256").digest()).decode("ascii")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.events.create(type="a", payload={"ü": "€"}),
        lambda client: client.events.list(object_id="pay 1/ü+&", limit=2),
        lambda client: client.endpoints.get("a b"),
    ],
)
def test_a_signed_request_is_signed_as_documented(call: Callable[[Client], Any]) -> None:
    server = Server(httpx.Response(200, json={"data": []}))
    call(server.client(api_key=None, api_key_id="key_1", signing_secret=SIGNING_SECRET))
    (request,), (headers,) = server.asked, server.headers
    assert headers["x-api-key"] == "key_1"
    assert headers["x-timestamp"] == "2026-03-02T09:00:00.000000Z"
    assert headers["x-signature"] == independent_signature(request, headers["x-timestamp"])
    assert "authorization" not in headers
    assert datetime.fromisoformat(headers["x-timestamp"]) == NOW


def test_a_retry_is_signed_anew_and_no_signature_is_used_twice() -> None:
    server = Server(problem(503), ok(), ok())
    client = server.client(api_key=None, api_key_id="key_1", signing_secret=SIGNING_SECRET)
    client.events.get("evt_1")
    client.events.get("evt_1")
    assert len({headers["x-signature"] for headers in server.headers}) == 3
    for request, headers in zip(server.asked, server.headers, strict=True):
        assert headers["x-signature"] == independent_signature(request, headers["x-timestamp"])


def test_the_applications_own_canonical_text_is_the_same() -> None:
    from dispatcher.api import authenticate
    from dispatcher.client import auth

    parts = ("2026-03-02T09:00:00Z", "POST", "/v1/events?tenant_id=ten_1")
    assert authenticate.canonical(*parts, b"{}") == auth.canonical(parts[0], parts[1], parts[2].encode(), b"{}")


async def test_the_asynchronous_client_signs_too() -> None:
    server = Server(httpx.Response(202, json=ACCEPTED))
    async with AsyncClient(
        "https://api.example", transport=server.transport, clock=MOST, api_key_id="key_1", signing_secret=SIGNING_SECRET
    ) as client:
        await client.events.create(type="a", payload=1)
    (request,), (headers,) = server.asked, server.headers
    assert headers["x-signature"] == independent_signature(request, headers["x-timestamp"])


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": ""},
        {"api_key": "with space"},
        {"api_key": "a\r\nx: y"},
        {"api_key_id": "key_1"},
        {"signing_secret": SIGNING_SECRET},
        {"api_key": "k", "api_key_id": "key_1", "signing_secret": SIGNING_SECRET},
        {"api_key_id": "1", "signing_secret": SIGNING_SECRET},
        {"api_key_id": "key_1", "signing_secret": "whsec_" + base64.b64encode(SECRET).decode()},
        {"api_key_id": "key_1", "signing_secret": "hmsec_" + base64.b64encode(SECRET[:16]).decode()},
        {"api_key_id": "key_1", "signing_secret": "hmsec_!"},
        {"timeout_s": 0},
        {"max_retries": -1},
        {"max_wait_s": -1},
    ],
)
def test_options_that_cannot_be_are_refused_and_repeat_no_secret(options: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        Client("https://api.example", **options)
    assert "with space" not in str(raised.value)
    assert "AAEC" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "ftp://api.example",
        "https://",
        "https://u:hunter2@api.example",
        "https://a/?b=c",
        "https://a:port",
    ],
)
def test_a_url_that_is_none_of_an_api_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Client(url)
    assert raised.value.pointer == "/base_url"
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="DISPATCHER_API_URL") as configured:
        Client.from_environment({"DISPATCHER_API_URL": url})
    assert "hunter2" not in str(configured.value)


def test_the_environment_names_the_api_and_the_key() -> None:
    named = {"DISPATCHER_API_URL": "https://api.example", "DISPATCHER_API_KEY": "k"}
    for environ, expected in ((named, "Bearer k"), (named | {"DISPATCHER_API_KEY": ""}, None)):
        server = Server(ok())
        with Client.from_environment(environ, max_retries=0) as client:
            client._http._transport = server.transport
            client.healthz()
        assert server.headers[0].get("authorization") == expected
    with pytest.raises(ConfigurationError, match="DISPATCHER_API_KEY: found"):
        AsyncClient.from_environment(named | {"DISPATCHER_API_KEY": "not a key"})


def test_a_key_is_in_no_representation() -> None:
    client = Client("https://api.example", api_key="hunter2")
    assert "hunter2" not in repr(client) + repr(client.events) + repr(client._executor) + repr(client._http.auth)


def test_nobody_else_is_asked_and_nothing_is_sent_elsewhere() -> None:
    server = Server(httpx.Response(307, headers={"location": "http://evil.example/"}))
    with pytest.raises(ForeignAnswer):
        server.client().events.create(type="a", payload=1)
    assert [request.url.host for request in server.asked] == ["api.example"]


def test_both_clients_close_what_they_opened() -> None:
    client = Client("https://api.example")
    with client:
        pass
    assert client._http.is_closed

    async def run() -> bool:
        async with AsyncClient("https://api.example") as other:
            pass
        return other._http.is_closed

    assert asyncio.run(run())
