"""A replay endpoint by endpoint: depth, rates, the ones that go first, what is matched anew, and where it may go."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, text

from dispatcher.errors import InvalidInput, NotFound
from dispatcher.flow import pause, register, replay, replay_choice, replay_turn
from dispatcher.flow.replay import ENDPOINT_DEPTH, STUCK_S
from dispatcher.flow.replay_choice import Options
from dispatcher.flow.replay_turn import TOTAL_DEPTH
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.model.delivery import FAILED, Released
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import replay_endpoints, replays
from dispatcher.store.pauses import Scope
from dispatcher.store.replays import Replay
from tests.support import walk

CHOSEN = of_failed(Filter())


def tenant(connection: Connection, parent_id: UUID | None = None) -> UUID:
    id_ = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name, parent_id) VALUES (:id, :name, :parent_id)"),
        {"id": id_, "name": str(id_), "parent_id": parent_id},
    )
    return id_


def failed_at(engine: Engine, *counts: int) -> list[UUID]:
    """Endpoints of a tenant each, with so many exhausted deliveries."""
    made = []
    with engine.begin() as connection:
        for count in counts:
            tenant_id = tenant(connection)
            made.append(walk.add_endpoint(connection, tenant_id=tenant_id, max_in_flight=1000).id)
            walk.emit(connection, count, now=None, tenant_id=tenant_id)
    attempt(engine, datetime.now(UTC))
    return made


def attempt(engine: Engine, at: datetime, change: Any = walk.EXHAUSTED, *, only: UUID | None = None) -> int:
    """Has all that waits attempted, or only what waits for one endpoint; how many those were."""
    count = 0
    while True:
        with engine.begin() as connection:
            claims = walk.claim_all(connection, walk.add_worker(connection, now=at, room=100_000), now=at)
            mine = [claim for claim in claims if only in (None, claim.endpoint_id)]
            walk.record(connection, [walk.result(claim, change) for claim in mine], now=at)
            walk.record(connection, [walk.result(claim, Released()) for claim in claims if claim not in mine], now=at)
        count += len(mine)
        if not mine:
            return count


def start(engine: Engine, chosen: Filter = CHOSEN, *, now: datetime | None = None, **options: Any) -> Replay:
    with engine.begin() as connection:
        return replay.start(connection, chosen, by="test", options=Options(**options), now=now)


def step(engine: Engine, at: datetime | None = None, *, batch: int = 1000) -> int | None:
    with engine.begin() as connection:
        return replay_turn.step(connection, batch=batch, now=at)


def waiting(engine: Engine) -> Counter[UUID]:
    with engine.connect() as connection:
        return Counter(row.endpoint_id for row in walk.live(connection) if row.replay_id)


def found(engine: Engine, one: Replay) -> Replay:
    with engine.connect() as connection:
        return replay.find(connection, one.id)


def endpoints(engine: Engine, one: Replay) -> dict[UUID, replay_endpoints.Progress]:
    with engine.connect() as connection:
        return {row.id: row for row in replay.endpoints(connection, one.id)}


# Depth


def test_an_endpoint_has_few_that_were_not_attempted_whatever_the_rate(engine: Engine) -> None:
    (endpoint,) = failed_at(engine, ENDPOINT_DEPTH + 10)
    one = start(engine)
    assert step(engine) == ENDPOINT_DEPTH
    assert step(engine) == 0
    assert "waits for" in str(found(engine, one).status_reason)
    assert attempt(engine, datetime.now(UTC)) == ENDPOINT_DEPTH
    assert step(engine) == 10
    assert step(engine) is None
    assert found(engine, one).state == "done"
    assert endpoints(engine, one)[endpoint].made == ENDPOINT_DEPTH + 10
    assert walk.broken_promises(engine) == []


def test_all_endpoints_together_have_few_and_share_them(engine: Engine) -> None:
    made = failed_at(engine, *[ENDPOINT_DEPTH] * 10)
    start(engine)
    assert step(engine) == TOTAL_DEPTH
    assert step(engine) == 0
    assert min(waiting(engine)[id_] for id_ in made) >= TOTAL_DEPTH // 10


def test_an_endpoint_that_does_not_answer_keeps_no_other_waiting(engine: Engine) -> None:
    dead, healthy = failed_at(engine, 200, 200)
    one = start(engine, now=(at := datetime.now(UTC)))
    total = 0
    for n in range(10):
        later = at + timedelta(seconds=n * (STUCK_S + 0.5))
        total += step(engine, later) or 0
        attempt(engine, later, walk.DELIVERED, only=healthy)
    progress = endpoints(engine, one)
    assert (progress[healthy].state, progress[healthy].delivered) == ("done", 200)
    assert progress[dead].made == waiting(engine)[dead] == ENDPOINT_DEPTH
    assert progress[dead].status_reason == f"{ENDPOINT_DEPTH} made have not been attempted yet"
    assert total == 200 + ENDPOINT_DEPTH
    assert found(engine, one).state == "running"


def test_what_a_dead_worker_had_claimed_keeps_no_endpoint_waiting(engine: Engine) -> None:
    """All endpoints have lost some to it, and it is some time until those are rescued."""
    made = failed_at(engine, 20, 20)
    start(engine, now=(at := datetime.now(UTC)), rate=4.0)
    assert step(engine, at + timedelta(seconds=0.5)) == 2
    with engine.begin() as connection:
        lost = walk.claim_all(connection, walk.add_worker(connection, now=at), now=at + timedelta(seconds=0.6))
    assert {claim.endpoint_id for claim in lost} <= set(made)
    total = 0
    for n in range(40):
        later = at + timedelta(seconds=1 + n / 4)
        total += step(engine, later) or 0
        attempt(engine, later, walk.DELIVERED)
    assert total == 38


@pytest.mark.parametrize("by", ["disabled", "paused"])
def test_what_is_held_gets_nothing_until_it_is_let_go(engine: Engine, by: str) -> None:
    held, other = failed_at(engine, 5, 5)
    with engine.begin() as connection:
        if by == "disabled":
            register.disable(connection, held, "moving")
        else:
            held_by = pause.create(connection, Scope(None, held, None), reason="moving", by="test")
    one = start(engine)
    assert step(engine) == 5
    assert step(engine) == 0
    assert dict(waiting(engine)) == {other: 5}
    assert found(engine, one).status_reason == "waits for 1 endpoint that is disabled or paused"
    assert "moving" in str(endpoints(engine, one)[held].status_reason)
    with engine.begin() as connection:
        if by == "disabled":
            register.enable(connection, held)
        else:
            pause.end(connection, held_by.id, by="test")
    assert step(engine) == 5
    assert step(engine) is None
    assert found(engine, one).state == "done"


def test_an_endpoint_that_is_deleted_meanwhile_is_done(engine: Engine) -> None:
    gone, other = failed_at(engine, 5, 5)
    one = start(engine)
    with engine.begin() as connection:
        register.delete(connection, gone)
    assert step(engine) == 5
    assert dict(waiting(engine)) == {other: 5}
    assert endpoints(engine, one)[gone].status_reason == "the endpoint was deleted"
    while step(engine) is not None:
        pass
    assert found(engine, one).state == "done"


# Rates


def test_each_endpoint_has_its_own_rate_and_all_have_one(engine: Engine) -> None:
    slow, fast = failed_at(engine, 20, 20)
    at = datetime.now(UTC)
    start(engine, now=at, rate=10.0, rate_per_endpoint=2.0)
    made: Counter[UUID] = Counter()
    for n in range(1, 51):
        now = at + timedelta(seconds=n / 10)
        while step(engine, now):
            pass
        made += waiting(engine)
        attempt(engine, now, walk.DELIVERED)
    assert made == {slow: 10, fast: 10}


@pytest.mark.parametrize("tick_s", [0.1, 0.37])
def test_a_rate_is_kept_within_a_tenth_in_any_ten_seconds_and_after_a_rest(engine: Engine, tick_s: float) -> None:
    failed_at(engine, *[100] * 4)
    at = datetime.now(UTC)
    start(engine, now=at, rate=10.0)
    made: list[tuple[float, int]] = []
    for n in range(1, int(20 / tick_s)):
        after_s = n * tick_s + (30 if n * tick_s > 10 else 0)  # no scheduler for half a minute
        now = at + timedelta(seconds=after_s)
        while count := step(engine, now):
            made.append((after_s, count))
        attempt(engine, now, walk.DELIVERED)
    assert 95 <= sum(count for after_s, count in made if after_s <= 10) <= 100
    rested = [count for after_s, count in made if 40 <= after_s < 50]
    assert 95 <= sum(rested) <= 110


# Those that go first


def test_an_endpoint_of_which_all_that_go_first_fail_is_stopped_and_tries_the_next_when_it_is_resumed(
    engine: Engine,
) -> None:
    dead, healthy = failed_at(engine, 10, 10)
    one = start(engine, canary=2)
    assert step(engine) == 4
    assert step(engine) == 0, "undecided"
    attempt(engine, datetime.now(UTC), walk.DELIVERED, only=healthy)
    attempt(engine, datetime.now(UTC), walk.retry(3600), only=dead)
    assert step(engine) == 8
    progress = endpoints(engine, one)
    assert (progress[dead].state, progress[dead].made) == ("stopped", 2)
    assert progress[dead].status_reason == "the first 2 all failed their first attempt"
    while step(engine):
        pass
    stopped = found(engine, one)
    assert (stopped.state, stopped.status_reason) == ("paused", "1 endpoint that is stopped")
    with engine.begin() as connection:
        resumed = replay.set_state(connection, one.id, "running", by="test")
    assert (resumed.state, resumed.status_reason) == ("running", None)
    assert step(engine) == 2
    attempt(engine, datetime.now(UTC), walk.DELIVERED, only=dead)
    assert step(engine) == 6
    while step(engine) is not None:
        pass
    assert found(engine, one).state == "done"


def test_one_that_is_delivered_lets_the_rest_follow(engine: Engine) -> None:
    (endpoint,) = failed_at(engine, 6)
    start(engine, canary=2)
    assert step(engine) == 2
    with engine.begin() as connection:
        first, second = walk.claim_all(connection, walk.add_worker(connection, now=None), now=None)
        walk.record(connection, [walk.result(first, walk.retry(60)), walk.result(second, walk.DELIVERED)], now=None)
    assert step(engine) == 4
    assert waiting(engine)[endpoint] == 5


def test_fewer_than_go_first_are_done_without_a_verdict(engine: Engine) -> None:
    failed_at(engine, 2)
    one = start(engine, canary=5)
    assert step(engine) == 2
    assert step(engine) is None
    assert found(engine, one).state == "done"


# Kills


def test_a_kill_at_any_statement_of_a_step_repeats_and_loses_nothing(engine: Engine) -> None:
    failed_at(engine, 7, 3)
    one = start(engine, canary=1, rate_per_endpoint=1000.0)
    killed_at, seen = 0, 0

    class KilledError(Exception):
        pass

    def kill(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == killed_at:
            raise KilledError

    event.listen(engine, "before_cursor_execute", kill)
    at = datetime.now(UTC)
    done: int | None = 0
    while done is not None:
        for killed_at in range(1, 20):  # noqa: B007 - read by the listener
            seen = 0
            at += timedelta(seconds=0.1)
            try:
                done = step(engine, at, batch=3)
            except KilledError:
                continue
            break
        killed_at = 0
        attempt(engine, at, walk.DELIVERED)
    event.remove(engine, "before_cursor_execute", kill)
    with engine.connect() as connection:
        made = Counter(row.replay_of for row in walk.ended(connection) if row.replay_id == one.id)
        originals = {row.id for row in walk.ended(connection) if row.replay_id is None}
    assert made == dict.fromkeys(originals, 1)


def test_two_schedulers_at_once_make_nothing_twice(engine: Engine) -> None:
    failed_at(engine, 10)
    start(engine)
    with engine.connect() as one, engine.connect() as other:
        assert replay_turn.step(one, batch=5) == 5
        assert replay_turn.step(other, batch=5) is None
        one.commit()
        assert replay_turn.step(other, batch=50) == 5
        other.commit()
    with engine.connect() as connection:
        assert len({row.replay_of for row in walk.live(connection)}) == 10


# Where they go


def test_what_is_matched_anew_goes_to_the_endpoints_of_today_even_where_nobody_wanted_it(engine: Engine) -> None:
    with engine.begin() as connection:
        parent = tenant(connection)
        child = tenant(connection, parent)
        walk.emit(connection, 3, now=None, tenant_id=child)
        walk.emit(connection, 2, now=None, tenant_id=child, type_="refund.created")
        walk.emit(connection, 2, now=None, tenant_id=parent)
        (other,) = [walk.add_endpoint(connection, tenant_id=DEFAULT_TENANT).id]
        own = walk.add_endpoint(connection, tenant_id=child, event_types=("payment.*",)).id
        above = walk.add_endpoint(connection, tenant_id=parent).id
    chosen = replay_choice.filter_of_events(Filter(created_after=datetime.now(UTC) - timedelta(hours=1)))
    with engine.begin() as connection:
        summary = replay_choice.preview(connection, chosen, options=Options(goes_to="matching")).summary
        assert (summary.count, {one.endpoint_id: one.count for one in summary.top}) == (10, {above: 7, own: 3})
        mine = replay_choice.preview(
            connection, replay_choice.filter_of_events(Filter(tenant_id=child)), options=Options(goes_to="matching")
        ).summary
        assert mine.count == 3, "a caller's replay goes to its own endpoints only"
    one = start(engine, chosen, goes_to="matching")
    assert step(engine) == 10
    assert step(engine) is None
    assert dict(waiting(engine)) == {above: 7, own: 3}
    assert other not in waiting(engine)
    with engine.connect() as connection:
        assert {(row.replay_id, row.replay_of) for row in walk.live(connection)} == {(one.id, None)}
        assert {row.tenant_id for row in walk.live(connection) if row.endpoint_id == above} == {parent}
    assert walk.broken_promises(engine) == []
    with engine.begin() as connection:
        again = replay_choice.preview(connection, chosen, options=Options(goes_to="matching")).summary
        assert again.count == 0, "they are live"
    attempt(engine, datetime.now(UTC), walk.DELIVERED, only=own)
    attempt(engine, datetime.now(UTC), walk.EXHAUSTED, only=above)
    with engine.begin() as connection:
        again = replay_choice.preview(connection, chosen, options=Options(goes_to="matching")).summary
        assert (again.count, again.already_delivered) == (7, 3)
        everything = replay_choice.filter_of_events(chosen, include_delivered=True)
        assert replay_choice.preview(connection, everything, options=Options(goes_to="matching")).summary.count == 10
    start(engine, chosen, goes_to="matching")
    assert step(engine) == 7
    with engine.connect() as connection:
        assert all(row.replay_of for row in walk.live(connection)), "it replays what had failed there"


@pytest.mark.parametrize("chosen", [Filter(states=FAILED), Filter(outcome="timeout"), Filter(undelivered=True)])
def test_what_speaks_of_deliveries_cannot_be_matched_anew(chosen: Filter) -> None:
    with pytest.raises(InvalidInput, match="conditions on events"):
        replay_choice.filter_of_events(chosen)


def test_to_one_endpoint_each_event_goes_once_and_no_tenants_but_its_own(engine: Engine) -> None:
    with engine.begin() as connection:
        mine, other = tenant(connection), tenant(connection)
        child = tenant(connection, mine)
        for owner in (mine, mine, child, other):
            walk.add_endpoint(connection, tenant_id=owner)
        for owner in (mine, child, other):
            walk.emit(connection, 2, now=None, tenant_id=owner)
    attempt(engine, datetime.now(UTC))
    with engine.begin() as connection:
        new = walk.add_endpoint(connection, tenant_id=mine).id
        summary = replay_choice.preview(connection, CHOSEN, options=Options(goes_to=new)).summary
        assert (summary.count, summary.not_visible) == (4, 2)
        with pytest.raises(NotFound):
            replay_choice.preview(connection, CHOSEN, options=Options(goes_to=new), own=other)
        with pytest.raises(NotFound):
            replay.start(connection, CHOSEN, by="test", tenant_id=other, options=Options(goes_to=new))
    start(engine, goes_to=new)
    total = 0
    while (count := step(engine, batch=1)) is not None:
        total += count
    assert total == 4
    assert dict(waiting(engine)) == {new: 4}
    with engine.connect() as connection:
        assert len({row.event_id for row in walk.live(connection)}) == 4
        assert {row.tenant_id for row in walk.live(connection)} == {mine}
    with engine.begin() as connection:
        assert replay_choice.preview(connection, CHOSEN).summary.count == 12, (
            "what went elsewhere was not replayed here"
        )
    attempt(engine, datetime.now(UTC), walk.DELIVERED)
    with engine.begin() as connection:
        again = replay_choice.preview(connection, CHOSEN, options=Options(goes_to=new)).summary
        assert (again.count, again.already_delivered) == (0, 4)


def test_how_far_it_is_is_told_with_its_pace_and_its_end(engine: Engine) -> None:
    failed_at(engine, 40)
    at = datetime.now(UTC)
    one = start(engine, now=at, rate=5.0)
    for n in range(1, 21):
        step(engine, at + timedelta(seconds=n / 5))
        attempt(engine, at + timedelta(seconds=n / 5), walk.DELIVERED if n % 2 else walk.EXHAUSTED)
    with engine.connect() as connection:
        progress = replay.progress(connection, replay.find(connection, one.id), now=at + timedelta(seconds=4))
        shown = replays.find(connection, one.id)
    assert shown is not None
    assert (shown.replayed, progress.counts) == (20, replay_endpoints.Counts(10, 10, 0))
    assert progress.pace == pytest.approx(5.0)
    assert progress.estimated_end == at + timedelta(seconds=8)
