"""The client on the real application and a real database, as commands use it past the API of a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.api.app import make_app
from dispatcher.cli import in_process
from dispatcher.client import AsyncClient, Client, NotFound, Unauthorized, Unprocessable
from dispatcher.config import Settings
from dispatcher.flow import keys
from dispatcher.ids import format_id, uuid7
from dispatcher.signing import Keyring
from dispatcher.store import tenants


@pytest.fixture
def settings(migrated_database_url: str) -> Settings:
    return Settings(database_url=migrated_database_url, secret_keys=Keyring.generate().reveal())


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with in_process.client(settings, actor="cli:ada") as client:
        yield client


def test_an_event_finds_its_endpoint_and_stands_in_the_log(client: Client) -> None:
    endpoint = client.endpoints.create(url="https://shop.example.com/hook", event_types=["payment.*"])
    assert endpoint["secret"].startswith("whsec_")
    assert client.endpoints.get(endpoint["id"])["url"] == "https://shop.example.com/hook"
    accepted = client.events.create(type="payment.completed", payload=b'{"amount": 1.10}', object_id="pay_1")
    assert accepted["deliveries"] == 1
    assert not accepted["duplicate"]
    (delivery,) = client.deliveries.list(object_id="pay_1")["data"]
    assert (delivery["event_id"], delivery["endpoint_id"]) == (accepted["id"], endpoint["id"])
    assert client.deliveries.get(delivery["id"])["status"] == "waiting"
    assert client.deliveries.attempts(delivery["id"])["data"] == []


def test_a_repeat_under_one_key_is_no_second_event(client: Client) -> None:
    first = client.events.create(type="payment.completed", payload=1, idempotency_key="zahlung-ü")
    again = client.events.create(type="payment.completed", payload=1, idempotency_key="zahlung-ü")
    assert (again["id"], again["duplicate"]) == (first["id"], True)
    own = f"evt_{uuid7()}"
    assert client.events.create(type="payment.completed", payload=1, id=own)["id"] == own
    assert client.events.create(type="payment.completed", payload=1, id=own)["duplicate"]


def test_iterating_goes_over_all_pages(client: Client) -> None:
    made = [client.endpoints.create(url=f"https://shop-{n}.example.com/hook")["id"] for n in range(5)]
    assert [one["id"] for one in client.endpoints.iterate(limit=2)] == made[::-1]


def test_errors_of_the_application_come_as_the_clients(client: Client) -> None:
    with pytest.raises(NotFound) as missing:
        client.deliveries.get(f"dlv_{uuid7()}")
    assert missing.value.request_id is not None
    with pytest.raises(Unprocessable, match="found") as refused:
        client.endpoints.create(url="no url")
    assert refused.value.errors[0]["pointer"] == "/url"


async def test_over_a_network_the_same_application_asks_for_a_key(settings: Settings) -> None:
    """What makes a caller an operator is in the scope, where no header reaches."""
    app = make_app(settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient("http://test", transport=httpx.ASGITransport(app), max_retries=0) as stranger,
    ):
        assert (await stranger.healthz())["status"] == "ok"
        with pytest.raises(Unauthorized):
            await stranger.endpoints.list()


async def test_the_application_accepts_what_the_client_signs(settings: Settings, engine: Engine) -> None:
    keyring, key_id, secret = Keyring.parse(settings.secret_keys or ""), uuid7(), b"s" * 32
    with engine.begin() as connection:
        sealed = keys.seal_signing_secret(keyring, secret, key_id)
        tenants.add_key(connection, key_id, "unused", name="till", tenant_id=None, signing_secret=sealed)
    app = make_app(settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(
            "http://test",
            transport=httpx.ASGITransport(app),
            max_retries=0,
            api_key_id=format_id("key", key_id),
            signing_secret=keys.write_signing_secret(secret),
        ) as client,
    ):
        accepted = await client.events.create(type="payment.completed", payload={"ü": 1})
        assert [one async for one in client.deliveries.iterate(event_id=accepted["id"], object_id="pay 1/2&+")] == []
        assert await client.endpoints.list() == await client.endpoints.list()


def test_the_loop_ends_with_the_context(settings: Settings) -> None:
    before = set(threading.enumerate())
    with in_process.client(settings, actor="cli:ada") as client:
        assert client.healthz()["status"] == "ok"
        assert client.readyz()["status"] == "ok"
    after = {thread for thread in threading.enumerate() if thread not in before and thread.is_alive()}
    assert not {thread.name for thread in after if "portal" in thread.name.lower() or "anyio" in thread.name.lower()}
