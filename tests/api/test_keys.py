"""`/v1/keys`: made, listed, revoked."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64decode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.errors import Forbidden
from dispatcher.flow import keys as flow
from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from dispatcher.model.access import Scope
from tests.api.callers import Time, bearer, make_key, make_tenant, serving
from tests.support import walk


@pytest.fixture
async def client(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(migrated_database_url, Time()) as client:
        client.headers.update(bearer())
        yield client


async def test_a_key_and_its_signing_secret_are_told_once(client: httpx.AsyncClient, engine: Engine) -> None:
    answer = await client.post(
        "/v1/keys", json={"name": "till", "scopes": ["events:write", "deliveries:read"], "rate_limit": 0.1}
    )
    assert answer.status_code == 201
    made = answer.json()
    key, signing_secret = made.pop("key"), made.pop("signing_secret")
    assert len(urlsafe_b64decode(key.removeprefix("dsk_") + "=")) == 32
    assert len(b64decode(signing_secret.removeprefix("hmsec_"), validate=True)) == 32
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "tenant_id": None,
        "name": "till",
        "scopes": ["deliveries:read", "events:write"],
        "rate_limit": 0.1,
        "created_at": "",
        "last_used_at": None,
        "revoked_at": None,
    }
    listed = await client.get("/v1/keys")
    assert made in listed.json()["data"]
    assert key not in listed.text
    assert signing_secret not in listed.text
    with engine.connect() as connection:
        (row,) = walk.rows(
            connection,
            "SELECT key_sha256, k::text AS text FROM dispatcher.api_keys k WHERE id = :id",
            id=parse_id("key", made["id"]),
        )
        trail = walk.rows(connection, "SELECT a::text FROM dispatcher.audit_log a")
    assert bytes(row.key_sha256) == sha256(key.encode()).digest()
    for secret in (key, signing_secret, key[4:], signing_secret[6:]):
        assert secret not in row.text + str(trail)


async def test_without_scopes_a_key_may_do_everything(client: httpx.AsyncClient) -> None:
    assert (await make_key(client))["scopes"] == ["admin"]


async def test_a_repeat_makes_no_second_key_and_tells_nothing(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k"}
    first = (await client.post("/v1/keys", json={"name": "till"}, headers=headers)).json()
    again = (await client.post("/v1/keys", json={"name": "till"}, headers=headers)).json()
    assert again == {name: value for name, value in first.items() if name not in ("key", "signing_secret")}
    assert len((await client.get("/v1/keys")).json()["data"]) == 2


async def test_whose_a_key_is_follows_from_who_makes_it(client: httpx.AsyncClient) -> None:
    own, other = await make_tenant(client, "own"), await make_tenant(client, "other")
    theirs = await make_key(client, tenant_id=own["id"])
    by_query = await client.post("/v1/keys", json={"name": "q"}, params={"tenant_id": own["id"]})
    assert theirs["tenant_id"] == by_query.json()["tenant_id"] == own["id"]
    for named in ({}, {"tenant_id": None}, {"tenant_id": own["id"]}):
        assert (await make_key(client, by=theirs["key"], **named))["tenant_id"] == own["id"]
    for tenant_id in (other["id"], format_id("ten", DEFAULT_TENANT), format_id("ten", uuid7())):
        for asked in ({"json": {"name": "n", "tenant_id": tenant_id}}, {"params": {"tenant_id": tenant_id}}):
            body = {"json": {"name": "n"}} | asked
            answer = await client.post("/v1/keys", headers=bearer(theirs["key"]), **body)
            assert answer.status_code == 404, answer.text
    unknown = await client.post("/v1/keys", json={"name": "n", "tenant_id": format_id("ten", uuid7())})
    assert unknown.status_code == 422
    empty = await client.post("/v1/keys", json={"name": "n", "tenant_id": ""})
    assert empty.status_code == 422, "and no operator's key"


async def test_only_admins_make_keys_and_none_gives_more_than_it_has(client: httpx.AsyncClient, engine: Engine) -> None:
    weak = await make_key(client, scopes=[scope for scope in Scope if scope is not Scope.ADMIN])
    assert (await client.post("/v1/keys", json={"name": "n"}, headers=bearer(weak["key"]))).status_code == 403
    may = frozenset({Scope.EVENTS_WRITE})
    with engine.begin() as connection:
        flow.create(connection, walk.KEYS, flow.NewKey(name="n", scopes=may), may=may, by="test")
        for scopes in ([Scope.ADMIN], [Scope.EVENTS_WRITE, Scope.DELIVERIES_READ]):
            with pytest.raises(Forbidden, match="cannot give"):
                flow.create(connection, walk.KEYS, flow.NewKey(name="n", scopes=scopes), may=may, by="test")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": "x" * 201}, "/name"),
    ({"name": "\x1b[2J"}, "/name"),
    ({"scopes": []}, "/scopes"),
    ({"scopes": ["root"]}, "/scopes/0"),
    ({"scopes": [5]}, "/scopes/0"),
    ({"scopes": "admin"}, "/scopes"),
    ({"rate_limit": 0}, "/rate_limit"),
    ({"rate_limit": 0.009}, "/rate_limit"),
    ({"rate_limit": 100_001}, "/rate_limit"),
    ({"rate_limit": "5"}, "/rate_limit"),
    ({"rate_limit": True}, "/rate_limit"),
    ({"tenant_id": "ten_1"}, "/tenant_id"),
    ({"tenant_id": 5}, "/tenant_id"),
    ({"key": "dsk_mine"}, "/key"),
]


async def test_a_bad_key_is_refused_with_its_pointer(client: httpx.AsyncClient) -> None:
    for change, pointer in BAD:
        answer = await client.post("/v1/keys", json={"name": "till"} | change)
        assert answer.status_code == 422, (change, answer.text)
        assert answer.json()["errors"][0]["pointer"] == pointer
    for number in (b"NaN", b"Infinity", b"1e999"):
        content = b'{"name": "till", "rate_limit": %b}' % number
        headers = {"content-type": "application/json"}
        assert (await client.post("/v1/keys", content=content, headers=headers)).status_code == 422
    assert len((await client.get("/v1/keys")).json()["data"]) == 1


async def test_a_revoked_key_stays_in_the_list_and_may_be_revoked_again(client: httpx.AsyncClient) -> None:
    made = await make_key(client)
    for _ in range(2):
        answer = await client.delete(f"/v1/keys/{made['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
    found = next(one for one in (await client.get("/v1/keys")).json()["data"] if one["id"] == made["id"])
    assert found["revoked_at"] is not None
    entries = (await client.get("/v1/audit_log", params={"object": made["id"]})).json()["data"]
    assert [entry["action"] for entry in entries] == ["key.revoked", "key.created"]


async def test_a_key_cannot_revoke_itself(client: httpx.AsyncClient) -> None:
    made = await make_key(client)
    answer = await client.delete(f"/v1/keys/{made['id']}", headers=bearer(made["key"]))
    assert (answer.status_code, answer.json()["code"]) == (409, "KEY_IN_USE")
    assert (await client.get("/v1/keys", headers=bearer(made["key"]))).status_code == 200


async def test_a_tenants_key_sees_and_revokes_its_own_only(client: httpx.AsyncClient) -> None:
    own, other = await make_tenant(client, "own"), await make_tenant(client, "other")
    asking = await make_key(client, tenant_id=own["id"])
    mine = await make_key(client, tenant_id=own["id"])
    theirs, operators = await make_key(client, tenant_id=other["id"]), await make_key(client)
    headers = bearer(asking["key"])
    listed = (await client.get("/v1/keys", headers=headers)).json()["data"]
    assert {one["id"] for one in listed} == {asking["id"], mine["id"]}
    for key_id in (theirs["id"], operators["id"], format_id("key", uuid7())):
        answer = await client.delete(f"/v1/keys/{key_id}", headers=headers)
        assert answer.status_code == 404, key_id
    assert (await client.delete(f"/v1/keys/{mine['id']}", headers=headers)).status_code == 204
    of_other = (await client.get("/v1/keys", params={"tenant_id": other["id"]})).json()["data"]
    assert [(one["id"], one["revoked_at"]) for one in of_other] == [(theirs["id"], None)]
