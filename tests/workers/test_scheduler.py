"""The scheduler's steps, taken one by one."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from dispatcher.clock import Clock
from dispatcher.flow import replay, replay_choice, replay_turn
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import clock as due_clock
from dispatcher.store import workers
from dispatcher.workers.scheduler import LEADER_TERM_S, Scheduler, _listen
from tests.support import walk
from tests.support.patience import PATIENCE_S
from tests.workers.conftest import until

TERM_S = 30.0


class Time:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def server_started_at(at: datetime) -> Callable[..., workers.ServerClock]:
    return lambda *_, **__: workers.ServerClock(datetime.now(UTC), at)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def rung() -> list[int]:
    return []


@pytest.fixture
async def make_scheduler(hot: AsyncEngine, rung: list[int], time: Time) -> Callable[..., Scheduler]:
    return lambda ring=rung.append: Scheduler(
        hot, ring, term_s=TERM_S, clock=Clock(monotonic=time), broker="redis://cache/0"
    )


@pytest.fixture
async def scheduler(make_scheduler: Callable[..., Scheduler]) -> Scheduler:
    return make_scheduler()


def lost_claim(engine: Engine) -> None:
    """A delivery in flight at a worker whose row is gone."""
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        worker_id = walk.add_worker(connection, now=None)
        assert len(walk.claim(connection, worker_id, now=None)) == 1
        workers.retire(connection, worker_id)


async def test_a_tick_rings_only_when_something_is_due_and_at_most_once_for_each_worker_with_room(
    engine: Engine, scheduler: Scheduler, rung: list[int]
) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.add_worker(connection, now=None)
        walk.add_worker(connection, now=None)
        walk.add_worker(connection, now=None, room=0)
        walk.add_worker(connection, now=None, term_s=-1)
    assert not await scheduler.tick()
    assert rung == []
    with engine.begin() as connection:
        walk.emit(connection, now=None)
    assert await scheduler.tick()
    assert rung == [1]  # one worker takes all that
    with engine.begin() as connection:
        for _ in range(200):
            walk.emit(connection, now=None)
    assert await scheduler.tick()
    assert rung == [1, 2]


async def test_a_worker_that_goes_on_of_itself_is_not_rung(
    engine: Engine, scheduler: Scheduler, rung: list[int]
) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 9, now=None)
        walk.claim(connection, walk.add_worker(connection, now=None), now=None, room=5)
    assert not await scheduler.tick()  # the next look is not sooner than when nothing is due
    assert rung == []


async def test_a_tick_notices_a_step_of_the_clock_by_the_statement_with_which_it_looks(
    engine: Engine, scheduler: Scheduler
) -> None:
    await scheduler.tick()
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.clock SET correction = interval '1 hour'"))
    await scheduler.tick()
    with engine.connect() as connection:
        (step,) = due_clock.steps(connection)
        assert (step.after - step.before).total_seconds() == pytest.approx(3600, abs=PATIENCE_S)


async def test_looks_keep_their_distance_however_often_producers_wake(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def tick() -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(scheduler, "tick", tick)
    clock = asyncio.get_running_loop().time
    began_s = clock()
    ticking = asyncio.create_task(scheduler._keep_ticking())
    for _ in range(200):
        scheduler.wake()
        await asyncio.sleep(0.001)
    scheduler.stop()
    await ticking
    assert 2 <= looks <= (clock() - began_s) / 0.01 + 2


async def test_nobody_is_rung_for_while_no_worker_has_room(
    engine: Engine, scheduler: Scheduler, rung: list[int]
) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        walk.add_worker(connection, now=None, room=0)
    assert not await scheduler.tick()
    assert rung == []


async def test_an_outage_of_the_broker_is_logged_once_and_slows_the_ticks_down(
    engine: Engine, make_scheduler: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Exception | None] = [OSError("refused"), BrokerAway("away"), RuntimeError("full"), None, None] * 2

    def ring(times: int) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        walk.add_worker(connection, now=None)
    scheduler = make_scheduler(ring)
    with caplog.at_level("INFO", "dispatcher.workers.scheduler"):
        rang = [await scheduler.tick() for _ in range(len(outcomes))]
    assert rang == [False, False, False, True, True] * 2, "one that failed is not tried again at once"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["bell.failed broker=redis://cache/0 error=refused", "broker.usable broker=redis://cache/0"] * 2


@pytest.mark.parametrize(
    ("step", "event"),
    [("_lead", "leader.election_failed"), ("rescue", "rescue.failed"), ("_repair", "clock.repair_failed")],
)
async def test_what_fails_beside_the_rescue_is_not_logged_as_a_rescue(
    scheduler: Scheduler, step: str, event: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        scheduler.stop()
        raise OperationalError("SELECT 1", {}, Exception("refused"))

    monkeypatch.setattr(scheduler, step, fail)
    with caplog.at_level("WARNING", "dispatcher.workers.scheduler"):  # another test may have left it at info
        await scheduler._keep_rescuing()
    (line,) = caplog.messages
    assert line.partition(" ")[0] == event
    assert line.endswith(" error=refused")


async def test_a_scheduler_that_cannot_hear_wakeups_says_that_and_not_that_one_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "dispatcher.workers.scheduler"):
        listening = asyncio.create_task(_listen("redis://127.0.0.1:1/0", lambda: None))
        await until(lambda: caplog.messages)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert [line.partition(" ")[0] for line in caplog.messages] == ["wakeup.listen_failed"]


async def test_of_two_schedulers_one_leads_until_its_term_has_passed(
    engine: Engine, make_scheduler: Callable[..., Scheduler]
) -> None:
    one, other = make_scheduler(), make_scheduler()
    assert await one._lead()
    assert not await other._lead()
    assert await one._lead()
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.leader SET expires_at = statement_timestamp()"))
    assert await other._lead()
    assert not await one._lead()
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT term FROM dispatcher.leader")[0].term == 2


async def test_the_dead_are_rescued_only_after_a_whole_term_of_good_connection(
    engine: Engine, scheduler: Scheduler, time: Time
) -> None:
    lost_claim(engine)
    time.at_s += TERM_S - 0.1
    assert await scheduler.rescue() == 0
    time.at_s += 0.1
    assert await scheduler.rescue() == 1
    assert await scheduler.rescue() == 0


async def test_a_lost_connection_starts_the_term_anew(
    engine: Engine,
    postgres: EmbeddedPostgres,
    migrated_database_url: str,
    scheduler: Scheduler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost_claim(engine)
    ticked = asyncio.Event()
    tick = scheduler.tick

    async def watched() -> bool:
        try:
            return await tick()
        except OperationalError:
            ticked.set()
            raise

    monkeypatch.setattr(scheduler, "tick", watched)
    ticking = asyncio.create_task(scheduler._keep_ticking())
    await asyncio.sleep(0.05)
    time.at_s += TERM_S + 1
    while not ticked.is_set():
        walk.terminate_backends(postgres, migrated_database_url)
        await asyncio.sleep(0.02)
    scheduler.stop()
    await ticking
    scheduler._stopping.clear()
    engine.dispose()
    assert await scheduler.rescue() == 0
    time.at_s += TERM_S
    assert await scheduler.rescue() == 1


async def test_a_server_that_was_started_anew_rescues_nobody_for_a_term_whatever_its_clock_says(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its start, a clock that was set would make it look much older than a term, or not started yet."""
    time.at_s += TERM_S
    monkeypatch.setattr(workers, "server_clock", server_started_at(STARTED_AT))
    assert await scheduler.rescue() == 0
    lost_claim(engine)
    monkeypatch.setattr(workers, "server_clock", server_started_at(STARTED_AT - timedelta(days=1)))
    assert await scheduler.rescue() == 0
    time.at_s += TERM_S - 1
    assert await scheduler.rescue() == 0
    time.at_s += 1
    assert await scheduler.rescue() == 1


async def test_a_database_that_stood_still_rescues_nobody_until_heartbeats_could_be_renewed(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error tells of it: a statement took very long, and when it went on the heartbeats were old."""
    lost_claim(engine)
    time.at_s += TERM_S

    def stand_still(*_: Any, **__: Any) -> workers.ServerClock:
        time.at_s += 60
        return workers.ServerClock(datetime.now(UTC), STARTED_AT)

    monkeypatch.setattr(workers, "server_clock", stand_still)
    assert await scheduler.rescue() == 0
    monkeypatch.setattr(workers, "server_clock", server_started_at(STARTED_AT))
    assert await scheduler.rescue() == 0
    time.at_s += TERM_S
    assert await scheduler.rescue() == 1


async def test_a_backlog_of_old_keys_is_pruned_to_its_end_and_not_a_thousand_a_minute(
    engine: Engine, scheduler: Scheduler
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO dispatcher.idempotency (tenant_id, key, event_id, body_sha256, expires_at)
            SELECT gen_random_uuid(), n::text, gen_random_uuid(), '', statement_timestamp() - interval '1 hour'
            FROM generate_series(1, 2500) n""")
        )
    assert await scheduler._lead()
    await scheduler._prune()
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT count(*) AS n FROM dispatcher.idempotency")[0].n == 0


async def run_until(scheduler: Scheduler, condition: Callable[[], object]) -> None:
    """Runs the scheduler with all its duties until the condition holds."""
    running = asyncio.create_task(scheduler.run())
    try:
        await until(condition)
    finally:
        scheduler.stop()
        await running


def refunds(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return [row.refunds for row in walk.live(connection)]


DUTIES = {
    "partitions": "prune.make_partition",
    "erase": "erase.step",
    "prune": "prune.prune",
    "fold": "counts.take",
    "replay": "replay_turn.take_turn",
    "retain": "retention.step",
}


@pytest.mark.parametrize("duty", DUTIES)
async def test_a_duty_that_is_stuck_holds_up_no_other_and_the_rescue_least_of_all(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch, duty: str
) -> None:
    """The others are done while it hangs, and so is the rescue."""
    done: set[str] = set()
    let_go = threading.Event()

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(connection: Connection, *given: Any, **values: Any) -> Any:
            done.add(name)
            if name == duty:
                await_only(asyncio.to_thread(let_go.wait, PATIENCE_S))
            return function(connection, *given, **values)

        return noting

    for name, function in DUTIES.items():
        module, _, attribute = function.partition(".")
        patched = getattr(importlib.import_module("dispatcher.workers.scheduler"), module)
        monkeypatch.setattr(patched, attribute, note(name, getattr(patched, attribute)))
    for pause in ("FOLD_EVERY_S", "PRUNE_EVERY_S"):
        monkeypatch.setattr(f"dispatcher.workers.scheduler.{pause}", 0.01)
    monkeypatch.setattr("dispatcher.workers.scheduler.RESCUE_EVERY_S", 0.01)
    lost_claim(engine)
    time.at_s += TERM_S
    running = asyncio.create_task(scheduler.run())
    await until(lambda: done == DUTIES.keys())
    await until(lambda: refunds(engine) == [1])
    let_go.set()
    scheduler.stop()
    await running


async def test_a_table_that_is_locked_keeps_pruning_waiting_but_not_the_rescue(
    engine: Engine, scheduler: Scheduler, time: Time
) -> None:
    lost_claim(engine)
    time.at_s += TERM_S
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE dispatcher.idempotency IN ACCESS EXCLUSIVE MODE"))
        running = asyncio.create_task(scheduler.run())
        await asyncio.to_thread(walk.wait_until_blocked, engine)
        await until(lambda: refunds(engine) == [1])
        assert holder.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one() > 0
    scheduler.stop()
    await running


@pytest.mark.parametrize("duty", DUTIES)
async def test_a_statement_that_hangs_is_ended_by_its_duty_s_limit_and_the_duty_is_tried_again(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch, duty: str
) -> None:
    tries = 0

    def hang(connection: Connection, *_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        time.at_s += 1  # the duty's turn comes again
        connection.execute(text("SELECT pg_sleep(3600)"))

    monkeypatch.setattr(f"dispatcher.workers.scheduler.{DUTIES[duty]}", hang)
    for limit in ("DUTY_TIMEOUT_S", "RETAIN_TIMEOUT_S", "RESCUE_EVERY_S", "FOLD_EVERY_S", "PRUNE_EVERY_S"):
        monkeypatch.setattr(f"dispatcher.workers.scheduler.{limit}", 0.05)
    await run_until(scheduler, lambda: tries >= 2)


async def test_a_rescue_that_hangs_is_ended_and_a_lock_that_it_waited_for_does_not_put_it_off(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.workers.scheduler.RESCUE_LOCK_S", 0.01)
    lost_claim(engine)
    time.at_s += TERM_S
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE dispatcher.attempts IN ACCESS EXCLUSIVE MODE"))
        running = asyncio.create_task(scheduler._keep_rescuing())
        await asyncio.to_thread(walk.wait_until_blocked, engine)
        assert refunds(engine) == [0]
    await until(lambda: refunds(engine) == [1])
    scheduler.stop()
    await running
    monkeypatch.setattr("dispatcher.workers.scheduler.RESCUE_TIMEOUT_S", 0.01)
    monkeypatch.setattr(
        "dispatcher.workers.scheduler.rescue.rescue", lambda c, *_, **__: c.execute(text("SELECT pg_sleep(3600)"))
    )
    scheduler._stopping.clear()
    with pytest.raises(OperationalError, match="statement timeout"):
        await scheduler.rescue()


async def test_making_partitions_never_holds_one_lock_while_it_waits_for_another(
    engine: Engine, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_at_once(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = '50ms'"))

    monkeypatch.setattr("dispatcher.store.partitions.lock_briefly", lock_at_once)
    with engine.connect() as reader:
        before = partitions_of(reader)
        reader.rollback()
        reader.execute(text("SELECT FROM dispatcher.ended_deliveries_default"))
        with pytest.raises(OperationalError, match="lock timeout"):
            await scheduler._make_partitions()
        made = partitions_of(reader) - before
    assert len(made) == 1, "what was locked before the step that had to wait has been committed"
    assert made.pop().startswith("events_")


def partitions_of(connection: Connection) -> set[str]:
    return set(
        connection.execute(text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")).scalars()
    )


async def test_it_runs_until_it_is_stopped_and_does_its_duties_meanwhile(
    engine: Engine, scheduler: Scheduler, time: Time, rung: list[int]
) -> None:
    lost_claim(engine)
    with engine.begin() as connection:
        walk.add_worker(connection, now=None)
    time.at_s += TERM_S
    running = asyncio.create_task(scheduler.run())
    await until(lambda: rung)
    scheduler.stop()
    await running
    with engine.connect() as connection:
        assert [row.refunds for row in walk.live(connection)] == [1]


def exhausted(engine: Engine, count: int) -> None:
    """So many deliveries that have failed for good."""
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, count, now=None)
        claims = walk.claim_all(connection, walk.add_worker(connection, now=None), now=None)
        walk.record(connection, [walk.result(claim, walk.EXHAUSTED) for claim in claims], now=None)


def start_replay(engine: Engine, **values: Any) -> UUID:
    with engine.begin() as connection:
        options = replay_choice.Options(**values)
        return replay.start(connection, of_failed(Filter()), by="test", options=options).id


def replayed(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(walk.live(connection))


async def test_a_round_of_replays_is_bounded_in_time_and_goes_on_in_the_next(
    engine: Engine, scheduler: Scheduler, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted(engine, 5)
    start_replay(engine)
    take_turn = replay_turn.take_turn

    def slow_turn(connection: Connection, *, but: tuple[UUID, ...], clock: Clock) -> replay_turn.Step | None:
        time.at_s += 0.6
        return take_turn(connection, batch=1, but=but, clock=clock)

    monkeypatch.setattr("dispatcher.workers.scheduler.replay_turn.take_turn", slow_turn)
    await scheduler._lead()
    made = []
    for _ in range(3):
        await scheduler.replay()
        made.append(replayed(engine))
    assert made == [2, 4, 5]


async def test_a_replay_with_a_rate_waits_for_its_time_and_keeps_no_other_waiting(
    engine: Engine, scheduler: Scheduler
) -> None:
    exhausted(engine, 4)
    slow = start_replay(engine, rate=0.01)
    await scheduler._lead()
    await scheduler.replay()
    assert replayed(engine) == 0
    with engine.begin() as connection:  # a hundred seconds later
        connection.execute(text("UPDATE dispatcher.replays SET created_at = created_at - interval '101 seconds'"))
    await scheduler.replay()
    assert replayed(engine) == 1
    start_replay(engine)
    await scheduler.replay()
    assert replayed(engine) == 4
    with engine.connect() as connection:
        assert {row.replay_id for row in walk.live(connection)} >= {slow}


async def test_nothing_is_replayed_without_the_lead(engine: Engine, scheduler: Scheduler, time: Time) -> None:
    exhausted(engine, 2)
    start_replay(engine)
    assert not await scheduler.replay()
    assert replayed(engine) == 0
    await scheduler._lead()
    time.at_s += LEADER_TERM_S  # whoever leads now, it may be another
    assert not await scheduler.replay()
    assert replayed(engine) == 0


async def test_a_paused_replay_is_left_alone(engine: Engine, scheduler: Scheduler) -> None:
    exhausted(engine, 2)
    one = start_replay(engine)
    with engine.begin() as connection:
        replay.set_state(connection, one, "paused", by="test")
    await scheduler._lead()
    await scheduler.replay()
    assert replayed(engine) == 0
    with engine.begin() as connection:
        replay.set_state(connection, one, "running", by="test")
    await scheduler.replay()
    assert replayed(engine) == 2


async def test_cancellations_are_carried_out_too(engine: Engine, scheduler: Scheduler) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 3, now=None)
        replay.start(connection, Filter(), by="test", kind="cancellation")
    await scheduler._lead()
    await scheduler.replay()
    assert replayed(engine) == 0
    with engine.connect() as connection:
        assert [row.state for row in walk.ended(connection)] == ["cancelled"] * 3


@pytest.mark.parametrize("bound", ["FOLD_BATCH", "FOLD_COUNTS"])
async def test_tallies_are_folded_by_bounded_batches_until_there_are_none(
    engine: Engine, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(f"dispatcher.workers.scheduler.{bound}", 2)
    monkeypatch.setattr("dispatcher.workers.scheduler.FOLD_BITE", 1)
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        for _ in range(5):
            walk.emit(connection, now=None)
            claims = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
            walk.record(connection, [walk.result(claim) for claim in claims], now=None)
    whole = 0
    while await scheduler._fold(paced=not whole):
        whole += 1
    assert whole == {"FOLD_BATCH": 2, "FOLD_COUNTS": 5}[bound]  # each tally has two counts
    with engine.connect() as connection:
        assert walk.rows(connection, "SELECT FROM dispatcher.tallies") == []
        found = walk.rows(
            connection,
            "SELECT grain, sum(n) AS n FROM dispatcher.counts WHERE endpoint_id = :id AND kind = 'end' GROUP BY 1",
            id=endpoint.id,
        )
    assert {row.grain: row.n for row in found} == {"5min": 5, "hour": 5, "day": 5}
