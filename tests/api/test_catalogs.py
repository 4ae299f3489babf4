"""Schedules, profiles, event types, sender addresses and metrics, over the API."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher import config
from dispatcher.api.metrics import METRICS
from dispatcher.errors import ConfigurationError
from tests.api.conftest import other_tenant

LADDER_S = [0, 5, 300, 1800, 7200, 18000, 36000, 36000]
ROOT = Path(__file__).resolve().parents[2]


async def test_the_schedules_that_endpoints_may_name_are_listed(api: httpx.AsyncClient) -> None:
    found = {one["name"]: one for one in (await api.get("/v1/schedules")).json()["data"]}
    assert set(found) == {"standard", "exponential"}
    assert found["standard"]["waits_s"] == LADDER_S
    assert found["standard"]["total_s"] == 99305
    assert found["standard"]["description"].startswith("Immediately, then 5 s")
    assert found["exponential"]["total_s"] == 126 * 60
    assert (await api.get("/v1/schedules/standard")).json() == found["standard"]
    assert (await api.get("/v1/schedules/nothing")).status_code == 404


async def test_a_preview_has_absolute_times(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/schedules/standard/preview", params={"start": "2026-01-31T12:00:00+01:00"})
    attempts = answer.json()["attempts"]
    assert [one["at"] for one in attempts[:3]] == [
        "2026-01-31T11:00:00Z",
        "2026-01-31T11:00:05Z",
        "2026-01-31T11:05:05Z",
    ]
    late = await api.get("/v1/schedules/standard/preview", params={"start": "9999-12-31T23:00:00Z"})
    assert (late.status_code, late.json()["errors"][0]["pointer"]) == (422, "start")
    assert (
        await api.get("/v1/schedules/standard/preview", params={"start": "0001-01-01T00:00:00+23:00"})
    ).status_code == 422


async def test_an_outage_is_simulated(api: httpx.AsyncClient) -> None:
    asked = {
        "name": "standard",
        "start": "2026-01-31T12:00:00Z",
        "down": [{"begin": "2026-01-31T12:00:00Z", "end": "2026-01-31T15:00:00Z"}],
    }
    done = (await api.post("/v1/schedules/simulate", json=asked)).json()
    assert (done["ended"], done["delay_s"], len(done["attempts"])) == ("delivered", 27305, 6)
    own = (await api.post("/v1/schedules/simulate", json={"waits": ["0s", "1m"], "down": []})).json()
    assert (own["ended"], own["name"]) == ("delivered", None)


async def test_answers_are_simulated_by_the_rules_of_a_profile(api: httpx.AsyncClient) -> None:
    asked: dict[str, object] = {"name": "standard", "outcomes": [{}, {"status_code": 204}]}
    done = (await api.post("/v1/schedules/simulate", json=asked)).json()
    assert (done["ended"], len(done["attempts"]), done["reason"]) == ("delivered", 2, "ok")
    done = (await api.post("/v1/schedules/simulate", json=asked | {"profile": "musepay"})).json()
    assert (done["ended"], len(done["attempts"])) == ("delivered", 3)  # only a 200 counts
    gone = asked | {"outcomes": [{"status_code": 410}], "profile": "standard-webhooks"}
    done = (await api.post("/v1/schedules/simulate", json=gone)).json()
    assert (done["ended"], done["reason"]) == ("rejected", "gone 410")


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, "/name"),
        ({"name": "standard", "waits": ["0s"]}, "/name"),
        ({"waits": ["soon"]}, "/waits/0"),
        ({"waits": ["0s", "400d"]}, "/waits"),
        ({"waits": ["5s", "1s"], "relative_to": "first_attempt"}, "/waits"),
        (
            {"name": "standard", "down": [{"begin": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]},
            "/down/0/end",
        ),
        ({"name": "standard", "jitter": 2}, "/jitter"),
        ({"name": "standard", "attempt_duration_s": "5"}, "/attempt_duration_s"),
        ({"name": "standard", "profile": "none"}, "/profile"),
        ({"name": "standard", "outcomes": [{"status_code": 99}]}, "/outcomes/0/status_code"),
    ],
)
async def test_what_cannot_be_simulated_is_refused_by_its_place(
    api: httpx.AsyncClient, asked: dict[str, object], pointer: str
) -> None:
    answer = await api.post("/v1/schedules/simulate", json=asked)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


async def test_the_profiles_are_shown_with_every_field(api: httpx.AsyncClient) -> None:
    found = {one["name"]: one for one in (await api.get("/v1/profiles")).json()["data"]}
    assert set(found) >= {"default", "multisafepay", "checkout", "gateway", "terminal", "musepay"}
    assert [name for name, one in found.items() if one["default"]] == ["default"]
    assert found["musepay"]["document"]["answers"]["success"] == [200]
    assert (await api.get("/v1/profiles/terminal")).json() == found["terminal"]
    assert (await api.get("/v1/profiles/none")).status_code == 404


async def test_a_type_with_a_schema_refuses_payloads_that_do_not_meet_it(api: httpx.AsyncClient) -> None:
    schema = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}
    put = await api.put("/v1/event_types/payment.completed", json={"description": "Paid.", "schema": schema})
    assert put.status_code == 200
    assert put.json()["schema"] == schema
    assert put.json()["profiles"] == ["terminal"]
    event = {"type": "payment.completed", "payload": {"amount": "much"}}
    refused = await api.post("/v1/events", json=event)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/payload/amount")
    assert (await api.post("/v1/events", json=event | {"payload": {"amount": 1}})).status_code == 202
    assert (await api.post("/v1/events", json=event | {"type": "payment.failed"})).status_code == 202
    assert (await api.delete("/v1/event_types/payment.completed")).status_code == 204
    assert (await api.post("/v1/events", json=event)).status_code == 202
    assert (await api.delete("/v1/event_types/payment.completed")).status_code == 404
    changes = (await api.get("/v1/audit_log", params={"object": "payment.completed"})).json()["data"]
    assert [one["action"] for one in changes] == ["event_type.deleted", "event_type.described"]


async def test_a_schema_without_a_bound_is_refused_by_its_place(api: httpx.AsyncClient) -> None:
    links = {f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(30)}
    for schema, pointer, found in (
        ({"$ref": "#/$defs/s0", "$defs": {**links, "s30": {}}}, "/schema", "sub-schemas with references expanded"),
        ({"pattern": r"(a)\1"}, "/schema/pattern", "(a)"),
        ({"items": {"$ref": "#"}}, "/schema/items/$ref", "a recursive reference"),
    ):
        answer = await api.put("/v1/event_types/payment.completed", json={"schema": schema})
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["pointer"]) == (422, pointer)
        assert found in error["detail"]
    assert {one["schema"] for one in (await api.get("/v1/event_types")).json()["data"]} == {None}


async def test_a_schema_of_an_earlier_version_is_shown_as_refused_until_it_is_replaced(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO dispatcher.event_types (name, schema) VALUES ('a.b', :schema), ('a.c', 'true')"),
            {"schema": '{"items": {"$ref": "#"}}'},
        )
    shown = {one["name"]: one["schema_refusal"] for one in (await api.get("/v1/event_types")).json()["data"]}
    assert shown["a.b"].startswith("/schema/items/$ref: found a recursive reference")
    assert shown["a.c"] is None
    event = {"type": "a.b", "payload": [[]]}
    refused = await api.post("/v1/events", json=event)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/payload")
    assert shown["a.b"] in refused.json()["errors"][0]["detail"]
    batch = (await api.post("/v1/events/batch", json={"events": [event, event | {"type": "a.c"}]})).json()
    assert [one["status"] for one in batch["data"]] == ["failed", "accepted"]
    put = await api.put("/v1/event_types/a.b", json={"schema": {"items": {"items": {}}}})
    assert (put.status_code, put.json()["schema_refusal"]) == (200, None)
    assert (await api.post("/v1/events", json=event)).status_code == 202


async def test_the_catalogue_has_what_profiles_bring(api: httpx.AsyncClient) -> None:
    found = {one["name"]: one["profiles"] for one in (await api.get("/v1/event_types")).json()["data"]}
    assert found["payment.timeout"] == ["terminal"]
    assert found["order.*"] == ["musepay"]


async def test_one_type_is_shown_as_the_catalogue_has_it(api: httpx.AsyncClient) -> None:
    await api.put("/v1/event_types/a.b", json={"description": "Any.", "schema": {"type": "object"}})
    listed = {one["name"]: one for one in (await api.get("/v1/event_types")).json()["data"]}
    for name in ("a.b", "payment.timeout", "order.*"):
        assert (await api.get(f"/v1/event_types/{name}")).json() == listed[name]
    missing = await api.get("/v1/event_types/a.c")
    assert (missing.status_code, missing.json()["detail"]) == (404, "there is no event type a.c")


async def test_only_operators_describe_types(api: httpx.AsyncClient, engine: Engine) -> None:
    _, key = other_tenant(engine)
    headers = {"authorization": f"Bearer {key}"}
    assert (await api.put("/v1/event_types/a.b", json={}, headers=headers)).status_code == 403
    assert (await api.get("/v1/event_types", headers=headers)).status_code == 200


async def test_addresses_that_are_none_are_refused_at_the_start(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/sender_addresses")).json()["data"] == []
    with pytest.raises(ConfigurationError, match="EGRESS_ADDRESSES"):
        config.load({"DISPATCHER_EGRESS_ADDRESSES": "192.0.2.1, example.com"})


async def test_a_clients_own_words_are_no_labels(api: httpx.AsyncClient) -> None:
    await api.get("/v1/schedules/nothing")
    await api.get("/v1/nothing")
    await api.request("BREW", "/v1/schedules")
    found = re.findall(r'requests_total\{method="(.+?)",route="(.+?)",status="(\d+)"', (await api.get("/metrics")).text)
    assert set(found) == {("GET", "/v1/schedules/{name}", "404"), ("other", "other", "404"), ("other", "other", "405")}


async def test_the_metrics_are_those_of_the_document(api: httpx.AsyncClient) -> None:
    await api.post("/v1/endpoints", json={"url": "https://shop.example.com/"})
    await api.post("/v1/events", json={"type": "a.b", "payload": 1})
    answer = await api.get("/metrics", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'dispatcher_deliveries{state="waiting"} 1.0' in answer.text
    assert 'dispatcher_api_requests_total{method="POST",route="/v1/events",status="202"} 1.0' in answer.text
    assert 'dispatcher_api_request_duration_seconds_count{route="/v1/events"} 1.0' in answer.text
    assert 'dispatcher_api_request_duration_seconds_bucket{le="+Inf",route="/v1/events"} 1.0' in answer.text
    assert set(re.findall(r"^# TYPE (\S+)", answer.text, re.MULTILINE)) == set(METRICS)
    rows = re.findall(r"^\| `(dispatcher_\w+)` \| (.+?) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert dict(rows) == METRICS
