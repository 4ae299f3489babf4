"""What is counted is what happened: folded or not, once, whatever was run twice, rolled back or done at once."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise, product
from math import log2
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from dispatcher.clock import Clock
from dispatcher.flow import rescue
from dispatcher.model.delivery import Result
from dispatcher.model.event import Mode
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.store import counts, deliveries
from dispatcher.store.counts import Counts, Span, Taken
from dispatcher.store.pauses import Scope
from dispatcher.wiring import read_schedules
from tests.support import walk
from tests.support.walk import NOW

DAY = timedelta(days=1)
REFUSED = Outcome(OutcomeClass.CONNECT, error="Connection refused", duration_ms=3.0)


def read(connection: Connection, **scope: Any) -> Counts:
    """Everything of the last 30 days."""
    span = Span(NOW.replace(hour=0) - 29 * DAY, NOW + DAY, "day", DAY, DAY)
    return +counts.read(connection, Scope(**scope), span, by="none", limit=1).total


def recount(connection: Connection) -> Counts:
    """The same from the log itself."""
    found: Counts = Counter()
    for row in walk.attempts(connection):
        found["attempt", row.outcome, int(4 * log2(max(1.0, row.duration_ms)))] += 1
    for row in walk.ended(connection):
        found["end", row.state, row.attempts] += 1
    return found


def fold_all(connection: Connection, batch: int = 3) -> int:
    folded = 0
    while more := walk.fold(connection, batch=batch):
        folded += more
    return folded


def tallies(connection: Connection) -> int:
    return len(walk.rows(connection, "SELECT FROM dispatcher.tallies"))


class Interleaving:
    """A worker, a rescuer, an operator and a folder that take turns by chance."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.at = NOW
        self.held: list[Any] = []
        self.recorded: list[list[Result]] = []
        with engine.begin() as connection:
            for name in ("a", "b"):
                walk.add_endpoint(connection, event_types=(name,))

    def emit(self, connection: Connection) -> None:
        expires_at = self.chance.choice((None, self.at + timedelta(seconds=50)))
        type_ = self.chance.choice("ab")
        walk.emit(connection, 3, now=self.at, type_=type_, expires_at=expires_at)

    def claim(self, connection: Connection) -> None:
        worker_id = walk.add_worker(connection, now=self.at)
        self.held += walk.claim(connection, worker_id, now=self.at, batch=5)

    def record(self, connection: Connection) -> None:
        self.chance.shuffle(self.held)
        taken, self.held = self.held[:3], self.held[3:]
        choices = ((walk.DELIVERED, walk.OK), (walk.retry(5), REFUSED), (walk.EXHAUSTED, walk.FAILED))
        results = [walk.result(claim, *self.chance.choice(choices)) for claim in taken]
        self.recorded.append(results)
        walk.record(connection, results, now=self.at)

    def record_again(self, connection: Connection) -> None:
        """The same, or a half of it with some of another, as after a lost answer."""
        if self.recorded:
            one, other = self.chance.choice(self.recorded), self.chance.choice(self.recorded)
            walk.record(connection, one if self.chance.random() < 0.5 or one is other else one[:2] + other, now=self.at)

    def rescue(self, connection: Connection) -> None:
        self.at += timedelta(seconds=31)
        clock = Clock(now=lambda: self.at)
        rescue.rescue(connection, read_schedules(connection), clock=clock, batch=4, now=self.at)

    def cancel(self, connection: Connection) -> None:
        waiting = [row.id for row in walk.live(connection) if row.state == "waiting"]
        if waiting:
            deliveries.cancel(connection, self.chance.choice(waiting), "by hand", now=self.at)

    def expire(self, connection: Connection) -> None:
        deliveries.expire(connection, batch=2, now=self.at)

    def fold(self, connection: Connection) -> None:
        walk.fold(connection, batch=self.chance.choice((1, 2, 100)))

    def turn(self) -> None:
        step = self.chance.choice(
            (self.emit, self.claim, self.claim, self.record, self.record, self.record_again, self.rescue, self.cancel,
             self.expire, self.fold)
        )  # fmt: skip
        with self.engine.connect() as connection:
            before = (list(self.held), list(self.recorded))
            step(connection)
            if self.chance.random() < 0.15:  # killed before its commit
                connection.rollback()
                self.held, self.recorded = before
            else:
                connection.commit()


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_a_recount_of_the_log_after_any_interleaving(engine: Engine, seed: int) -> None:
    world = Interleaving(engine, seed)
    for _ in range(90):
        world.turn()
    with engine.begin() as connection:
        expected = recount(connection)
        assert len(expected) > 2
        assert read(connection) == expected
        fold_all(connection)
        assert tallies(connection) == 0
        assert read(connection) == expected


def test_a_record_run_again_because_its_answer_was_lost_counts_nothing_twice(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 4)
        claims = walk.claim(connection, walk.add_worker(connection))
        results = [walk.result(claim, walk.retry(5)) for claim in claims]
        assert walk.record(connection, results[:3]) == 3
        once = read(connection)
        walk.record(connection, results[:3])
        assert read(connection) == once == {("attempt", "http_retryable", 14): 3}
        walk.record(connection, results)  # and with one that is new
        assert read(connection) == {("attempt", "http_retryable", 14): 4} == recount(connection)


def test_what_was_taken_for_lost_and_is_recorded_after_all_counts_as_what_it_was(engine: Engine) -> None:
    later = NOW + timedelta(seconds=31)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
        rescue.rescue(connection, read_schedules(connection), clock=Clock(now=lambda: later), now=later)
        assert read(connection) == {("attempt", "worker_lost", 0): 1}
        for _ in range(2):
            walk.record(connection, [walk.result(claim)], now=later)
            assert read(connection) == {("attempt", "ok", 14): 1, ("end", "delivered", 1): 1} == recount(connection)
        fold_all(connection)
        assert read(connection) == recount(connection)


def test_what_was_taken_for_lost_in_test_mode_is_counted_in_test_mode_only(engine: Engine) -> None:
    later = NOW + timedelta(seconds=31)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, mode=Mode.TEST)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
        rescue.rescue(connection, read_schedules(connection), clock=Clock(now=lambda: later), now=later)
        assert read(connection, mode=Mode.TEST) == {("attempt", "worker_lost", 0): 1}
        walk.record(connection, [walk.result(claim)], now=later)
        assert read(connection, mode=Mode.LIVE) == {}
        assert read(connection, mode=Mode.TEST) == read(connection) == recount(connection)


def test_a_fold_comes_in_parts_that_hold_all_of_an_endpoint(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their endpoints: two who fold take the same counts one after the other."""
    monkeypatch.setattr(counts, "PART", 3)
    with engine.begin() as connection:
        for _ in range(4):
            walk.add_endpoint(connection)
        happen(connection, 3)
        expected = recount(connection)
        found = len(walk.rows(connection, "SELECT FROM dispatcher.tallies"))
        taken = Taken()
        assert [counts.take(connection, taken, batch=2) for _ in range(3)] == [2, found - 2, 0]
        of = [[one["endpoint_id"] for one in part] for part in taken.parts()]
        assert len(of) >= 2
        assert [id_ for part in of for id_ in part] == sorted(id_ for part in of for id_ in part)
        assert all(set(one).isdisjoint(other) for one, other in pairwise(of))
        for part in taken.parts():
            counts.add(connection, part)
        assert read(connection) == expected


class Killed(Exception):
    pass


def test_a_kill_at_any_statement_of_a_fold_counts_nothing_twice_and_loses_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        happen(connection, 6)
        expected = recount(connection)

    for when, at in product(("before_cursor_execute", "after_cursor_execute"), ("DELETE FROM", "INSERT INTO")):

        def kill(_: Any, __: Any, statement: str, *___: Any, at: str = at) -> None:
            if at in statement:
                raise Killed

        event.listen(engine, when, kill)
        with pytest.raises(Killed), engine.begin() as connection:
            walk.fold(connection, batch=2)
        event.remove(engine, when, kill)
        with engine.connect() as connection:
            assert tallies(connection) == 6
            assert read(connection) == expected
    with engine.begin() as connection:
        assert fold_all(connection, 4) == 6
        assert read(connection) == expected


def test_two_who_fold_at_once_take_different_tallies_and_wait_for_no_one(engine: Engine) -> None:
    with engine.begin() as connection:
        happen(connection, 30)
        expected = recount(connection)
    with engine.begin() as first, engine.begin() as second:
        # Of the same counts: the second waits for the first, so it can only take what comes to other counts.
        assert walk.rows(first, "SELECT id FROM dispatcher.tallies ORDER BY id LIMIT 10 FOR UPDATE")
        assert walk.fold(second, batch=100) == 20

    def fold() -> None:
        for _ in range(10):
            with engine.begin() as connection:
                walk.fold(connection, batch=2)

    with engine.begin() as connection:
        happen(connection, 30)
        expected = recount(connection)
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(fold) for _ in range(3)]:
            done.result()
    with engine.begin() as connection:
        assert read(connection) == expected
        fold_all(connection)
        assert read(connection) == expected


def happen(connection: Connection, batches: int, *, at: datetime = NOW) -> None:
    """One delivery a batch, of several endpoints and types, each recorded with its own tally."""
    if not walk.rows(connection, "SELECT FROM dispatcher.endpoints"):
        for _ in range(3):
            walk.add_endpoint(connection)
    worker_id = walk.add_worker(connection, now=at)
    for n in range(batches):
        walk.emit(connection, type_=f"type.{n % 3}", now=at)
        claims = walk.claim(connection, worker_id, now=at)
        outcome = Outcome(OutcomeClass.OK, status_code=200, duration_ms=1.7**n % 10_000)
        walk.record(connection, [walk.result(claim, walk.DELIVERED, outcome) for claim in claims], now=at)


def test_every_grain_has_every_tally_in_the_span_of_its_moment(engine: Engine) -> None:
    at = NOW + timedelta(hours=14, minutes=59, seconds=59, milliseconds=999)
    with engine.begin() as connection:
        happen(connection, 1, at=at)
        fold_all(connection)
        found = walk.rows(
            connection, "SELECT grain, since, sum(n) AS n FROM dispatcher.counts GROUP BY 1, 2 ORDER BY 1"
        )
    assert [tuple(row) for row in found] == [
        ("5min", at.replace(minute=55, second=0, microsecond=0), 6),
        ("day", at.replace(hour=0, minute=0, second=0, microsecond=0), 6),
        ("hour", at.replace(minute=0, second=0, microsecond=0), 6),
    ]


def test_counts_are_kept_as_long_as_windows_reach_and_forgotten_by_batches(engine: Engine) -> None:
    with engine.begin() as connection:
        for days in (0, 1, 3, 31, 33, 399, 401):
            happen(connection, 1, at=NOW - timedelta(days=days))
        fold_all(connection)
        days_kept = partial(
            walk.rows,
            connection,
            "SELECT grain, count(DISTINCT since) AS n FROM dispatcher.counts GROUP BY grain ORDER BY grain",
        )
        assert {row.grain: row.n for row in days_kept()} == {"5min": 7, "hour": 7, "day": 7}
        rounds = 0
        while counts.forget(connection, batch=1, now=NOW):
            rounds += 1
        assert rounds > 1
        assert {row.grain: row.n for row in days_kept()} == {"5min": 2, "hour": 4, "day": 6}


def test_the_backlog_is_counted_within_its_bound_and_one_endpoint_hides_no_other(engine: Engine) -> None:
    with engine.begin() as connection:
        big = walk.add_endpoint(connection, event_types=("big",))
        small = walk.add_endpoint(connection, event_types=("small",))
        walk.add_endpoint(connection, event_types=("none",))
        walk.emit(connection, 30, type_="big", now=NOW)
        walk.emit(connection, 3, type_="small", now=NOW + timedelta(seconds=5))
        walk.claim(connection, walk.add_worker(connection), room=2, batch=2)

        found = counts.backlog(connection, Scope(), by="endpoint", most=20)
        assert (found.total.waiting, found.total.in_flight, found.total.at_least) == (13, 2, True)
        assert [*found.groups] == [str(big.id), str(small.id)]
        assert (found.groups[str(big.id)].waiting, found.groups[str(big.id)].at_least) == (10, True)
        assert (found.groups[str(small.id)].waiting, found.groups[str(small.id)].at_least) == (3, False)
        assert found.groups[str(small.id)].oldest_waiting_at == NOW + timedelta(seconds=5)
        assert found.total.oldest_due_at == NOW

        whole = counts.backlog(connection, Scope(), by="event_type")
        assert (whole.total.waiting, whole.total.in_flight, whole.total.at_least) == (31, 2, False)
        assert {key: one.waiting for key, one in whole.groups.items()} == {"big": 28, "small": 3}
        cut = counts.backlog(connection, Scope(), by="event_type", most=20)
        assert {key: one.at_least for key, one in cut.groups.items()} == {"big": True, "small": True}
        one = counts.backlog(connection, Scope(endpoint_id=small.id), by="tenant")
        assert (one.total.waiting, one.total.in_flight) == (3, 0)
        typed = counts.backlog(connection, Scope(event_type="small"), by="none")
        assert (typed.total.waiting, typed.total.in_flight) == (3, 0)
