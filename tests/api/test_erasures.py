"""`/v1/erasures`."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import Engine

from tests.api.callers import bearer
from tests.api.conftest import other_tenant
from tests.support import walk


async def test_an_erased_event_says_so(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    sent = await api.post("/v1/events", json={"type": "a.b", "payload": {"card": 1}, "object_id": "pay_1"})
    answer = await api.post("/v1/erasures", json={"object_id": "pay_1", "reason": "asked for"})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["status"], found["events"], found["cancelled_deliveries"]) == ("done", 1, 1)
    event = (await api.get(f"/v1/events/{sent.json()['id']}")).json()
    assert (event["payload"], event["payload_gone"]) == (None, "erased")
    again = (await api.get(f"/v1/erasures/{found['id']}")).json()
    assert again == found
    log = (await api.get("/v1/audit_log", params={"object": found["id"]})).json()["data"]
    assert [entry["action"] for entry in log] == ["object.erased"]


async def payloads(api: httpx.AsyncClient) -> list[int]:
    """What is left of the events of `pay_1`."""
    found = (await api.get("/v1/events", params={"object_id": "pay_1"})).json()["data"]
    return sorted(one["payload"] for one in found if one["payload"] is not None)


async def test_an_object_id_of_several_tenants_is_erased_of_one_or_explicitly_of_all(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    _, key = other_tenant(engine)
    event = {"type": "a.b", "object_id": "pay_1"}
    mine = (await api.post("/v1/events", json=event | {"payload": 1})).json()
    await api.post("/v1/events", json=event | {"payload": 2}, headers=bearer(key))

    refused = await api.post("/v1/erasures", json={"object_id": "pay_1"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/tenant_id")
    assert "all_tenants=true" in refused.json()["detail"]
    assert await payloads(api) == [1, 2]

    await api.post("/v1/erasures", json={"object_id": "pay_1"}, headers=bearer(key))
    assert await payloads(api) == [1]
    both = {"object_id": "pay_1", "all_tenants": True}
    assert (await api.post("/v1/erasures", json=both | {"tenant_id": mine["tenant_id"]})).status_code == 422
    assert (await api.post("/v1/erasures", json=both, headers=bearer(key))).status_code == 403
    assert (await api.post("/v1/erasures", json=both)).json()["tenant_id"] is None
    assert await payloads(api) == []


@pytest.mark.parametrize("events", [0, 1])
async def test_an_object_of_one_tenant_needs_no_tenant(api: httpx.AsyncClient, events: int) -> None:
    for _ in range(events):
        sent = await api.post("/v1/events", json={"type": "a.b", "payload": 1, "object_id": "pay_1"})
    answer = await api.post("/v1/erasures", json={"object_id": "pay_1"})
    assert (answer.status_code, answer.json()["events"]) == (202, events)
    assert answer.json()["tenant_id"] == (sent.json()["tenant_id"] if events else None)


async def test_erasures_are_listed_the_newest_first_and_a_tenant_sees_its_own(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    tenant_id, key = other_tenant(engine)
    made = [(await api.post("/v1/erasures", json={"object_id": f"pay_{n}"})).json() for n in range(2)]
    theirs = (await api.post("/v1/erasures", json={"object_id": "pay_9"}, headers=bearer(key))).json()
    first = (await api.get("/v1/erasures", params={"limit": 2})).json()
    assert (first["data"], first["has_more"]) == ([theirs, made[1]], True)
    second = (await api.get("/v1/erasures", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert (second["data"], second["has_more"]) == ([made[0]], False)
    for own in (
        await api.get("/v1/erasures", headers=bearer(key)),
        await api.get("/v1/erasures", params={"tenant_id": tenant_id}),
    ):
        assert [one["id"] for one in own.json()["data"]] == [theirs["id"]]
