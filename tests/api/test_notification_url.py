"""`PUT /v1/notification_url`: the one URL of a tenant, set and replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.receiving import of_profile, serving

OLD, NEW = "https://old.example.com/hook", "https://new.example.com/hook"


async def put(api: httpx.AsyncClient, tenant: str, url: str, expected: int = 200) -> dict[str, Any]:
    answer = await api.put("/v1/notification_url", json={"tenant_id": tenant, "url": url})
    assert answer.status_code == expected, answer.text
    return dict(answer.json())


async def endpoints(api: httpx.AsyncClient, tenant: str) -> list[dict[str, Any]]:
    return list((await api.get("/v1/endpoints", params={"tenant_id": tenant})).json()["data"])


async def send(api: httpx.AsyncClient, tenant: str, **event: Any) -> dict[str, Any]:
    body = {"tenant_id": tenant, "type": "order.completed", "payload": 1} | event
    id_ = (await api.post("/v1/events", json=body)).json()["id"]
    (delivery,) = (await api.get("/v1/deliveries", params={"event_id": id_})).json()["data"]
    return dict(delivery)


async def test_the_first_call_registers_and_the_same_again_changes_nothing(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    first = await put(api, website, OLD)
    assert first["secret"].startswith("whsec_")
    assert (first["url"], first["profile"], first["warnings"]) == (OLD, "multisafepay", [])
    again = await put(api, website, OLD)
    assert again == first | {"secret": None}
    changes = (await api.get("/v1/audit_log", params={"object": first["id"]})).json()["data"]
    assert [entry["action"] for entry in changes] == ["endpoint.created"]


async def test_what_waits_goes_to_the_new_url_and_an_orders_own_url_stays(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    first = await put(api, website, OLD)
    waiting = await send(api, website)
    order = await send(api, website, target={"url": "https://order.example.com/7", "method": "GET"})
    second = await put(api, website, NEW)
    assert (second["id"], second["url"], second["secret"]) == (first["id"], NEW, None)
    assert second["version"] == first["version"] + 1
    moved = (await api.get(f"/v1/deliveries/{waiting['id']}")).json()
    assert moved == waiting | {"url": NEW}
    assert (await api.get(f"/v1/deliveries/{order['id']}")).json() == order
    assert order["url"] == "https://order.example.com/7"
    changes = (await api.get("/v1/audit_log", params={"object": first["id"]})).json()["data"]
    assert {"url": OLD} in [entry["before"] for entry in changes]


async def test_of_calls_at_once_one_registers_and_the_others_replace(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    answers = await asyncio.gather(*(put(api, website, f"{NEW}/{n}") for n in range(8)))
    assert len({answer["id"] for answer in answers}) == 1
    assert [answer["secret"] is not None for answer in answers].count(True) == 1
    (endpoint,) = await endpoints(api, website)
    assert endpoint["version"] == 8


async def test_a_website_has_one_url_whatever_way_it_is_registered(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    body = {"tenant_id": website, "url": OLD}
    registered = (await api.post("/v1/endpoints", json=body)).json()
    more = await api.post("/v1/endpoints", json=body | {"url": NEW})
    assert (more.status_code, more.json()["code"]) == (409, "ENDPOINT_LIMIT_REACHED")
    assert (await put(api, website, NEW))["id"] == registered["id"]
    await api.delete(f"/v1/endpoints/{registered['id']}")
    assert (await put(api, website, OLD))["id"] != registered["id"], "what is deleted stays so"


async def test_a_tenant_with_several_endpoints_has_no_one_url(api: httpx.AsyncClient) -> None:
    tenant = await of_profile(api, "default")
    for url in (OLD, NEW):
        await api.post("/v1/endpoints", json={"tenant_id": tenant, "url": url})
    before = await endpoints(api, tenant)
    refused = await put(api, tenant, "https://third.example.com/", 409)
    assert refused["code"] == "SEVERAL_ENDPOINTS"
    assert "found 2 endpoints of this tenant under the profile 'default'; allowed: at most one" in refused["detail"]
    assert await endpoints(api, tenant) == before


async def test_a_url_that_the_profile_does_not_allow_replaces_nothing(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    await put(api, website, OLD)
    refused = await put(api, website, "https://new.example.com:8443/hook", 422)
    assert refused["errors"][0]["pointer"] == "/url"
    assert [endpoint["url"] for endpoint in await endpoints(api, website)] == [OLD]


async def test_the_owner_of_a_disabled_endpoint_is_told_that_deliveries_wait(api: httpx.AsyncClient) -> None:
    website = await of_profile(api, "multisafepay")
    first = await put(api, website, OLD)
    await api.post(f"/v1/endpoints/{first['id']}/disable", json={"reason": "the shop is moving"})
    second = await put(api, website, NEW)
    assert second["status"] == "disabled"
    assert second["warnings"] == ["deliveries wait until the endpoint is enabled: the shop is moving"]


@pytest.mark.parametrize("status", [200, 500])
async def test_a_new_url_is_pinged_first_where_the_profile_asks_for_that(
    migrated_database_url: str, status: int
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(status if request.url.host == "new.example.com" else 200)

    async with serving(migrated_database_url, httpx.MockTransport(answer)) as api:
        group = await of_profile(api, "terminal")
        await put(api, group, OLD)
        await put(api, group, OLD)
        assert asked == ["old.example.com"]
        answered = await put(api, group, NEW, 200 if status == 200 else 422)
        assert asked == ["old.example.com", "new.example.com"]
        (endpoint,) = await endpoints(api, group)
        assert endpoint["url"] == (NEW if status == 200 else OLD)
        assert answered.get("code") == (None if status == 200 else "ENDPOINT_VALIDATION_FAILED")
