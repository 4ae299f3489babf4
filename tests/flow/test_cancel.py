"""Cancellations: many deliveries that wait, ended in bounded batches."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from dispatcher.flow import replay, replay_choice, replay_turn
from dispatcher.ids import format_id
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import replays, trail
from dispatcher.store.replays import Replay
from tests.support import walk


@pytest.fixture
def endpoint(engine: Engine) -> UUID:
    """An endpoint with five deliveries that wait."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 5, now=None)
    return endpoint.id


def start(connection: Connection, chosen: Filter) -> Replay:
    return replay.start(connection, chosen, by="test", kind="cancellation")


def states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(row.state for row in [*walk.live(connection), *walk.ended(connection)])


def steps(engine: Engine, *, batch: int = 1000, now: datetime | None = None) -> list[int]:
    made = []
    while True:
        with engine.begin() as connection:
            done = replay_turn.step(connection, batch=batch, now=now)
        if done is None:
            return made
        made.append(done)


def test_what_waits_is_cancelled_in_batches_with_the_cancellation_as_its_reason(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        one = start(connection, Filter(endpoint_id=endpoint))
        assert (one.kind, one.total) == ("cancellation", 5)
    assert steps(engine, batch=2) == [2, 2, 1]
    with engine.connect() as connection:
        assert {row.reason for row in walk.ended(connection)} == {f"cancelled by {format_id('rpl', one.id)}"}
        found = replays.find(connection, one.id)
        assert found is not None
        assert (found.state, found.replayed) == ("done", 5)
        assert [entry.action for entry in trail.read(connection, object=format_id("rpl", one.id))] == [
            "cancellation.started"
        ]
    assert states(engine) == ["cancelled"] * 5
    assert walk.broken_promises(engine) == []


def test_what_comes_later_is_not_cancelled(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        found = replay_choice.preview(connection, Filter(endpoint_id=endpoint), kind="cancellation")
        assert (found.summary.count, found.summary.in_flight) == (5, 0)
    with engine.begin() as connection:
        walk.emit(connection, 2, now=None)
    with engine.begin() as connection:
        replay.start(connection, found.filter, by="test", kind="cancellation", total=5)
    steps(engine)
    assert states(engine) == ["cancelled"] * 5 + ["waiting"] * 2


def test_what_is_in_flight_is_cancelled_when_it_comes_back_to_wait(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        delivered, failed = walk.claim(connection, worker, now=None, batch=2)
    with engine.begin() as connection:
        found = replay_choice.preview(connection, Filter(endpoint_id=endpoint), kind="cancellation")
        assert (found.summary.count, found.summary.in_flight) == (3, 2)
        one = start(connection, Filter(endpoint_id=endpoint))
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 3
        assert replay_turn.step(connection) == 0
    with engine.connect() as connection:
        running = replays.find(connection, one.id)
        assert running is not None
        assert running.state == "running", "two are still in flight"
    with engine.begin() as connection:
        walk.record(connection, [walk.result(delivered), walk.result(failed, walk.retry(3600))], now=None)
    assert steps(engine) == [1]
    assert states(engine) == ["cancelled"] * 4 + ["delivered"]


def test_what_a_claimer_has_locked_is_passed_over_and_not_waited_for(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        start(connection, Filter(endpoint_id=endpoint))
    with engine.connect() as claiming:
        worker = walk.add_worker(claiming, now=None)
        (claim,) = walk.claim(claiming, worker, now=None, batch=1)
        with engine.begin() as connection:
            assert replay_turn.step(connection) == 4
        claiming.commit()
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(3600))], now=None)
    assert steps(engine) == [1]


def test_only_what_is_chosen_is_cancelled(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        other = walk.add_endpoint(connection)
        walk.emit(connection, 1, now=None, object_id="pay_1")
        start(connection, Filter(endpoint_id=endpoint, object_id="pay_1"))
    assert steps(engine) == [1]
    with engine.connect() as connection:
        (ended,) = walk.ended(connection)
        assert (ended.endpoint_id, ended.object_id) == (endpoint, "pay_1")
        assert other.id in {row.endpoint_id for row in walk.live(connection)}


def test_a_paused_cancellation_rests(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        one = start(connection, Filter(endpoint_id=endpoint))
        replay.set_state(connection, one.id, "paused", by="test")
    assert steps(engine) == []
    with engine.begin() as connection:
        replay.set_state(connection, one.id, "running", by="test")
    assert sum(steps(engine)) == 5


def test_it_takes_turns_with_replays(engine: Engine, endpoint: UUID) -> None:
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        claims = walk.claim(connection, worker, now=None, batch=2)
        walk.record(connection, [walk.result(claim, walk.EXHAUSTED) for claim in claims], now=None)
        replay.start(connection, of_failed(Filter()), by="test")
        start(connection, Filter(endpoint_id=endpoint))
    assert sorted(steps(engine)) == [2, 3]
    assert states(engine) == ["cancelled"] * 3 + ["exhausted"] * 2 + ["waiting"] * 2
