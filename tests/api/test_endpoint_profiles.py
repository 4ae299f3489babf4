"""What each shipped profile lets a registration say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.model.endpoint import REGISTRATION_FIELDS
from tests.api.receiving import answering, of_profile, serving
from tests.support import walk

URL = "https://shop.example.com/hook"

VALUES: dict[str, Any] = {
    "name": "orders",
    "url": URL,
    "description": "till 4",
    "event_types": ["payment.completed"],
    "metadata": {"store": "Utrecht"},
    "schedule": "standard",
    "signature": ["rsa_sha256"],
    "auth": {"type": "basic", "username": "shop", "password": "p"},
    "headers": {"x-shop": "1"},
    "method": "POST",
    "max_in_flight": 2,
    "rate_limit": 5,
    "ordered": True,
    "status": "active",
}


@pytest.fixture
async def client(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An operator's client of an application whose pings are all answered by 200."""
    async with serving(migrated_database_url, answering(200)) as found:
        yield found


async def register(client: httpx.AsyncClient, tenant: str, **asked: Any) -> httpx.Response:
    return await client.post("/v1/endpoints", json={"tenant_id": tenant, "url": URL} | asked)


def pointer(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    return str(answer.json()["errors"][0]["pointer"])


async def test_a_field_that_a_profile_does_not_have_is_refused_and_the_others_are_taken(
    client: httpx.AsyncClient,
) -> None:
    assert VALUES.keys() == set(REGISTRATION_FIELDS)
    for name, profile in walk.PROFILES.items():
        tenant = await of_profile(client, name, f"a {name}")
        needed = {field: VALUES[field] for field in profile.required_fields}
        for field in REGISTRATION_FIELDS:
            value = ["order.paid"] if (name, field) == ("musepay", "event_types") else VALUES[field]
            answer = await register(client, tenant, **needed | {field: value})
            if field in profile.registration_fields:
                assert answer.status_code == 201, (name, field, answer.text)
                assert answer.json()["profile"] == name
            else:
                assert pointer(answer) == f"/{field}", name
                assert all(one in answer.text for one in profile.registration_fields)
            if answer.status_code == 201:
                await client.delete(f"/v1/endpoints/{answer.json()['id']}")


async def test_the_url_is_what_the_profile_allows(client: httpx.AsyncClient) -> None:
    for name, profile in walk.PROFILES.items():
        tenant = await of_profile(client, name, f"a {name}")
        needed = {field: VALUES[field] for field in profile.required_fields}
        for url, allowed in (
            ("http://shop.example.com/", "http" in profile.url_schemes),
            ("https://shop.example.com:8443/", profile.url_ports),
            ("https://8.8.8.8/", profile.url_ip_literals),
            ("https://10.0.0.1/", False),
            ("https://localhost/", False),
        ):
            answer = await register(client, tenant, **needed | {"url": url})
            assert answer.status_code == (201 if allowed else 422), (name, url, answer.text)
            if answer.status_code == 201:
                await client.delete(f"/v1/endpoints/{answer.json()['id']}")
            assert allowed or pointer(answer) == "/url"


async def test_the_schedule_the_method_and_the_secret_are_the_profiles(client: httpx.AsyncClient) -> None:
    for name, profile in walk.PROFILES.items():
        tenant = await of_profile(client, name, f"a {name}")
        made = (await register(client, tenant, **{one: VALUES[one] for one in profile.required_fields})).json()
        assert (made["schedule"], made["method"]) == (profile.schedule, profile.methods[0])
        assert (made["secret"] is not None) == profile.secret
        rotated = await client.post(f"/v1/endpoints/{made['id']}/rotate_secret")
        assert rotated.status_code == (200 if profile.secret else 409)


async def test_the_profile_is_the_one_asked_for_else_the_tenants_else_the_installations(
    client: httpx.AsyncClient,
) -> None:
    tenant = await of_profile(client, "gateway")
    assert (await register(client, tenant)).json()["profile"] == "gateway"
    assert (await register(client, tenant, profile="musepay")).json()["profile"] == "musepay"
    assert (await client.post("/v1/endpoints", json={"url": URL})).json()["profile"] == "default"


async def test_checkout_demands_a_name_also_later_and_warns_of_a_second_endpoint(client: httpx.AsyncClient) -> None:
    tenant = await of_profile(client, "checkout")
    assert pointer(await register(client, tenant)) == "/name"
    first = (await register(client, tenant, name="one")).json()
    assert first["warnings"] == []
    second = (await register(client, tenant, name="two")).json()
    assert second["warnings"] == ["this account has 2 endpoints now; recommended: at most 1"]
    changed = await client.patch(f"/v1/endpoints/{second['id']}", json={"name": None})
    assert pointer(changed) == "/name"
    assert pointer(await client.patch(f"/v1/endpoints/{second['id']}", json={"metadata": {"a": 1}})) == "/metadata"
    assert (await client.patch(f"/v1/endpoints/{second['id']}", json={"name": "three"})).status_code == 200


async def test_a_closed_catalogue_offers_its_types_and_an_endpoint_hears_no_others(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    tenant = await of_profile(client, "terminal")
    for refused in (["payment.paid"], ["refund.*"], ["payment.completed", "order.paid"], []):
        assert pointer(await register(client, tenant, event_types=refused)).startswith("/event_types")
    for asked in (None, ["*"], ["payment.*"], ["payment.completed"]):
        made = (await register(client, tenant, event_types=asked)).json()
        assert made["event_types"] == asked
    for kind, heard in (("payment.completed", 4), ("payment.timeout", 3), ("payment.paid", 0), ("refund.created", 0)):
        event = {"tenant_id": tenant, "type": kind, "payload": 1}
        assert (await client.post("/v1/events", json=event)).json()["deliveries"] == heard, kind
    with engine.connect() as connection:
        heard_by = walk.rows(connection, "SELECT event_types FROM dispatcher.endpoint_history ORDER BY changed_at")
    catalogue = list(walk.PROFILES["terminal"].catalogue)
    assert [one.event_types for one in heard_by] == [catalogue, catalogue, catalogue, ["payment.completed"]]


async def test_a_family_of_a_catalogue_offers_what_is_below_it(client: httpx.AsyncClient) -> None:
    tenant = await of_profile(client, "musepay")
    assert pointer(await register(client, tenant, event_types=["payment.completed"])) == "/event_types/0"
    await register(client, tenant, event_types=["order.updated"])
    await register(client, tenant)
    for kind, heard in (("order.updated", 2), ("order.paid", 1), ("card.issued", 1), ("payment.completed", 0)):
        event = {"tenant_id": tenant, "type": kind, "payload": 1}
        assert (await client.post("/v1/events", json=event)).json()["deliveries"] == heard, kind


async def test_a_changed_choice_is_what_is_heard_from_then_on(client: httpx.AsyncClient) -> None:
    tenant = await of_profile(client, "terminal")
    made = (await register(client, tenant, event_types=["payment.failed"])).json()
    event = {"tenant_id": tenant, "type": "payment.completed", "payload": 1}
    assert (await client.post("/v1/events", json=event)).json()["deliveries"] == 0
    await client.patch(f"/v1/endpoints/{made['id']}", json={"event_types": None})
    assert (await client.post("/v1/events", json=event)).json()["deliveries"] == 1
    assert (await client.post("/v1/events", json=event | {"type": "order.paid"})).json()["deliveries"] == 0


async def test_of_fifty_registrations_at_once_exactly_sixteen_are_made(client: httpx.AsyncClient) -> None:
    tenant = await of_profile(client, "terminal")
    other = await of_profile(client, "terminal", "other")
    assert (await register(client, other)).status_code == 201, "another tenant's do not count"
    answers = await asyncio.gather(*(register(client, tenant, url=f"{URL}/{n}") for n in range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] * 16 + [409] * 34
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"ENDPOINT_LIMIT_REACHED"}
    found = (await client.get("/v1/endpoints", params={"tenant_id": tenant})).json()["data"]
    assert len(found) == 16
    await client.delete(f"/v1/endpoints/{found[0]['id']}")
    assert (await register(client, tenant)).status_code == 201, "one that is deleted does not count"
    assert (await register(client, tenant, profile="gateway")).status_code == 201, "nor one under another profile"


async def test_an_endpoint_whose_profile_is_gone_is_shown_and_not_changed(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, profile="gone")
    path = f"/v1/endpoints/ep_{endpoint.id}"
    assert (await client.get(path)).json()["profile"] == "gone"
    for answer in (await client.patch(path, json={"name": "a"}), await client.post(f"{path}/rotate_secret")):
        assert (answer.status_code, answer.json()["code"]) == (409, "PROFILE_MISSING")
    assert (await client.post(f"{path}/disable")).status_code == 200


async def test_a_tenant_that_was_given_a_profile_cannot_choose_another(api: httpx.AsyncClient) -> None:
    tenant = (await api.post("/v1/tenants", json={"name": "group", "profile": "checkout"})).json()
    key = (await api.post("/v1/keys", json={"name": "own", "tenant_id": tenant["id"]})).json()["key"]
    asked = {"name": "shop", "url": "https://shop.example.com/"}
    own = {"authorization": f"Bearer {key}"}
    refused = await api.post("/v1/endpoints", json=asked | {"profile": "default"}, headers=own)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/profile")
    assert (await api.post("/v1/endpoints", json=asked | {"profile": "checkout"}, headers=own)).status_code == 201
    by_operator = asked | {"profile": "default", "tenant_id": tenant["id"]}
    assert (await api.post("/v1/endpoints", json=by_operator)).status_code == 201
