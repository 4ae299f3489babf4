"""The checker finds nothing in a sound history, and each way in which a history can be unsound."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from dispatcher.flow import audit
from tests.support import walk
from tests.support.walk import NOW


@pytest.fixture
def history(engine: Engine) -> Engine:
    """One event delivered at the second attempt, one exhausted after two; one waiting and one in flight."""
    with engine.begin() as connection:
        walk.add_schedule(connection, 0, 5)
        walk.add_endpoint(connection, schedule="test")
        worker_id = walk.add_worker(connection)
        walk.emit(connection, 2)
    with engine.begin() as connection:
        first = walk.claim(connection, worker_id)
        walk.record(connection, [walk.result(claim, walk.retry(5)) for claim in first])
    later = NOW + timedelta(seconds=6)
    with engine.begin() as connection:
        good, bad = walk.claim_all(connection, worker_id, now=later)
        walk.record(connection, [walk.result(good, started_at=later)], now=later)
        walk.record(connection, [walk.result(bad, walk.EXHAUSTED, started_at=later)], now=later)
    with engine.begin() as connection:
        walk.emit(connection, 1, now=later)
        walk.claim(connection, walk.add_worker(connection, now=None, term_s=3600), now=later)
        walk.emit(connection, 1, now=later)
    return engine


def breaches(engine: Engine, *damage: str) -> list[tuple[int, str]]:
    with engine.begin() as connection:
        for statement in damage:
            connection.execute(text(statement))
    with engine.begin() as connection:
        found = audit.verify(connection)
    assert all(violation.examples and violation.count for violation in found)
    return [(violation.invariant, violation.what) for violation in found]


def test_a_sound_history_has_no_breach(history: Engine) -> None:
    assert breaches(history) == []


ENDED = "FROM dispatcher.ended_deliveries WHERE state = 'delivered'"
BACK_AMONG_THE_LIVE = f"""
INSERT INTO dispatcher.deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, due_at, claim_seq, schedule_id, event_type, mode)
SELECT id, endpoint_id, event_id, tenant_id, created_at, ended_at, claim_seq, schedule_id, event_type, mode {ENDED}"""
A_DELIVERED_ONE = f"(SELECT id {ENDED} LIMIT 1)"


@pytest.mark.parametrize(
    ("invariant", "what", "damage"),
    [
        (1, "not its fanout", "UPDATE dispatcher.events SET fanout = 2"),
        (1, "not its fanout", "DELETE FROM dispatcher.ended_deliveries WHERE state = 'exhausted'"),
        (
            1,
            "both live and ended",
            BACK_AMONG_THE_LIVE,
        ),
        (1, "not there", "DELETE FROM dispatcher.events"),
        (2, "without a successful", "UPDATE dispatcher.attempts SET outcome = 'closed' WHERE outcome = 'ok'"),
        (3, "declared number", "DELETE FROM dispatcher.attempts WHERE number = 1"),
        (3, "declared number", "UPDATE dispatcher.ended_deliveries SET attempts = 1 WHERE state = 'exhausted'"),
        (
            3,
            "after its delivery had ended",
            f"UPDATE dispatcher.ended_deliveries SET ended_at = ended_at - interval '2 s' WHERE id = {A_DELIVERED_ONE}",
        ),
        (4, "claimed so often", "UPDATE dispatcher.ended_deliveries SET claim_seq = 1"),
        (
            5,
            "before its schedule",
            "UPDATE dispatcher.attempts SET started_at = started_at - interval '2 s' WHERE number = 2",
        ),
        (5, "before its schedule", "UPDATE dispatcher.attempts SET started_at = started_at - interval '1 s'"),
        (8, "its worker is dead", "UPDATE dispatcher.workers SET heartbeat_until = now() - interval '2 min'"),
        (8, "its worker is dead", "DELETE FROM dispatcher.workers"),
        (8, "nobody would find", "DELETE FROM dispatcher.wakes"),
        (9, "different bodies", "UPDATE dispatcher.attempts SET body_sha256 = decode('02', 'hex') WHERE number = 2"),
    ],
)
def test_each_breach_is_found(history: Engine, invariant: int, what: str, damage: str) -> None:
    found = breaches(history, damage)
    assert any(number == invariant and what in text_ for number, text_ in found), found


def test_what_was_created_before_is_left_out(history: Engine) -> None:
    damage = "UPDATE dispatcher.attempts SET outcome = 'closed' WHERE outcome = 'ok'"
    assert breaches(history, damage)
    with history.begin() as connection:
        assert audit.verify(connection, since=NOW + timedelta(seconds=1)) == []


def test_it_writes_nothing(history: Engine) -> None:
    with history.begin() as connection:
        audit.verify(connection)
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
