"""Statistics are what plain Python makes of the log, whatever of it is folded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil, log2
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from dispatcher.errors import NotFound
from dispatcher.flow import prune
from dispatcher.flow.statistics import PERCENTILES, WINDOWS, Statistics, Window, latency, statistics
from dispatcher.ids import format_id, uuid7
from dispatcher.model.delivery import RetryAt, Stop
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.store import counts, endpoints
from dispatcher.store.counts import By
from tests.support import walk
from tests.support.walk import NOW

WITHIN = 2 ** (1 / 8) * 1.0001
HOUR = timedelta(hours=1)


def nearest_rank(durations: list[float], percent: int) -> float:
    return sorted(durations)[ceil(len(durations) * percent / 100) - 1]


def attempt(
    connection: Connection,
    outcome: OutcomeClass = OutcomeClass.OK,
    duration_ms: float = 10.0,
    *,
    at: datetime = NOW,
    change: Stop | RetryAt | None = None,
) -> int:
    """Has everything that is due attempted at that moment; how many there were."""
    claims = walk.claim(connection, walk.add_worker(connection, now=at), now=at)
    change = change or (walk.DELIVERED if outcome is OutcomeClass.OK else walk.EXHAUSTED)
    results = [walk.result(claim, change, Outcome(outcome, duration_ms=duration_ms)) for claim in claims]
    walk.record(connection, results, now=at)
    return len(claims)


def both(connection: Connection, **asked: Any) -> Statistics:
    """What is said before anything is folded, which is what is said after each fold."""
    asked = {"now": NOW} | asked
    before = statistics(connection, **asked)
    while walk.fold(connection, batch=2):
        assert statistics(connection, **asked) == before
    return before


def test_percentiles_are_those_of_the_durations_within_9_percent(engine: Engine) -> None:
    durations = [1.0 + n**2.3 % 30_000 for n in range(120)]
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        for duration_ms in durations:
            walk.emit(connection)
            attempt(connection, duration_ms=duration_ms)
        found = both(connection).fared.latency
    assert found.attempts == 120
    for percent in PERCENTILES:
        exact = nearest_rank(durations, percent)
        assert exact / WITHIN <= found.ms[percent] <= exact * WITHIN, percent


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=300))
def test_any_durations_have_percentiles_within_9_percent(durations: list[float]) -> None:
    found = latency(Counter(int(4 * log2(duration_ms)) for duration_ms in durations))
    for percent in PERCENTILES:
        exact = nearest_rank(durations, percent)
        assert exact / WITHIN <= found.ms[percent] + 0.005, percent
        assert found.ms[percent] - 0.005 <= exact * WITHIN, percent


def test_attempts_at_which_nobody_was_dialled_have_no_latency_but_fail(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        for outcome, duration_ms in (
            (OutcomeClass.OK, 10),
            (OutcomeClass.DEADLINE, 15_000),
            (OutcomeClass.DNS, 5_000),
            (OutcomeClass.BLOCKED_ADDRESS, 5_000),
            (OutcomeClass.INTERNAL, 5_000),
        ):
            walk.emit(connection)
            attempt(connection, outcome, duration_ms)
        found = both(connection).fared
    assert (found.attempts.total, found.attempts.succeeded, found.attempts.success_rate) == (5, 1, 0.2)
    assert found.latency.attempts == 2
    assert found.latency.ms[99] == pytest.approx(15_000, rel=0.0906)


def test_rates_are_of_attempts_and_of_what_ended_by_itself(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 4)
        attempt(connection, OutcomeClass.HTTP_RETRYABLE, change=walk.retry(5))
        attempt(connection, at=NOW + timedelta(seconds=5))
        walk.emit(connection, 1)
        attempt(connection, OutcomeClass.HTTP_RETRYABLE)
        walk.emit(connection, 1, now=NOW + HOUR)
        found = both(connection, now=NOW + HOUR)
    assert found.fared.attempts.by_outcome == {"http_retryable": 5, "ok": 4}
    assert found.fared.ends.by_state == {"delivered": 4, "exhausted": 1, "rejected": 0, "expired": 0, "cancelled": 0}
    assert found.fared.ends.success_rate == 0.8
    assert (found.fared.to_success, found.fared.to_success_mean) == ({2: 4}, 2.0)
    assert (found.backlog.waiting, found.backlog.oldest_waiting_at) == (1, NOW + HOUR)


@pytest.mark.parametrize(
    ("window", "points", "step"), [("1h", 13, 300), ("24h", 25, 3600), ("7d", 43, 14400), ("30d", 31, 86400)]
)
def test_a_window_starts_at_a_step_and_has_every_point(engine: Engine, window: Window, points: int, step: int) -> None:
    now = NOW + timedelta(minutes=3, seconds=7)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        empty = statistics(connection, window=window, now=now)
        assert len(empty.points) == points
        at = [point.at for point in empty.points]
        assert (at[0], {(b - a).total_seconds() for a, b in pairwise(at)}) == (empty.since, {step})
        for moment in (empty.since - timedelta(milliseconds=1), empty.since, now):
            walk.emit(connection, now=moment)
            assert attempt(connection, at=moment) == 1
        found = both(connection, window=window, now=now)
    assert found.fared.attempts.total == 2
    assert [n for n, point in enumerate(found.points) if point.attempts.total] == [0, points - 1]
    assert found.points[-1].at <= now < found.points[-1].at + found.step


def shop(connection: Connection, tenant_id: UUID, *types: str) -> UUID:
    return walk.add_endpoint(connection, tenant_id=tenant_id, event_types=types).id


def add_tenant(connection: Connection, name: str) -> UUID:
    tenant_id = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name) VALUES (:id, :name)"), {"id": tenant_id, "name": name}
    )
    return tenant_id


def test_groups_are_of_the_scope_the_most_failing_first(engine: Engine) -> None:
    with engine.begin() as connection:
        one, other = add_tenant(connection, "one"), add_tenant(connection, "other")
        good, bad, idle = shop(connection, one, "a"), shop(connection, one, "b"), shop(connection, one, "c")
        theirs = shop(connection, other, "a", "b")
        for tenant_id in (one, other):
            walk.emit(connection, 2, type_="a", tenant_id=tenant_id)
        attempt(connection)
        walk.emit(connection, 3, type_="b", tenant_id=one)
        walk.emit(connection, 1, type_="b", tenant_id=other)
        attempt(connection, OutcomeClass.CONNECT)
        walk.emit(connection, 5, type_="c", tenant_id=one)

        def keys(by: By, **asked: Any) -> list[str]:
            return [group.key for group in both(connection, by=by, **asked).groups]

        assert keys("none") == []
        assert keys("endpoint") == [format_id("ep", id_) for id_ in (bad, theirs, good, idle)]
        assert keys("endpoint", tenant_id=one) == [format_id("ep", id_) for id_ in (bad, good, idle)]
        assert keys("endpoint", tenant_id=one, event_type="a") == [format_id("ep", good)]
        assert keys("tenant") == [format_id("ten", one), format_id("ten", other)]
        assert keys("event_type", endpoint_id=theirs) == ["b", "a"]
        assert keys("event_type") == ["b", "a", "c"]
        assert keys("event_type", tenant_id=other) == ["b", "a"]
        first = statistics(connection, by="endpoint", limit=1, now=NOW)
        assert ([group.key for group in first.groups], first.more) == ([format_id("ep", bad)], True)
        whole = statistics(connection, by="endpoint", limit=4, now=NOW)
        assert not whole.more
        assert (whole.groups[3].backlog.waiting, whole.groups[3].fared.attempts.total) == (5, 0)
        assert whole.groups[0].name == endpoints.fetch(connection, [bad])[bad].url
        assert statistics(connection, by="tenant", now=NOW).groups[0].name == "one"
        with pytest.raises(NotFound):
            statistics(connection, tenant_id=one, endpoint_id=theirs, now=NOW)


def test_what_is_said_does_not_depend_on_what_was_folded(engine: Engine) -> None:
    outcomes = [OutcomeClass.OK, OutcomeClass.CONNECT, OutcomeClass.THROTTLED]
    with engine.begin() as connection:
        for n in range(3):
            walk.add_endpoint(connection, event_types=(f"type.{n}", "all"))
        for n in range(24):
            at = NOW - timedelta(hours=n**2)
            walk.emit(connection, 1, type_=("all", f"type.{n % 3}")[n % 2], now=at)
            attempt(connection, outcomes[n % 3], 3.0**n % 5000, at=at)
        asked = [(window, by) for window in WINDOWS for by in ("endpoint", "event_type", "tenant", "none")]
        before = [statistics(connection, window=window, by=by, now=NOW) for window, by in asked]  # type: ignore[arg-type]
        assert len({one.fared.attempts.total for one in before}) == 4
        while walk.fold(connection, batch=5):
            after = [statistics(connection, window=window, by=by, now=NOW) for window, by in asked]  # type: ignore[arg-type]
            assert after == before
        prune.prune(connection, now=NOW)
        assert [statistics(connection, window=window, by=by, now=NOW) for window, by in asked] == before  # type: ignore[arg-type]


def test_without_a_moment_it_is_the_databases_now(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, now=None)
        claims = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
        walk.record(connection, [walk.result(claim) for claim in claims], now=None)
        found = statistics(connection, window="1h")
    assert found.points[-1].attempts.total + found.points[-2].attempts.total == 1
    assert replace(found.backlog, oldest_due_at=None) == counts.Backlog()
