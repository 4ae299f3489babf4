"""What is checked before a request is read, and what a database in trouble looks like from outside."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from dispatcher import wiring
from dispatcher.api import context as api_context
from dispatcher.api import key_lookup
from dispatcher.api.app import make_app
from dispatcher.api.context import Context
from dispatcher.api.gate import MAX_BODY_BYTES
from dispatcher.config import Settings
from dispatcher.ids import uuid7
from dispatcher.store import tenants
from tests.api.callers import bearer, signature_headers
from tests.support import walk
from tests.support.patience import PATIENCE_S, until
from tests.support.served import Served, served

OPERATOR = "operator-key-of-the-front-door-tests-0001"
T = TypeVar("T")

EVENT = {"type": "payment.completed", "payload": {"amount": 1000}}
RESOURCES = (
    "/v1/tenants",
    "/v1/keys",
    "/v1/endpoints",
    "/v1/pauses",
    "/v1/events",
    "/v1/deliveries",
    "/v1/schedules",
    "/v1/event_types",
    "/v1/public_keys",
    "/v1/audit_log",
)


@pytest.fixture
def settings(migrated_database_url: str) -> Settings:
    return Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR)


@pytest.fixture
def api(settings: Settings) -> Iterator[Served]:
    with served(make_app(settings)) as found:
        yield found


@pytest.fixture
def client(api: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, headers=bearer(OPERATOR), timeout=PATIENCE_S) as found:
        yield found


def answers_of(api: Served, status: int) -> int:
    """How many answers of a status `/metrics` has counted."""
    context: Context = api.app.state.context
    return sum(count for (_, _, found), count in context.traffic.answers.items() if found == status)


def signed(key: dict[str, Any], body: bytes) -> dict[str, str]:
    return signature_headers(key, "POST", "/v1/events/batch", body, timestamp=datetime.now(UTC).isoformat())


# Before the body


def head(path: str, length: int, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", "content-type: application/json"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def test_a_stranger_is_refused_before_any_body_is_read(api: Served, client: httpx.Client) -> None:
    key = client.post("/v1/keys", json={"name": "signing"}).json()
    body = b"x" * 1000
    now = signed(key, body)
    strangers = {
        "no key": {},
        "a wrong key": bearer("wrong"),
        "a signature without a time": {name: value for name, value in now.items() if name != "x-timestamp"},
        "a malformed signature": now | {"x-signature": "no"},
        "an old time": signature_headers(key, "POST", "/v1/events/batch", body, timestamp="2020-01-01T00:00:00Z"),
        "an unknown key": now | {"x-api-key": "key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"},
        "another unknown key": now | {"x-api-key": "unknown"},
    }
    for who, headers in strangers.items():
        with api.connect() as caller:  # nothing follows the head: whoever waits for the body waits for ever
            status, answered, _ = caller.send(head("/v1/events/batch", 16_000_000, headers)).answer()
            assert status == 401, who
            assert answered["connection"] == "close", who
    with api.connect() as caller:
        assert caller.send(head("/v1/events", MAX_BODY_BYTES + 1, bearer("wrong"))).answer()[0] == 401
    assert api.lobby.held_bytes == 0


def test_a_signed_body_is_read_once_its_key_is_known(api: Served, client: httpx.Client) -> None:
    key = client.post("/v1/keys", json={"name": "signing"}).json()
    body = json.dumps({"events": [EVENT | {"payload": "x" * 200_000}] * 10}).encode()
    assert client.post("/v1/events/batch", content=body, headers=signed(key, body) | {"authorization": ""}).status_code
    with httpx.Client(base_url=api.url, timeout=PATIENCE_S) as anonymous:
        headers = signed(key, body) | {"content-type": "application/json"}
        assert anonymous.post("/v1/events/batch", content=body, headers=headers).status_code == 202
        assert anonymous.post("/v1/events/batch", content=body, headers=headers).status_code == 401, "seen before"
        wrong = signed(key, body) | {"content-type": "application/json"}
        assert anonymous.post("/v1/events/batch", content=body + b" ", headers=wrong).status_code == 401
        large = b" " * (MAX_BODY_BYTES + 1)
        headers = signature_headers(key, "POST", "/v1/events", large, timestamp=datetime.now(UTC).isoformat())
        assert anonymous.post("/v1/events", content=large, headers=headers).status_code == 413


def test_a_compressed_body_is_415(client: httpx.Client) -> None:
    body = gzip.compress(json.dumps(EVENT).encode())
    for coding in ("gzip", "GZIP", "br", "deflate, gzip"):
        headers = {"content-encoding": coding, "content-type": "application/json"}
        answer = client.post("/v1/events", content=body, headers=headers)
        assert answer.status_code == 415, coding
        assert coding in answer.json()["detail"]
    plain = {"content-encoding": "identity"}
    assert client.post("/v1/events", json=EVENT, headers=plain).status_code == 202


def test_a_client_that_leaves_in_mid_body_is_no_error(
    api: Served, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    key = client.post("/v1/keys", json={"name": "signing"}).json()
    for path, headers in (
        ("/v1/events", bearer(OPERATOR)),
        ("/v1/events/batch", bearer(OPERATOR)),
        ("/v1/events/batch", signed(key, b"")),
        ("/v1/endpoints", bearer(OPERATOR) | {"idempotency-key": "k"}),
        ("/v1/keys", bearer(OPERATOR)),
    ):
        before = sum(api.app.state.context.traffic.answers.values())
        with api.connect() as caller:
            caller.send(head(path, 100_000, headers), b"{")
            until(lambda: api.lobby.sending, "its body is awaited")
        until(lambda: not api.lobby.sending, "it has left")
        assert client.get("/healthz").status_code == 200
        assert sum(api.app.state.context.traffic.answers.values()) == before + 1, path
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Keys


async def test_keys_that_are_asked_for_at_once_share_a_statement(api: Served, engine: Engine) -> None:
    asked: list[int] = []
    statement = tenants.find_keys

    def counting(connection: Any, hashes: Any) -> Any:
        asked.append(len(hashes))
        return statement(connection, hashes)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tenants, "find_keys", counting)
        async with httpx.AsyncClient(base_url=api.url, timeout=PATIENCE_S) as flood:
            answers = await asyncio.gather(*(flood.get("/v1/events", headers=bearer(f"wrong-{n}")) for n in range(200)))
    assert {answer.status_code for answer in answers} == {401}
    assert sum(asked) == 200
    assert len(asked) < 150


def test_a_revoked_key_is_401_before_anything_else(client: httpx.Client, engine: Engine) -> None:
    key = client.post("/v1/keys", json={"name": "to be revoked"}).json()
    headers = bearer(key["key"])
    assert client.post("/v1/events", json=EVENT, headers=headers).status_code == 202  # it is remembered from now on
    with engine.begin() as connection:  # by another process
        connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = now() WHERE name = 'to be revoked'"))
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/events", {"json": {"type": 1}}),
        ("/v1/events", {"content": b"{"}),
        ("/v1/events", {"content": b"<a/>", "headers": {"content-type": "application/xml"}}),
        ("/v1/events", {"content": b" " * (MAX_BODY_BYTES + 1)}),
        ("/v1/events", {"json": EVENT | {"tenant_id": "ten_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"}}),
        ("/v1/events/batch", {"json": {"events": []}}),
    ]
    for path, request in requests:
        client.post("/v1/events", json=EVENT, headers=bearer(OPERATOR))
        with engine.begin() as connection:  # so that each is the first to find out
            connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = NULL WHERE name = 'to be revoked'"))
        assert client.post("/v1/events", json=EVENT, headers=headers).status_code == 202
        with engine.begin() as connection:
            connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = now() WHERE name = 'to be revoked'"))
        answer = client.post(path, **request | {"headers": request.get("headers", {}) | headers})
        assert answer.status_code == 401, (path, request, answer.text)
        assert answer.json()["code"] == "UNAUTHORIZED"
        assert len(answer.headers.get_list("content-length")) == 1


# A database in trouble


def test_a_locked_table_starves_neither_events_nor_keys(
    api: Served, client: httpx.Client, migrated_database_url: str
) -> None:
    with psycopg.connect(walk.hot_url(migrated_database_url)) as other:
        other.execute("LOCK TABLE dispatcher.audit_log IN ACCESS EXCLUSIVE MODE")

        async def many() -> tuple[list[int], int, set[int]]:
            limits = httpx.Limits(max_connections=100)
            async with httpx.AsyncClient(
                base_url=api.url, headers=bearer(OPERATOR), timeout=PATIENCE_S, limits=limits
            ) as asking:
                stuck = [asyncio.create_task(asking.get("/v1/audit_log")) for _ in range(40)]
                await asyncio.to_thread(walk.wait_until_blocked, engine_of(migrated_database_url))
                accepted = [(await asking.post("/v1/events", json=EVENT)).status_code for _ in range(5)]
                waiting = sum(not one.done() for one in stuck)
                other.rollback()
                return accepted, waiting, {answer.status_code for answer in await asyncio.gather(*stuck)}

        accepted, waiting, answers = asyncio.run(many())
    assert accepted == [202] * 5
    assert waiting or answers == {503}, "or the machine is slower than the lock's time-out"
    assert answers <= {200, 503}
    assert client.get("/v1/audit_log").status_code == 200


def engine_of(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool)


def test_a_pool_without_a_free_connection_is_503(
    migrated_database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.api.app.CONNECTIONS", 1)
    monkeypatch.setattr(wiring, "API_POOL_S", 0.1)
    with served(make_app(settings)) as api, httpx.Client(base_url=api.url, headers=bearer(OPERATOR)) as client:
        assert client.get("/v1/events").status_code == 200
        context: Context = api.app.state.context

        async def take() -> AsyncConnection:
            return await context.engine.connect()

        taken = in_loop(api, take())
        for path in RESOURCES:
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
            assert answer.json()["code"] == "UNAVAILABLE"
        assert client.get("/readyz").status_code == 200
        in_loop(api, taken.close())
        assert client.get("/v1/events").status_code == 200


def test_a_database_that_stands_still_is_503(
    api: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/v1/events").status_code == 200
    monkeypatch.setattr(api_context, "STALLED_S", 0.05)

    async def still(engine: Any, work: Any) -> Any:
        await asyncio.sleep(PATIENCE_S)

    monkeypatch.setattr(key_lookup, "ANSWERS_WITHIN_S", 0.05)
    monkeypatch.setattr(api_context, "_transaction", still)
    for path in (*RESOURCES, "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
    answer = client.post("/v1/events", json=EVENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answers_of(api, 500) == 0


def test_reads_work_on_a_read_only_database(
    client: httpx.Client, api: Served, migrated_database_url: str, engine: Engine
) -> None:
    key = client.post("/v1/keys", json={"name": "signing"}).json()
    assert client.get("/readyz").json()["writes"] is True
    read_only(migrated_database_url, "on")
    context: Context = api.app.state.context
    in_loop(api, renewed(context))
    for path in RESOURCES:
        assert client.get(path).status_code == 200, path
    headers = signature_headers(key, "GET", "/v1/events", timestamp=datetime.now(UTC).isoformat())
    with httpx.Client(base_url=api.url, timeout=PATIENCE_S) as anonymous:
        assert anonymous.get("/v1/events", headers=headers).status_code == 200, "its signature cannot be remembered"
        assert anonymous.get("/metrics").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() | {"schema": ""} == {
        "status": "ok",
        "schema": "",
        "writes": False,
        "reason": "the database is read-only",
    }
    answer = client.post("/v1/events", json=EVENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "read-only" in answer.json()["detail"]
    read_only(migrated_database_url, "off")
    in_loop(api, renewed(context))
    assert client.post("/v1/events", json=EVENT).status_code == 202
    assert client.get("/readyz").json()["writes"] is True


def test_the_api_starts_on_a_read_only_database(migrated_database_url: str, settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        tenants.add_key(connection, uuid7(), OPERATOR, name="bootstrap", tenant_id=None)
    read_only(migrated_database_url, "on")
    with served(make_app(settings)) as api, httpx.Client(base_url=api.url, headers=bearer(OPERATOR)) as client:
        assert client.get("/v1/events").status_code == 200


def read_only(url: str, value: str) -> None:
    with psycopg.connect(walk.hot_url(url), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')


async def renewed(context: Context) -> None:
    """Has every connection made anew, as the pools do once a server has gone."""
    for engine in (context.engine, context.ingest_engine, context.lookups):
        await engine.dispose()


def in_loop(api: Served, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives on the event loop of the API."""
    loop = next(iter(api.lobby.open)).loop
    return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_S)
