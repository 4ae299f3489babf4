"""`dispatcher events`: sent to a target, listed and explained."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine

from dispatcher.ids import format_id
from tests.support import walk
from tests.support.command import Command

URL = "https://shop.example.com/orders/1"


@pytest.fixture
def run(migrated_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name in ("DATA_DIR", "BROKER_URL", "ALLOW_NETWORKS", "API_URL"):
        monkeypatch.delenv(f"DISPATCHER_{name}", raising=False)
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", migrated_database_url)
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    return Command(monkeypatch, capsys)


def send(run: Command, *arguments: str, **event: Any) -> str:
    text = json.dumps({"type": "payment.paid", "payload": {"amount": 1}, **event}) if not arguments else "{}"
    ran = run("events", "send", *arguments, "--output", "json", stdin=text.encode())
    assert ran.code == 0, ran.err
    (sent,) = ran.json["data"]
    return str(sent["id"])


def test_a_payload_is_sent_to_a_target(run: Command, engine: Engine) -> None:
    send(run, "--type", "order.paid", "--target", URL, "--method", "GET")
    send(run, "--type", "order.paid", "--url", URL)
    send(run, target={"url": URL})
    with engine.connect() as connection:
        found = [(row.target_url, row.target_method) for row in walk.live(connection)]
    assert found == [(URL, "GET"), (URL, "POST"), (URL, "POST")]


@pytest.mark.parametrize(
    "arguments",
    [("--target", URL), ("--type", "a", "--method", "GET"), ("--type", "a", "--target", "http://shop.example.com")],
)
def test_a_target_that_cannot_be_is_a_usage_error(run: Command, arguments: tuple[str, ...]) -> None:
    assert run("events", "send", *arguments, stdin=b"{}").code == 2


def test_events_are_listed(run: Command) -> None:
    first, second = send(run, object_id="pay_1"), send(run, type="refund.paid", object_id="pay_2", mode="test")
    listed = run("events", "list", "--output", "json").json["data"]
    assert [one["id"] for one in listed] == [second, first]
    for chosen in (
        ("--object", "pay_1"),
        ("--event-type", "payment.paid"),
        ("--mode", "live"),
        ("--limit", "10", "--object", "pay_1", "--since", "1h"),
    ):
        table = run("events", "list", *chosen).out
        assert first in table
        assert second not in table
    assert "No event matches" in run("events", "list", "--until", "1h").out


def test_an_event_is_explained(run: Command, engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, event_types=("refund.*",))
    event_id = send(run)
    table = run("events", "explain", event_id)
    assert format_id("ep", endpoint.id) in table.out
    assert "filtered" in table.out
    explained = run("events", "explain", event_id, "--output", "json").json
    (one,) = explained["endpoints"]
    assert one["rule"] == "event_types refund.* does not match payment.paid (version 1 of the endpoint)"
    missing = run("events", "explain", "evt_01890a5d-ac96-774b-bcce-b302099a8057")
    assert missing.code == 1
    assert "no such event" in missing.err
