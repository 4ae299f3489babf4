"""The delivery log over the API: what it shows, what it finds, and what people do to one delivery."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.clock import SYSTEM
from dispatcher.ids import DEFAULT_TENANT, format_id, parse_id, uuid7
from dispatcher.model.delivery import RetryAt, Stop
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.store import limits, search, trail
from tests.api.conftest import other_tenant
from tests.support import walk

UNAVAILABLE = Outcome(
    OutcomeClass.HTTP_RETRYABLE,
    Phase.BODY,
    status_code=503,
    response_headers=(("content-type", "text/plain"),),
    response_body=b"\xff",
    peer_ip="192.0.2.1",
    duration_ms=12.5,
)


async def send(api: httpx.AsyncClient, **event: Any) -> dict[str, Any]:
    """Sends one event; the delivery that it became."""
    sent = await api.post("/v1/events", json={"type": "payment.completed", "payload": {"n": 1}} | event)
    assert sent.status_code == 202, sent.text
    (found,) = (await api.get("/v1/deliveries", params={"event_id": sent.json()["id"]})).json()["data"]
    return dict(found)


async def register(api: httpx.AsyncClient, **endpoint: Any) -> dict[str, Any]:
    made = await api.post("/v1/endpoints", json={"url": "https://shop.example.com/hook"} | endpoint)
    assert made.status_code == 201, made.text
    return dict(made.json())


def attempt_all(
    engine: Engine, change: Stop | RetryAt = walk.EXHAUSTED, outcome: Outcome | None = None, *, record: bool = True
) -> int:
    """Has a worker claim everything that is due and, unless told not to, record this of it."""
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        claims = walk.claim(connection, worker, now=None)
        if record:
            results = [walk.result(one, change, outcome, worker_id=worker, started_at=SYSTEM.now()) for one in claims]
            walk.record(connection, results, now=None)
        return len(claims)


async def test_a_delivery_is_shown_with_all_that_the_contract_names(api: httpx.AsyncClient) -> None:
    endpoint = await register(api)
    one = await send(api, object_id="pay_1")
    assert one.pop("schedule").keys() == {"name", "version"}
    assert (one.pop("id")[:4], one.pop("event_id")[:4]) == ("dlv_", "evt_")
    assert one.pop("created_at") is not None
    assert one.pop("next_attempt_at") is not None
    assert one == {
        "event_type": "payment.completed",
        "object_id": "pay_1",
        "mode": "live",
        "endpoint_id": endpoint["id"],
        "url": "https://shop.example.com/hook",
        "tenant_id": format_id("ten", DEFAULT_TENANT),
        "status": "waiting",
        "status_reason": None,
        "attempt_count": 0,
        "last_outcome": None,
        "last_status_code": None,
        "replay_of": None,
        "ended_at": None,
    }


async def test_an_attempt_is_shown_with_what_was_sent_and_what_came_back(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await register(api)
    one = await send(api)
    assert attempt_all(engine, walk.retry(300), UNAVAILABLE) == 1
    page = (await api.get(f"/v1/deliveries/{one['id']}/attempts")).json()
    (attempt,) = page.pop("data")
    assert page == {"has_more": False, "next_cursor": None}
    assert attempt["request"] == {
        "method": "POST",
        "url": "https://receiver.example.com/hook",
        "headers": [["webhook-id", "evt_1"]],
    }
    assert attempt["response"] == {
        "headers": [["content-type", "text/plain"]],
        "body": "ff",
        "body_encoding": "hex",
        "body_end": "complete",
        "body_truncated": False,
    }
    shown = {name: attempt[name] for name in ("number", "outcome", "phase", "outcome_known", "status_code", "peer_ip")}
    assert shown == {
        "number": 1,
        "outcome": "http_retryable",
        "phase": "body",
        "outcome_known": True,
        "status_code": 503,
        "peer_ip": "192.0.2.1",
    }
    assert (attempt["decision"], attempt["charged"], attempt["wait_s"]) == ("retry", True, 300.0)
    assert attempt["wait_relative_to"] == "previous_failure"
    after = (await api.get(f"/v1/deliveries/{one['id']}")).json()
    assert (after["status"], after["attempt_count"], after["status_reason"]) == ("waiting", 1, "http_retryable 503")
    assert (after["last_outcome"], after["last_status_code"]) == ("http_retryable", 503)
    assert after["next_attempt_at"] is not None


@pytest.mark.parametrize(
    ("scope", "holds"),
    [
        ({"all": True}, True),
        ({"tenant_id": format_id("ten", DEFAULT_TENANT)}, True),
        ({"event_type": "payment.*"}, True),
        ({"event_type": "payment.completed"}, True),
        ({"event_type": "refund.*"}, False),
    ],
)
async def test_a_pause_that_holds_it_is_its_reason(api: httpx.AsyncClient, scope: dict[str, Any], holds: bool) -> None:
    await register(api)
    assert (await api.post("/v1/pauses", json={"reason": "the bank is away"} | scope)).status_code == 201
    one = await send(api)
    if holds:
        assert one["status_reason"].startswith("paused")
        assert one["status_reason"].endswith(": the bank is away")
    assert (one["next_attempt_at"] is None) == holds
    assert (one["status_reason"] is not None) == holds


async def test_only_the_endpoint_that_is_paused_or_disabled_holds(api: httpx.AsyncClient) -> None:
    paused, disabled, free = [await register(api, url=f"https://{name}.example.com/") for name in "abc"]
    await api.post("/v1/pauses", json={"endpoint_id": paused["id"]})
    await api.post(f"/v1/endpoints/{disabled['id']}/disable", json={"reason": "merchant asked"})
    await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})
    found = {one["endpoint_id"]: one for one in (await api.get("/v1/deliveries")).json()["data"]}
    assert found[paused["id"]]["status_reason"] == "paused: paused by an operator"
    assert found[disabled["id"]]["status_reason"] == "the endpoint is disabled: merchant asked"
    assert found[free["id"]]["status_reason"] is None
    assert [one["next_attempt_at"] is None for one in found.values()].count(True) == 2


async def test_deliveries_are_chosen_by_several_states_and_the_last_outcome(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await register(api)
    await send(api, object_id="pay_1")
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    await send(api, object_id="pay_2")
    attempt_all(engine, walk.DELIVERED)
    await send(api, object_id="pay_3")
    for params, expected in (
        ({"status": "failed"}, ["pay_1"]),
        ({"status": "failed,delivered"}, ["pay_2", "pay_1"]),
        ({"status": "waiting,waiting"}, ["pay_3"]),
        ({"outcome": "http_retryable"}, ["pay_1"]),
        ({"outcome": "ok"}, ["pay_2"]),
        ({"object_id": "pay_3"}, ["pay_3"]),
        ({"replay_id": format_id("rpl", uuid7())}, []),
    ):
        found = (await api.get("/v1/deliveries", params=params)).json()["data"]
        assert [one["object_id"] for one in found] == expected, params
    for params in ({"status": "lost"}, {"status": "failed,"}, {"outcome": "sad"}, {"event_type": "a b"}):
        assert (await api.get("/v1/deliveries", params=params)).status_code == 422, params


@pytest.mark.parametrize(
    "wanted",
    [
        {"host": "SHOP.example.com"},
        {"status_code": "503"},
        {"attempts_min": "1"},
        {"attempts_min": "1", "attempts_max": "1", "status": "failed"},
        {"error": "certificate has exp"},
    ],
    ids=str,
)
async def test_deliveries_are_chosen_by_what_became_of_them(
    api: httpx.AsyncClient, engine: Engine, wanted: dict[str, str]
) -> None:
    await register(api, event_types=["payment.completed"])
    await register(api, url="https://other.example.com/", event_types=["refund.failed"])
    await send(api)
    said = Outcome(OutcomeClass.HTTP_RETRYABLE, Phase.BODY, status_code=503, error="the certificate has expired")
    attempt_all(engine, outcome=said)
    await send(api, type="refund.failed")
    (found,) = (await api.get("/v1/deliveries", params=wanted)).json()["data"]
    assert found["event_type"] == "payment.completed"


async def test_the_oldest_come_first_where_that_is_asked_for(api: httpx.AsyncClient) -> None:
    await register(api)
    made = [(await send(api))["id"] for _ in range(5)]
    asked: dict[str, Any] = {"sort": "oldest", "limit": 2}
    found: list[str] = []
    while True:
        page = (await api.get("/v1/deliveries", params=asked)).json()
        found += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        asked["cursor"] = page["next_cursor"]
    assert found == made
    assert (await api.get("/v1/deliveries", params={"sort": "best"})).status_code == 422


async def test_a_search_that_takes_too_long_says_what_to_narrow(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEARCH_S", 0.001)
    monkeypatch.setattr(search, "COLUMNS", f"{search.COLUMNS}, pg_sleep(1)")
    await register(api)
    sent = await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})
    assert sent.status_code == 202
    answer = await api.get("/v1/deliveries")
    assert (answer.status_code, answer.json()["code"]) == (422, "SEARCH_TOO_BROAD")


async def test_a_filter_of_a_replay_has_the_same_conditions(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    await send(api)
    attempt_all(engine, outcome=UNAVAILABLE)
    for chosen, count in (
        ({"host": "shop.example.com", "status_code": 503, "attempts_min": 1, "attempts_max": 2}, 1),
        ({"host": "other.example.com"}, 0),
        ({"status_code": 404}, 0),
        ({"attempts_min": 2}, 0),
        ({"error": "nothing"}, 0),
    ):
        answer = await api.post("/v1/replays/preview", json=chosen)
        assert answer.json()["count"] == count, chosen
    made = await api.post("/v1/replays", json={"status_code": 503, "host": "shop.example.com"})
    assert made.json()["filter"]["status_code"] == 503
    assert made.json()["filter"]["host"] == "shop.example.com"


async def test_what_a_replay_has_made_is_found_by_it(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    replay_id = uuid7()
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dispatcher.deliveries SET replay_id = :replay, replay_of = id WHERE id = :id"),
            {"replay": replay_id, "id": parse_id("dlv", one["id"])},
        )
    await send(api)
    found = (await api.get("/v1/deliveries", params={"replay_id": format_id("rpl", replay_id)})).json()["data"]
    assert [delivery["id"] for delivery in found] == [one["id"]]
    for unlike in (UUID(int=0), UUID(int=2**128 - 1)):
        answer = await api.get("/v1/deliveries", params={"replay_id": format_id("rpl", unlike)})
        assert (answer.status_code, answer.json()["data"]) == (200, [])


async def test_a_waiting_delivery_is_retried_at_once(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api, not_before="2999-01-01T00:00:00Z")
    assert attempt_all(engine) == 0
    answer = await api.post(f"/v1/deliveries/{one['id']}/retry")
    assert answer.status_code == 202
    assert answer.json()["id"] == one["id"]
    assert answer.json()["next_attempt_at"] < one["next_attempt_at"]
    assert attempt_all(engine) == 1


async def test_an_ended_delivery_is_retried_as_a_replay_and_only_once(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine)
    answer = await api.post(f"/v1/deliveries/{one['id']}/retry")
    assert answer.status_code == 202
    made = answer.json()
    assert (made["replay_of"], made["status"], made["event_id"]) == (one["id"], "waiting", one["event_id"])
    again = await api.post(f"/v1/deliveries/{one['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "ALREADY_REPLAYED")
    assert attempt_all(engine, walk.DELIVERED) == 1
    with engine.connect() as connection:
        entry = trail.read(connection, object=one["id"])[0]
        assert entry.action == "delivery.retried"
        assert entry.before == {"status": "exhausted"}
        assert entry.after == {"status": "waiting", "delivery_id": made["id"]}


async def test_what_is_in_flight_is_neither_retried_nor_cancelled(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    assert attempt_all(engine, record=False) == 1
    for verb in ("retry", "cancel"):
        answer = await api.post(f"/v1/deliveries/{one['id']}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "IN_FLIGHT")


async def test_what_went_to_a_deleted_endpoint_is_not_retried(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    one = await send(api)
    attempt_all(engine)
    await api.delete(f"/v1/endpoints/{endpoint['id']}")
    answer = await api.post(f"/v1/deliveries/{one['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "ENDPOINT_DELETED")


async def test_a_waiting_delivery_is_cancelled_and_never_sent(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    answer = await api.post(f"/v1/deliveries/{one['id']}/cancel", json={"reason": "the order was void"})
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["status_reason"]) == ("cancelled", "the order was void")
    assert answer.json()["ended_at"] is not None
    assert attempt_all(engine) == 0
    again = await api.post(f"/v1/deliveries/{one['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "ENDED")
    with engine.connect() as connection:
        (entry,) = trail.read(connection, object=one["id"])
        assert (entry.action, entry.after) == (
            "delivery.cancelled",
            {"status": "cancelled", "reason": "the order was void"},
        )


async def test_a_repeated_retry_makes_no_second_replay(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    attempt_all(engine)
    headers = {"idempotency-key": "k"}
    first = await api.post(f"/v1/deliveries/{one['id']}/retry", headers=headers)
    again = await api.post(f"/v1/deliveries/{one['id']}/retry", headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    with engine.connect() as connection:
        assert len(walk.live(connection)) == 1


async def test_anothers_delivery_is_not_there(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    one = await send(api)
    _, key = other_tenant(engine)
    headers = {"authorization": f"Bearer {key}"}
    for verb in ("retry", "cancel"):
        answer = await api.post(f"/v1/deliveries/{one['id']}/{verb}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert (await api.get(f"/v1/deliveries/{one['id']}")).json() == one
