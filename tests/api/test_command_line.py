"""The key of this machine's command line: an operator by it, and a name that only it may give."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.api.app import make_app
from dispatcher.api.command_line import ACTOR_HEADER, MIN_KEY, CommandLine
from dispatcher.config import Settings
from tests.api.callers import bearer, make_key, make_tenant
from tests.api.conftest import OPERATOR
from tests.support import walk

KEY = "dcl_" + "k" * MIN_KEY


@pytest.fixture
async def client(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR)
    app = make_app(settings, command_line_key=KEY)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


async def actor_of(client: httpx.AsyncClient, headers: dict[str, str], name: str = "shop") -> str:
    """Who the audit log says made the tenant that is made with these headers."""
    made = await client.post("/v1/tenants", json={"name": name}, headers=headers)
    assert made.status_code == 201, made.text
    (entry,) = (await client.get("/v1/audit_log", params={"object": made.json()["id"]}, headers=bearer())).json()[
        "data"
    ]
    return str(entry["actor"])


async def test_the_person_at_the_command_line_stands_in_the_audit_log(client: httpx.AsyncClient) -> None:
    assert await actor_of(client, bearer(KEY) | {ACTOR_HEADER: "cli:alice"}) == "cli:alice"
    assert await actor_of(client, bearer(KEY) | {ACTOR_HEADER: "cli:jos%C3%A9%20m."}, "b") == "cli:josé m."
    assert await actor_of(client, bearer(KEY), "c") == "cli"
    assert await actor_of(client, {"authorization": KEY, ACTOR_HEADER: "cli:bob"}, "d") == "cli:bob"


async def test_no_other_key_may_say_who_calls(client: httpx.AsyncClient) -> None:
    operator = await make_key(client)
    assert await actor_of(client, bearer(operator["key"]) | {ACTOR_HEADER: "cli:alice"}) == operator["id"]
    tenant = await make_tenant(client, "till")
    key = await make_key(client, tenant_id=tenant["id"])
    made = await client.post(
        "/v1/keys", json={"name": "child"}, headers=bearer(key["key"]) | {ACTOR_HEADER: "cli:alice"}
    )
    entries = (await client.get("/v1/audit_log", params={"object": made.json()["id"]}, headers=bearer())).json()["data"]
    assert [entry["actor"] for entry in entries] == [key["id"]]


@pytest.mark.parametrize("key", ["", KEY + "k", KEY[:-1], KEY.upper(), "dsk_" + "k" * MIN_KEY])
async def test_a_name_makes_nobody_an_operator(client: httpx.AsyncClient, key: str) -> None:
    for headers in ({ACTOR_HEADER: "cli:alice"}, {ACTOR_HEADER: "cli:alice", "authorization": f"Bearer {key}"}):
        assert (await client.get("/v1/tenants", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "actor",
    [
        "",
        "alice",
        "api",
        "key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968",
        "cli:",
        "cli:a b",
        "cli:%0A",
        "cli:%1b%5B2J",
        "cli:%FF",
        "cli:%E2%80%AE",
        "cli:" + "a" * 97,
        "cli:" + "a" * 100_000,
    ],
)
async def test_a_name_that_cannot_be_shown_is_refused(client: httpx.AsyncClient, actor: str) -> None:
    refused = await client.post("/v1/tenants", json={"name": "shop"}, headers=bearer(KEY) | {ACTOR_HEADER: actor})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == ACTOR_HEADER
    assert (await client.get("/v1/tenants", headers=bearer())).json()["data"][0]["name"] != "shop"


async def test_the_key_is_in_no_table_and_in_no_list(client: httpx.AsyncClient, engine: Engine) -> None:
    assert (await client.get("/v1/tenants", headers=bearer(KEY))).status_code == 200
    assert len((await client.get("/v1/keys", headers=bearer(KEY))).json()["data"]) == 1, "the bootstrap key alone"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM dispatcher.api_keys")).scalar_one() == 1


async def test_an_application_that_was_told_no_key_knows_none(migrated_database_url: str) -> None:
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal()))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        for headers in ({}, bearer(KEY), {"authorization": "Bearer "}):
            assert (await client.get("/v1/tenants", headers=headers)).status_code == 401


@pytest.mark.parametrize("key", ["", "k" * (MIN_KEY - 1)])
def test_a_key_that_could_be_guessed_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="32 or more"):
        CommandLine(key)
