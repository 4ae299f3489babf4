"""`/v1/events`: one event in, and what can be seen of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from tests.api.conftest import other_tenant
from tests.support import walk

EVENT: dict[str, Any] = {"type": "payment.paid", "payload": {"amount": 1000}, "object_id": "pay_1"}
OWN = format_id("ten", DEFAULT_TENANT)


async def test_what_was_accepted_is_shown_and_listed(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    accepted = await api.post("/v1/events", json=EVENT | {"mode": "test"})
    assert accepted.status_code == 202
    assert accepted.json() == {
        "id": accepted.json()["id"],
        "type": "payment.paid",
        "tenant_id": OWN,
        "mode": "test",
        "object_id": "pay_1",
        "duplicate": False,
        "deliveries": 1,
    }
    shown = (await api.get(f"/v1/events/{accepted.json()['id']}")).json()
    assert shown == {
        "id": accepted.json()["id"],
        "type": "payment.paid",
        "tenant_id": OWN,
        "mode": "test",
        "object_id": "pay_1",
        "payload": {"amount": 1000},
        "payload_gone": None,
        "deliveries": 1,
        "created_at": shown["created_at"],
    }
    assert (await api.get("/v1/events")).json() == {"data": [shown], "has_more": False, "next_cursor": None}


async def test_a_payload_comes_back_as_it_was_written(api: httpx.AsyncClient) -> None:
    payload = b'{"amount": 12345678901234567890.10, "b":1,"b":2}'
    accepted = await api.post("/v1/events", content=b'{"type":"a","payload":%b}' % payload)
    for path in (f"/v1/events/{accepted.json()['id']}", "/v1/events"):
        assert b'"payload":' + payload + b"," in (await api.get(path)).content


async def test_events_are_chosen_by_every_parameter(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, _ = other_tenant(engine)
    sent = {
        name: (await api.post("/v1/events", json=EVENT | more)).json()["id"]
        for name, more in {
            "first": {},
            "type": {"type": "refund.paid"},
            "object": {"object_id": "pay_2"},
            "mode": {"mode": "test"},
            "tenant": {"tenant_id": tenant_id},
        }.items()
    }
    start = (await api.get(f"/v1/events/{sent['first']}")).json()["created_at"]
    after = (datetime.fromisoformat(start) + timedelta(microseconds=1)).isoformat()

    async def chosen(**params: str) -> set[str]:
        found = (await api.get("/v1/events", params=params)).json()["data"]
        return {name for name, id_ in sent.items() if id_ in {one["id"] for one in found}}

    assert await chosen() == set(sent)
    assert await chosen(event_type="refund.paid") == {"type"}
    assert await chosen(object_id="pay_2") == {"object"}
    assert await chosen(mode="test") == {"mode"}
    assert await chosen(tenant_id=tenant_id) == {"tenant"}
    assert await chosen(created_before=start) == set()
    assert await chosen(created_after=start) == set(sent)
    assert await chosen(created_after=after) == set(sent) - {"first"}
    assert await chosen(event_type="payment.paid", object_id="pay_1", mode="live", tenant_id=OWN) == {"first"}
    for extreme in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        for name in ("created_after", "created_before"):
            assert (await api.get("/v1/events", params={name: extreme})).status_code == 200


async def test_an_event_with_an_older_id_of_its_own_is_found_by_when_it_was_accepted(api: httpx.AsyncClient) -> None:
    yesterday = format_id("evt", uuid7(datetime.now(UTC) - timedelta(hours=23)))
    assert (await api.post("/v1/events", json=EVENT | {"id": yesterday})).json()["id"] == yesterday
    params = {"created_after": (datetime.now(UTC) - timedelta(minutes=10)).isoformat()}
    (found,) = (await api.get("/v1/events", params=params)).json()["data"]
    assert found["id"] == yesterday


async def test_pages_are_of_the_newest_first(api: httpx.AsyncClient) -> None:
    sent = [(await api.post("/v1/events", json=EVENT | {"payload": n})).json()["id"] for n in range(5)]
    first = (await api.get("/v1/events", params={"limit": 3})).json()
    rest = (await api.get("/v1/events", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert first["has_more"]
    assert not rest["has_more"]
    assert sorted(one["id"] for one in first["data"] + rest["data"]) == sorted(sent)
    assert min(one["id"] for one in first["data"]) > max(one["id"] for one in rest["data"])


async def test_a_target_is_taken_and_stands_on_the_delivery(api: httpx.AsyncClient, engine: Engine) -> None:
    target = {"url": "https://shop.example.com/orders/1", "method": "GET"}
    answer = await api.post("/v1/events", json=EVENT | {"target": target})
    assert answer.json()["deliveries"] == 1
    with engine.connect() as connection:
        (delivery,) = walk.live(connection)
    assert (delivery.target_url, delivery.target_method) == (target["url"], "GET")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"target": "https://a.example.com"}, "/target"),
        ({"target": {}}, "/target/url"),
        ({"target": {"url": 1}}, "/target/url"),
        ({"target": {"url": "http://a.example.com"}}, "/target/url"),
        ({"target": {"url": "https://a.example.com", "method": "PUT"}}, "/target/method"),
        ({"target": {"url": "https://a.example.com", "headers": {}}}, "/target/headers"),
        ({"type": "a b"}, "/type"),
        ({"colour": 1}, "/colour"),
        ({"mode": "loud"}, "/mode"),
        ({"object_id": "a\0b"}, "/object_id"),
        ({"object_id": 5}, "/object_id"),
        ({"tenant_id": "nobody"}, "/tenant_id"),
        ({"tenant_id": "ten_01890a5d-ac96-774b-bcce-b302099a8057"}, "/tenant_id"),
        ({"id": "evt_01890a5d-ac96-774b-bcce-b302099a8057"}, "/id"),
        ({"not_before": "tomorrow"}, "/not_before"),
        ({"not_before": "2026-01-01T00:00:00"}, "/not_before"),
        ({"payload": "x" * 300_000}, None),
    ],
    ids=repr,
)
async def test_what_is_wrong_is_named(api: httpx.AsyncClient, more: dict[str, Any], pointer: str | None) -> None:
    answer = await api.post("/v1/events", json=EVENT | more)
    if pointer is None:
        assert answer.status_code == 413
        return
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert "found" in fault["detail"]
    assert "allowed" in fault["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"5", b'"a"', b"{}", b'{"type": "a"}', b"[" * 100_000, b"\xff"])
async def test_what_is_no_event_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post("/v1/events", content=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "INVALID_INPUT"


async def test_a_schema_of_the_type_is_kept_to(api: httpx.AsyncClient, engine: Engine) -> None:
    schema = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO dispatcher.event_types (name, schema) VALUES ('payment.paid', :schema)"),
            {"schema": json.dumps(schema)},
        )
    assert (await api.post("/v1/events", json=EVENT)).status_code == 202
    refused = await api.post("/v1/events", json=EVENT | {"payload": {"amount": "a lot"}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/payload/amount"
    assert (await api.post("/v1/events", json=EVENT | {"type": "payment.made", "payload": 1})).status_code == 202


async def test_anothers_events_are_not_there(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    mine = (await api.post("/v1/events", json=EVENT)).json()["id"]
    theirs = (await api.post("/v1/events", json=EVENT, headers={"authorization": key})).json()
    assert theirs["tenant_id"] == tenant_id
    for path in (f"/v1/events/{mine}", f"/v1/events/{mine}/explain"):
        answer = await api.get(path, headers={"authorization": key})
        nobodys = await api.get(path.replace(mine, format_id("evt", uuid7())), headers={"authorization": key})
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert answer.json()["detail"] == nobodys.json()["detail"]
    listed = (await api.get("/v1/events", headers={"authorization": key})).json()["data"]
    assert [one["id"] for one in listed] == [theirs["id"]]
    refused = await api.post("/v1/events", json=EVENT | {"tenant_id": OWN}, headers={"authorization": key})
    unknown = await api.post(
        "/v1/events", json=EVENT, params={"tenant_id": format_id("ten", uuid7())}, headers={"authorization": key}
    )
    assert refused.status_code == unknown.status_code == 404


async def test_it_is_explained_who_heard_it_and_who_did_not(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        heard = walk.add_endpoint(connection, event_types=("payment.*",))
        filtered = walk.add_endpoint(connection, event_types=("refund.*",))
    id_ = (await api.post("/v1/events", json=EVENT)).json()["id"]
    answer = (await api.get(f"/v1/events/{id_}/explain")).json()
    assert (answer["event_id"], answer["type"], answer["deliveries"]) == (id_, "payment.paid", 1)
    one, other = answer["endpoints"]
    parse_id("dlv", one["delivery"].pop("id"))
    assert one == {
        "endpoint_id": format_id("ep", heard.id),
        "url": heard.url,
        "tenant_id": OWN,
        "verdict": "matched",
        "rule": "event_types payment.* matches payment.paid (version 1 of the endpoint)",
        "delivery": {
            "status": "waiting",
            "next_attempt_at": one["delivery"]["next_attempt_at"],
            "held": None,
        },
    }
    assert (other["endpoint_id"], other["verdict"], other["delivery"]) == (
        format_id("ep", filtered.id),
        "filtered",
        None,
    )


async def test_a_key_in_the_header_and_one_in_the_body_are_the_same(api: httpx.AsyncClient) -> None:
    by_header = await api.post("/v1/events", json=EVENT, headers={"idempotency-key": "k"})
    by_body = await api.post("/v1/events", json=EVENT | {"idempotency_key": "k"})
    assert by_body.json()["id"] == by_header.json()["id"]
    assert by_body.json()["duplicate"]
    assert by_body.json()["deliveries"] is None
    both = await api.post(
        "/v1/events", json=EVENT | {"id": format_id("evt", uuid7())}, headers={"idempotency-key": "k"}
    )
    assert both.json()["errors"][0]["pointer"] == "/idempotency_key"
    unprintable = await api.post("/v1/events", json=EVENT, headers={"idempotency-key": "k" * 256})
    assert unprintable.status_code == 422
