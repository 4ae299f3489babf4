"""`GET /v1/find`: whatever people have of a thing, it leads to the thing, and only to their own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from tests.api.conftest import other_tenant
from tests.api.test_deliveries import UNAVAILABLE, attempt_all, register, send
from tests.support import walk

TENANT = format_id("ten", DEFAULT_TENANT)


async def find(api: httpx.AsyncClient, q: str, *, key: str | None = None) -> list[dict[str, Any]]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await api.get("/v1/find", params={"q": q}, headers=headers)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    assert all(one["object"]["id"] == one["id"] for one in page["data"])
    return list(page["data"])


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [one["kind"] for one in found]


async def test_an_id_leads_to_what_it_names(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    one = await send(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    (attempt,) = (await api.get(f"/v1/deliveries/{one['id']}/attempts")).json()["data"]
    key = (await api.post("/v1/keys", json={"name": "till"})).json()
    for id_, kind, said in (
        (endpoint["id"], "endpoint", "https://shop.example.com/hook: active"),
        (one["id"], "delivery", "exhausted (http_retryable 503)"),
        (attempt["id"], "attempt", f"attempt 1 of {one['id']}: http_retryable 503"),
        (TENANT, "tenant", "default"),
        (key["id"], "key", "till"),
    ):
        (found,) = await find(api, id_)
        assert (found["kind"], found["id"]) == (kind, id_)
        assert said in found["summary"], id_
    found = await find(api, attempt["id"])
    assert found[0]["object"]["delivery_id"] == one["id"]
    assert "key" not in (await find(api, key["id"]))[0]["object"], "what is secret is told once"


async def test_the_first_characters_of_an_id_lead_to_what_begins_so(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    event_ids = [(await send_event(api)) for _ in range(2)]
    _, theirs = other_tenant(engine)
    found = await find(api, "evt_0")
    assert [one["id"] for one in found] == event_ids[::-1], "several events, without their deliveries"
    assert await find(api, "evt_0", key=theirs) == []
    length = next(n for n in range(5, 40) if not event_ids[1].startswith(event_ids[0][:n]))
    assert kinds(await find(api, event_ids[0][:length])) == ["event", "delivery"]
    delivery = (await find(api, event_ids[0]))[1]["id"]
    assert delivery in [one["id"] for one in await find(api, delivery[:12])]
    reader = (await api.post("/v1/keys", json={"name": "reader", "scopes": ["deliveries:read"]})).json()
    assert reader["id"] in [one["id"] for one in await find(api, reader["id"][:12])]
    assert await find(api, "key_0", key=reader["key"]) == [], "keys are for admins"


async def test_an_object_that_is_called_like_the_beginning_of_an_id_is_found(api: httpx.AsyncClient) -> None:
    event_id = await send_event(api, object_id="key_1")
    assert [one["id"] for one in await find(api, "key_1")] == [event_id]


async def send_event(api: httpx.AsyncClient, **more: Any) -> str:
    answer = await api.post("/v1/events", json={"type": "payment.completed", "payload": 1} | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_an_event_is_found_with_its_deliveries(api: httpx.AsyncClient) -> None:
    await register(api)
    await register(api, url="https://other.example.com/")
    one = await send_to_two(api)
    found = await find(api, one)
    assert kinds(found) == ["event", "delivery", "delivery"]
    assert found[0]["summary"] == "payment.completed: went to 2 endpoints"


async def send_to_two(api: httpx.AsyncClient) -> str:
    return str((await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})).json()["id"])


async def test_an_event_that_matched_nobody_is_found_and_says_so(api: httpx.AsyncClient) -> None:
    await register(api, event_types=["refund.*"])
    sent = await api.post("/v1/events", json={"type": "payment.completed", "payload": 1, "object_id": "pay_1"})
    for q in (sent.json()["id"], "pay_1", " pay_1 "):
        (found,) = await find(api, q)
        assert (found["kind"], found["id"]) == ("event", sent.json()["id"])
        assert found["summary"] == "payment.completed: matched no endpoint"


async def test_an_object_leads_to_its_events_and_deliveries(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    await send(api, object_id="order 8127/b")
    attempt_all(engine)
    await send(api, object_id="order 8127/b")
    await send(api, object_id="order 8128")
    assert kinds(await find(api, "order 8127/b")) == ["event", "event", "delivery", "delivery"]


@pytest.mark.parametrize("object_id", ["key_1", "ten_8127", "evt_" + "0" * 32, "shop.example.com"])
async def test_an_object_may_be_called_like_an_id_or_a_host(api: httpx.AsyncClient, object_id: str) -> None:
    await send_nobody(api, object_id)
    assert kinds(await find(api, object_id)) == ["event"]


async def send_nobody(api: httpx.AsyncClient, object_id: str) -> None:
    await api.post("/v1/events", json={"type": "payment.completed", "payload": 1, "object_id": object_id})


async def test_a_url_or_a_host_leads_to_its_endpoints(api: httpx.AsyncClient) -> None:
    hook = await register(api, url="https://shop.example.com/hook")
    other = await register(api, url="https://shop.example.com/other")
    mine = await register(api, url="https://myshop.example.com:8443/hook", profile="gateway")
    for q, expected in (
        ("https://shop.example.com/hook", [hook]),
        ("shop.example.com", [other, hook]),
        ("SHOP.example.com:443", [other, hook]),
        ("https://shop.example.com", [other, hook]),
        ("shop.example.com:8443", []),
        ("myshop.example.com:8443", [mine]),
        ("myshop.example.com:443", []),
        ("myshop.example.com:99999", []),
        ("https://shop.example.com/nothing", []),
        ("example.com", []),
    ):
        assert [one["id"] for one in await find(api, q)] == [one["id"] for one in expected], q


async def test_an_internationalised_name_is_found_in_either_spelling(api: httpx.AsyncClient) -> None:
    endpoint = await register(api, url="https://bücher.example/hook")
    delivery = await send(api)
    for host in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example"):
        for q in (host, f"https://{host}/", f"https://{host}/hook"):
            assert [one["id"] for one in await find(api, q)] == [endpoint["id"]], q
        (chosen,) = (await api.get("/v1/deliveries", params={"host": host})).json()["data"]
        assert chosen["id"] == delivery["id"], host


async def test_a_deleted_endpoint_is_not_found(api: httpx.AsyncClient) -> None:
    endpoint = await register(api)
    await api.delete(f"/v1/endpoints/{endpoint['id']}")
    for q in (endpoint["id"], endpoint["url"], "shop.example.com"):
        assert await find(api, q) == [], q


async def test_the_url_of_a_target_leads_to_its_deliveries(api: httpx.AsyncClient, engine: Engine) -> None:
    one = await to_a_target(api, engine)
    found = await find(api, one["url"])
    assert [(thing["kind"], thing["id"]) for thing in found] == [("delivery", one["id"])]


async def to_a_target(api: httpx.AsyncClient, engine: Engine) -> dict[str, Any]:
    """A delivery to the target of its event."""
    endpoint = await register(api, url="https://till.example.com/")
    one = await send(api)
    url = "https://till.example.com/orders/8127/paid?n=1"
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dispatcher.endpoints SET origin = 'https://till.example.com' WHERE id = :id"),
            {"id": parse_id("ep", endpoint["id"])},
        )
        connection.execute(
            text("UPDATE dispatcher.deliveries SET target_url = :url, target_method = 'GET' WHERE id = :id"),
            {"url": url, "id": parse_id("dlv", one["id"])},
        )
    found = (await api.get(f"/v1/deliveries/{one['id']}")).json()
    assert found["url"] == url, "the delivery's own URL is over its endpoint's"
    return dict(found)


async def test_what_went_to_a_target_goes_there_again(api: httpx.AsyncClient, engine: Engine) -> None:
    one = await to_a_target(api, engine)
    attempt_all(engine)
    made = (await api.post(f"/v1/deliveries/{one['id']}/retry")).json()
    assert (made["replay_of"], made["url"]) == (one["id"], one["url"])
    assert {thing["id"] for thing in await find(api, one["url"])} == {one["id"], made["id"]}
    with engine.connect() as connection:
        (live,) = walk.live(connection)
    assert live.target_method == "GET"


async def test_a_replay_is_found_by_its_owner(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, theirs = other_tenant(engine)
    endpoint = await register(api, tenant_id=tenant_id)
    for key, seen in ((None, 0), (theirs, 1)):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        body = {"since": "2026-01-01T00:00:00Z"}
        made = (await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json=body, headers=headers)).json()
        assert kinds(await find(api, made["id"])) == ["replay"]
        assert len(await find(api, made["id"], key=theirs)) == seen, "an operator's is not the tenant's"


async def test_nobody_finds_what_is_anothers(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    one = await send(api, object_id="pay_1")
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    (attempt,) = (await api.get(f"/v1/deliveries/{one['id']}/attempts")).json()["data"]
    key = (await api.post("/v1/keys", json={"name": "till"})).json()
    tenant_id, theirs = other_tenant(engine)
    for q in (endpoint["id"], endpoint["url"], "shop.example.com", one["id"], one["event_id"], attempt["id"]):
        assert await find(api, q, key=theirs) == [], q
        assert await find(api, q) != [], q
    for q in (TENANT, key["id"], "pay_1"):
        assert await find(api, q, key=theirs) == [], q
    assert kinds(await find(api, tenant_id, key=theirs)) == ["tenant"]
    limited = await api.get("/v1/find", params={"q": one["id"], "tenant_id": tenant_id})
    assert limited.json()["data"] == [], "an operator who names a tenant sees that one's"


async def test_a_key_is_found_only_by_who_may_see_keys(api: httpx.AsyncClient) -> None:
    reader = (await api.post("/v1/keys", json={"name": "r", "tenant_id": TENANT, "scopes": ["deliveries:read"]})).json()
    assert await find(api, reader["id"], key=reader["key"]) == []
    assert kinds(await find(api, reader["id"])) == ["key"]


@pytest.mark.parametrize("prefix", ["evt", "ep", "dlv", "att", "rpl", "ten", "key"])
async def test_an_id_of_nothing_finds_nothing(api: httpx.AsyncClient, prefix: str) -> None:
    for id_ in (uuid7(), UUID(int=0), UUID(int=2**128 - 1)):
        assert await find(api, f"{prefix}_{id_}") == []


@pytest.mark.parametrize("q", ["", "x" * 2049, "pay\0"])
async def test_what_cannot_be_looked_for_is_refused(api: httpx.AsyncClient, q: str) -> None:
    assert (await api.get("/v1/find", params={"q": q})).status_code == 422
    assert (await api.get("/v1/find")).status_code == 422
