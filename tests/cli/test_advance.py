"""`dispatcher deliveries advance`: the ladder of a test delivery, walked by hand."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine

from dispatcher.cli import advance
from dispatcher.model.delivery import RetryAt, Stop
from tests.cli.test_commands import ANSWER_503, FAILED, Run, end_all, line
from tests.support import walk


def work(monkeypatch: pytest.MonkeyPatch, engine: Engine, *changes: Stop | RetryAt) -> None:
    """While the command waits, a worker makes each attempt that is due, with these decisions one after another."""
    left = list(changes)
    monkeypatch.setattr(advance, "sleep", lambda _: end_all(engine, left.pop(0), ANSWER_503))


def test_a_ladder_is_walked_to_its_end(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(mode="test"))
    (delivery,) = run("deliveries", "list", "--output", "json").data
    work(monkeypatch, engine, walk.retry(5), walk.retry(36_000), FAILED)
    ran = run("deliveries", "advance", delivery["id"], "--to-the-end")
    assert ran.code == 0, ran
    first, wait, second, longer, third, end = ran.out.splitlines()
    assert "attempt 1" in first
    assert first.endswith("retry in 5 s  https://shop.example.com/hook")
    assert re.fullmatch(r"  by the schedule, the next attempt is due at 2\d{3}-\S+Z", wait)
    assert "retry in 36000 s" in second
    assert wait < longer
    assert "attempt 3" in third
    assert end == f"{delivery['id']} is exhausted: 503 Service Unavailable"


def test_one_attempt_is_made_unless_all_are_asked_for(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(mode="test"))
    (delivery,) = run("deliveries", "list", "--output", "json").data
    work(monkeypatch, engine, walk.retry(5))
    assert len(run("deliveries", "advance", delivery["id"]).out.splitlines()) == 2


def test_what_cannot_be_advanced_says_why(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line() + line(mode="test"))
    live, test = (run("deliveries", "list", "--mode", mode, "--output", "json").data[0] for mode in ("live", "test"))
    refused = run("deliveries", "advance", live["id"])
    assert (refused.code, "is of live mode; allowed: a delivery of test mode" in refused.err) == (1, True)
    nobody = run("deliveries", "advance", test["id"], "--timeout", "0s")
    assert nobody.code == 1
    assert "no attempt of" in nobody.err
    assert "dispatcher doctor" in nobody.err
    assert run("deliveries", "advance", test["id"], "--timeout", "soon").code == 2
