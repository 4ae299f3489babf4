"""How deliveries fare, over the API: to whom it is told, and in what form."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model.outcome import Outcome, OutcomeClass
from tests.api.conftest import other_tenant
from tests.api.test_deliveries import attempt_all, register, send
from tests.support import walk

REFUSED = Outcome(OutcomeClass.CONNECT, error="Connection refused", duration_ms=2.0)


async def ask(api: httpx.AsyncClient, key: str | None = None, **params: Any) -> dict[str, Any]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await api.get("/v1/statistics", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_where_nothing_happened_rates_are_null_and_counts_are_there(api: httpx.AsyncClient) -> None:
    found = await ask(api, window="1h")
    series = found.pop("series")
    assert len(series) == 13
    assert series[0] == {"at": found.pop("from"), "attempts": 0, "succeeded": 0, "delivered": 0, "failed": 0}
    assert found.pop("to") >= series[-1]["at"]
    assert found == {
        "window": "1h",
        "step_s": 300,
        "tenant_id": None,
        "endpoint_id": None,
        "event_type": None,
        "mode": "live",
        "by": "none",
        "attempts": {"total": 0, "succeeded": 0, "success_rate": None, "by_outcome": {}},
        "deliveries": {
            **dict.fromkeys(("delivered", "exhausted", "rejected", "expired", "cancelled"), 0),
            "success_rate": None,
        },
        "latency_ms": {"attempts": 0, "p50": None, "p90": None, "p95": None, "p99": None},
        "attempts_to_success": {"mean": None, "distribution": []},
        "backlog": {
            "waiting": 0,
            "in_flight": 0,
            "waiting_is_minimum": False,
            "oldest_waiting_at": None,
            "oldest_due_at": None,
            "lag_s": 0,
        },
        "groups": [],
        "has_more": False,
    }


async def test_what_was_recorded_is_counted_at_once_and_once_it_is_folded(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    endpoint = await register(api)
    await send(api)
    attempt_all(engine, walk.DELIVERED)
    await send(api)
    attempt_all(engine, walk.EXHAUSTED, REFUSED)
    waiting = await send(api)
    for folded in (0, 2):
        with engine.begin() as connection:
            assert walk.fold(connection, batch=folded) == folded
        found = await ask(api, by="endpoint", endpoint_id=endpoint["id"])
        (group,) = found["groups"]
        assert (group["key"], group["name"]) == (endpoint["id"], endpoint["url"])
        for one in (found, group):
            assert one["attempts"] == {
                "total": 2,
                "succeeded": 1,
                "success_rate": 0.5,
                "by_outcome": {"connect": 1, "ok": 1},
            }
            assert (one["deliveries"]["delivered"], one["deliveries"]["exhausted"]) == (1, 1)
            assert one["attempts_to_success"] == {"mean": 1.0, "distribution": [{"attempts": 1, "deliveries": 1}]}
            assert (one["backlog"]["waiting"], one["backlog"]["oldest_waiting_at"]) == (1, waiting["created_at"])
        assert sum(point["attempts"] for point in found["series"]) == 2
        assert sum(point["failed"] for point in found["series"]) == 1


async def test_a_tenants_key_sees_its_own_only(api: httpx.AsyncClient, engine: Engine) -> None:
    ours = await register(api)
    tenant_id, key = other_tenant(engine)
    theirs = await register(api, tenant_id=tenant_id, url="https://theirs.example.com/")
    await send(api)
    assert (await api.post("/v1/events", json={"type": "a.b", "payload": 1, "tenant_id": tenant_id})).is_success
    attempt_all(engine, walk.EXHAUSTED, REFUSED)

    assert len((await ask(api, by="endpoint"))["groups"]) == 2
    for by, only in (("endpoint", theirs["id"]), ("tenant", tenant_id), ("event_type", "a.b")):
        found = await ask(api, key, by=by)
        assert (found["attempts"]["total"], found["tenant_id"]) == (1, tenant_id)
        assert [group["key"] for group in found["groups"]] == [only]
        assert ours["id"] not in str(found)
    assert (await ask(api, tenant_id=tenant_id))["attempts"]["total"] == 1
    assert (await ask(api, key, endpoint_id=theirs["id"]))["attempts"]["total"] == 1

    mine = {"authorization": f"Bearer {key}"}
    default = format_id("ten", DEFAULT_TENANT)
    for params in ({"endpoint_id": ours["id"]}, {"endpoint_id": format_id("ep", uuid7())}, {"tenant_id": default}):
        assert (await api.get("/v1/statistics", params=params, headers=mine)).status_code == 404
    params = {"tenant_id": default, "endpoint_id": theirs["id"]}
    assert (await api.get("/v1/statistics", params=params)).status_code == 404


@pytest.mark.parametrize(
    "params",
    [{"window": "2h"}, {"by": "colour"}, {"limit": 0}, {"limit": 101}, {"event_type": "a b"}, {"endpoint_id": "ep_1"}],
)
async def test_what_cannot_be_asked_is_refused(api: httpx.AsyncClient, params: dict[str, Any]) -> None:
    assert (await api.get("/v1/statistics", params=params)).status_code == 422
