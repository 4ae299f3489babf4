"""Steps of the database's clock, noticed by a monotonic clock in the test's hands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher.clock import SYSTEM, Clock
from dispatcher.flow.due_clock import STEP_S, DueClock
from dispatcher.store import clock as store
from dispatcher.store import log, story
from dispatcher.store.clock import Reading
from tests.support import walk

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TERM_S = 30.0
HOUR = timedelta(hours=1)


@dataclass
class Database:
    """A database's clock beside one that cannot be set: `offset_s` is how far it is from the latter."""

    monotonic_s: float = 1000.0
    offset_s: float = 1_800_000_000.0
    seq: int = 0
    round_trip_s: float = 0.002

    def process(self, term_s: float = TERM_S) -> DueClock:
        return DueClock(Clock(boottime=lambda: self.monotonic_s), name="test", term_s=term_s)

    def observed_by(self, process: DueClock) -> float | None:
        """By how much it would correct the due clock after a reading, in the middle of the round trip."""
        asked_at_s = self.monotonic_s
        read_at = EPOCH + timedelta(seconds=asked_at_s + self.round_trip_s / 2 + self.offset_s)
        self.monotonic_s += self.round_trip_s
        step = process.observe(Reading(read_at, self.seq, "1"), asked_at_s, self.monotonic_s)
        return None if step is None else step.change_s

    @property
    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic_s + self.offset_s)


@pytest.fixture
def database() -> Database:
    return Database()


def test_before_a_reading_nothing_is_known(database: Database) -> None:
    process = database.process()
    assert process.bounds is None
    assert process.stamp(database.now) == database.now
    assert not process.has_stepped


def test_the_bounds_hold_the_time_and_widen_slowly(database: Database) -> None:
    process = database.process()
    assert database.observed_by(process) is None
    for _ in range(2):
        assert process.bounds is not None
        earliest, latest = process.bounds
        assert earliest <= database.now <= latest
        assert latest - earliest < timedelta(milliseconds=20)
        database.monotonic_s += 30


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86_400.0, -86_400.0, 0.5, -0.5])
def test_a_step_is_known_by_its_size_and_the_correction_is_rather_late_than_early(
    database: Database, seconds: float
) -> None:
    process = database.process()
    database.observed_by(process)
    database.monotonic_s += 5
    database.offset_s += seconds
    change_s = database.observed_by(process)
    assert change_s is not None
    assert -0.01 < change_s + seconds <= 0
    assert process.bounds is not None  # by what was known before the step, until it is corrected
    assert abs(process.bounds[0] - (database.now - timedelta(seconds=seconds))) < timedelta(milliseconds=20)


@pytest.mark.parametrize("ppm", [500, -500])
def test_a_clock_that_is_slewed_is_followed_and_no_step(database: Database, ppm: int) -> None:
    process = database.process()
    for _ in range(200):
        assert database.observed_by(process) is None
        database.monotonic_s += 5
        database.offset_s += 5 * ppm / 1e6
    assert process.bounds is not None
    assert abs(process.bounds[0] - database.now) < timedelta(milliseconds=20)


def test_a_round_trip_that_took_long_is_no_step(database: Database) -> None:
    process = database.process()
    database.observed_by(process)
    database.round_trip_s = 20.0
    assert database.observed_by(process) is None
    assert process.bounds is not None
    assert process.bounds[1] - process.bounds[0] < timedelta(milliseconds=20)  # what was known before is more


def test_what_another_process_has_corrected_is_no_step(database: Database) -> None:
    process = database.process()
    database.observed_by(process)
    database.seq += 1  # the step and its correction
    assert database.observed_by(process) is None
    assert process.has_stepped


def test_a_process_whose_machine_stood_still_is_put_right_by_one_whose_machine_did_not(database: Database) -> None:
    """To the former it looks as if the database's clock had stepped forward, and it corrects that."""
    process = database.process()
    database.observed_by(process)
    database.monotonic_s += 2 * TERM_S
    database.seq += 1
    database.offset_s -= 50  # the due clock was set back without a reason
    change_s = database.observed_by(process)
    assert change_s == pytest.approx(50, abs=0.01)


def test_that_process_takes_over_what_the_other_has_put_right(database: Database) -> None:
    process = database.process()
    database.observed_by(process)
    database.monotonic_s += 2 * TERM_S
    database.seq += 1
    database.offset_s += 50
    assert database.observed_by(process) is None


def test_a_process_that_began_in_the_midst_of_a_step_contradicts_nobody(database: Database) -> None:
    process = database.process()
    database.observed_by(process)  # the step is not corrected yet
    database.monotonic_s += 0.25
    database.seq += 1
    database.offset_s -= 3600
    assert database.observed_by(process) is None


def test_attempts_are_stamped_by_the_host_unless_it_differs_from_the_due_clock(database: Database) -> None:
    process = database.process()
    database.observed_by(process)
    near = database.now + timedelta(seconds=STEP_S)
    assert process.stamp(near) == near
    for wrong in (database.now - HOUR, database.now + HOUR):
        assert abs(process.stamp(wrong) - database.now) < timedelta(seconds=0.3)


# --- on a database: without a number of its own, a correction is what a step of the database's clock looks like


def step(connection: Connection, seconds: float) -> None:
    connection.execute(
        text("UPDATE dispatcher.clock SET correction = correction + make_interval(secs => :s)"), {"s": seconds}
    )


def offset_s(connection: Connection) -> float:
    """How far the due clock is from where it was before any step."""
    return scalar(connection, "SELECT extract(epoch FROM dispatcher.due_time() - statement_timestamp())::float8")


def scalar(connection: Connection, sql: str) -> float:
    found: float = connection.execute(text(sql)).scalar_one()
    return found


DUE_IN_S = "SELECT extract(epoch FROM due_at - statement_timestamp())::float8 FROM dispatcher.deliveries"
SLOW_S = 600.0
"""A machine may be slow, and the steps are longer."""


@pytest.fixture
def process() -> DueClock:
    return DueClock(SYSTEM, name="worker 1", term_s=TERM_S)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86_400.0, -86_400.0])
def test_a_step_is_recorded_and_corrected_once_by_whoever_notices_it(
    engine: Engine, process: DueClock, seconds: float
) -> None:
    other = DueClock(SYSTEM, name="worker 2", term_s=TERM_S)
    with engine.begin() as connection:
        assert not process.sample(connection)
        assert not other.sample(connection)
        step(connection, seconds)
    with engine.begin() as connection:
        assert process.sample(connection)
    with engine.begin() as connection:
        assert not other.sample(connection)
        (recorded,) = store.steps(connection)
        assert recorded.noticed_by == "worker 1"
        assert (recorded.after - recorded.before).total_seconds() == pytest.approx(seconds, abs=1)
        assert offset_s(connection) == pytest.approx(0, abs=1)
    assert other.has_stepped


def test_a_correction_is_refused_if_another_was_recorded_since_the_reading(engine: Engine) -> None:
    with engine.begin() as connection:
        for corrects in (True, False):
            corrected = store.correct(
                connection, seq=0, change_s=1.0, noticed_by="test", oldest_xid="1", unnoticed_s=0.0
            )
            assert corrected is corrects
        assert len(store.steps(connection)) == 1


@pytest.mark.parametrize("seconds", [7200.0, -7200.0])
def test_within_its_bounds_a_process_is_not_misled_by_a_step_that_nobody_has_noticed(
    engine: Engine, process: DueClock, seconds: float
) -> None:
    """A claim beside a step forward would take what is due in an hour, a record beside one back make it due at once."""
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        worker_id = walk.add_worker(connection, now=None)
        walk.emit(connection, now=None)
        process.sample(connection)
        step(connection, seconds)
    with engine.begin() as connection:
        (claim,) = walk.claim(connection, worker_id, now=process.bounds)
        walk.record(connection, [walk.result(claim, walk.retry(3600))], now=process.bounds)
        assert scalar(connection, DUE_IN_S) == pytest.approx(3600, abs=SLOW_S)
        assert walk.claim_all(connection, worker_id, now=process.bounds) == []
    with engine.begin() as connection:
        assert process.sample(connection)
        assert scalar(connection, DUE_IN_S) == pytest.approx(3600, abs=SLOW_S)
        assert walk.claim_all(connection, worker_id, now=None) == []


@pytest.mark.parametrize("seconds", [86_400.0, -86_400.0])
@pytest.mark.parametrize("first_wait_s", [0, 3600])
def test_what_is_accepted_between_a_step_and_its_notice_is_due_when_it_would_have_been(
    engine: Engine, process: DueClock, seconds: float, first_wait_s: int
) -> None:
    with engine.begin() as connection:
        walk.add_schedule(connection, first_wait_s)
        walk.add_endpoint(connection, schedule="test")
        process.sample(connection)
        step(connection, seconds)
    with engine.begin() as connection:
        walk.emit(connection, now=None)
        assert scalar(connection, DUE_IN_S) == pytest.approx(first_wait_s + seconds, abs=SLOW_S)
    with engine.begin() as connection:
        process.sample(connection)
        assert scalar(connection, DUE_IN_S) == pytest.approx(first_wait_s, abs=SLOW_S)
        store.repair(connection)  # as the leader does for some time, for what commits later
        assert scalar(connection, DUE_IN_S) == pytest.approx(first_wait_s, abs=SLOW_S)
        due = scalar(connection, "SELECT count(*) FROM dispatcher.wakes WHERE due_at <= dispatcher.due_time()")
        assert due > 0


def test_what_a_producer_commits_after_the_notice_is_repaired_too(engine: Engine, process: DueClock) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        process.sample(connection)
        step(connection, 86_400)
    with engine.begin() as producer:
        walk.emit(producer, now=None)
        with engine.begin() as connection:
            process.sample(connection)
    with engine.begin() as connection:
        assert scalar(connection, DUE_IN_S) == pytest.approx(86_400, abs=SLOW_S)
        store.repair(connection)
        assert scalar(connection, DUE_IN_S) == pytest.approx(0, abs=SLOW_S)


def test_what_was_accepted_before_the_step_stays_as_it_is(engine: Engine, process: DueClock) -> None:
    with engine.begin() as connection:
        walk.add_schedule(connection, 86_400)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection, now=None)  # due in a day: where the clock's step leads to
        process.sample(connection)
    with engine.begin() as connection:
        step(connection, 86_400)
    with engine.begin() as connection:
        process.sample(connection)
        assert scalar(connection, DUE_IN_S) == pytest.approx(86_400, abs=SLOW_S)


def test_instants_that_people_name_and_read_are_the_databases(engine: Engine) -> None:
    """After a step they see the clock that they have; what is due follows the one that was not set."""
    with engine.begin() as connection:
        step(connection, -7200)
        walk.add_endpoint(connection)
        worker_id = walk.add_worker(connection, now=None)
        now = connection.execute(text("SELECT now()")).scalar_one()
        walk.emit(connection, now=None, not_before=now + HOUR, expires_at=now + 2 * HOUR)
        (row,) = walk.live(connection)
        assert (row.due_at, row.expires_at) == (now - HOUR, now)
        shown = log.find(connection, row.id)
        assert shown is not None
        assert shown.due_at == now + HOUR
        assert story.more(connection, row.id)[0] == now + 2 * HOUR
        assert walk.claim_all(connection, worker_id, now=None) == []
        walk.emit(connection, now=None)
        (claim,) = walk.claim(connection, worker_id, now=None)
        walk.record(connection, [walk.result(claim)], now=None)
        (ended,) = walk.ended(connection)
        assert abs(ended.ended_at - now) < timedelta(seconds=SLOW_S)
