"""Test mode: what a sandbox sends is told apart from what is real, wherever deliveries are chosen or counted."""

from __future__ import annotations

from typing import Any

import httpx
from sqlalchemy import Engine

from dispatcher.flow import audit
from tests.api.conftest import other_tenant
from tests.api.test_deliveries import UNAVAILABLE, attempt_all, register, send
from tests.support import walk


async def listed(api: httpx.AsyncClient, **chosen: str) -> list[str]:
    page = (await api.get("/v1/deliveries", params=chosen)).json()
    return [one["object_id"] for one in page["data"]]


async def send_both(api: httpx.AsyncClient) -> None:
    await send(api, object_id="pay_live")
    await send(api, object_id="pay_test", mode="test")


async def test_deliveries_are_listed_by_mode(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    await send_both(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    await send_both(api)
    assert await listed(api, mode="test") == ["pay_test", "pay_test"]
    assert await listed(api, mode="live", status="failed") == ["pay_live"]
    assert await listed(api, mode="test", host="shop.example.com", status="waiting") == ["pay_test"]
    refused = await api.get("/v1/deliveries", params={"mode": "sandbox"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "mode"


async def test_a_replay_and_a_cancellation_are_of_one_mode(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    await send_both(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    await send(api, object_id="pay_waits", mode="test")
    for body, count in (
        ({"mode": "test"}, 1),
        ({"mode": "live"}, 1),
        ({"to": "matching", "mode": "test", "include_delivered": True}, 1),
    ):
        assert (await api.post("/v1/replays/preview", json=body)).json()["count"] == count, body
    assert (await api.post("/v1/cancellations/preview", json={"mode": "live"})).json()["count"] == 0
    preview: dict[str, Any] = (await api.post("/v1/cancellations/preview", json={"mode": "test"})).json()
    assert preview["count"] == 1
    started = await api.post("/v1/cancellations", json={"preview_token": preview["preview_token"], "mode": "test"})
    assert started.json()["filter"]["mode"] == "test"
    replay = await api.post("/v1/replays", json={"mode": "test"})
    assert (replay.json()["total"], replay.json()["filter"]["mode"]) == (1, "test")


async def test_an_endpoint_is_recovered_in_one_mode(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    await send_both(api)
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    body = {"since": "2020-01-01T00:00:00Z", "mode": "live"}
    made = (await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json=body)).json()
    assert (made["total"], made["filter"]["mode"]) == (1, "live")


async def test_what_is_found_is_of_one_mode(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    delivery = await send(api, object_id="pay_1", mode="test")
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    (attempt,) = (await api.get(f"/v1/deliveries/{delivery['id']}/attempts")).json()["data"]
    for q in ("pay_1", delivery["event_id"], delivery["id"], attempt["id"]):
        found = {
            mode: (await api.get("/v1/find", params={"q": q, "mode": mode})).json()["data"] for mode in ("live", "test")
        }
        assert found["live"] == [], q
        assert found["test"] != [], q
    endpoint = (await api.get("/v1/find", params={"q": "shop.example.com", "mode": "test"})).json()["data"]
    assert [one["kind"] for one in endpoint] == ["endpoint"], "an endpoint has no mode"


async def test_a_sandboxs_failures_are_in_no_live_figure(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    await send(api)
    attempt_all(engine, walk.DELIVERED)
    for _ in range(2):
        await send(api, mode="test")
    attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE)
    await send(api, mode="test")
    cancelled = await send(api, mode="test")
    assert (await api.post(f"/v1/deliveries/{cancelled['id']}/cancel")).status_code == 202

    async def figures(path: str, **params: str) -> dict[str, Any]:
        return dict((await api.get(path, params=params)).json())

    for folded in (False, True):
        if folded:
            with engine.begin() as connection:
                assert walk.fold(connection, batch=100) > 0
        live = await figures("/v1/statistics", by="endpoint")
        assert live == await figures("/v1/statistics", by="endpoint", mode="live") | {"to": live["to"]}
        assert (live["mode"], live["attempts"]["success_rate"], live["backlog"]["waiting"]) == ("live", 1.0, 0)
        assert live["deliveries"]["delivered"] == sum(point["attempts"] for point in live["series"]) == 1
        assert (live["deliveries"]["exhausted"], live["deliveries"]["cancelled"]) == (0, 0)
        assert [group["attempts"]["total"] for group in live["groups"]] == [1]
        test = await figures("/v1/statistics", by="endpoint", mode="test")
        assert (test["mode"], test["attempts"]["by_outcome"]) == ("test", {"http_retryable": 2})
        assert (test["deliveries"]["exhausted"], test["deliveries"]["cancelled"]) == (2, 1)
        assert (test["backlog"]["waiting"], test["groups"][0]["attempts"]["total"]) == (1, 2)
        own = await figures(f"/v1/endpoints/{endpoint['id']}/stats")
        assert (own["mode"], own["exhausted"], own["waiting"], own["last_failure"]) == ("live", 0, 0, None)
        assert own["last_success_at"] is not None
        sandbox = await figures(f"/v1/endpoints/{endpoint['id']}/stats", mode="test")
        assert (sandbox["exhausted"], sandbox["waiting"], sandbox["last_success_at"]) == (2, 1, None)
        assert sandbox["last_failure"]["status_code"] == 503
    assert 'dispatcher_failed_deliveries{state="exhausted"} 0.0' in (await api.get("/metrics")).text


async def test_a_test_deliverys_ladder_is_walked_without_its_waits(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    delivery = await send(api, mode="test")
    assert attempt_all(engine, walk.retry(5), UNAVAILABLE) == 1
    for wait_s in (300, 1800, 7200, 18_000, 36_000, 36_000):
        assert attempt_all(engine) == 0, "it waits as the schedule says"
        answer = await api.post(f"/v1/deliveries/{delivery['id']}/advance")
        assert (answer.status_code, answer.json()["id"]) == (202, delivery["id"])
        assert attempt_all(engine, walk.retry(wait_s), UNAVAILABLE) == 1
    await api.post(f"/v1/deliveries/{delivery['id']}/advance")
    assert attempt_all(engine, walk.EXHAUSTED, UNAVAILABLE) == 1
    after = (await api.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert (after["status"], after["attempt_count"]) == ("exhausted", 8)
    assert (await api.get("/v1/statistics")).json()["attempts"]["total"] == 0
    ended = await api.post(f"/v1/deliveries/{delivery['id']}/advance")
    assert (ended.status_code, ended.json()["code"]) == (409, "ENDED")
    story = (await api.get(f"/v1/deliveries/{delivery['id']}/story")).json()
    assert [entry["action"] for entry in story["audit"]] == ["delivery.advanced"] * 7
    with engine.begin() as connection:
        assert 5 not in {violation.invariant for violation in audit.verify(connection)}, "by hand is not early"


async def test_what_waits_is_not_moved_for_an_advance_that_is_refused(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    live = await send(api, not_before="2999-01-01T00:00:00Z")
    answer = await api.post(f"/v1/deliveries/{live['id']}/advance")
    assert (answer.status_code, answer.json()["code"]) == (409, "LIVE_MODE")
    assert "live mode; allowed: a delivery of test mode" in answer.json()["detail"]
    assert (await api.get(f"/v1/deliveries/{live['id']}")).json() == live

    delivery = await send(api, mode="test")
    assert attempt_all(engine, record=False) == 1
    flying = await api.post(f"/v1/deliveries/{delivery['id']}/advance")
    assert (flying.status_code, flying.json()["code"]) == (409, "IN_FLIGHT")

    later = await send(api, mode="test", not_before="2999-01-01T00:00:00Z")
    await api.post("/v1/pauses", json={"all": True, "reason": "the bank is away"})
    held = await api.post(f"/v1/deliveries/{later['id']}/advance")
    assert (held.status_code, held.json()["code"]) == (409, "HELD")
    assert "the bank is away" in held.json()["detail"]

    _, key = other_tenant(engine)
    theirs = await api.post(f"/v1/deliveries/{later['id']}/advance", headers={"authorization": f"Bearer {key}"})
    assert theirs.status_code == 404


async def test_a_pause_of_test_mode_holds_no_live_delivery(api: httpx.AsyncClient, engine: Engine) -> None:
    await register(api)
    made = await api.post("/v1/pauses", json={"mode": "test", "reason": "a load test"})
    assert (made.status_code, made.json()["mode"], made.json()["event_type"]) == (201, "test", None)
    again = await api.post("/v1/pauses", json={"mode": "test"})
    assert (again.status_code, again.json()["code"]) == (409, "PAUSED_ALREADY")
    await send_both(api)
    live, test = [
        (await api.get("/v1/deliveries", params={"mode": mode})).json()["data"][0] for mode in ("live", "test")
    ]
    assert (live["status_reason"], test["status_reason"]) == (None, "paused (test mode): a load test")
    explained = (await api.get(f"/v1/events/{test['event_id']}/explain")).json()["endpoints"]
    assert "a pause of test mode holds it (a load test)" in explained[0]["rule"]
    assert attempt_all(engine, walk.DELIVERED) == 1
    assert "dispatcher_held_deliveries 0.0" in (await api.get("/metrics")).text
    for params, status in (({"mode": "live"}, 404), ({"all": "true"}, 404), ({"mode": "test"}, 204)):
        assert (await api.delete("/v1/pauses", params=params)).status_code == status, params
    assert attempt_all(engine, walk.DELIVERED) == 1
    assert (await api.post("/v1/pauses", json={"mode": "live", "all": True})).status_code == 422


async def test_all_of_one_mode_is_held_by_operators_with_the_scope_admin_only(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/keys", json={"name": "ops", "scopes": ["endpoints:write"]})
    ops = {"authorization": f"Bearer {made.json()['key']}"}
    refused = await api.post("/v1/pauses", json={"mode": "live"}, headers=ops)
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "this holds everything of live mode, of every tenant; allowed: an operator's key with the scope admin",
    )
