"""`dispatcher deliveries tail`: a line for each change, whatever becomes of the API meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dispatcher.cli import machine, tail
from dispatcher.client.deliveries import Deliveries
from dispatcher.client.errors import Unreachable
from tests.cli.test_commands import ANSWER_503, FAILED, Run, end_all
from tests.support import walk
from tests.support.command import Ran


@dataclass
class Tail:
    """Follows while steps are taken, one after each look; Ctrl-C after the last one."""

    run: Run
    engine: Engine
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, steps: list[Callable[[], object]]) -> Ran:
        def stop() -> None:
            raise KeyboardInterrupt

        todo = iter([*steps, stop])
        self.monkeypatch.setattr(tail.time, "sleep", lambda _: next(todo)())
        return self.run("deliveries", "tail", *arguments)

    def accept(self, object_id: str = "pay_1", **values: Any) -> None:
        with self.engine.begin() as connection:
            walk.emit(connection, now=None, object_id=object_id, **values)

    def end(self) -> None:
        end_all(self.engine, FAILED, ANSWER_503)

    def fail_once(self) -> None:
        with self.engine.begin() as connection:
            worker = walk.add_worker(connection, now=None)
            claims = walk.claim(connection, worker, now=None)
            walk.record(connection, [walk.result(one, walk.retry(60), worker_id=worker) for one in claims], now=None)


@pytest.fixture
def follow(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Tail:
    run("endpoints", "create", "https://shop.example.com/hook")
    return Tail(run, engine, monkeypatch)


def changes(ran: Ran) -> list[tuple[str, int]]:
    assert ran.code == 0, ran.err
    return [(one["status"], one["attempt_count"]) for one in map(json.loads, ran.out.splitlines())]


def test_a_line_tells_each_new_one_each_attempt_and_each_end(follow: Tail) -> None:
    hurry = "UPDATE dispatcher.deliveries SET due_at = now() - interval '1 s'"

    def end() -> None:
        with follow.engine.begin() as connection:
            connection.execute(text(hurry))
            connection.execute(text("UPDATE dispatcher.lanes SET ready_at = now()"))
        follow.end()

    ran = follow("--output", "json", steps=[follow.accept, follow.fail_once, lambda: None, end, lambda: None])
    assert changes(ran) == [("waiting", 0), ("waiting", 1), ("exhausted", 2)]


def test_what_has_ended_before_it_was_seen_is_told_once(follow: Tail) -> None:
    def both() -> None:
        follow.accept()
        follow.end()

    assert [status for status, _ in changes(follow("--output", "json", steps=[both, lambda: None]))] == ["exhausted"]


def test_it_begins_with_the_newest_the_oldest_of_them_first(follow: Tail) -> None:
    for n in range(3):
        follow.accept(f"pay_{n}")
    for lines, shown in (("2", ["pay_1", "pay_2"]), ("0", [])):
        ran = follow("-n", lines, "--output", "json", steps=[lambda: None])
        assert [json.loads(one)["object_id"] for one in ran.out.splitlines()] == shown


def test_one_that_was_there_before_is_followed_to_its_end(follow: Tail) -> None:
    follow.accept()
    assert [status for status, _ in changes(follow("-n", "0", "--output", "json", steps=[follow.end]))] == ["exhausted"]


def test_a_filter_by_state_tells_when_a_delivery_comes_into_it(follow: Tail) -> None:
    steps: list[Callable[[], object]] = [follow.accept, follow.end]
    ran = follow("--status", "failed", "--output", "json", steps=steps)
    assert [status for status, _ in changes(ran)] == ["exhausted"]
    ran = follow(
        "-n", "0", "--object-id", "pay_2", "--output", "json", steps=[follow.accept, lambda: follow.accept("pay_2")]
    )
    assert len(changes(ran)) == 1


def test_a_line_for_people_says_what_when_and_what_next(follow: Tail) -> None:
    ran = follow(steps=[follow.accept, follow.fail_once])
    assert ran.code == 0, ran.err
    new, failed = ran.out.splitlines()
    assert "shop.example.com" in new
    assert "try 1: 503 Service Unavailable, next in" in failed


def test_an_api_that_is_away_is_waited_for(follow: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Deliveries.list
    away = False

    def list_(self: Any, **values: Any) -> Any:
        if away:
            raise Unreachable("https://api does not answer")
        return real.__get__(self, type(self))(**values)

    monkeypatch.setattr(Deliveries, "list", list_)

    def leave() -> None:
        nonlocal away
        away = True
        follow.accept()

    def come_back() -> None:
        nonlocal away
        away = False

    ran = follow("--output", "json", steps=[leave, lambda: None, come_back])
    assert [status for status, _ in changes(ran)] == ["waiting"]
    assert ran.err.count("waiting for it") == 1
    assert "answers again" in ran.err


def test_a_look_costs_the_same_whatever_there_is(follow: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("list", "get"):
        real = getattr(Deliveries, name)

        def counting(self: Any, *args: Any, real: Any = real, name: str = name, **values: Any) -> Any:
            asked.append(name)
            return real.__get__(self, type(self))(*args, **values)

        monkeypatch.setattr(Deliveries, name, counting)
    with follow.engine.begin() as connection:
        walk.emit(connection, 60, now=None)

    def end() -> None:
        asked.clear()
        follow.end()

    ran = follow("-n", "0", "--output", "json", steps=[end, *[lambda: None] * 6])
    assert len(changes(ran)) == 60, "those that could not be asked for at once were asked for later"
    assert asked.count("get") == 60
    assert max(len(one.split()) for one in " ".join(asked).split("list")) <= tail.ASKED


def test_the_overlap_lets_an_event_be_seen_that_was_committed_late(follow: Tail) -> None:
    late = follow.engine.connect()
    transaction = late.begin()
    with machine.opened():  # by the clock, before those that are seen before it
        walk.emit(late, now=None, object_id="late")

    ran = follow("-n", "0", "--output", "json", steps=[follow.accept, transaction.commit, lambda: None])
    late.close()
    assert len(changes(ran)) == 2
    assert timedelta(seconds=10) < tail.OVERLAP


def test_a_line_does_not_steer_the_terminal(follow: Tail) -> None:
    follow.accept()
    (one,) = (json.loads(text) for text in follow("--output", "json", steps=[]).out.splitlines())
    assert "\x1b" not in tail.line({**one, "status_reason": "\x1b[2J", "url": "https://\x1b[2J/"}).plain
