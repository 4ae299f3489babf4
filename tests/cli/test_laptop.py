"""`trigger` and `listen` on the real API over a real database, in this process."""

from __future__ import annotations

import json
import sys

import pytest
from sqlalchemy import Engine

from dispatcher.cli import listen, trigger
from dispatcher.model.delivery import Stop
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from tests.support import walk
from tests.support.command import Command
from tests.support.fake_client import after_each


@pytest.fixture(autouse=True)
def no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)


def test_a_triggered_event_is_followed_to_its_end(
    run: Command, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver() -> None:
        with engine.begin() as connection:
            worker = walk.add_worker(connection, now=None)
            outcome = Outcome(OutcomeClass.OK, Phase.BODY, status_code=200)
            for one in walk.claim(connection, worker, now=None):
                result = walk.result(one, Stop("delivered", "ok"), outcome, worker_id=worker)
                walk.record(connection, [result], now=None)

    run("endpoints", "create", "https://shop.example.com/hook")
    monkeypatch.setattr(trigger, "sleep", after_each([deliver]))
    ran = run("trigger", "payment.completed", "--wait")
    assert ran.code == 0, ran.out + ran.err
    assert "attempt 1  ok 200" in ran.out
    assert ran.out.splitlines()[-1] == "1 of 1 delivery delivered"


def test_an_accepted_event_is_heard(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept() -> None:
        monkeypatch.setattr(sys, "argv", ["dispatcher"])
        assert Command(monkeypatch, run.capsys)("trigger", "order.updated", "--object-id", "ord_1").code == 0

    assert run("trigger", "payment.completed").code == 0
    monkeypatch.setattr(listen, "sleep", after_each([accept, lambda: None]))
    ran = run("listen", "--print", "--output", "json")
    assert ran.code == 0, ran.err
    (heard,) = [json.loads(line) for line in ran.out.splitlines()]
    assert (heard["type"], heard["object_id"], heard["mode"]) == ("order.updated", "ord_1", "test")
    assert json.loads(heard["body"])["data"]["order_id"] == "ord_1"
