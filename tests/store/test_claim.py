"""Who gets what, and when: the claim's fairness, its caps, its wakes and its races."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text

from dispatcher.flow import erase, register
from dispatcher.flow.prune import prune
from dispatcher.model.delivery import Claim, Result
from dispatcher.model.endpoint import EndpointStatus
from dispatcher.store import deliveries, endpoints, workers
from tests.support import walk
from tests.support.patience import until
from tests.support.walk import NOW


@contextmanager
def before(connection: Connection, part: str, action: Callable[[], object]) -> Iterator[None]:
    """Runs `action` once, just before the connection's next statement that contains `part`."""
    pending = [action]

    def listener(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if part in statement and pending:
            pending.pop()()

    event.listen(connection, "before_cursor_execute", listener)
    yield
    event.remove(connection, "before_cursor_execute", listener)
    assert not pending, f"no statement contained {part!r}"


def test_a_claim_holds_all_that_the_post_needs(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, type_="refund.failed", object_id="re_1")
        worker_id = walk.add_worker(connection)
        (claim,) = walk.claim(connection, worker_id)
        (row,) = walk.live(connection)
    assert (claim.delivery_id, claim.endpoint_id, claim.event.id) == (row.id, endpoint.id, row.event_id)
    assert (claim.seq, claim.number, claim.refunds, claim.expired) == (1, 1, 0, False)
    assert (claim.event.type, claim.event.mode, claim.event.payload) == ("refund.failed", "live", b'{"n":0}')
    assert claim.event.created_at == NOW
    assert (row.state, row.claimed_by, row.claim_seq, row.first_attempt_at) == ("in_flight", worker_id, 1, NOW)


def test_room_and_batch_bound_a_claim(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 30)
        worker_id = walk.add_worker(connection)
        assert walk.claim(connection, worker_id, room=0) == []
        claimed = deliveries.claim(connection, worker_id=worker_id, room=7, batch=300, now=NOW)
        assert (len(claimed.claims), claimed.more) == (7, True)
        assert walk.rows(connection, "SELECT room FROM dispatcher.workers")[0].room == 0
        claimed = deliveries.claim(connection, worker_id=worker_id, room=500, batch=11, now=NOW)
        assert (len(claimed.claims), claimed.more) == (11, True)
        assert walk.rows(connection, "SELECT room FROM dispatcher.workers")[0].room == 489
        claimed = deliveries.claim(connection, worker_id=worker_id, room=500, batch=300, now=NOW)
        assert (len(claimed.claims), claimed.more) == (12, False)
        assert deliveries.claim(connection, worker_id=worker_id, room=500, batch=300, now=NOW).claims == []


def test_a_worker_says_that_it_goes_on_until_it_has_found_nothing(engine: Engine) -> None:
    """It is not rung meanwhile. What it could take it says too, however much that is."""

    def state() -> tuple[bool, int, int]:
        (row,) = walk.rows(connection, "SELECT going, room FROM dispatcher.workers")
        return row.going, row.room, deliveries.demand(connection, now=NOW).workers

    with engine.begin() as connection:
        walk.add_endpoint(connection)
        worker_id = walk.add_worker(connection)
        assert state() == (False, 1000, 1)
        walk.emit(connection, 30)
        for room, more, after in ((20, True, (True, 0, 0)), (15, False, (False, 5, 1)), (9, False, (False, 5, 1))):
            assert deliveries.claim(connection, worker_id=worker_id, room=room, batch=300, now=NOW).more is more
            assert state() == after
        walk.emit(connection, 3)
        walk.claim(connection, worker_id, room=2)
        assert state() == (True, 0, 0)
        walk.claim(connection, worker_id, room=1)
        assert state() == (False, 0, 0)  # full, and nothing more is due
        walk.claim(connection, worker_id, room=7)
        assert state() == (False, 7, 1)
        walk.emit(connection, 2)
        walk.claim(connection, worker_id, room=1)
        workers.heartbeat(connection, worker_id, host="test", pid=1, room=6, term_s=30, now=NOW)
        assert state() == (False, 6, 1)  # whatever has stopped it


def test_a_worker_that_finds_all_due_lanes_locked_by_another_goes_on(engine: Engine) -> None:
    def claim(connection: Connection, worker_id: UUID, room: int) -> tuple[int, bool, bool]:
        claimed = deliveries.claim(connection, worker_id=worker_id, room=room, batch=300, now=NOW)
        sql = f"SELECT going FROM dispatcher.workers WHERE id = '{worker_id}'"
        return len(claimed.claims), claimed.more, walk.rows(connection, sql)[0].going

    with engine.begin() as connection:
        walk.add_endpoint(connection)
        one, other = walk.add_worker(connection), walk.add_worker(connection)
        walk.emit(connection, 30)
        assert claim(connection, one, 10) == (10, True, True)
    with engine.begin() as first, engine.begin() as second:
        assert claim(first, one, 5) == (5, True, True)
        assert claim(second, other, 100) == (0, True, True)
        first.rollback()
        assert claim(second, other, 100) == (20, False, False)
    with engine.begin() as connection:
        assert claim(connection, one, 5) == (0, False, False)


def test_a_bell_is_for_many_wakes_or_lanes(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        for _ in range(3):
            walk.add_worker(connection)
        found = []
        for emitted in range(1, 200):
            walk.emit(connection)
            if emitted in (1, 64, 65, 128, 129, 199):
                found.append(deliveries.demand(connection, now=NOW).bells)
        assert found == [1, 1, 2, 2, 3, 3]


def test_the_oldest_due_goes_first(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        for seconds in (3, 1, 2):
            walk.emit(connection, now=NOW + timedelta(seconds=seconds), object_id=f"at {seconds}")
        claims = walk.claim(connection, walk.add_worker(connection), now=NOW + timedelta(seconds=5), room=2)
        objects = dict(walk.rows(connection, "SELECT id, object_id FROM dispatcher.events"))
    assert {objects[claim.event.id] for claim in claims} == {"at 1", "at 2"}


def test_one_busy_endpoint_alone_fills_a_batch(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, max_in_flight=1000)
        walk.emit(connection, 400)
        assert len(walk.claim(connection, walk.add_worker(connection), batch=300)) == 300


def test_a_dead_endpoint_with_5000_due_does_not_crowd_out_the_others(engine: Engine) -> None:
    with engine.begin() as connection:
        dead = walk.add_endpoint(connection, event_types=("dead",), max_in_flight=1000)
        walk.emit(connection, 5000, type_="dead", now=NOW - timedelta(hours=1))
        healthy = [walk.add_endpoint(connection, event_types=(f"healthy{n}",)) for n in range(20)]
        for n in range(20):
            walk.emit(connection, 10, type_=f"healthy{n}")
        worker_id = walk.add_worker(connection)
        first = walk.per_endpoint(walk.claim(connection, worker_id, batch=105))
        assert len(first) == 21
        assert max(first.values()) <= 10
        second = first + walk.per_endpoint(walk.claim(connection, worker_id, batch=105))
    assert all(second[endpoint.id] == 10 for endpoint in healthy)
    assert second[dead.id] == 10


def test_a_busy_endpoint_that_emits_one_by_one_does_not_hide_the_other_wakes(engine: Engine) -> None:
    with engine.begin() as connection:
        busy = walk.add_endpoint(connection, event_types=("busy",), max_in_flight=1)
        quiet = walk.add_endpoint(connection, event_types=("quiet",))
        for _ in range(60):
            walk.emit(connection, type_="busy", now=NOW - timedelta(seconds=1))
        walk.emit(connection, type_="quiet")
        worker_id = walk.add_worker(connection)
        taken = walk.claim(connection, worker_id, room=10) + walk.claim(connection, worker_id, room=10)
    assert walk.per_endpoint(taken) == {busy.id: 1, quiet.id: 1}


def test_a_claimer_takes_other_lanes_than_one_whose_transaction_is_open(engine: Engine) -> None:
    with engine.begin() as connection:
        for n in range(10):
            walk.add_endpoint(connection, event_types=(f"t{n}",))
            walk.emit(connection, 5, type_=f"t{n}")
        first, second = walk.add_worker(connection), walk.add_worker(connection)
        # A first round leaves every lane ready, so that both ways to a lane are looked at: by ready_at and by wake.
        assert len(walk.claim(connection, first, room=10)) == 10
    for _ in range(2):
        with engine.connect() as one, engine.connect() as other:
            mine, theirs = walk.claim(one, first, room=4), walk.claim(other, second, room=4)
            assert (len(mine), len(theirs)) == (4, 4)
            assert not {claim.endpoint_id for claim in mine} & {claim.endpoint_id for claim in theirs}
            one.commit()
            other.commit()
        with engine.begin() as connection:
            for n in range(10):
                walk.emit(connection, type_=f"t{n}")


def test_a_claim_never_waits_for_another_or_for_a_producer(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 5)
        first, second = walk.add_worker(connection), walk.add_worker(connection)
    with (
        engine.connect() as claimer,
        engine.connect() as producer,
        engine.connect() as operator,
        engine.begin() as other,
    ):
        assert len(walk.claim(claimer, first, room=2)) == 2
        walk.emit(producer)
        endpoints.set_status(operator, endpoint.id, EndpointStatus.DISABLED, "by hand")
        other.execute(text("SET LOCAL statement_timeout = 500"))
        assert walk.claim(other, second) == []
        assert deliveries.demand(other, now=NOW).lanes
        for connection in (claimer, producer):
            connection.commit()
        assert len(walk.claim(other, second)) == 4
        operator.rollback()


@pytest.mark.parametrize("after_the_claim", [False, True], ids=["between lock and claim", "between claim and commit"])
def test_what_is_emitted_while_a_claim_runs_is_never_lost(engine: Engine, after_the_claim: bool) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        worker_id = walk.add_worker(connection)
    with engine.connect() as claimer, engine.connect() as producer:
        walk.emit(producer)  # inserted before the claimer looks, committed while it does
        if after_the_claim:
            taken = walk.claim(claimer, worker_id)
            producer.commit()
            claimer.commit()
        else:
            with before(claimer, "claimed AS", producer.commit):
                taken = walk.claim(claimer, worker_id)
            claimer.commit()
        assert len(taken) == (1 if after_the_claim else 2)
        taken += walk.claim_all(claimer, worker_id)
    assert len({claim.delivery_id for claim in taken}) == 2


def test_a_lane_at_its_cap_is_woken_by_a_record_that_commits_while_a_claim_finds_it_full(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=1)
        walk.emit(connection, 2)
        worker_id = walk.add_worker(connection)
        (claim,) = walk.claim(connection, worker_id)
        assert walk.lane(connection, endpoint.id).capped
        deliveries.wake(connection, endpoint.id, now=NOW)
    with engine.connect() as claimer, engine.connect() as recorder:
        walk.record(recorder, [walk.result(claim)])
        assert walk.claim(claimer, worker_id) == []  # its snapshot is older than the record
        recorder.commit()
        claimer.commit()
        assert deliveries.demand(claimer, now=NOW).lanes
        assert len(walk.claim(claimer, worker_id)) == 1


@pytest.mark.parametrize("ordered", [False, True], ids=["shared", "ordered"])
def test_a_lane_whose_only_candidate_is_cancelled_under_the_claim_is_not_put_to_sleep(
    engine: Engine, ordered: bool
) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=1, ordered=ordered)
        walk.emit(connection, 2)
        worker_id = walk.add_worker(connection)
        oldest = min(row.id for row in walk.live(connection))
    with engine.connect() as claimer, engine.connect() as operator, ThreadPoolExecutor(1) as pool:
        assert deliveries.cancel(operator, oldest, "by hand", now=NOW)
        claiming = pool.submit(walk.claim, claimer, worker_id)  # finds it, and waits for its row
        walk.wait_until_blocked(engine)
        operator.commit()
        assert claiming.result() == []
        claimer.commit()
        assert not walk.lane(claimer, endpoint.id).asleep
        assert len(walk.claim(claimer, worker_id)) == 1


def test_a_future_due_at_parks_the_lane_until_then(engine: Engine) -> None:
    due_at = NOW + timedelta(seconds=90)
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, not_before=due_at)
        worker_id = walk.add_worker(connection)
        assert not deliveries.demand(connection, now=NOW).lanes
        deliveries.wake(connection, endpoint.id, now=NOW)
        assert walk.claim(connection, worker_id) == []
        assert walk.lane(connection, endpoint.id).ready_at == due_at
        just_before = due_at - timedelta(microseconds=1)
        assert not deliveries.demand(connection, now=just_before).lanes
        assert walk.claim(connection, worker_id, now=just_before) == []
        assert deliveries.demand(connection, now=due_at).lanes
        assert len(walk.claim(connection, worker_id, now=due_at)) == 1
        assert walk.lane(connection, endpoint.id).asleep


def test_an_earlier_delivery_is_not_hidden_by_a_lane_parked_for_a_later_one(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, not_before=NOW + timedelta(hours=5))
        worker_id = walk.add_worker(connection)
        walk.emit(connection)
        assert len(walk.claim(connection, worker_id)) == 1
        walk.emit(connection, not_before=NOW + timedelta(seconds=30))
        assert len(walk.claim(connection, worker_id, now=NOW + timedelta(seconds=30))) == 1
        assert len(walk.claim(connection, worker_id, now=NOW + timedelta(hours=5))) == 1


def test_the_cap_holds_and_its_lane_sleeps_until_something_is_recorded(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=3)
        walk.emit(connection, 10)
        worker_id = walk.add_worker(connection)
        claims = walk.claim(connection, worker_id)
        assert len(claims) == 3
        lane = walk.lane(connection, endpoint.id)
        assert (lane.capped, lane.asleep) == (True, True)
        assert not deliveries.demand(connection, now=NOW + timedelta(days=1)).lanes
        assert walk.claim(connection, worker_id, now=NOW + timedelta(days=1)) == []
        walk.record(connection, [walk.result(claims[0])])
        assert deliveries.demand(connection, now=NOW).lanes
        assert len(walk.claim(connection, worker_id)) == 1


def test_the_cap_halves_to_one_on_slow_failures_and_grows_by_one_on_success(engine: Engine) -> None:
    stalled = walk.Outcome(walk.OutcomeClass.DEADLINE, known=False, duration_ms=15_000)

    def caps(outcome: bool, count: int) -> list[int]:
        seen = []
        for _ in range(count):
            (claim, *_) = walk.claim(connection, worker_id, room=1)
            walk.record(connection, [walk.result(claim) if outcome else walk.result(claim, walk.retry(3600), stalled)])
            deliveries.claim(connection, worker_id=worker_id, room=1, batch=1, now=NOW)
            seen.append(walk.lane(connection, endpoint.id).cap)
            in_flight = "SELECT id FROM dispatcher.deliveries WHERE state = 'in_flight'"
            for row in walk.rows(connection, in_flight):  # give back what the look at the lane took
                connection.execute(
                    text("UPDATE dispatcher.deliveries SET state = 'waiting', claimed_by = NULL WHERE id = :id"),
                    {"id": row.id},
                )
            deliveries.wake(connection, endpoint.id, now=NOW)
        return seen

    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=8)
        walk.emit(connection, 40)
        worker_id = walk.add_worker(connection)
        assert caps(outcome=False, count=5) == [4, 2, 1, 1, 1]
        assert caps(outcome=True, count=9) == [2, 3, 4, 5, 6, 7, 8, 8, 8]


STALLED = walk.Outcome(walk.OutcomeClass.DEADLINE, known=False, duration_ms=15_000)
OF_ANSWER: dict[str, Callable[[Claim], Result]] = {
    "delivered": walk.result,
    "refused": lambda claim: walk.result(claim, walk.retry(3600)),
    "stalled": lambda claim: walk.result(claim, walk.retry(3600), STALLED),
}


def rounds_until_all_were_attempted(
    connection: Connection, endpoint_id: UUID, answer: Callable[[int], str], count: int
) -> tuple[int, list[int]]:
    """How many rounds of claim and record the endpoint's backlog of `count` takes, and the cap after each claim."""
    worker_id = walk.add_worker(connection, room=10_000)
    attempted, caps = 0, []
    while attempted < count:
        claims = walk.claim(connection, worker_id, room=10_000)
        assert claims, f"nothing was claimed after {attempted} of {count}"
        caps.append(walk.lane(connection, endpoint_id).cap)
        walk.record(connection, [OF_ANSWER[answer(attempted + n)](claim) for n, claim in enumerate(claims)])
        attempted += len(claims)
    assert attempted == count
    return len(caps), caps


def stall_until_the_cap_is_one(connection: Connection, endpoint_id: UUID) -> None:
    """Has attempts at the endpoint stall until it has one slot; their retries are not due soon."""
    worker_id = walk.add_worker(connection)
    while walk.lane(connection, endpoint_id).cap > 1:
        walk.emit(connection)
        (claim,) = walk.claim(connection, worker_id)
        walk.record(connection, [OF_ANSWER["stalled"](claim)])


def test_a_receiver_that_hung_and_then_fails_fast_takes_a_backlog_in_few_rounds(engine: Engine) -> None:
    """Each answer within a second adds one to the cap, so the cap doubles each round, up to the endpoint's limit."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=64)
        stall_until_the_cap_is_one(connection, endpoint.id)
        walk.emit(connection, 1000)
        rounds, caps = rounds_until_all_were_attempted(connection, endpoint.id, lambda _: "refused", 1000)
    assert max(caps) == 64
    assert rounds <= 7 + -(-1000 // 64)  # 1, 2, 4 … 64, then 64 a round; one after another would be 1,000


def test_fast_failures_leave_the_cap_as_it_is(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=64)
        walk.emit(connection, 640)
        rounds, caps = rounds_until_all_were_attempted(connection, endpoint.id, lambda _: "refused", 640)
    assert (rounds, set(caps)) == (10, {64})


def test_a_receiver_that_hangs_on_every_other_request_keeps_few_slots(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=64)
        walk.emit(connection, 200)
        alternate = ("stalled", "refused")
        _, caps = rounds_until_all_were_attempted(connection, endpoint.id, lambda n: alternate[n % 2], 200)
    assert max(caps[2:]) <= 34  # after the 64 of the first round
    assert max(caps[6:]) <= 3


@given(
    answers=st.lists(st.sampled_from(["delivered", "refused", "stalled"]), min_size=1, max_size=12),
    limit=st.sampled_from([1, 3, 8, 64]),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_cap_stays_between_one_and_the_limit_and_only_stalls_lower_it(
    engine: Engine, answers: list[str], limit: int
) -> None:
    with engine.connect() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=limit)
        worker_id = walk.add_worker(connection)
        cap = limit
        for answer in answers:
            walk.emit(connection)
            (claim,) = walk.claim(connection, worker_id)
            walk.record(connection, [OF_ANSWER[answer](claim)])
            deliveries.wake(connection, endpoint.id, now=NOW)
            walk.claim(connection, worker_id)
            now = walk.lane(connection, endpoint.id).cap
            assert now == (max(1, cap // 2) if answer == "stalled" else min(limit, cap + 1))
            cap = now
        connection.rollback()


def test_a_failure_on_our_side_leaves_the_cap_alone(engine: Engine) -> None:
    internal = walk.Outcome(walk.OutcomeClass.INTERNAL, error="no file descriptors")
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, max_in_flight=8)
        walk.emit(connection, 2)
        worker_id = walk.add_worker(connection)
        claims = walk.claim(connection, worker_id)
        walk.record(connection, [walk.result(c, walk.retry(30, charged=False), internal) for c in claims])
        walk.claim(connection, worker_id, now=NOW + timedelta(seconds=30))
        assert walk.lane(connection, endpoint.id).cap == 8


def test_a_lowered_limit_holds_from_the_next_claim_on(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, max_in_flight=8)
        walk.emit(connection, 20)
        worker_id = walk.add_worker(connection)
        assert len(walk.claim(connection, worker_id, room=5)) == 5
        connection.execute(text("UPDATE dispatcher.endpoints SET max_in_flight = 6"))
        assert len(walk.claim(connection, worker_id)) == 1


def test_a_disabled_endpoints_deliveries_are_held_and_sent_once_it_is_enabled(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        worker_id = walk.add_worker(connection, now=None)
        walk.emit(connection, now=None)
        endpoints.set_status(connection, endpoint.id, EndpointStatus.DISABLED, "by hand")
        walk.emit(connection, now=None)
    with engine.begin() as connection:
        assert walk.claim(connection, worker_id, now=None) == []
        assert walk.lane(connection, endpoint.id).asleep
        assert not deliveries.demand(connection).lanes
        assert [row.state for row in walk.live(connection)] == ["waiting", "waiting"]
        register.enable(connection, endpoint.id)
    with engine.begin() as connection:
        assert deliveries.demand(connection).lanes
        assert len(walk.claim(connection, worker_id, now=None)) == 2


def test_what_is_held_longer_than_seven_days_expires(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        endpoints.set_status(connection, endpoint.id, EndpointStatus.DISABLED, "by hand")
        walk.emit(connection)
        walk.emit(connection, expires_at=NOW + timedelta(days=9))
        prune(connection, now=NOW + timedelta(days=7) - timedelta(seconds=1))
        assert walk.ended(connection) == []
        prune(connection, now=NOW + timedelta(days=7))
        (row,) = walk.ended(connection)
        assert (row.state, row.reason) == ("expired", "held for 7 days, until it expired")
        prune(connection, now=NOW + timedelta(days=9))
        assert len(walk.ended(connection)) == 2


def test_deleting_an_endpoint_cancels_what_waits_and_pruning_what_comes_back(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 5)
        worker_id = walk.add_worker(connection)
        (claim,) = walk.claim(connection, worker_id, room=1)
    with engine.connect() as producer, engine.begin() as connection:
        walk.emit(producer)  # it chose its endpoints before the deletion
        assert register.delete(connection, endpoint.id) == 4
        connection.commit()
        producer.commit()
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(5))])
        assert walk.claim(connection, worker_id, now=NOW + timedelta(days=1)) == []
        assert walk.emit(connection)[0].fanout == 0
        prune(connection, now=NOW)
        assert walk.live(connection) == []
        assert {row.state for row in walk.ended(connection)} == {"cancelled"}
        assert len(walk.ended(connection)) == 6
    assert walk.broken_promises(engine) == []


@pytest.mark.parametrize("by", ["cancellation", "erasure"])
def test_what_is_cancelled_ends_when_it_is_had_and_not_when_it_was_asked_for(engine: Engine, by: str) -> None:
    """A cancellation that waits for a delivery's row while an attempt is made and recorded ended before that attempt
    began, by the log: the time of a statement is that of its start.
    """
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 1, object_id="pay_1", now=None)
        ((id_,),) = connection.execute(text("SELECT id FROM dispatcher.deliveries")).all()

    def cancel() -> None:
        with engine.begin() as connection:
            if by == "cancellation":
                deliveries.cancel(connection, id_, "by hand")
            else:
                erase.step(connection, only=erase.start(connection, "pay_1", by="test").id)

    with engine.connect() as attempt:
        attempt.execute(text("SELECT FROM dispatcher.deliveries FOR UPDATE"))
        waiting = threading.Thread(target=cancel)
        waiting.start()
        with engine.connect() as observer:
            until(
                lambda: observer.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one() > 0,
                "the cancellation waits",
            )
        attempted_at = attempt.execute(text("SELECT clock_timestamp()")).scalar_one()
        attempt.rollback()
        waiting.join()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT ended_at FROM dispatcher.ended_deliveries")).scalar_one() > attempted_at


def test_cancelling_in_batches_gets_past_deliveries_in_flight(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 5)
        assert len(walk.claim(connection, walk.add_worker(connection), room=3)) == 3
        assert deliveries.cancel_all_of(connection, endpoint.id, "by hand", batch=2, now=NOW) == 2


def test_a_delivery_past_its_expiry_is_claimed_as_expired(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, expires_at=NOW + timedelta(seconds=10))
        walk.emit(connection, expires_at=NOW + timedelta(seconds=11))
        walk.emit(connection)
        claims = walk.claim(connection, walk.add_worker(connection), now=NOW + timedelta(seconds=10))
    assert sorted(claim.expired for claim in claims) == [False, False, True]


def test_hurry_makes_a_parked_delivery_due_at_once(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, not_before=NOW + timedelta(hours=5))
        worker_id = walk.add_worker(connection)
        (row,) = walk.live(connection)
        assert deliveries.hurry(connection, row.id, now=NOW)
        assert len(walk.claim(connection, worker_id)) == 1
        assert not deliveries.hurry(connection, row.id, now=NOW)
        assert not deliveries.cancel(connection, row.id, "too late", now=NOW)


def test_concurrent_claimers_claim_each_delivery_once_and_never_above_a_cap(engine: Engine) -> None:
    """Four claimers and their records, on connections of their own, against 30 lanes and a crowded one."""
    lanes, each, crowd = 30, 60, 600
    with engine.begin() as connection:
        walk.add_endpoint(connection, event_types=("crowd",), max_in_flight=7)
        walk.emit(connection, crowd, type_="crowd")
        for n in range(lanes):
            walk.add_endpoint(connection, event_types=(f"t{n}",), max_in_flight=5)
        for _ in range(3):
            for n in range(lanes):
                walk.emit(connection, each // 3, type_=f"t{n}")
    total = crowd + lanes * each
    claimed: list[UUID] = []
    above: list[Any] = []
    over = threading.Event()
    above_cap = text("""
        SELECT e.id, count(*) FROM dispatcher.deliveries d JOIN dispatcher.endpoints e ON e.id = d.endpoint_id
        WHERE d.state = 'in_flight' GROUP BY e.id HAVING count(*) > e.max_in_flight""")

    def watch() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.wait(0.005):
                above.extend(connection.execute(above_cap))

    def work() -> None:
        idle = 0
        with engine.begin() as connection:
            worker_id = walk.add_worker(connection)
        while idle < 200 and len(claimed) < total:
            with engine.begin() as connection:
                claims = walk.claim(connection, worker_id, room=97, batch=97)
            claimed.extend(claim.delivery_id for claim in claims)
            idle = 0 if claims else idle + 1
            half = len(claims) // 2
            for part in (claims[:half], claims[half:]):
                if part:
                    with engine.begin() as connection:
                        assert walk.record(connection, [walk.result(claim) for claim in part]) == len(part)

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch)
        try:
            for done in [pool.submit(work) for _ in range(4)]:
                done.result()
        finally:
            over.set()
        watching.result()
    assert above == []
    assert len(claimed) == len(set(claimed)) == total
    assert walk.broken_promises(engine) == []
    with engine.connect() as connection:
        assert walk.live(connection) == []


def test_the_last_room_of_a_worker_is_for_lanes_that_answer(engine: Engine) -> None:
    with engine.begin() as connection:
        hanging = walk.add_endpoint(connection, event_types=("hangs",))
        walk.add_endpoint(connection, event_types=("answers",))
        worker_id = walk.add_worker(connection)
        walk.emit(connection, 60, type_="hangs")
        held = deliveries.claim(connection, worker_id=worker_id, room=20, batch=20, now=NOW).claims
        assert {claim.endpoint_id for claim in held} == {hanging.id}
        walk.emit(connection, 60, type_="answers")
        claimed = deliveries.claim(connection, worker_id=worker_id, room=20, batch=20, lane_limit=8, now=NOW)
        assert [claim.event.type for claim in claimed.claims] == ["answers"] * 8
        # It is looked at again as soon as something of it has come to an end.
        walk.record(connection, [walk.result(claim) for claim in held])
        walk.record(connection, [walk.result(claim) for claim in claimed.claims])
        again = deliveries.claim(connection, worker_id=worker_id, room=40, batch=40, now=NOW).claims
    assert {claim.event.type for claim in again} == {"answers", "hangs"}


def test_a_lane_that_one_worker_has_no_room_for_is_soon_looked_at_by_another(engine: Engine) -> None:
    def look(worker_id: UUID, lane_limit: int | None, after_s: float) -> int:
        now = NOW + timedelta(seconds=after_s)
        claimed = deliveries.claim(connection, worker_id=worker_id, room=20, batch=20, lane_limit=lane_limit, now=now)
        assert not (claimed.more and not claimed.claims)
        return len(claimed.claims)

    with engine.begin() as connection:
        walk.add_endpoint(connection)
        full, free = walk.add_worker(connection), walk.add_worker(connection)
        walk.emit(connection, 60)
        assert look(full, None, 0) == 20
        assert look(full, 8, 0) == 0
        assert look(free, None, 0.2) == 0  # not at once, or it would be looked at all the time
        assert deliveries.demand(connection, now=NOW + timedelta(seconds=0.3)).bells == 1
        assert look(full, 8, 0.3) == 0
        assert look(free, None, 0.6) == 20
