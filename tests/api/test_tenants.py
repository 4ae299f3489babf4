"""`/v1/tenants`: made, listed, found, and given new secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher.flow import tenants as flow
from dispatcher.flow.requests import SECRET_PURPOSE
from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from dispatcher.signing import Secret, parse_secret
from dispatcher.store import endpoints, tenants
from tests.api.callers import AT, Time, bearer, make_key, make_tenant, serving
from tests.support import walk


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def client(migrated_database_url: str, time: Time) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(migrated_database_url, time) as client:
        client.headers.update(bearer())
        yield client


def secrets_of(connection: Connection, tenant_id: UUID) -> list[Secret]:
    return [
        walk.KEYS.open(one.sealed, tenant=tenant_id, endpoint="", purpose=SECRET_PURPOSE)
        for one in tenants.secrets_of(connection, [tenant_id])[tenant_id]
    ]


async def test_a_tenants_secret_is_told_once_and_kept_sealed(client: httpx.AsyncClient, engine: Engine) -> None:
    answer = await client.post("/v1/tenants", json={"name": "shop", "profile": "terminal"})
    assert answer.status_code == 201
    made = answer.json()
    assert made["name"] == "shop"
    assert made["profile"] == "terminal"
    assert made["parent_id"] is None
    secret = parse_secret(made.pop("secret"))
    assert (await client.get(f"/v1/tenants/{made['id']}")).json() == made
    assert (await client.get("/v1/tenants", params={"limit": 1})).json()["data"] == [made]
    with engine.connect() as connection:
        assert secrets_of(connection, parse_id("ten", made["id"])) == [secret]


async def test_a_repeat_makes_no_second_tenant_and_tells_no_secret(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k"}
    first = (await client.post("/v1/tenants", json={"name": "shop"}, headers=headers)).json()
    again = await client.post("/v1/tenants", json={"name": "shop"}, headers=headers)
    assert again.status_code == 201
    assert again.json() == {name: value for name, value in first.items() if name != "secret"}
    assert (await client.post("/v1/tenants", json={"name": "other"}, headers=headers)).status_code == 422


async def test_a_name_is_of_one_tenant(client: httpx.AsyncClient) -> None:
    await make_tenant(client, "shop")
    answer = await client.post("/v1/tenants", json={"name": "shop"})
    assert (answer.status_code, answer.json()["code"]) == (409, "TENANT_NAME_TAKEN")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": "x" * 201}, "/name"),
    ({"name": "a\nb"}, "/name"),
    ({"name": "a\0b"}, "/name"),
    ({"name": "\x85"}, "/name"),
    ({"name": 5}, "/name"),
    ({"name": None}, "/name"),
    ({"parent_id": "ten_1"}, "/parent_id"),
    ({"parent_id": format_id("ten", uuid7())}, "/parent_id"),
    ({"profile": "nonsense"}, "/profile"),
    ({"profile": "\0"}, "/profile"),
    ({"secret": "whsec_x"}, "/secret"),
]


async def test_a_bad_tenant_is_refused_with_its_pointer(client: httpx.AsyncClient) -> None:
    before = (await client.get("/v1/tenants")).json()
    for change, pointer in BAD:
        answer = await client.post("/v1/tenants", json={"name": "shop"} | change)
        assert answer.status_code == 422, (change, answer.text)
        assert answer.json()["errors"][0]["pointer"] == pointer
    answer = await client.post("/v1/tenants", json={"name": "shop", "profile": "nonsense"})
    assert "standard-webhooks" in answer.json()["detail"]
    assert (await client.get("/v1/tenants")).json() == before


async def test_a_chain_of_parents_has_eight_tenants_at_most(client: httpx.AsyncClient) -> None:
    parent: str | None = None
    for n in range(flow.DEPTH):
        parent = (await make_tenant(client, f"t{n}", parent_id=parent))["id"]
    answer = await client.post("/v1/tenants", json={"name": "beyond", "parent_id": parent})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/parent_id"
    assert "at most 8" in answer.json()["detail"]


async def test_a_tenants_key_sees_its_own_only(client: httpx.AsyncClient) -> None:
    own, other = await make_tenant(client, "own"), await make_tenant(client, "other")
    key = bearer((await make_key(client, tenant_id=own["id"]))["key"])
    (found,) = (await client.get("/v1/tenants", headers=key)).json()["data"]
    assert found["id"] == own["id"]
    assert (await client.get(f"/v1/tenants/{own['id']}", headers=key)).status_code == 200
    assert (await client.post(f"/v1/tenants/{own['id']}/rotate_secret", headers=key)).status_code == 200
    for tenant_id in (other["id"], format_id("ten", DEFAULT_TENANT), format_id("ten", uuid7())):
        assert (await client.get(f"/v1/tenants/{tenant_id}", headers=key)).status_code == 404
        assert (await client.post(f"/v1/tenants/{tenant_id}/rotate_secret", headers=key)).status_code == 404
    assert (await client.post("/v1/tenants", json={"name": "more"}, headers=key)).status_code == 403


async def test_tenants_come_in_pages_the_newest_first(client: httpx.AsyncClient, time: Time) -> None:
    made = []
    for n in range(4):
        made.append((await make_tenant(client, f"t{n}"))["id"])
        time.pass_(1)
    found, cursor = [], None
    while True:
        page = (await client.get("/v1/tenants", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        found += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [*reversed(made), format_id("ten", DEFAULT_TENANT)]


async def test_an_old_secret_signs_beside_the_new_one_for_the_overlap(
    client: httpx.AsyncClient, engine: Engine, time: Time
) -> None:
    made = await make_tenant(client, "shop")
    tenant_id = parse_id("ten", made["id"])

    async def rotate(**body: Any) -> str:
        answer = await client.post(f"/v1/tenants/{made['id']}/rotate_secret", json=body)
        assert answer.status_code == 200
        assert {**made, "secret": answer.json()["secret"]} == answer.json()
        return str(answer.json()["secret"])

    told = [made["secret"], await rotate()]
    time.pass_(3600)
    told.append(await rotate(overlap_s=60))
    with engine.connect() as connection:
        kept = tenants.secrets_of(connection, [tenant_id])[tenant_id]
        assert [one.reveal_whsec() for one in secrets_of(connection, tenant_id)] == told[::-1]
    assert [one.expires_at for one in kept] == [None, *[AT + timedelta(seconds=3660)] * 2]
    time.pass_(61)
    told.append(await rotate(overlap_s=0))
    with engine.connect() as connection:
        assert [one.reveal_whsec() for one in secrets_of(connection, tenant_id)] == told[-1:]
    for bad in ({"overlap_s": -1}, {"overlap_s": 1e9}, {"overlap_s": "1h"}, {"colour": 1}, []):
        assert (await client.post(f"/v1/tenants/{made['id']}/rotate_secret", json=bad)).status_code == 422


async def test_workers_learn_of_a_tenants_new_secret_by_its_targets_versions(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    made = await make_tenant(client, "shop")
    tenant_id = parse_id("ten", made["id"])
    with engine.begin() as connection:
        implicit = walk.add_endpoint(connection, tenant_id=tenant_id, origin="https://shop.example.com", secrets=())
        usual = walk.add_endpoint(connection, tenant_id=tenant_id)
        others = walk.add_endpoint(connection, origin="https://shop.example.com", secrets=())
    await client.post(f"/v1/tenants/{made['id']}/rotate_secret")
    with engine.connect() as connection:
        found = endpoints.fetch(connection, [implicit.id, usual.id, others.id])
        history = walk.rows(
            connection,
            "SELECT version FROM dispatcher.endpoint_history WHERE endpoint_id = :id ORDER BY version",
            id=implicit.id,
        )
    assert [found[one.id].version for one in (implicit, usual, others)] == [2, 1, 1]
    assert [row.version for row in history] == [1, 2]
    assert len(found[implicit.id].secrets) == 2


async def test_the_default_tenant_gets_a_secret_once(migrated_database_url: str, engine: Engine) -> None:
    with engine.connect() as connection:
        assert secrets_of(connection, DEFAULT_TENANT) == []
    kept = []
    for _ in range(2):
        async with serving(migrated_database_url):
            with engine.connect() as connection:
                kept.append(secrets_of(connection, DEFAULT_TENANT))
    assert kept[0] == kept[1]
    assert len(kept[0]) == 1
    with engine.connect() as connection:
        entries = walk.rows(connection, "SELECT action, actor FROM dispatcher.audit_log WHERE object LIKE 'ten%'")
    assert [tuple(entry) for entry in entries] == [("tenant.secret_made", "api")]


async def test_rotations_at_once_forget_no_secret(client: httpx.AsyncClient, engine: Engine) -> None:
    made = await make_tenant(client, "shop")
    tenant_id = parse_id("ten", made["id"])
    with engine.connect() as first:
        first.execute(text("BEGIN"))
        flow.rotate_secret(first, walk.KEYS, tenant_id, by="test")
        with engine.connect() as second:
            second.execute(text("SET LOCAL lock_timeout = '10ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                flow.rotate_secret(second, walk.KEYS, tenant_id, by="test")
        with engine.connect() as third:  # nor is an endpoint added meanwhile that would miss it
            third.execute(text("SET LOCAL lock_timeout = '10ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                walk.add_endpoint(third, tenant_id=tenant_id)
        first.commit()
