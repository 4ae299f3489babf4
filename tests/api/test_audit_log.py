"""`/v1/audit_log`: every change, append-only."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher.ids import parse_id
from tests.api.callers import Time, bearer, make_key, make_tenant, serving
from tests.support import walk


@pytest.fixture
async def client(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(migrated_database_url, Time()) as client:
        client.headers.update(bearer())
        yield client


async def test_a_change_is_told_with_who_made_it_and_without_secrets(client: httpx.AsyncClient) -> None:
    operator = await make_key(client)
    tenant = (await client.post("/v1/tenants", json={"name": "shop"}, headers=bearer(operator["key"]))).json()
    await client.post(f"/v1/tenants/{tenant['id']}/rotate_secret", headers=bearer(operator["key"]))
    answer = await client.get("/v1/audit_log", params={"object": tenant["id"]})
    rotated, created = answer.json()["data"]
    assert created["actor"] == operator["id"]
    assert created["action"] == "tenant.created"
    assert created["object"] == created["tenant_id"] == tenant["id"]
    assert (created["before"], created["after"]) == (None, {"name": "shop", "parent_id": None, "profile": None})
    assert rotated["action"] == "tenant.secret_rotated"
    parse_id("aud", created["id"])
    assert created["at"].endswith("Z")
    everything = (await client.get("/v1/audit_log")).text
    assert "whsec_" not in everything
    assert "dsk_" not in everything


async def test_a_refused_change_leaves_no_entry(client: httpx.AsyncClient) -> None:
    await make_tenant(client, "shop")
    before = (await client.get("/v1/audit_log")).json()
    await client.post("/v1/tenants", json={"name": "shop"})
    await client.delete(f"/v1/keys/{before['data'][0]['id'].replace('aud', 'key')}")
    assert (await client.get("/v1/audit_log")).json() == before


async def test_a_repeat_is_one_change(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.post("/v1/tenants", json={"name": "shop"}, headers={"idempotency-key": "k"})
    entries = (await client.get("/v1/audit_log")).json()["data"]
    assert [one["action"] for one in entries].count("tenant.created") == 1


async def test_a_tenants_key_reads_what_is_its_own(client: httpx.AsyncClient) -> None:
    own, other = await make_tenant(client, "own"), await make_tenant(client, "other")
    key = await make_key(client, tenant_id=own["id"])
    await make_key(client, tenant_id=other["id"])
    headers = bearer(key["key"])
    entries = (await client.get("/v1/audit_log", headers=headers)).json()["data"]
    assert {(one["action"], one["object"]) for one in entries} == {
        ("tenant.created", own["id"]),
        ("key.created", key["id"]),
    }
    assert (await client.get("/v1/audit_log", params={"object": other["id"]}, headers=headers)).json()["data"] == []
    assert (await client.get("/v1/audit_log", params={"tenant_id": other["id"]}, headers=headers)).status_code == 404
    for_operators = (await client.get("/v1/audit_log", params={"tenant_id": other["id"]})).json()["data"]
    assert {one["tenant_id"] for one in for_operators} == {other["id"]}


async def test_the_audit_log_comes_in_pages(client: httpx.AsyncClient) -> None:
    for n in range(5):
        await make_tenant(client, f"t{n}")
    whole = (await client.get("/v1/audit_log")).json()
    found, cursor = [], None
    for _ in range(len(whole["data"]) + 1):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/audit_log", params=params)).json()
        found += page["data"]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert found == whole["data"]
    assert len({one["id"] for one in found}) == len(found)


async def test_a_bad_search_is_422(client: httpx.AsyncClient) -> None:
    for params in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"object": "x" * 201}, {"object": "\0"}):
        assert (await client.get("/v1/audit_log", params=params)).status_code == 422, params


CHANGES = [
    "UPDATE dispatcher.audit_log SET actor = 'nobody'",
    "UPDATE dispatcher.audit_log SET actor = 'nobody' WHERE false",
    "DELETE FROM dispatcher.audit_log",
    "TRUNCATE dispatcher.audit_log",
]


async def test_the_database_refuses_to_change_the_audit_log(client: httpx.AsyncClient, engine: Engine) -> None:
    await make_key(client)
    for statement in CHANGES:
        with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT actor FROM dispatcher.audit_log WHERE action = 'key.created'")
