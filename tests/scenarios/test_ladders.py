"""The shipped schedules walked in full, 27 hours in a fraction of a second: emit, claim, deliver, record.

Real PostgreSQL, whose clock is bound to the frozen one at every statement; the receiver is a mock transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import freezegun
import httpx
import pytest
from sqlalchemy import Connection, Engine
from standardwebhooks import Webhook

from dispatcher.clock import Clock
from dispatcher.flow.deliver import Deliver
from dispatcher.ids import format_id
from dispatcher.retry import RetrySchedule, load_schedule, shipped_schedules_dir
from dispatcher.store import deliveries, endpoints
from dispatcher.wiring import read_schedules
from tests.support import walk
from tests.support.walk import NOW

STEP = timedelta(microseconds=1)
ANSWER_TAKES = timedelta(seconds=7)
RECORD_WAITS = timedelta(seconds=2)

SCHEDULES: dict[str, RetrySchedule] = {
    name: load_schedule(shipped_schedules_dir() / f"{name}.toml").schedule for name in ("standard", "exponential")
}


@dataclass
class Ladder:
    """One delivery on its way, and the receiver that fails all attempts but the one numbered `succeed_at`."""

    connection: Connection
    time: Any
    succeed_at: int | None
    requests: list[tuple[datetime, httpx.Request]] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return (self.now() - NOW).total_seconds()

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((self.now(), request))
        number = len(self.requests)
        self.time.tick(ANSWER_TAKES)
        return httpx.Response(200 if number == self.succeed_at else 503)

    def deliver(self) -> Deliver:
        clock = Clock(now=self.now, monotonic=self.monotonic)
        return walk.deliver(httpx.MockTransport(self.answer), read_schedules(self.connection), clock=clock)

    def attempt(self, deliver: Deliver) -> datetime | None:
        """One claim, POST and record; the instant at which the next attempt is due, None once it has ended."""
        (claim,) = walk.claim(self.connection, deliver.worker_id, now=self.now())
        endpoint = endpoints.fetch(self.connection, [claim.endpoint_id])[claim.endpoint_id]
        result = asyncio.run(deliver(claim, deliver.requests.route(endpoint)))
        self.time.tick(RECORD_WAITS)
        assert deliveries.record(self.connection, [result], monotonic_s=self.monotonic(), now=self.now()) == 1
        live = walk.live(self.connection)
        return live[0].due_at if live else None

    def walk(self, waits: tuple[timedelta, ...]) -> None:
        """Attempts until the end. Just before each attempt is due a claim finds nothing, whoever wakes the lane."""
        walk.emit(self.connection, now=self.now(), object_id="pay_1")
        deliver = self.deliver()
        walk.add_worker(self.connection, now=self.now())
        failed_at = self.now()
        for wait in waits:
            due_at = failed_at + wait
            if wait:
                self.time.move_to(due_at - STEP)
                deliveries.wake(self.connection, self.endpoint_id(), now=self.now())
                assert walk.claim(self.connection, deliver.worker_id, now=self.now()) == []
                assert walk.lane(self.connection, self.endpoint_id()).ready_at == due_at
            self.time.move_to(due_at)
            assert deliveries.demand(self.connection, now=self.now()).lanes
            next_due_at = self.attempt(deliver)
            failed_at = self.now() - RECORD_WAITS
            if next_due_at is None:
                return
        raise AssertionError("the schedule is over, the delivery is not")

    def endpoint_id(self) -> Any:
        return walk.rows(self.connection, "SELECT id FROM dispatcher.endpoints")[0].id


@pytest.fixture
def time() -> Iterator[Any]:
    with freezegun.freeze_time(NOW, real_asyncio=True) as frozen:
        yield frozen


def steps() -> list[Any]:
    return [
        pytest.param(schedule, number, id=f"{name}-{number or 'exhausted'}")
        for name, schedule in SCHEDULES.items()
        for number in (*range(1, schedule.attempts + 1), None)
    ]


@pytest.mark.parametrize(("schedule", "succeed_at"), steps())
def test_each_attempt_is_made_when_the_schedule_says_and_not_before(
    engine: Engine, time: Any, schedule: RetrySchedule, succeed_at: int | None
) -> None:
    made = succeed_at or schedule.attempts
    with engine.begin() as connection:
        walk.add_endpoint(connection, schedule=schedule.name)
        ladder = Ladder(connection, time, succeed_at)
        ladder.walk(schedule.waits)
        (row,), attempts = walk.ended(connection), walk.attempts(connection)

    assert row.state == ("delivered" if succeed_at else "exhausted")
    assert (row.attempts, row.refunds, row.claim_seq) == (made, 0, made)
    assert [attempt.number for attempt in attempts] == list(range(1, made + 1))
    assert all(attempt.outcome_known for attempt in attempts)
    assert walk.broken_promises(engine) == []

    starts = [at for at, _ in ladder.requests]
    assert [attempt.started_at for attempt in attempts] == starts
    expected = [NOW]
    for wait in schedule.waits[1:made]:
        expected.append(expected[-1] + ANSWER_TAKES + wait)
    assert starts == expected
    assert row.ended_at == starts[-1] + ANSWER_TAKES + RECORD_WAITS

    assert {request.headers["webhook-id"] for _, request in ladder.requests} == {format_id("evt", row.event_id)}
    assert len({request.content for _, request in ladder.requests}) == 1
    assert len({request.headers["webhook-signature"] for _, request in ladder.requests}) == made
    for at, request in ladder.requests:
        assert int(request.headers["webhook-timestamp"]) == int(at.timestamp())
        time.move_to(at)
        assert Webhook(walk.SECRET).verify(request.content, dict(request.headers))["data"] == {"n": 0}


@pytest.mark.parametrize(
    ("name", "total"),
    [("standard", timedelta(hours=27, minutes=35, seconds=5)), ("exponential", timedelta(minutes=126))],
)
def test_failures_that_take_no_time_spread_over_the_declared_total(
    engine: Engine, time: Any, monkeypatch: pytest.MonkeyPatch, name: str, total: timedelta
) -> None:
    monkeypatch.setattr(f"{__name__}.ANSWER_TAKES", timedelta(0))
    monkeypatch.setattr(f"{__name__}.RECORD_WAITS", timedelta(0))
    schedule = SCHEDULES[name]
    with engine.begin() as connection:
        walk.add_endpoint(connection, schedule=name)
        ladder = Ladder(connection, time, None)
        ladder.walk(schedule.waits)
    assert ladder.requests[-1][0] - ladder.requests[0][0] == total == schedule.total
    assert len(ladder.requests) == schedule.attempts
