"""What is held, and that it goes on."""

from __future__ import annotations

from typing import Any

import httpx
from sqlalchemy import Engine

from dispatcher.ids import format_id, parse_id, uuid7
from tests.api.callers import bearer, make_key
from tests.api.conftest import other_tenant
from tests.support import walk

URL = "https://shop.example.com/hook"
EVENT = {"type": "payment.completed", "payload": 1}


async def endpoint(api: httpx.AsyncClient, **asked: Any) -> str:
    answer = await api.post("/v1/endpoints", json={"url": URL} | asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def claimed(engine: Engine) -> set[str]:
    """The endpoints of what a worker may attempt now; afterwards it is as if nobody had asked."""
    with engine.connect() as connection:
        worker = walk.add_worker(connection, now=None)
        return {format_id("ep", one.endpoint_id) for one in walk.claim_all(connection, worker, now=None)}


def asleep(engine: Engine) -> None:
    """Has a worker look at every lane and find what it may not attempt."""
    with engine.begin() as connection:
        assert walk.claim_all(connection, walk.add_worker(connection, now=None), now=None) == []


async def test_each_scope_holds_what_is_in_it_until_it_ends(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, _ = other_tenant(engine)
    mine, theirs = await endpoint(api), await endpoint(api, tenant_id=tenant_id)
    for tenant in (None, tenant_id):
        await api.post("/v1/events", json=EVENT | {"tenant_id": tenant})
    for scope, free in (
        ({"all": True}, set[str]()),
        ({"tenant_id": tenant_id}, {mine}),
        ({"endpoint_id": mine}, {theirs}),
        ({"event_type": "payment.completed"}, set[str]()),
        ({"event_type": "payment.*"}, set[str]()),
        ({"event_type": "refund.*"}, {mine, theirs}),
        ({"tenant_id": tenant_id, "event_type": "payment.*"}, {mine}),
    ):
        made = await api.post("/v1/pauses", json=scope)
        assert made.status_code == 201, made.text
        assert claimed(engine) == free, scope
        assert (await api.delete(f"/v1/pauses/{made.json()['id']}")).status_code == 204
        assert claimed(engine) == {mine, theirs}, scope


async def test_the_end_of_a_pause_wakes_what_it_held(api: httpx.AsyncClient, engine: Engine) -> None:
    held = await endpoint(api)
    for scope in ({"all": True}, {"endpoint_id": held}, {"event_type": "payment.*"}):
        await api.post("/v1/pauses", json=scope)
        await api.post("/v1/events", json=EVENT)
        asleep(engine)
        assert claimed(engine) == set()
        assert (await api.delete("/v1/pauses", params=scope)).status_code == 204
        assert claimed(engine) == {held}, scope


async def test_a_pause_says_what_it_holds_why_and_who_made_it(api: httpx.AsyncClient) -> None:
    id_ = await endpoint(api)
    made = (await api.post("/v1/pauses", json={"endpoint_id": id_, "reason": "audit"})).json()
    parse_id("pau", made["id"])
    assert {name: made[name] for name in ("tenant_id", "endpoint_id", "event_type", "reason")} == {
        "tenant_id": None,
        "endpoint_id": id_,
        "event_type": None,
        "reason": "audit",
    }
    assert made["created_by"].startswith("key_")
    other = (await api.post("/v1/pauses", json={"event_type": "a.*"})).json()
    assert other["reason"] == "paused by an operator"
    page = (await api.get("/v1/pauses", params={"limit": 1})).json()
    assert (page["data"], page["has_more"]) == ([other], True)
    assert (await api.get("/v1/pauses", params={"cursor": page["next_cursor"]})).json()["data"] == [made]


async def test_a_scope_is_paused_once_and_ended_once(api: httpx.AsyncClient) -> None:
    for scope in ({"all": True}, {"event_type": "payment.*"}):
        assert (await api.post("/v1/pauses", json=scope)).status_code == 201
        again = await api.post("/v1/pauses", json=scope)
        assert (again.status_code, again.json()["code"]) == (409, "PAUSED_ALREADY")
        assert again.json()["detail"] == "this scope is already paused"
        assert (await api.delete("/v1/pauses", params=scope)).status_code == 204
        assert (await api.delete("/v1/pauses", params=scope)).status_code == 404
    made = (await api.post("/v1/pauses", json={"all": True})).json()
    assert (await api.delete("/v1/pauses", params={"event_type": "payment.*"})).status_code == 404, "another scope"
    assert (await api.delete(f"/v1/pauses/{made['id']}")).status_code == 204
    assert (await api.delete(f"/v1/pauses/{made['id']}")).status_code == 404


async def test_a_misspelt_scope_ends_no_pause(api: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/pauses", json={"all": True})).json()
    for query in ("endpoint=ep_1", "tenant=ten_1", "All=true", "all=true&endpoint=ep_1", "all=true&all=true"):
        assert (await api.delete(f"/v1/pauses?{query}")).status_code == 422, query
    assert (await api.get("/v1/pauses")).json()["data"] == [made]


async def test_a_scope_that_is_left_out_is_not_taken_for_everything(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    for headers in (bearer(), bearer(key)):
        for asked in ({}, {"reason": "audit"}, {"all": False}, {"tenant_id": None}):
            answer = await api.post("/v1/pauses", json=asked, headers=headers)
            assert answer.status_code == 422, asked
            assert answer.json()["errors"] == [
                {
                    "pointer": "/all",
                    "detail": "found no scope; allowed: all=true for everything, or one "
                    "or more of tenant_id, endpoint_id, event_type, mode",
                }
            ]
        made = await api.post("/v1/pauses", json={"all": True}, headers=headers)
        assert made.json()["tenant_id"] == (tenant_id if headers == bearer(key) else None)
        for query in ("", "?all=false"):
            answer = await api.delete(f"/v1/pauses{query}", headers=headers)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "all")
        assert (await api.get(f"/v1/pauses?tenant_id={tenant_id}")).json()["data"] == (
            [made.json()] if headers == bearer(key) else []
        )
        assert made.json() in (await api.get("/v1/pauses")).json()["data"]


async def test_everything_beside_a_narrower_scope_is_refused(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    id_ = await endpoint(api, tenant_id=tenant_id)
    for headers in (bearer(), bearer(key)):
        for scope in ({"tenant_id": tenant_id}, {"endpoint_id": id_}, {"event_type": "payment.*"}):
            answer = await api.post("/v1/pauses", json={"all": True} | scope, headers=headers)
            assert answer.status_code == 422, scope
            assert answer.json()["errors"][0]["detail"].startswith("found true beside a narrower scope; allowed: ")
            assert (await api.delete("/v1/pauses", params={"all": "true"} | scope, headers=headers)).status_code == 422
    assert (await api.get("/v1/pauses")).json()["data"] == []


async def test_a_bad_scope_is_refused(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, _ = other_tenant(engine)
    id_ = await endpoint(api)
    for scope, status in (
        ({"event_type": "*"}, 422),
        ({"event_type": "pay*"}, 422),
        ({"event_type": ""}, 422),
        ({"tenant_id": format_id("ten", uuid7())}, 422),
        ({"tenant_id": "nobody"}, 422),
        ({"endpoint_id": format_id("ep", uuid7())}, 404),
        ({"endpoint_id": id_, "tenant_id": tenant_id}, 422),
        ({"reason": "x" * 501}, 422),
        ({"colour": "red"}, 422),
    ):
        assert (await api.post("/v1/pauses", json=scope)).status_code == status, scope
    assert (await api.delete("/v1/pauses", params={"event_type": "*"})).status_code == 422
    assert (await api.delete("/v1/pauses/pau_1")).status_code == 422
    assert (await api.get("/v1/pauses")).json()["data"] == []


async def test_a_tenants_key_pauses_only_what_is_its_own(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    mine, theirs = await endpoint(api), await endpoint(api, tenant_id=tenant_id)
    for tenant in (None, tenant_id):
        await api.post("/v1/events", json=EVENT | {"tenant_id": tenant})
    headers = bearer(key)
    for scope in ({"all": True}, {"event_type": "payment.*"}, {"endpoint_id": theirs}, {"tenant_id": tenant_id}):
        made = await api.post("/v1/pauses", json=scope, headers=headers)
        assert (made.status_code, made.json()["tenant_id"]) == (201, tenant_id), scope
        assert claimed(engine) == {mine}, scope
        assert (await api.delete("/v1/pauses", params=scope, headers=headers)).status_code == 204
    assert (await api.post("/v1/pauses", json={"endpoint_id": mine}, headers=headers)).status_code == 404
    of_mine = {"tenant_id": (await api.get(f"/v1/endpoints/{mine}")).json()["tenant_id"]}
    assert (await api.post("/v1/pauses", json=of_mine, headers=headers)).status_code == 404


async def test_a_tenant_neither_sees_nor_ends_an_operators_pause(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    headers = bearer(key)
    everything = (await api.post("/v1/pauses", json={"all": True})).json()
    assert (await api.delete(f"/v1/pauses/{everything['id']}", headers=headers)).status_code == 404
    assert (await api.get("/v1/pauses", headers=headers)).json()["data"] == []
    of_it = (await api.post("/v1/pauses", json={"tenant_id": tenant_id})).json()
    assert (await api.get("/v1/pauses", headers=headers)).json()["data"] == [of_it], "it is told why nothing comes"
    assert (await api.delete(f"/v1/pauses/{of_it['id']}", headers=headers)).status_code == 403
    assert (await api.delete("/v1/pauses?all=true", headers=headers)).status_code == 403
    assert len((await api.get("/v1/pauses")).json()["data"]) == 2


async def test_everything_is_held_by_operators_with_the_scope_admin_only(api: httpx.AsyncClient) -> None:
    key = (await make_key(api, scopes=["endpoints:write"]))["key"]
    assert (await api.post("/v1/pauses", json={"all": True}, headers=bearer(key))).status_code == 403
    assert (await api.delete("/v1/pauses?all=true", headers=bearer(key))).status_code == 403
    assert (await api.post("/v1/pauses", json={"event_type": "a.*"}, headers=bearer(key))).status_code == 201
    reading = (await make_key(api, scopes=["deliveries:read"]))["key"]
    assert (await api.get("/v1/pauses", headers=bearer(reading))).status_code == 200
    assert (await api.post("/v1/pauses", json={"event_type": "b.*"}, headers=bearer(reading))).status_code == 403


async def test_pauses_are_in_the_audit_log(api: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/pauses", json={"event_type": "payment.*", "reason": "audit"})).json()
    await api.delete(f"/v1/pauses/{made['id']}")
    entries = (await api.get("/v1/audit_log", params={"object": made["id"]})).json()["data"][::-1]
    assert [one["action"] for one in entries] == ["pause.created", "pause.ended"]
    assert entries[0]["after"] == entries[1]["before"]
    assert entries[0]["after"] == {
        "tenant_id": None,
        "endpoint_id": None,
        "event_type": "payment.*",
        "mode": None,
        "reason": "audit",
    }
