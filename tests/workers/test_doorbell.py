"""A worker polls while the broker is unusable, and only then; an outage is two lines of the log."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from dispatcher.clock import Clock
from dispatcher.workers import doorbell as module
from dispatcher.workers.doorbell import SETTLED_S, Doorbell
from tests.workers.conftest import until


class Worker:
    """Counts the claims that it is asked for."""

    bells = 0
    claimed = 0
    asked = 0

    def claim_now(self) -> None:
        self.asked += 1


class Broker:
    """Takes a bell, or fails as it is told."""

    error: Exception | None = None
    tried = 0

    def __call__(self) -> None:
        self.tried += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def time() -> list[float]:
    return [1000.0]


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def doorbell(worker: Worker, broker: Broker, time: list[float]) -> AsyncIterator[Doorbell]:
    found = Doorbell(
        worker,  # type: ignore[arg-type]
        broker,
        broker="redis://cache:6379/0",
        look_every_s=3600,
        clock=Clock(monotonic=lambda: time[0]),
    )
    found.start()
    await asyncio.sleep(0)
    yield found
    found.stop()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "dispatcher.workers.doorbell"]


async def test_while_the_broker_is_well_it_is_neither_tried_nor_is_the_database_polled(
    doorbell: Doorbell, worker: Worker, broker: Broker
) -> None:
    doorbell.attached()
    assert worker.asked == 1, "what rang before the consumer was there"
    for bells, claimed in [(0, 0), (1, 100), (2, 200), (3, 200), (3, 200)]:
        worker.bells, worker.claimed = bells, claimed
        await doorbell.look()
    assert (worker.asked, broker.tried) == (1, 0)


async def test_claims_without_a_bell_are_a_reason_to_try_the_broker(
    doorbell: Doorbell, worker: Worker, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    doorbell.attached()
    worker.claimed = 5
    await doorbell.look()
    assert broker.tried == 1
    assert said(caplog) == [], "the bell was only late"
    broker.error = ValueError("command not allowed\nwhen used memory > 'maxmemory'")
    worker.claimed = 6
    await doorbell.look()
    await until(lambda: worker.asked > 3)
    error = "command not allowed when used memory > 'maxmemory'"
    assert said(caplog) == [f'broker.unusable broker=redis://cache:6379/0 error="{error}"']


async def test_it_polls_until_the_consumer_has_stayed_and_the_broker_takes_a_bell(
    doorbell: Doorbell,
    worker: Worker,
    broker: Broker,
    time: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            doorbell.lost(ConnectionError("refused"))
        await until(lambda: worker.asked > 3)
        doorbell.attached()
        await doorbell.look()
        assert broker.tried == 0, "the consumer has not stayed long enough to be sure of it"
        doorbell.lost(ConnectionError("read only"))
        time[0] += 2 * SETTLED_S
        await doorbell.look()
        assert broker.tried == 0, "there is no consumer"
        doorbell.attached()
        time[0] += SETTLED_S
        broker.error = OSError("full")
        await doorbell.look()
        assert (broker.tried, len(said(caplog))) == (1, 1)
        broker.error = None
        await doorbell.look()
    asked = worker.asked
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert worker.asked <= asked + 1, "it polls no more"
    assert said(caplog) == [
        "broker.unusable broker=redis://cache:6379/0 error=refused",
        "broker.usable broker=redis://cache:6379/0",
    ]


async def test_a_consumer_that_is_lost_while_the_broker_is_tried_counts(
    doorbell: Doorbell, time: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    doorbell.lost(ConnectionError("refused"))
    doorbell.attached()
    time[0] += SETTLED_S
    loop = asyncio.get_running_loop()

    def try_broker() -> None:
        asyncio.run_coroutine_threadsafe(lose(), loop).result()

    async def lose() -> None:
        doorbell.lost(ConnectionError("refused again"))

    doorbell._try_broker = try_broker
    await doorbell.look()
    assert len(said(caplog)) == 1


async def test_a_try_without_an_end_is_a_failed_one(
    doorbell: Doorbell, worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_S", 0.01)
    let_go = threading.Event()
    doorbell._try_broker = let_go.wait  # type: ignore[assignment]
    doorbell.attached()
    worker.claimed = 1
    await doorbell.look()
    let_go.set()
    assert said(caplog) == ["broker.unusable broker=redis://cache:6379/0 error=TimeoutError"]


def test_a_try_that_ends_after_the_event_loop_was_closed_harms_nobody() -> None:
    """Pytest fails a test for what a thread raises."""
    let_go = threading.Event()

    def wait() -> None:
        let_go.wait()

    async def give_up() -> None:
        trying = asyncio.create_task(module._in_daemon_thread(wait))
        await asyncio.sleep(0)
        trying.cancel()

    asyncio.run(give_up())
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "dispatcher-broker":
            thread.join()
