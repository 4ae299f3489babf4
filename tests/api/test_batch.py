"""`POST /v1/events/batch`: each event for itself, all in one commit."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Engine, text

from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from tests.api.conftest import other_tenant
from tests.support import walk
from tests.support.producers import count

EVENT: dict[str, Any] = {"type": "payment.paid", "payload": {"amount": 1000}}
PATH = "/v1/events/batch"


def batch(*more: dict[str, Any] | object) -> dict[str, Any]:
    return {"events": [EVENT | one if isinstance(one, dict) else one for one in more]}


async def test_good_events_are_accepted_and_bad_ones_say_why(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    taken = (await api.post("/v1/events", json=EVENT)).json()["id"]  # its id was ours to choose
    wrong: dict[int, tuple[object, str, str | None]] = {
        1: ({"type": "a b"}, "INVALID_INPUT", "/type"),
        3: (5, "INVALID_INPUT", "/"),
        4: ({"colour": 1}, "INVALID_INPUT", "/colour"),
        6: ({"tenant_id": format_id("ten", uuid7())}, "INVALID_INPUT", "/tenant_id"),
        7: ({"idempotency_key": "k", "payload": 2}, "IDEMPOTENCY_CONFLICT", None),
        8: ({"id": taken}, "INVALID_INPUT", "/id"),
        10: ({"target": {"url": "http://a.example.com"}}, "INVALID_INPUT", "/target/url"),
        11: ({"object_id": "\ud800"}, "INVALID_INPUT", "/object_id"),
    }
    own = format_id("evt", uuid7())
    good: dict[int, dict[str, Any]] = {0: {}, 2: {"idempotency_key": "k"}, 5: {"idempotency_key": "k"}, 9: {"id": own}}
    del wrong[11]  # orjson, and so every client, cannot say it
    good[11] = {"target": {"url": "https://shop.example.com/o/1"}}
    items = [wrong[n][0] if n in wrong else good[n] for n in range(12)]
    answer = await api.post(PATH, json=batch(*items))
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["duplicates"], body["failed"]) == (4, 1, 7)
    assert [one["index"] for one in body["data"]] == list(range(12))
    for n, one in enumerate(body["data"]):
        if n in wrong:
            _, code, pointer = wrong[n]
            assert (one["status"], one["id"], one["deliveries"]) == ("failed", None, None)
            assert one["error"]["code"] == code
            assert [fault["pointer"] for fault in one["error"]["errors"]] == ([] if pointer is None else [pointer])
            assert one["error"]["detail"]
        else:
            assert one["error"] is None
            assert (one["status"], one["deliveries"]) == (("duplicate", None) if n == 5 else ("accepted", 1))
    assert body["data"][5]["id"] == body["data"][2]["id"]
    assert body["data"][9]["id"] == own
    with engine.connect() as connection:
        assert count(connection, "events") == 5
        assert count(connection, "idempotency") == 2
    assert walk.broken_promises(engine) == []


async def test_payloads_are_kept_as_they_were_written(api: httpx.AsyncClient, engine: Engine) -> None:
    payloads = [b"1.10", b'{"n": 12345678901234567890.10 , "a":1,"a":2}', b'"\\u00e9 \xc3\xa9"', b"[ ]", b"null"]
    events = b" ,\n".join(b'{"type":"a", "payload" : %b }' % one for one in payloads)
    answer = await api.post(PATH, content=b'{ "events" : [ %b ] }' % events)
    assert answer.json()["accepted"] == len(payloads)
    with engine.connect() as connection:
        found = {
            row.id: bytes(row.payload) for row in walk.rows(connection, "SELECT id, payload FROM dispatcher.events")
        }
    assert [found[uuid] for uuid in map(_uuid, answer.json()["data"])] == payloads


def _uuid(item: dict[str, Any]) -> Any:
    from dispatcher.ids import parse_id

    return parse_id("evt", item["id"])


async def test_deliveries_are_in_the_order_of_the_events(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    answers = [(await api.post(PATH, json=batch(*[{}] * 200))).json() for _ in range(3)]
    with engine.connect() as connection:
        order = [format_id("evt", row.event_id) for row in walk.live(connection)]
    assert order == [one["id"] for answer in answers for one in answer["data"]]


async def test_a_repeat_under_a_key_gets_the_first_answer(api: httpx.AsyncClient, engine: Engine) -> None:
    headers = {"idempotency-key": "batch-1"}
    first = await api.post(PATH, json=batch({}, {"type": "a b"}), headers=headers)
    again = await api.post(PATH, json=batch({}, {"type": "a b"}), headers=headers)
    other = await api.post(PATH, json=batch({}), headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 422)
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert other.json()["code"] == "IDEMPOTENCY_CONFLICT"
    with engine.connect() as connection:
        assert count(connection, "events") == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "/"),
        (b"{", "/"),
        (b"[]", "/"),
        (b"{}", "/events"),
        (b'{"events": {}}', "/events"),
        (b'{"events": []}', "/events"),
        (b'{"events": [' + b"1," * 1000 + b"1]}", "/events"),
        (b'{"events": [1], "more": 1}', "/more"),
        (b'{"events": [1], "events": [1, 2]}', "/events"),
        (b'{"events": [], "events": [1, 2]}', "/events"),
        (b'{"events": [1, 2], "events": [{"payload": 1}]}', "/events"),
        (b'{"events": [{"payload": 1}], "events": [{"payload": 1}, {"payload": 2}]}', "/events"),
        (b'{"events": 7, "events": [{"payload": 1}, {"payload": 2}]}', "/events"),
        (b'{"events": [' + b"[" * 900 + b"]" * 900 + b', {"payload": 1}]}', "/"),
        (b'{"events": [{"payload": 1}, {"payload": ' + b"[" * 1000 + b"]" * 1000 + b"}]}", "/"),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_what_is_no_batch_is_refused_whole(api: httpx.AsyncClient, body: bytes, pointer: str) -> None:
    answer = await api.post(PATH, content=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_a_batch_may_be_larger_than_an_event_and_not_without_limit(api: httpx.AsyncClient) -> None:
    large = {"payload": "x" * 200_000}
    assert (await api.post(PATH, json=batch(*[large] * 20))).json()["accepted"] == 20
    answer = await api.post(PATH, content=orjson.dumps(batch(*[large] * 100)))
    assert answer.status_code == 413
    too_large = await api.post(PATH, json=batch({"payload": "x" * 300_000}, {}))
    assert [one["status"] for one in too_large.json()["data"]] == ["failed", "accepted"]


async def test_a_tenants_key_accepts_for_its_tenant_only(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, key = other_tenant(engine)
    theirs, own = {"tenant_id": format_id("ten", DEFAULT_TENANT)}, {"tenant_id": tenant_id}
    answer = (await api.post(PATH, json=batch({}, theirs, own), headers={"authorization": key})).json()
    assert [one["status"] for one in answer["data"]] == ["accepted", "failed", "accepted"]
    assert answer["data"][1]["error"]["code"] == "NOT_FOUND"
    with engine.connect() as connection:
        assert {
            format_id("ten", row.tenant_id) for row in walk.rows(connection, "SELECT * FROM dispatcher.events")
        } == {tenant_id}


async def test_an_operator_names_the_tenant_for_all_or_for_each(api: httpx.AsyncClient, engine: Engine) -> None:
    tenant_id, _ = other_tenant(engine)
    default = format_id("ten", DEFAULT_TENANT)
    await api.post(PATH, json=batch({}, {"tenant_id": default}), params={"tenant_id": tenant_id})
    listed = (await api.get("/v1/events")).json()["data"]
    assert {one["tenant_id"] for one in listed} == {tenant_id, default}


async def test_a_revoked_key_accepts_nothing(api: httpx.AsyncClient, engine: Engine) -> None:
    _, key = other_tenant(engine)
    headers = {"authorization": key}
    assert (await api.post(PATH, json=batch({}), headers=headers)).status_code == 202
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.api_keys SET revoked_at = now() WHERE name = 'theirs'"))
    assert (await api.post(PATH, json=batch({}), headers=headers)).status_code == 401
    with engine.connect() as connection:
        assert count(connection, "events") == 1
