"""`/v1/replays` over ASGI on a real database: previewed, started, followed, paused, ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.errors import Unavailable
from dispatcher.flow import replay, replay_turn
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.model.filter import Filter
from dispatcher.store import trail
from dispatcher.store.search import search
from tests.api.callers import Time, bearer, make_key, make_tenant, serving
from tests.api.conftest import other_tenant
from tests.support import walk

URL = "/v1/replays"


@pytest.fixture
def failed(engine: Engine) -> str:
    """An endpoint with five exhausted deliveries and one delivered: its id."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 5, now=None, object_id="pay_1")
        fail_all(connection)
        walk.emit(connection, 1, now=None)
        fail_all(connection, walk.DELIVERED)
    return format_id("ep", endpoint.id)


def fail_all(connection: Any, change: Any = walk.EXHAUSTED) -> None:
    claims = walk.claim_all(connection, walk.add_worker(connection, now=None), now=None)
    walk.record(connection, [walk.result(claim, change) for claim in claims], now=None)


def step(engine: Engine) -> int | None:
    with engine.begin() as connection:
        return replay_turn.step(connection)


async def previewed(api: httpx.AsyncClient, **asked: Any) -> Any:
    answer = await api.post(f"{URL}/preview", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def started(api: httpx.AsyncClient, **asked: Any) -> Any:
    answer = await api.post(URL, json=asked)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_what_was_previewed_is_replayed_and_nothing_that_ended_later(
    api: httpx.AsyncClient, engine: Engine, failed: str
) -> None:
    preview = await previewed(api, endpoint_id=failed, rate_per_second=10)
    assert preview["count"] == 5
    assert preview["oldest"] == preview["newest"]
    assert preview["estimated_seconds"] == 0.5
    assert (preview["already_delivered"], preview["endpoints_disabled"], preview["in_flight"]) == (0, 0, 0)
    with engine.begin() as connection:
        walk.emit(connection, 2, now=None)
        fail_all(connection)
    one = await started(api, preview_token=preview["preview_token"])
    assert (one["status"], one["kind"], one["total"], one["processed"]) == ("running", "replay", 5, 0)
    assert one["filter"]["endpoint_id"] == failed
    assert one["filter"]["status"] == "exhausted,rejected,expired"
    assert (one["rate_per_second"], one["ended_at"], one["tenant_id"]) == (10, None, None)
    assert one["created_by"].startswith("key_")
    with engine.begin() as connection:
        assert replay_turn.step(connection, now=datetime.now(UTC) + timedelta(seconds=1)) == 5
    assert step(engine) is None
    found = (await api.get(f"{URL}/{one['id']}")).json()
    assert (found["status"], found["processed"]) == ("done", 5)
    made = (await api.get("/v1/deliveries", params={"replay_id": one["id"]})).json()["data"]
    assert len(made) == 5
    assert all(delivery["replay_of"] for delivery in made)


async def test_a_choice_can_be_replayed_without_a_preview(api: httpx.AsyncClient, engine: Engine, failed: str) -> None:
    one = await started(api, object_id="pay_1", status="exhausted", rate_per_second=2.5)
    assert (one["total"], one["rate_per_second"]) == (5, 2.5)
    assert one["filter"]["include_delivered"] is False
    named = (await api.get("/v1/deliveries", params={"object_id": "pay_1", "limit": 2})).json()["data"]
    ids = [delivery["id"] for delivery in named]
    assert (await previewed(api, delivery_ids=ids))["count"] == 2
    assert (await previewed(api, include_delivered=True))["count"] == 6
    assert (await previewed(api, status="delivered"))["already_delivered"] == 1
    assert (await previewed(api, created_after="2999-01-01T00:00:00Z"))["count"] == 0
    assert (await previewed(api, undelivered=True, outcome="http_retryable"))["count"] == 5
    assert (await previewed(api, event_type="refund.created"))["oldest"] is None


@pytest.mark.parametrize(
    ("asked", "pointer", "said"),
    [
        ({}, "/", "preview_token, or at least one condition"),
        ({"rate_per_second": 5, "include_delivered": True}, "/", "at least one condition"),
        ({"undelivered": False, "attempts_min": 0}, "/", "at least one condition"),
        ({"preview_token": "k1.a.b"}, "/preview_token", "prv_ and a UUID"),
        ({"status": "waiting"}, "/status", "exhausted"),
        ({"status": "failed,"}, "/status", "exhausted"),
        ({"rate_per_second": 0}, "/rate_per_second", "0.01"),
        ({"rate_per_second": 1e9}, "/rate_per_second", "10000"),
        ({"delivery_ids": []}, "/delivery_ids", "1 item"),
        ({"delivery_ids": ["dlv_1"]}, "/delivery_ids/0", "dlv_"),
        ({"endpoint_id": "evt_1"}, "/endpoint_id", "ep_ and a UUID"),
        ({"created_after": "yesterday"}, "/created_after", "RFC 3339"),
        ({"colour": "red"}, "/colour", "fields"),
    ],
)
async def test_what_cannot_be_replayed_is_refused_by_its_pointer(
    api: httpx.AsyncClient, asked: Any, pointer: str, said: str
) -> None:
    answer = await api.post(URL, json=asked)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert said in answer.json()["detail"]


async def test_a_token_and_another_choice_are_refused(api: httpx.AsyncClient, failed: str) -> None:
    token = (await previewed(api, endpoint_id=failed))["preview_token"]
    refused = await api.post(URL, json={"preview_token": token, "object_id": "pay_1"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/")
    assert (await started(api, preview_token=token, endpoint_id=failed))["total"] == 5


async def test_a_token_counts_for_its_tenant_for_an_hour(migrated_database_url: str, engine: Engine) -> None:
    time = Time()
    async with serving(migrated_database_url, time) as client:
        tenant = await make_tenant(client, "shop")
        key = (await make_key(client, tenant_id=tenant["id"]))["key"]
        answer = await client.post(f"{URL}/preview", json={"status": "failed"}, headers=bearer(key))
        token = answer.json()["preview_token"]
        assert answer.json()["expires_at"] == (time.now + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        stolen = await client.post(URL, json={"preview_token": token}, headers=bearer())
        assert (stolen.status_code, stolen.json()["errors"][0]["pointer"]) == (422, "/preview_token")
        time.pass_(3600)
        late = await client.post(URL, json={"preview_token": token}, headers=bearer(key))
        assert "older than an hour" in late.json()["detail"]


async def test_a_condition_that_is_zero_is_one(api: httpx.AsyncClient, engine: Engine, failed: str) -> None:
    preview = await previewed(api, endpoint_id=failed, attempts_max=0)
    assert preview["count"] == 0
    for asked in ({"preview_token": preview["preview_token"]}, {"attempts_max": 0}):
        replay_ = await started(api, **asked)
        assert (replay_["total"], replay_["filter"]["attempts_max"]) == (0, 0)
    while step(engine):
        pass
    made = (await api.get("/v1/deliveries", params={"status": "waiting"})).json()["data"]
    assert made == [], "no delivery has ended without an attempt"


async def test_a_token_starts_one_replay_and_a_second_start_is_told_which(api: httpx.AsyncClient, failed: str) -> None:
    token = (await previewed(api, endpoint_id=failed))["preview_token"]
    assert len(token) == len("prv_") + 36
    refused = await api.post(URL, json={"preview_token": token, "rate_per_second": 5})
    assert refused.status_code == 422, "which leaves it unused"
    with patch.object(replay, "start", side_effect=Unavailable("the database is away")):
        assert (await api.post(URL, json={"preview_token": token})).status_code == 503
    first = await api.post(URL, json={"preview_token": token}, headers={"idempotency-key": "once"})
    assert first.status_code == 202
    for asked in ({"preview_token": token}, {"preview_token": token, "endpoint_id": failed}):
        second = await api.post(URL, json=asked)
        assert (second.status_code, second.json()["code"]) == (409, "PREVIEW_USED")
        assert first.json()["id"] in second.json()["detail"]
    again = await api.post(URL, json={"preview_token": token}, headers={"idempotency-key": "once"})
    assert (again.status_code, again.json()) == (202, first.json())
    assert [one["id"] for one in (await api.get(URL)).json()["data"]] == [first.json()["id"]]


async def test_of_starts_at_once_with_one_token_one_is_accepted(api: httpx.AsyncClient, failed: str) -> None:
    token = (await previewed(api, endpoint_id=failed))["preview_token"]
    keys = [{"idempotency-key": f"key {n}"} for n in range(4)]
    answers = await asyncio.gather(*(api.post(URL, json={"preview_token": token}, headers=key) for key in keys))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    (started,) = (await api.get(URL)).json()["data"]
    assert all(started["id"] in answer.text for answer in answers)


async def test_a_replay_is_paused_resumed_and_ended(api: httpx.AsyncClient, engine: Engine, failed: str) -> None:
    one = await started(api, endpoint_id=failed)
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("pause", "paused")):
        answer = await api.post(f"{URL}/{one['id']}/{verb}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert step(engine) is None
    ended = await api.post(f"{URL}/{one['id']}/cancel")
    assert (ended.json()["status"], ended.json()["ended_at"] is None) == ("cancelled", False)
    for verb in ("pause", "resume", "cancel"):
        answer = await api.post(f"{URL}/{one['id']}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "REPLAY_ENDED")
    with engine.connect() as connection:
        noted = [(entry.action, entry.after) for entry in reversed(trail.read(connection, object=one["id"]))]
    assert [action for action, _ in noted] == [
        *("replay.started", "replay.paused", "replay.resumed", "replay.paused", "replay.cancelled")
    ]
    assert noted[-1][1] == {"status": "cancelled"}


async def test_replays_are_listed_the_newest_first(api: httpx.AsyncClient, failed: str) -> None:
    made = [(await started(api, endpoint_id=failed))["id"] for _ in range(3)]
    cancelled = (await api.post("/v1/cancellations", json={"endpoint_id": failed})).json()["id"]
    first = (await api.get(URL, params={"limit": 3})).json()
    assert [one["id"] for one in first["data"]] == [cancelled, *reversed(made[1:])]
    rest = (await api.get(URL, params={"cursor": first["next_cursor"]})).json()
    assert [one["id"] for one in rest["data"]] == made[:1]
    only = (await api.get(URL, params={"kind": "cancellation"})).json()["data"]
    assert [one["id"] for one in only] == [cancelled]


async def test_a_tenant_replays_and_sees_only_its_own(api: httpx.AsyncClient, engine: Engine, failed: str) -> None:
    tenant_id, key = other_tenant(engine)
    operators = await started(api, endpoint_id=failed)
    mine = {"authorization": f"Bearer {key}"}
    answer = await api.post(URL, json={"endpoint_id": failed}, headers=mine)
    own = answer.json()
    assert (answer.status_code, own["total"], own["tenant_id"]) == (202, 0, tenant_id)
    assert own["filter"]["tenant_id"] == tenant_id
    assert [one["id"] for one in (await api.get(URL, headers=mine)).json()["data"]] == [own["id"]]
    assert {one["id"] for one in (await api.get(URL)).json()["data"]} == {own["id"], operators["id"]}
    for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")):
        answer = await api.request(method, f"{URL}/{operators['id']}{path}", headers=mine)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    asked = {"tenant_id": format_id("ten", uuid7())}
    assert (await api.post(URL, json=asked, headers=mine)).status_code == 404
    assert (await api.post(f"{URL}/preview", json={}, params=asked, headers=mine)).status_code == 404
    while step(engine):
        pass
    with engine.connect() as connection:
        chosen = Filter(replay_id=parse_id("rpl", own["id"]))
        assert search(connection, chosen) == [], "nothing of another tenant was replayed"


async def test_a_repeat_under_its_key_starts_one_replay(api: httpx.AsyncClient, failed: str) -> None:
    answers = [await api.post(URL, json={"endpoint_id": failed}, headers={"idempotency-key": "once"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len((await api.get(URL)).json()["data"]) == 1


async def test_an_unknown_replay_is_not_there(api: httpx.AsyncClient) -> None:
    assert (await api.get(f"{URL}/{format_id('rpl', uuid7())}")).status_code == 404
    assert (await api.get(f"{URL}/rpl_1")).status_code == 422


async def test_a_token_has_every_option_of_its_preview(api: httpx.AsyncClient, failed: str) -> None:
    options = {"rate_per_second": 20, "rate_per_endpoint": 5, "canary": 3, "to": failed}
    preview = await previewed(api, endpoint_id=failed, **options)
    assert {name: preview[name] for name in options} == options
    assert preview["estimated_seconds"] == 1
    assert preview["endpoints"] == [
        {
            "endpoint_id": failed,
            "url": preview["endpoints"][0]["url"],
            "count": 5,
            "disabled": False,
            "already_delivered": 0,
        }
    ]
    token = preview["preview_token"]
    for name, other in (("rate_per_second", 21), ("rate_per_endpoint", 6), ("canary", 4), ("to", "same")):
        refused = await api.post(URL, json={"preview_token": token, name: other})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/{name}")
    one = await started(api, preview_token=token, endpoint_id=failed, canary=3)
    assert {name: one[name] for name in options} == options


async def test_what_was_made_is_told_and_endpoint_by_endpoint(
    api: httpx.AsyncClient, engine: Engine, failed: str
) -> None:
    one = await started(api, endpoint_id=failed)
    assert step(engine) == 5
    with engine.begin() as connection:
        fail_all(connection, walk.DELIVERED)
    found = (await api.get(f"{URL}/{one['id']}")).json()
    assert [found[name] for name in ("status", "percent", "delivered", "failed", "waiting")] == ["done", 100, 5, 0, 0]
    (row,) = (await api.get(f"{URL}/{one['id']}/endpoints")).json()["data"]
    assert (row["endpoint_id"], row["status"], row["processed"], row["delivered"]) == (failed, "done", 5, 5)
    assert (await api.get(f"{URL}/{format_id('rpl', uuid7())}/endpoints")).status_code == 404


async def test_what_is_matched_anew_is_chosen_by_events(api: httpx.AsyncClient, engine: Engine, failed: str) -> None:
    refused = await api.post(f"{URL}/preview", json={"to": "matching", "status": "failed"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/status")
    preview = await previewed(api, to="matching", object_id="pay_1")
    assert preview["count"] == 5
    one = await started(api, preview_token=preview["preview_token"])
    assert (one["to"], one["filter"]["status"], one["total"]) == ("matching", None, 5)
    assert step(engine) == 5


async def test_another_tenants_endpoint_is_not_there_to_replay_to(
    api: httpx.AsyncClient, engine: Engine, failed: str
) -> None:
    _, key = other_tenant(engine)
    mine = {"authorization": f"Bearer {key}"}
    for path in (URL, f"{URL}/preview"):
        answer = await api.post(path, json={"object_id": "pay_1", "to": failed}, headers=mine)
        assert answer.status_code == 404
