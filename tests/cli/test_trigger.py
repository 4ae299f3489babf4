"""`dispatcher trigger`: it sends a sample, shows where it goes, and follows it to the end."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cli import target, trigger
from dispatcher.cli.samples import sample, sample_id
from dispatcher.clock import Clock
from tests.support.command import Command
from tests.support.fake_client import AT, FakeClient, attempt

A, B = "https://a.example.com/hook", "https://b.example.com/hook"
TYPES = [
    "payment.completed", "payment.failed", "payment.cancelled", "payment.timeout", "refund.completed", "order.updated",
    "card.issued", "chargeback.opened", "payout.sent", "fx.rate",
]  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def use(monkeypatch: pytest.MonkeyPatch, client: FakeClient, *, patience: int = 50) -> None:
    """The commands talk to this client, and each wait is a step of it."""
    left = [patience]

    def sleep(_: float) -> None:
        left[0] -= 1
        assert left[0], "it waits for ever"
        client.step()

    monkeypatch.setattr(target, "client", client.opened)
    monkeypatch.setattr(trigger, "sleep", sleep)


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_has_a_sample_about_its_object(kind: str) -> None:
    object_id = sample_id(kind, "5f0c")
    payload = sample(kind, object_id=object_id, at=AT)
    assert object_id in payload.values()
    assert payload["occurred_at"] == "2026-11-21T12:00:00Z"
    if kind.startswith("payment."):
        assert payload["metadata"]["checkoutId"]
        assert payload["status"] == kind.partition(".")[2]


def test_it_sends_a_test_event_and_shows_its_deliveries(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: [], B: []})
    use(monkeypatch, client)
    ran = run("trigger", "payment.completed")
    assert ran.code == 0, "into a pipe it does not wait"
    (event,) = client.made
    assert (event["type"], event["mode"]) == ("payment.completed", "test")
    assert event["object_id"] == event["payload"]["payment_id"]
    assert {"tenant_id", "target"}.isdisjoint(event)
    for delivery in client.deliveries_:
        assert delivery["id"] in ran.out
        assert delivery["url"] in ran.out
    assert client.calls == []


def test_options_say_what_is_sent_and_where(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = FakeClient()
    use(monkeypatch, client)
    (tmp_path / "payload.json").write_bytes(b'{"rate": 1.10}')
    tenant = "ten_01a1fc08-8eed-7fd4-808c-8a82ca61f56a"
    ran = run(
        "trigger", "fx.rate", "--payload", str(tmp_path / "payload.json"), "--object-id", "EURUSD", "--tenant", tenant,
        "--url", A, "--method", "GET", "--mode", "live", "--yes", "--output", "json",
    )  # fmt: skip
    assert client.made == [
        {
            "type": "fx.rate",
            "payload": b'{"rate": 1.10}',
            "mode": "live",
            "object_id": "EURUSD",
            "tenant_id": tenant,
            "target": {"url": A, "method": "GET"},
        }
    ]
    assert [one["url"] for one in ran.json["deliveries"]] == [A]


def test_a_live_event_is_asked_about(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: []})
    use(monkeypatch, client)
    assert run("trigger", "payment.completed", "--mode", "live", stdin=b"n\n").code == 1
    assert client.made == []
    assert run("trigger", "payment.completed", "--mode", "live", stdin=b"y\n").code == 0
    assert len(client.made) == 1


def story() -> dict[str, list[Any]]:
    return {
        A: [
            attempt(1, "http_retryable", 503, "retry", wait_s=5.0),
            attempt(2, "connect", None, "retry", wait_s=300.0, error="connection refused"),
            attempt(3, "ok", 200, "delivered"),
        ],
        B: [attempt(1, "ok", 204, "delivered")],
    }


def test_with_wait_every_attempt_is_told_until_all_have_ended(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(story())
    use(monkeypatch, client)
    ran = run("trigger", "payment.completed", "--wait")
    assert ran.code == 0
    told = [line for line in ran.out.splitlines() if line.startswith("attempt")]
    assert told == [
        f"attempt 1  http_retryable 503  12 ms  retry in 5 s  {A}",
        f"attempt 1  ok 204  12 ms  delivered  {B}",
        f"attempt 2  connect (connection refused)  12 ms  retry in 300 s  {A}",
        f"attempt 3  ok 200  12 ms  delivered  {A}",
    ]
    assert ran.out.splitlines()[-1] == "2 of 2 deliveries delivered"
    assert client.calls.count("attempts") == 4, "what has not changed is not asked for"


def test_attempts_made_before_the_first_look_are_told_too(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: [attempt(1, "ok", 200, "delivered")]})
    use(monkeypatch, client)
    create = client.events.create

    def create_and_deliver(**event: Any) -> Any:
        accepted = create(**event)
        client.step()
        return accepted

    monkeypatch.setattr(client.events, "create", create_and_deliver)
    ran = run("trigger", "payment.completed", "--wait")
    assert f"attempt 1  ok 200  12 ms  delivered  {A}" in ran.out


def test_with_wait_it_fails_unless_all_are_delivered(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: [attempt(1, "http_4xx", 400, "rejected")], B: [attempt(1, "ok", 200, "delivered")]})
    use(monkeypatch, client)
    ran = run("trigger", "payment.completed", "--wait")
    assert ran.code == 1
    assert "1 of 2 deliveries delivered; dlv_" in ran.out
    assert "is rejected, 400 Bad Request" in ran.out
    client = FakeClient({A: [attempt(1, "http_4xx", 400, "rejected")]})
    use(monkeypatch, client)
    ran = run("trigger", "payment.completed", "--wait", "--output", "json")
    assert ran.code == 1
    ((delivery,), made) = (ran.json["deliveries"], ran.json["deliveries"][0]["attempts"])
    assert (delivery["status"], [one["status_code"] for one in made]) == ("rejected", [400])


def test_it_waits_no_longer_than_the_time_out(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: [attempt(n, "http_retryable", 503, "retry", wait_s=5.0) for n in range(1, 40)]})
    use(monkeypatch, client)
    monkeypatch.setattr(trigger, "SYSTEM", Clock(monotonic=count().__next__))  # a second passes with every look
    ran = run("trigger", "payment.completed", "--wait", "--timeout", "10s")
    assert ran.code == 1
    assert len(re.findall(r"^attempt ", ran.out, re.MULTILINE)) == 9
    assert "is waiting, 503 Service Unavailable, next attempt at 2026-11-21T12:00:05Z" in ran.out


def test_what_is_held_is_not_waited_for(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({A: []})
    use(monkeypatch, client, patience=1)
    create = client.events.create

    def create_held(**event: Any) -> Any:
        accepted = create(**event)
        client.deliveries_[0] |= {"next_attempt_at": None, "status_reason": "endpoint disabled"}
        return accepted

    monkeypatch.setattr(client.events, "create", create_held)
    ran = run("trigger", "payment.completed", "--wait")
    assert ran.code == 1
    assert "is waiting, endpoint disabled" in ran.out


def test_an_event_that_nobody_wants_says_where_to_ask(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeClient())
    ran = run("trigger", "payment.completed", "--wait")
    assert ran.code == 0
    assert "No endpoint wants it" in ran.out


@pytest.mark.parametrize(
    "words", [["--method", "GET"], ["--timeout", "soon"], ["--tenant", "ten_x"], ["--mode", "production"]]
)
def test_what_cannot_be_meant_is_a_usage_error(run: Command, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    client = FakeClient()
    use(monkeypatch, client)
    assert run("trigger", "payment.completed", *words).code == 2
    assert client.made == []
