"""Replays: new deliveries of old events, each once, whatever is killed in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow import register, replay, replay_choice, replay_turn
from dispatcher.flow.replay_choice import Options
from dispatcher.ids import format_id, uuid7
from dispatcher.model.delivery import FAILED, DeliveryState, Released, Stop
from dispatcher.model.event import Event, Target
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import deliveries, replays, trail
from dispatcher.store.replays import Replay
from tests.support import walk

FAILED_ONES = Filter(states=FAILED)


def start(connection: Connection, chosen: Filter = FAILED_ONES, **values: Any) -> Replay:
    """Started by the values; those of the options' names are its options."""
    names = {field.name for field in fields(Options)}
    options = Options(**{name: value for name, value in values.items() if name in names})
    others = {name: value for name, value in values.items() if name not in names}
    return replay.start(connection, chosen, by="test", options=options, **others)


def count(connection: Connection, chosen: Filter = FAILED_ONES) -> int:
    return replay_choice.preview(connection, chosen).summary.count


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


def _ids(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return [row.id for row in walk.ended(connection)]


def replayed(connection: Connection) -> list[UUID]:
    return sorted(row.replay_of for row in walk.live(connection) if row.replay_of)


def failed(connection: Connection) -> list[UUID]:
    return sorted(row.id for row in walk.ended(connection) if row.state == "exhausted")


def test_a_replay_makes_each_failed_delivery_anew_and_no_other(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        assert count(connection) == 5
        replay_id = start(connection).id
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 5
        assert replay_turn.step(connection) is None
        assert replayed(connection) == failed(connection)
        (new, *_) = walk.live(connection)
        (old,) = [row for row in walk.ended(connection) if row.id == new.replay_of]
        assert (new.event_id, new.replay_id, new.attempts, new.claim_seq) == (old.event_id, replay_id, 0, 0)
        found = replays.find(connection, replay_id)
        assert found is not None
        assert (found.state, found.replayed) == ("done", 5)
        assert deliveries.demand(connection).lanes
    assert walk.broken_promises(engine) == []


@pytest.mark.parametrize("killed_before", range(4))
def test_a_kill_between_or_in_a_step_repeats_and_loses_nothing(
    engine: Engine, exhausted: UUID, killed_before: int
) -> None:
    with engine.begin() as connection:
        start(connection)
    steps = 0
    while True:
        if steps == killed_before:
            with engine.connect() as connection:  # did its work, and was killed before it committed
                replay_turn.step(connection, batch=2)
                connection.rollback()
        with engine.begin() as connection:
            if replay_turn.step(connection, batch=2) is None:
                break
        steps += 1
    with engine.connect() as connection:
        assert replayed(connection) == failed(connection)


def test_two_steps_at_once_do_not_share_a_replay(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        start(connection)
    with engine.connect() as one, engine.connect() as other:
        assert replay_turn.step(one, batch=2) == 2
        assert replay_turn.step(other, batch=2) is None
        one.commit()
        assert replay_turn.step(other, batch=2) == 2


def test_a_replays_own_failures_are_not_replayed_by_it(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        start(connection)
    with engine.begin() as connection:
        assert replay_turn.step(connection, batch=3) == 3
    with engine.begin() as connection:
        assert fail_all(connection) == 3
    with engine.begin() as connection:
        assert replay_turn.step(connection, batch=3) == 2
    with engine.begin() as connection:
        assert replay_turn.step(connection, batch=3) is None
        assert len(walk.live(connection)) == 2


def test_a_second_replay_takes_what_failed_again_and_not_what_is_under_way(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        start(connection)
    with engine.begin() as connection:
        replay_turn.step(connection, batch=2)
        assert count(connection) == 3
    with engine.begin() as connection:
        assert fail_all(connection) == 2
        assert count(connection) == 5


def test_deleted_endpoints_are_left_out(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        register.delete(connection, exhausted)
        assert count(connection) == 0


def test_the_filter_survives_its_way_through_the_database(engine: Engine, exhausted: UUID) -> None:
    now = datetime.now(UTC)
    chosen = Filter(
        states=(DeliveryState.EXHAUSTED,),
        undelivered=True,
        endpoint_id=exhausted,
        event_type="payment.completed",
        delivery_ids=tuple(_ids(engine)),
        but_delivered=True,
        as_of=now + timedelta(hours=1),
        created_after=now - timedelta(hours=1),
        created_before=now + timedelta(hours=1),
    )
    assert (
        replay_choice.filter_from_stored(orjson.loads(orjson.dumps(replay_choice.filter_to_stored(chosen)))) == chosen
    )
    with engine.begin() as connection:
        start(connection, chosen)
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 5


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.IN_FLIGHT])
def test_what_is_live_is_not_replayed(state: DeliveryState) -> None:
    with pytest.raises(InvalidInput, match="final states"):
        of_failed(Filter(states=(state,)))


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
        assert count(connection, of_failed(Filter())) == 1


def test_two_at_once_replay_a_delivery_once(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        one = next(row.id for row in walk.ended(connection) if row.state == "exhausted")
    with ThreadPoolExecutor(4) as pool:

        def retry(_: int) -> UUID | None:
            with engine.begin() as connection:
                return replay.retry(connection, one)

        made = [found for found in pool.map(retry, range(4)) if found is not None]
    assert len(made) == 1


# How fast, and whose turn it is


def steps(engine: Engine, at: datetime, *, batch: int = 1000) -> list[int]:
    """What the steps of one round make at this instant, until there is nothing more to do; then all is attempted."""
    made = []
    while True:
        with engine.begin() as connection:
            done = replay_turn.step(connection, batch=batch, now=at)
        if not done:
            break
        made.append(done)
    attempt(engine, at)
    return made


def attempt(engine: Engine, at: datetime, change: Any = walk.EXHAUSTED, *, only: UUID | None = None) -> int:
    """Has all that waits attempted, or only what waits for one endpoint."""
    with engine.begin() as connection:
        claims = walk.claim_all(connection, walk.add_worker(connection, now=at), now=at)
        mine = [claim for claim in claims if only in (None, claim.endpoint_id)]
        walk.record(connection, [walk.result(claim, change) for claim in mine], now=at)
        others = [walk.result(claim, Released()) for claim in claims if claim not in mine]
        walk.record(connection, others, now=at)
    return len(mine)


def test_a_rate_is_never_exceeded_and_nothing_of_it_is_lost(engine: Engine, exhausted: UUID) -> None:
    at = datetime.now(UTC)
    with engine.begin() as connection:
        start(connection, rate=2.0, now=at)
    assert steps(engine, at + timedelta(seconds=0.4)) == []
    assert steps(engine, at + timedelta(seconds=0.5)) == [1]
    assert steps(engine, at + timedelta(seconds=0.99)) == []
    assert steps(engine, at + timedelta(seconds=1.0)) == [1]
    assert steps(engine, at + timedelta(seconds=1.4)) == []
    assert steps(engine, at + timedelta(seconds=1.6)) == [1]
    assert steps(engine, at + timedelta(seconds=2.1)) == [1]
    assert steps(engine, at + timedelta(seconds=2.6)) == [1]
    assert steps(engine, at + timedelta(seconds=4)) == []
    with engine.connect() as connection:
        assert sum(row.replay_id is not None for row in walk.ended(connection)) == 5


def test_a_scheduler_that_was_away_does_not_make_up_for_it_in_a_burst(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 30, now=None)
        fail_all(connection)
    at = datetime.now(UTC)
    with engine.begin() as connection:
        start(connection, rate=4.0, now=at)
    assert steps(engine, at + timedelta(hours=2)) == [int(4 * replay_turn.CATCH_UP_S)]


def test_a_slow_rate_makes_one_at_its_time(engine: Engine, exhausted: UUID) -> None:
    at = datetime.now(UTC)
    with engine.begin() as connection:
        start(connection, rate=0.01, now=at)
    assert steps(engine, at + timedelta(seconds=99)) == []
    assert steps(engine, at + timedelta(seconds=101)) == [1]
    assert steps(engine, at + timedelta(seconds=199)) == []
    assert steps(engine, at + timedelta(hours=1)) == [1]


def test_a_clock_that_was_set_back_holds_up_no_replay_with_a_rate(engine: Engine, exhausted: UUID) -> None:
    at = datetime.now(UTC)
    set_back = at - timedelta(hours=1)
    with engine.begin() as connection:
        start(connection, rate=1.0, now=at)
    assert steps(engine, set_back) == [1]
    assert steps(engine, set_back + timedelta(seconds=0.5)) == []
    assert steps(engine, set_back + timedelta(seconds=1)) == [1]


def test_a_paused_replay_rests_and_its_rest_does_not_count_for_its_rate(engine: Engine, exhausted: UUID) -> None:
    at = datetime.now(UTC)
    with engine.begin() as connection:
        one = start(connection, rate=1.0, now=at)
        assert replay.set_state(connection, one.id, "paused", by="test", now=at).state == "paused"
        assert replay.set_state(connection, one.id, "paused", by="test", now=at).state == "paused"
    assert steps(engine, at + timedelta(seconds=60)) == []
    with engine.begin() as connection:
        resumed_at = at + timedelta(seconds=60)
        assert replay.set_state(connection, one.id, "running", by="test", now=resumed_at).state == "running"
    assert steps(engine, resumed_at) == []
    assert steps(engine, resumed_at + timedelta(seconds=1)) == [1]
    assert steps(engine, resumed_at + timedelta(seconds=2)) == [1]


def test_a_replay_that_has_ended_cannot_be_changed(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        one, other = start(connection), start(connection)
        ended = replay.set_state(connection, one.id, "cancelled", by="test")
        assert (ended.state, ended.ended_at is not None) == ("cancelled", True)
    with engine.begin() as connection:
        while replay_turn.step(connection) is not None:
            pass
        for id_ in (one.id, other.id):
            for state in ("running", "paused", "cancelled"):
                with pytest.raises(Conflict, match="has ended"):
                    replay.set_state(connection, id_, state, by="test")
        with pytest.raises(NotFound):
            replay.set_state(connection, one.id, "running", by="test", own=uuid7())
        found = [entry.action for entry in trail.read(connection, object=format_id("rpl", one.id))]
        assert found == ["replay.cancelled", "replay.started"]


def test_replays_that_run_at_once_take_turns_and_no_delivery_is_made_twice(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        one, other = start(connection), start(connection)
    for _ in range(2):
        with engine.begin() as connection:
            assert replay_turn.step(connection, batch=1) == 1
    with engine.connect() as connection:
        assert {row.replay_id for row in walk.live(connection)} == {one.id, other.id}
    while True:
        with engine.begin() as connection:
            if replay_turn.step(connection, batch=1) is None:
                break
    with engine.connect() as connection:
        assert replayed(connection) == failed(connection)


def test_a_step_waits_for_a_retry_that_is_not_committed_yet(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        start(connection)
        one = failed(connection)[0]
    with ThreadPoolExecutor(1) as pool, engine.connect() as retrying:
        assert replay.retry(retrying, one) is not None

        def step() -> int | None:
            with engine.begin() as connection:
                return replay_turn.step(connection)

        stepping = pool.submit(step)
        walk.wait_until_blocked(engine)
        retrying.commit()
        assert stepping.result() == 4
    with engine.connect() as connection:
        assert replayed(connection) == failed(connection)


# What is chosen


def test_a_preview_counts_and_freezes_what_it_has_counted(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        found = replay_choice.preview(connection, of_failed(Filter()), options=Options(rate=2.0))
        assert (found.summary.count, found.summary.already_delivered, found.summary.endpoints_disabled) == (5, 0, 0)
        assert found.summary.oldest == found.summary.newest
        assert found.estimated_s == 2.5
    with engine.begin() as connection:
        walk.emit(connection, 3, now=None)
        fail_all(connection)
        register.disable(connection, exhausted, "moving")
        again = replay_choice.preview(connection, of_failed(Filter()))
        assert (again.summary.count, again.summary.endpoints_disabled) == (8, 1)
        one = replay.start(connection, found.filter, by="test", total=found.summary.count)
        assert one.total == 5
    with engine.begin() as connection:
        register.enable(connection, exhausted)
        assert replay_turn.step(connection) == 5


def test_a_rate_limited_endpoint_sets_the_estimate(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.endpoints SET rate_limit = 0.5"))
        assert replay_choice.preview(connection, FAILED_ONES, options=Options(rate=100.0)).estimated_s == 10.0


def test_what_has_been_delivered_after_all_is_left_out_unless_it_is_included(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        (delivered,) = [row.id for row in walk.ended(connection) if row.state == "delivered"]
        assert replay.retry(connection, delivered) is not None
        fail_all(connection)
        chosen = of_failed(Filter())
        summary = replay_choice.preview(connection, chosen).summary
        assert (summary.count, summary.already_delivered) == (5, 1)
        everything = of_failed(Filter(), include_delivered=True)
        summary = replay_choice.preview(connection, everything).summary
        assert (summary.count, summary.already_delivered) == (6, 1)
        start(connection, chosen)
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 5


def test_the_delivered_are_replayed_only_where_they_are_asked_for(engine: Engine, exhausted: UUID) -> None:
    delivered = (DeliveryState.DELIVERED,)
    with engine.connect() as connection:
        assert count(connection, of_failed(Filter())) == 5
        assert count(connection, of_failed(Filter(undelivered=True))) == 5
        assert count(connection, of_failed(Filter(states=delivered))) == 1
        assert count(connection, of_failed(Filter(), include_delivered=True)) == 6


def test_single_deliveries_can_be_named(engine: Engine, exhausted: UUID) -> None:
    with engine.begin() as connection:
        wanted = failed(connection)[1:3]
        start(connection, Filter(states=FAILED, delivery_ids=(*wanted, uuid7())))
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 2
        assert replayed(connection) == wanted


def test_a_replay_goes_to_the_same_target(engine: Engine) -> None:
    target = Target("https://shop.example.com/orders/1", "GET")
    with engine.begin() as connection:
        walk.enqueue(connection, [Event(type="payment.completed", payload=1, target=target)])
        fail_all(connection)
        start(connection)
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 1
        (new,) = walk.live(connection)
        assert (new.target_url, new.target_method) == (target.url, "GET")


def test_the_replays_of_an_ordered_endpoint_take_turns_in_the_order_of_the_originals(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, ordered=True)
        walk.emit(connection, 4, now=None)
        while fail_all(connection):
            pass
        start(connection)
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 4
        new = walk.live(connection)
        assert all(row.ordered for row in new)
        assert [row.replay_of for row in new] == failed(connection)
        assert len(walk.claim(connection, walk.add_worker(connection, now=None), now=None)) == 1
