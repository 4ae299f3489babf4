"""How an endpoint is doing, and what it missed sent again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.store import trail
from tests.api.conftest import other_tenant
from tests.api.test_deliveries import attempt_all, register, send
from tests.support import walk

REFUSED = Outcome(OutcomeClass.CONNECT, Phase.CONNECT, error="Connection refused", duration_ms=2.0)


def took(duration_ms: float) -> Outcome:
    return Outcome(OutcomeClass.OK, Phase.BODY, status_code=200, peer_ip="192.0.2.1", duration_ms=duration_ms)


async def stats_of(api: httpx.AsyncClient, endpoint: dict[str, Any], **params: str) -> dict[str, Any]:
    answer = await api.get(f"/v1/endpoints/{endpoint['id']}/stats", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_an_endpoint_that_was_never_sent_to_has_nothing_to_tell(api: httpx.AsyncClient) -> None:
    endpoint = await register(api, max_in_flight=5)
    assert await stats_of(api, endpoint) == {
        "window": "24h",
        "mode": "live",
        "waiting": 0,
        "in_flight": 0,
        "waiting_is_minimum": False,
        "oldest_waiting_at": None,
        "delivered": 0,
        "exhausted": 0,
        "rejected": 0,
        "expired": 0,
        "cancelled": 0,
        "success_rate": None,
        "attempts_p50_ms": None,
        "attempts_p95_ms": None,
        "attempts_to_success_mean": None,
        "current_max_in_flight": 5,
        "last_attempt_at": None,
        "last_success_at": None,
        "last_failure": None,
    }


async def test_stats_count_what_lives_and_what_has_ended(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    for duration_ms in (10.0, 20.0, 30.0):
        await send(api)
        attempt_all(engine, walk.DELIVERED, took(duration_ms))
    await send(api)
    attempt_all(engine, walk.EXHAUSTED, REFUSED)
    (cancelled,) = [await send(api, not_before="2999-01-01T00:00:00Z")]
    await api.post(f"/v1/deliveries/{cancelled['id']}/cancel")
    waiting = await send(api, not_before="2999-01-01T00:00:00Z")
    await send(api)
    attempt_all(engine, record=False)
    found = await stats_of(api, endpoint, window="1h")
    assert {name: found[name] for name in ("waiting", "in_flight", "delivered", "exhausted", "cancelled")} == {
        "waiting": 1,
        "in_flight": 1,
        "delivered": 3,
        "exhausted": 1,
        "cancelled": 1,
    }
    assert found["oldest_waiting_at"] == waiting["created_at"]
    assert found["success_rate"] == 0.75
    assert found["attempts_to_success_mean"] == 1.0
    assert found["attempts_p50_ms"] == pytest.approx(10, rel=0.0906)
    assert found["attempts_p95_ms"] == pytest.approx(30, rel=0.0906)
    assert found["last_success_at"] < found["last_attempt_at"]
    assert found["last_failure"] == {
        "at": found["last_attempt_at"],
        "outcome": "connect",
        "status_code": None,
        "error": "Connection refused",
    }


async def test_stats_are_of_one_endpoint_and_of_its_window(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api, event_types=["payment.*"])
    await register(api, url="https://other.example.com/", event_types=["refund.*"])
    await send(api)
    await send(api, type="refund.created")
    attempt_all(engine, walk.DELIVERED)
    assert (await stats_of(api, endpoint))["delivered"] == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.tallies SET at = at - interval '2 hours'"))
    now, day = await stats_of(api, endpoint, window="1h"), await stats_of(api, endpoint, window="24h")
    assert (now["delivered"], now["success_rate"], day["delivered"]) == (0, None, 1)
    assert now["last_attempt_at"] == day["last_attempt_at"] is not None


async def test_attempts_of_what_still_lives_count_too(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    await send(api)
    attempt_all(engine, walk.retry(300), REFUSED)
    found = await stats_of(api, endpoint)
    assert (found["waiting"], found["attempts_p50_ms"], found["success_rate"]) == (1, 2.18, None)
    assert found["last_failure"]["outcome"] == "connect"


async def test_an_endpoint_that_fails_has_a_lower_cap(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api, max_in_flight=64)
    ordered = await register(api, url="https://other.example.com/", ordered=True)
    with engine.begin() as connection:
        walk.rows(
            connection,
            "UPDATE dispatcher.lanes SET cap = 3 WHERE endpoint_id = :id RETURNING 1",
            id=parse_id("ep", endpoint["id"]),
        )
    assert (await stats_of(api, endpoint))["current_max_in_flight"] == 3
    assert (await stats_of(api, ordered))["current_max_in_flight"] == 1


async def test_another_window_is_refused(api: httpx.AsyncClient) -> None:
    endpoint = await register(api)
    answer = await api.get(f"/v1/endpoints/{endpoint['id']}/stats", params={"window": "2h"})
    assert answer.status_code == 422


async def test_stats_of_what_is_not_there_or_anothers_are_not_there(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    _, key = other_tenant(engine)
    for id_, headers in (
        (format_id("ep", uuid7()), {}),
        (endpoint["id"], {"authorization": f"Bearer {key}"}),
    ):
        assert (await api.get(f"/v1/endpoints/{id_}/stats", headers=headers)).status_code == 404
        body = {"since": "2026-01-01T00:00:00Z"}
        assert (await api.post(f"/v1/endpoints/{id_}/recover", json=body, headers=headers)).status_code == 404


async def test_what_an_endpoint_missed_is_sent_again(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    await register(api, url="https://other.example.com/")
    await send_all(api, 2)
    attempt_all(engine, walk.EXHAUSTED, REFUSED)
    await send_all(api, 1)
    attempt_all(engine, walk.DELIVERED)
    since = (SYSTEM.now() - timedelta(hours=1)).isoformat()
    answer = await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json={"since": since})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["status"], made["kind"], made["processed"]) == ("running", "replay", 0)
    assert made["total"] in (2, None)
    while replay_step(engine):
        pass
    with engine.connect() as connection:
        again = walk.live(connection)
    assert len(again) == 2
    assert {one.endpoint_id for one in again} == {parse_id("ep", endpoint["id"])}
    assert {format_id("rpl", one.replay_id) for one in again} == {made["id"]}


async def test_what_failed_since_then_is_sent_again_whenever_it_was_made(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    endpoint = await register(api)
    with engine.begin() as connection:
        walk.emit(connection, 1, now=SYSTEM.now() - timedelta(days=2))
    attempt_all(engine, walk.EXHAUSTED, REFUSED)
    body = {"since": (SYSTEM.now() - timedelta(hours=1)).isoformat()}
    made = (await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json=body)).json()
    assert (made["total"], made["filter"]["endpoint_id"]) == (1, endpoint["id"])
    assert made["filter"]["ended_after"] is not None
    assert replay_step(engine) == 1
    with engine.connect() as connection:
        entry = trail.read(connection, object=endpoint["id"])[0]
    assert (entry.action, entry.after and entry.after["replay_id"]) == ("endpoint.recovered", made["id"])


async def send_all(api: httpx.AsyncClient, count: int) -> None:
    for _ in range(count):
        await api.post("/v1/events", json={"type": "payment.completed", "payload": 1})


def replay_step(engine: Engine) -> int | None:
    from dispatcher.flow import replay_turn

    with engine.begin() as connection:
        return replay_turn.step(connection)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": None},
        {"since": "yesterday"},
        {"since": 0},
        {"since": "2026-01-01T00:00:00"},
        {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-01T00:00:00Z", "colour": "red"},
    ],
)
async def test_a_recovery_names_its_span(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    endpoint = await register(api)
    assert (await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json=body)).status_code == 422


async def test_a_recovery_ends_where_it_is_told(api: httpx.AsyncClient, engine: Engine) -> None:
    endpoint = await register(api)
    await send(api)
    attempt_all(engine, walk.EXHAUSTED, REFUSED)
    body = {"since": "2026-01-01T00:00:00Z", "until": datetime(2026, 1, 2, tzinfo=UTC).isoformat()}
    assert (await api.post(f"/v1/endpoints/{endpoint['id']}/recover", json=body)).status_code == 202
    while replay_step(engine):
        pass
    with engine.connect() as connection:
        assert walk.live(connection) == []
