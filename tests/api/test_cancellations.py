"""`/v1/cancellations` over ASGI on a real database."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.flow import replay_turn
from dispatcher.ids import format_id
from dispatcher.store import trail
from tests.api.conftest import other_tenant
from tests.support import walk

URL = "/v1/cancellations"


@pytest.fixture
def waiting(engine: Engine) -> str:
    """An endpoint with four deliveries that wait and one in flight: its id."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 1, now=None)
        walk.claim(connection, walk.add_worker(connection, now=None), now=None)
        walk.emit(connection, 4, now=None, object_id="pay_1")
    return format_id("ep", endpoint.id)


def step(engine: Engine) -> int | None:
    with engine.begin() as connection:
        return replay_turn.step(connection)


async def previewed(api: httpx.AsyncClient, **asked: Any) -> Any:
    answer = await api.post(f"{URL}/preview", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_was_previewed_is_cancelled_and_nothing_that_came_later(
    api: httpx.AsyncClient, engine: Engine, waiting: str
) -> None:
    preview = await previewed(api, endpoint_id=waiting)
    assert (preview["count"], preview["in_flight"], preview["already_delivered"]) == (4, 1, 0)
    with engine.begin() as connection:
        walk.emit(connection, 2, now=None, object_id="pay_2")
    answer = await api.post(URL, json={"preview_token": preview["preview_token"]})
    assert answer.status_code == 202
    one = answer.json()
    assert (one["kind"], one["status"], one["total"]) == ("cancellation", "running", 4)
    assert step(engine) == 4
    found = (await api.get(f"/v1/replays/{one['id']}")).json()
    assert (found["kind"], found["processed"]) == ("cancellation", 4)
    ended = (await api.get("/v1/deliveries", params={"status": "cancelled"})).json()["data"]
    assert [delivery["object_id"] for delivery in ended] == ["pay_1"] * 4
    assert {delivery["status_reason"] for delivery in ended} == {f"cancelled by {one['id']}"}
    later = (await api.get("/v1/deliveries", params={"object_id": "pay_2"})).json()["data"]
    assert [delivery["status"] for delivery in later] == ["waiting"] * 2
    with engine.connect() as connection:
        (entry,) = trail.read(connection, object=one["id"])
    assert (entry.action, entry.after and entry.after["total"]) == ("cancellation.started", 4)


async def test_a_choice_can_be_cancelled_without_a_preview(
    api: httpx.AsyncClient, engine: Engine, waiting: str
) -> None:
    answer = await api.post(URL, json={"object_id": "pay_1", "status": "waiting"})
    assert (answer.status_code, answer.json()["total"]) == (202, 4)
    paused = await api.post(f"/v1/replays/{answer.json()['id']}/pause")
    assert paused.json()["status"] == "paused"
    assert step(engine) is None


@pytest.mark.parametrize(
    "asked", [{}, {"status": "waiting"}, {"status": "exhausted"}, {"rate_per_second": 1}, {"preview_token": "x"}]
)
async def test_what_cannot_be_cancelled_is_refused(api: httpx.AsyncClient, waiting: str, asked: Any) -> None:
    answer = await api.post(URL, json=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")
    assert (await api.get("/v1/replays")).json()["data"] == []


async def test_a_token_for_a_replay_cancels_nothing(api: httpx.AsyncClient) -> None:
    preview = (await api.post("/v1/replays/preview", json={"status": "failed"})).json()
    answer = await api.post(URL, json={"preview_token": preview["preview_token"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/preview_token")


async def test_a_tenant_cancels_nothing_of_another(api: httpx.AsyncClient, engine: Engine, waiting: str) -> None:
    _, key = other_tenant(engine)
    headers = {"authorization": f"Bearer {key}"}
    preview = (await api.post(f"{URL}/preview", json={"endpoint_id": waiting}, headers=headers)).json()
    assert (preview["count"], preview["in_flight"], preview["oldest"]) == (0, 0, None)
    assert (await api.post(URL, json={"object_id": "pay_1"}, headers=headers)).json()["total"] == 0
    assert step(engine) == 0
    assert len((await api.get("/v1/deliveries", params={"status": "waiting"})).json()["data"]) == 4
