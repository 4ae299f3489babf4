"""Replays: new deliveries of old events, each once, whatever is killed in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, Engine

from dispatcher.errors import InvalidInput
from dispatcher.flow import register, replay
from dispatcher.model.delivery import FAILED, DeliveryState, Stop
from dispatcher.store import deliveries, replays
from dispatcher.store.log import Filter
from tests.support import walk

FAILED_ONES = Filter(states=FAILED)


@pytest.fixture
def exhausted(engine: Engine) -> UUID:
    """An endpoint with five exhausted deliveries and one delivered, all of today."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 6, now=None)
        fail_all(connection, deliver_one=True)
    return endpoint.id


def fail_all(connection: Connection, *, deliver_one: bool = False) -> int:
    claims = walk.claim_all(connection, walk.add_worker(connection, now=None), now=None)
    changes = [walk.DELIVERED if deliver_one and not n else walk.EXHAUSTED for n in range(len(claims))]
    results = [walk.result(claim, change) for claim, change in zip(claims, changes, strict=True)]
    walk.record(connection, results, now=None)
    return len(claims)


def replayed(connection: Connection) -> list[UUID]:
    return sorted(row.replay_of for row in walk.live(connection) if row.replay_of)


def failed(connection: Connection) -> list[UUID]:
    return sorted(row.id for row in walk.ended(connection) if row.state == "exhausted")


def test_a_replay_makes_each_failed_delivery_anew_and_no_other(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        assert replay.count(connection, FAILED_ONES) == 5
        replay_id = replay.start(connection, FAILED_ONES)
    with engine.begin() as connection:
        assert replay.step(connection) == 5
        assert replay.step(connection) is None
        assert replayed(connection) == failed(connection)
        (new, *_) = walk.live(connection)
        (old,) = [row for row in walk.ended(connection) if row.id == new.replay_of]
        assert (new.event_id, new.replay_id, new.attempts, new.claim_seq) == (old.event_id, replay_id, 0, 0)
        found = replays.find(connection, replay_id)
        assert found is not None
        assert (found.state, found.replayed) == ("done", 5)
        assert deliveries.demand(connection).due
    assert walk.broken_promises(engine) == []


@pytest.mark.parametrize("killed_before", range(4))
def test_a_kill_between_or_in_a_step_repeats_and_loses_nothing(
    engine: Engine, exhausted: UUID, killed_before: int
) -> None:
    with engine.begin() as connection:
        replay.start(connection, FAILED_ONES)
    steps = 0
    while True:
        if steps == killed_before:
            with engine.connect() as connection:  # did its work, and was killed before it committed
                replay.step(connection, batch=2)
                connection.rollback()
        with engine.begin() as connection:
            if replay.step(connection, batch=2) is None:
                break
        steps += 1
    with engine.connect() as connection:
        assert replayed(connection) == failed(connection)


def test_two_steps_at_once_do_not_share_a_replay(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        replay.start(connection, FAILED_ONES)
    with engine.connect() as one, engine.connect() as other:
        assert replay.step(one, batch=2) == 2
        assert replay.step(other, batch=2) is None
        one.commit()
        assert replay.step(other, batch=2) == 2


def test_a_replays_own_failures_are_not_replayed_by_it(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        replay.start(connection, FAILED_ONES)
    with engine.begin() as connection:
        assert replay.step(connection, batch=3) == 3
    with engine.begin() as connection:
        assert fail_all(connection) == 3
    with engine.begin() as connection:
        assert replay.step(connection, batch=3) == 2
    with engine.begin() as connection:
        assert replay.step(connection, batch=3) is None
        assert len(walk.live(connection)) == 2


def test_a_second_replay_takes_what_failed_again_and_not_what_is_under_way(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        replay.start(connection, FAILED_ONES)
    with engine.begin() as connection:
        replay.step(connection, batch=2)
        assert replay.count(connection, FAILED_ONES) == 3
    with engine.begin() as connection:
        assert fail_all(connection) == 2
        assert replay.count(connection, FAILED_ONES) == 5


def test_deleted_endpoints_are_left_out(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        register.delete(connection, exhausted)
        assert replay.count(connection, FAILED_ONES) == 0


def test_the_filter_survives_its_way_through_the_database(engine: Engine, exhausted: UUID) -> None:
    now = datetime.now(UTC)
    chosen = Filter(
        states=(DeliveryState.EXHAUSTED,),
        undelivered=True,
        endpoint_id=exhausted,
        event_type="payment.completed",
        created_after=now - timedelta(hours=1),
        created_before=now + timedelta(hours=1),
    )
    assert replay._from_json(orjson.loads(orjson.dumps(replay._to_json(chosen)))) == chosen
    with engine.begin() as connection:
        replay.start(connection, chosen)
    with engine.begin() as connection:
        assert replay.step(connection) == 5


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.IN_FLIGHT])
def test_what_is_live_is_not_replayed(state: DeliveryState) -> None:
    with pytest.raises(InvalidInput, match="final states"):
        replay.of_failed(Filter(states=(state,)))


def test_retrying_one_delivery_hurries_it_if_it_waits_and_replays_it_once_if_it_ended(
    engine: Engine, exhausted: UUID
) -> None:
    with engine.begin() as connection:
        old = failed(connection)[0]
        new = replay.retry(connection, old)
        assert new is not None
        assert replay.retry(connection, old) is None
        assert replay.retry(connection, new) == new
        (claim,) = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
        assert claim.delivery_id == new
        assert replay.retry(connection, new) is None
        walk.record(connection, [walk.result(claim, walk.retry(3600))], now=None)
        assert replay.retry(connection, new) == new
        assert len(walk.claim(connection, walk.add_worker(connection, now=None), now=None)) == 1


def test_a_cancelled_delivery_can_be_replayed(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        (row,) = walk.live(connection)
        assert deliveries.cancel(connection, row.id, "by hand")
        assert replay.retry(connection, row.id) is not None


def test_a_rejected_delivery_counts_as_failed(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        (claim,) = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
        walk.record(connection, [walk.result(claim, Stop("rejected", "gone 410"))], now=None)
        assert replay.count(connection, replay.of_failed(Filter())) == 1


def test_two_at_once_replay_a_delivery_once(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        one = next(row.id for row in walk.ended(connection) if row.state == "exhausted")
    with ThreadPoolExecutor(4) as pool:

        def retry(_: int) -> UUID | None:
            with engine.begin() as connection:
                return replay.retry(connection, one)

        made = [found for found in pool.map(retry, range(4)) if found is not None]
    assert len(made) == 1
