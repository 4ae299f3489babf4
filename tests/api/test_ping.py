"""The ping: what is sent, and what follows from the answer."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from standardwebhooks import Webhook

from dispatcher.clock import SYSTEM
from dispatcher.errors import TooMany
from dispatcher.flow.ping import PER_MINUTE, Allowance
from dispatcher.signing import SCHEMES
from tests.api.receiving import answering, dialling, of_profile, serving
from tests.support import walk
from tests.support.receivers import FIN, HANG, RST, LedgerReceiver, RawReceiver, dead_port, play
from tests.support.tls import Authority

URL = "https://shop.example.com/hook"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(Path(tmp_path_factory.mktemp("tls")))


async def count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/v1/endpoints")).json()["data"])


async def test_a_ping_over_tls_goes_before_the_registration(migrated_database_url: str, authority: Authority) -> None:
    async with (
        LedgerReceiver(ssl_context=authority.server_context("127.0.0.1")) as receiver,
        dialling(authority) as transport,
        serving(migrated_database_url, transport, private=True) as client,
    ):
        tenant = await of_profile(client, "terminal")
        answer = await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": receiver.url})
        assert answer.status_code == 201, answer.text
        (ping,) = receiver.ledger
        body = json.loads(ping.body)
        assert list(body) == ["id", "type", "timestamp", "mode", "data"]
        assert (body["type"], body["mode"], body["data"]) == ("endpoint.ping", "test", {})
        assert ping.headers["webhook-id"] == body["id"]
        assert ping.headers["webhook-timestamp"].isdigit()
        assert ping.headers["content-type"] == "application/json"
        assert ping.headers["user-agent"].startswith("dispatcher/")
        assert "webhook-signature" not in ping.headers, "the merchant does not hold the secret yet"
        path = f"/v1/endpoints/{answer.json()['id']}"
        for changes, pings in (
            ({"description": "a"}, 1),
            ({"url": receiver.url}, 1),
            ({"url": receiver.url + "/2"}, 2),
        ):
            assert (await client.patch(path, json=changes)).status_code == 200
            assert len(receiver.ledger) == pings, changes


SAID: list[tuple[Any, str]] = [
    ([b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], "500"),
    ([b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"], "redirect_refused"),
    ([HANG], "deadline"),
    ([RST], "reset"),
    ([FIN], "closed"),
    ([b"hello\r\n\r\n"], "protocol"),
]


async def test_what_is_no_success_is_said_and_nothing_is_stored(
    migrated_database_url: str, authority: Authority
) -> None:
    async with (
        dialling(authority) as transport,
        serving(migrated_database_url, transport, private=True, profile="terminal", deadline_s=3) as client,
        dead_port() as port,
    ):
        tenant = await of_profile(client, "terminal")

        async def refused(url: str, said: str) -> None:
            answer = await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": url})
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "ENDPOINT_VALIDATION_FAILED"), problem
            assert problem["errors"][0]["pointer"] == "/url"
            assert said in problem["detail"], problem

        for steps, said in SAID:
            async with RawReceiver(play(*steps), authority.server_context("127.0.0.1")) as receiver:
                await refused(receiver.url, said)
                assert len(receiver.requests) == 1, "once, whatever comes"
        async with LedgerReceiver(ssl_context=authority.server_context("127.0.0.1", expired=True)) as expired:
            await refused(expired.url, "tls_cert")
        await refused(f"https://127.0.0.1:{port}/", "connect")
        assert await count(client) == 0


async def test_an_address_that_may_not_be_dialled_is_not(migrated_database_url: str, authority: Authority) -> None:
    async with (
        dialling(authority, allowed=False) as transport,
        serving(migrated_database_url, transport) as client,
    ):
        tenant = await of_profile(client, "terminal")
        answer = await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": URL})
        assert (answer.status_code, answer.json()["code"]) == (422, "ENDPOINT_VALIDATION_FAILED")
        assert "blocked_address" in answer.text
        assert "127.0.0.1" not in answer.text, "where a name leads to is not the caller's to know"


async def test_the_profile_says_which_answer_is_a_success(migrated_database_url: str) -> None:
    async with serving(migrated_database_url, answering(204), profile="terminal", success=frozenset({200})) as client:
        tenant = await of_profile(client, "terminal")
        answer = await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": URL})
        assert "found the answer 204" in answer.json()["errors"][0]["detail"]
        assert answer.json()["errors"][0]["detail"].endswith("allowed: 200")


async def test_a_new_url_that_does_not_answer_is_not_taken(migrated_database_url: str) -> None:
    def by_path(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if request.url.path == "/down" else 200)

    async with serving(migrated_database_url, answering(by_path)) as client:
        tenant = await of_profile(client, "terminal")
        made = (await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": URL})).json()
        path = f"/v1/endpoints/{made['id']}"
        answer = await client.patch(path, json={"url": "https://shop.example.com/down", "description": "a"})
        assert answer.json()["code"] == "ENDPOINT_VALIDATION_FAILED"
        shown = (await client.get(path)).json()
        assert (shown["url"], shown["description"]) == (URL, None)


async def test_a_ping_has_the_endpoints_own_headers_and_authentication(migrated_database_url: str) -> None:
    seen: list[httpx.Request] = []
    async with serving(migrated_database_url, answering(200, seen), ping=True) as client:
        answer = await client.post(
            "/v1/endpoints",
            json={
                "url": URL,
                "headers": {"x-shop": "8127"},
                "auth": {"type": "basic", "username": "gate", "password": "pa55:wörd"},
            },
        )
        assert answer.status_code == 201, answer.text
        (ping,) = seen
        assert ping.headers["x-shop"] == "8127"
        assert base64.b64decode(ping.headers["authorization"].removeprefix("Basic ")).decode() == "gate:pa55:wörd"
        changes = {"url": URL + "/2", "headers": {"x-shop": "2"}}
        await client.patch(f"/v1/endpoints/{answer.json()['id']}", json=changes)
        assert seen[1].headers["x-shop"] == "2", "what is pinged is what would be stored"


async def test_the_ping_of_a_registered_endpoint_is_signed_and_tells_what_came_of_it(
    migrated_database_url: str, engine: Engine
) -> None:
    seen: list[httpx.Request] = []
    async with serving(migrated_database_url, answering(200, seen)) as client:
        both = ["standard_webhooks_v1", "rsa_sha256"]
        made = (await client.post("/v1/endpoints", json={"url": URL, "signature": both})).json()
        assert seen == [], "this profile asks for no ping"
        answer = await client.post(f"/v1/endpoints/{made['id']}/ping")
        assert answer.status_code == 200
        result = answer.json()
        assert {name: result[name] for name in ("ok", "outcome", "status_code", "error")} == {
            "ok": True,
            "outcome": "ok",
            "status_code": 200,
            "error": None,
        }
        assert result["duration_ms"] >= 0
        (ping,) = seen
        headers = dict(ping.headers)
        assert Webhook(made["secret"]).verify(ping.content, headers)["type"] == "endpoint.ping"
        assert set(SCHEMES["rsa_sha256"].header_names) <= headers.keys()
        with engine.connect() as connection:
            assert walk.attempts(connection) == []
            assert walk.rows(connection, "SELECT FROM dispatcher.events") == []


async def test_a_ping_that_fails_is_an_answer_and_no_error(migrated_database_url: str) -> None:
    async with serving(migrated_database_url, answering(503)) as client:
        made = (await client.post("/v1/endpoints", json={"url": URL, "status": "disabled"})).json()
        answer = await client.post(f"/v1/endpoints/{made['id']}/ping")
        assert (answer.status_code, answer.json()["ok"], answer.json()["status_code"]) == (200, False, 503)
        assert answer.json()["outcome"] == "http_retryable"


async def test_an_endpoint_that_is_sent_to_by_get_is_pinged_by_get(migrated_database_url: str) -> None:
    seen: list[httpx.Request] = []
    still = replace(SYSTEM, monotonic=lambda: 0.0)
    async with serving(migrated_database_url, answering(200, seen), clock=still) as client:
        made = (await client.post("/v1/endpoints", json={"url": URL + "?shop=7", "method": "GET"})).json()
        await client.post(f"/v1/endpoints/{made['id']}/ping")
    (ping,) = seen
    assert (ping.method, ping.content) == ("GET", b"")
    assert (ping.url.params["shop"], ping.url.params["type"]) == ("7", "endpoint.ping")


async def test_a_repeat_under_the_same_key_pings_nobody_again(migrated_database_url: str) -> None:
    seen: list[httpx.Request] = []
    async with serving(migrated_database_url, answering(200, seen)) as client:
        tenant = await of_profile(client, "terminal")
        asked, headers = {"tenant_id": tenant, "url": URL}, {"idempotency-key": "k1"}
        first = await client.post("/v1/endpoints", json=asked, headers=headers)
        again = await client.post("/v1/endpoints", json=asked, headers=headers)
        assert first.json()["id"] == again.json()["id"]
        path, headers = f"/v1/endpoints/{first.json()['id']}/ping", {"idempotency-key": "k2"}
        results = [(await client.post(path, headers=headers)).json() for _ in range(2)]
        assert results[0] == results[1]
    assert len(seen) == 2


async def test_a_host_is_pinged_so_often_in_a_minute_and_no_more(migrated_database_url: str) -> None:
    seen: list[httpx.Request] = []
    still = replace(SYSTEM, monotonic=lambda: 0.0)
    async with serving(migrated_database_url, answering(200, seen), clock=still) as client:
        made = (await client.post("/v1/endpoints", json={"url": URL})).json()
        other = (await client.post("/v1/endpoints", json={"url": "https://other.example.com/"})).json()
        answers = [await client.post(f"/v1/endpoints/{made['id']}/ping") for _ in range(PER_MINUTE + 5)]
        assert answers[PER_MINUTE - 1].status_code == 200
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await client.post(f"/v1/endpoints/{other['id']}/ping")).status_code == 200


def test_the_allowance_fills_again_as_time_passes_and_remembers_no_more_hosts_than_it_must() -> None:
    allowance = Allowance(per_minute=6)
    for _ in range(6):
        allowance.take("a.example.com", 0)
    with pytest.raises(TooMany) as caught:
        allowance.take("a.example.com", 5)
    assert caught.value.retry_after_s == 5
    allowance.take("a.example.com", 10)
    for n in range(10_010):
        allowance.take(f"{n}.example.com", 1000)
    assert len(allowance._buckets) <= 10_000


async def test_a_cause_of_our_own_is_not_blamed_on_the_url(
    migrated_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(migrated_database_url, answering(200)) as client:
        tenant = await of_profile(client, "terminal")

        def defect(*_: object, **__: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(httpx.MockTransport, "handle_async_request", defect)
        answer = await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": URL})
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert await count(client) == 0
