"""The checker finds nothing in a sound history, and each way in which a history can be unsound."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from dispatcher.flow import audit, retention
from dispatcher.flow.enqueue import enqueue
from dispatcher.ids import uuid7
from dispatcher.model.event import Event
from dispatcher.store import partitions
from dispatcher.store.audit import CHECKS
from tests.support import walk
from tests.support.walk import NOW

WEEK = timedelta(days=7)
MISSING = "an event that an endpoint wanted when it was accepted, and no delivery of it there"
ENDED_STATES = {"delivered": 1, "exhausted": 1}
NOT_WANTED = "a delivery of an event that its endpoint did not want when it was accepted"


@pytest.fixture
def history(engine: Engine) -> Engine:
    """One event delivered at the second attempt, one exhausted after two; one waiting and one in flight."""
    with engine.begin() as connection:
        partitions.ensure(connection, NOW)
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
    with engine.begin() as connection:  # registered in the present, which is later
        connection.execute(
            text("UPDATE dispatcher.endpoint_history SET changed_at = :at"), {"at": NOW - timedelta(days=1)}
        )
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


OLDER_FORM = "UPDATE dispatcher.attempts SET charged = NULL, wait_s = NULL, from_first_attempt = NULL"
"""SQL that leaves of each decision only the sentence, which is all that older versions store."""

WRONGLY_CHARGED = (3, "exhausted without exactly the declared number of charged attempts")
TOO_EARLY = (5, "an attempt that started before its schedule allows, unless an operator hurried it")


def test_a_sound_history_in_the_older_form_has_no_breach(history: Engine) -> None:
    assert breaches(history, OLDER_FORM) == []


FORGIVEN = """INSERT INTO dispatcher.attempts
        (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, outcome_known, outcome, method, url,
         request_headers, response_headers, response_body, body_end, decision, charged, wait_s)
    SELECT delivery_id, 0, id, worker_id, started_at, duration_ms, 1, false, 'worker_lost', method, url,
           request_headers, response_headers, response_body, body_end, 'not charged, again in 0 s', false, 0
    FROM dispatcher.attempts WHERE number = 1"""
"""SQL that has each delivery begin with an attempt that was lost with its worker."""


@pytest.mark.parametrize(
    "damage",
    [
        ["UPDATE dispatcher.attempts SET charged = false WHERE number = 1"],
        ["UPDATE dispatcher.attempts SET charged = true"],
        [OLDER_FORM, "UPDATE dispatcher.attempts SET decision = 'not charged, again in 5 s' WHERE number = 1"],
        [OLDER_FORM, "UPDATE dispatcher.attempts SET decision = 'retry in 0 s' WHERE outcome = 'worker_lost'"],
    ],
    ids=["data, too few", "data, too many", "sentence, too few", "sentence, too many"],
)
def test_attempts_that_were_wrongly_charged_are_found(history: Engine, damage: list[str]) -> None:
    assert breaches(history, FORGIVEN) == []
    assert breaches(history, *damage) == [WRONGLY_CHARGED]


def test_an_attempt_that_started_too_early_is_found_in_the_older_form(history: Engine) -> None:
    assert breaches(history, OLDER_FORM, f"{stamped_earlier(2)} WHERE number = 2") == [TOO_EARLY]


def stamped_earlier(seconds: int) -> str:
    """SQL that has every attempt start so much earlier by the due clock, whose time is in its id."""
    digits = "translate(CAST(id AS text), '-', '')"
    ms = f"CAST(CAST('x' || left({digits}, 12) AS bit(48)) AS bigint) - {1000 * seconds}"
    return f"UPDATE dispatcher.attempts SET id = CAST(lpad(to_hex({ms}), 12, '0') || substr({digits}, 13) AS uuid)"


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
        (1, "no delivery of it there", f"DELETE {ENDED}"),
        (
            1,
            "did not want",
            "UPDATE dispatcher.endpoint_history SET event_types = '{refund.*}'",
        ),
        (1, "did not want", f"UPDATE dispatcher.endpoint_history SET changed_at = '{NOW + timedelta(hours=1)}'"),
        (2, "without a successful", "UPDATE dispatcher.attempts SET outcome = 'closed' WHERE outcome = 'ok'"),
        (3, "declared number", "DELETE FROM dispatcher.attempts WHERE number = 1"),
        (3, "declared number", "UPDATE dispatcher.ended_deliveries SET attempts = 1 WHERE state = 'exhausted'"),
        (
            3,
            "after its delivery had ended",
            f"UPDATE dispatcher.ended_deliveries SET ended_at = ended_at - interval '2 s' WHERE id = {A_DELIVERED_ONE}",
        ),
        (4, "claimed so often", "UPDATE dispatcher.ended_deliveries SET claim_seq = 1"),
        (5, "before its schedule", f"{stamped_earlier(2)} WHERE number = 2"),
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


@pytest.mark.parametrize("action", ["delivery.retried", "delivery.advanced"])
def test_what_was_hurried_did_not_start_too_early(history: Engine, action: str) -> None:
    early = f"{stamped_earlier(2)} WHERE number = 2"
    hurried = f"""INSERT INTO dispatcher.audit_log (id, actor, action, object)
        SELECT gen_random_uuid(), 'cli:test', '{action}', 'dlv_' || id FROM dispatcher.ended_deliveries"""
    assert (5, "an attempt that started before its schedule allows, unless an operator hurried it") in breaches(
        history, early
    )
    assert breaches(history, hurried) == []


def test_what_a_replay_chose_anew_is_no_original(history: Engine) -> None:
    chosen_anew = f"""
        INSERT INTO dispatcher.deliveries (id, endpoint_id, event_id, tenant_id, created_at, due_at, schedule_id,
                                           event_type, mode, replay_id)
        SELECT '{uuid7(NOW + WEEK)}', endpoint_id, event_id, tenant_id, created_at, now() + interval '1 h', schedule_id,
               event_type, mode, gen_random_uuid()
        FROM dispatcher.ended_deliveries LIMIT 1"""
    unbound = "ALTER TABLE dispatcher.deliveries DROP CONSTRAINT IF EXISTS a_replay_has_an_original"
    assert breaches(history, unbound, chosen_anew) == []
    assert [one.counts.replays for one in days(history)] == [0, 1]


def test_a_target_stands_for_the_endpoints_of_its_tenant(history: Engine) -> None:
    to_a_target = """UPDATE dispatcher.endpoints SET origin = 'https://elsewhere.example.com'
        WHERE id = (SELECT min(endpoint_id::text)::uuid FROM dispatcher.ended_deliveries)"""
    with history.begin() as connection:
        walk.add_endpoint(connection)  # which wants all, and gets none of what has a target
        connection.execute(text("UPDATE dispatcher.endpoint_history SET changed_at = :at"), {"at": NOW - WEEK})
    assert (1, MISSING) in breaches(history)
    assert breaches(history, to_a_target) == []


def test_a_change_within_the_margin_of_an_acceptance_may_have_been_seen_or_not(history: Engine) -> None:
    for event_types in ("NULL", "'{refund.*}'"):
        with history.begin() as connection:
            walk.add_endpoint(connection)
            connection.execute(
                text(f"UPDATE dispatcher.endpoint_history SET changed_at = :at, event_types = {event_types}"),
                {"at": NOW - timedelta(seconds=30)},
            )
        found = breaches(history)
        assert MISSING not in [what for _, what in found]
    assert NOT_WANTED in [what for _, what in found], "whatever it wanted before, it wants refunds only"


def days(engine: Engine, **bounds: datetime) -> list[audit.Verified]:
    found = []
    with engine.begin() as connection:
        there = audit.days(connection, **bounds)
    for day in there:
        with engine.begin() as connection:
            found.append(audit.verify_day(connection, day))
    return found


def test_a_day_is_counted(history: Engine) -> None:
    with history.begin() as connection:
        connection.execute(text("UPDATE dispatcher.attempts SET outcome_known = false WHERE number = 1"))
        connection.execute(
            text("UPDATE dispatcher.events SET fanout = 0 WHERE id = (SELECT id FROM dispatcher.events LIMIT 1)")
        )
    (day,) = days(history)
    assert day.day == NOW.date()
    counts = day.counts
    assert (counts.events, counts.unmatched, counts.expected, counts.replays) == (4, 1, 3, 0)
    assert counts.live == {"in_flight": 1, "waiting": 1}
    assert counts.ended == {"delivered": 1, "exhausted": 1}
    assert (counts.attempts, counts.unknown) == (4, 2)
    assert [one.count for one in day.checks if "not its fanout" in one.what] == [1]


def test_each_day_is_looked_at_by_itself_and_days_without_anything_are_not(history: Engine) -> None:
    with history.begin() as connection:
        for after in (timedelta(days=1), timedelta(days=40)):
            walk.emit(connection, 1, now=NOW + after)
        connection.execute(text("DELETE FROM dispatcher.deliveries WHERE created_at > :at"), {"at": NOW + WEEK})
    found = days(history)
    assert [one.day - NOW.date() for one in found] == [timedelta(days=n) for n in (0, 1, 40)]
    assert [one.counts.events for one in found] == [4, 1, 1]
    assert [sum(check.count for check in one.checks) for one in found] == [0, 0, 2], "missing, and so not its fanout"
    until = NOW + timedelta(days=40)
    assert len(days(history, since=NOW + timedelta(hours=1), until=until.replace(hour=0))) == 1
    assert [one.counts.events for one in days(history, since=NOW + timedelta(seconds=3), until=until)] == [2, 1]


def test_the_days_of_an_event_and_of_its_deliveries_may_differ(history: Engine) -> None:
    with history.begin() as connection:
        own = uuid7(NOW - timedelta(hours=10))  # of the day before
        enqueue(connection, [Event(type="payment.completed", payload={}, id=own)], now=NOW)
    found = days(history)
    assert [one.counts.events for one in found] == [1, 4]
    assert [sum(one.counts.live.values()) for one in found] == [1, 2]
    assert all(check.count == 0 for one in found for check in one.checks)


def test_bodies_may_differ_where_the_endpoints_method_was_changed(history: Engine) -> None:
    other = "UPDATE dispatcher.attempts SET body_sha256 = decode('02', 'hex') WHERE number = 2"
    changed = """INSERT INTO dispatcher.audit_log (id, actor, action, object, after)
        SELECT gen_random_uuid(), 'cli:test', 'endpoint.updated', 'ep_' || id, '{"method": "GET"}'
        FROM dispatcher.endpoints"""
    assert [number for number, _ in breaches(history, other)] == [9]
    assert breaches(history, changed) == []


def test_a_replay_that_sends_another_body_than_days_before_is_found(history: Engine) -> None:
    replayed = """
        WITH replay AS (
            INSERT INTO dispatcher.ended_deliveries
                (id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, ended_at, claim_seq, schedule_id,
                 attempts, refunds, state, event_type, mode, reason, last_outcome, replay_of)
            SELECT CAST(:id AS uuid), endpoint_id, event_id, tenant_id, :at, :at, :at, 1, schedule_id, 1, 0, state,
                   event_type, mode, reason, last_outcome, id
            FROM dispatcher.ended_deliveries WHERE state = 'delivered'
            RETURNING id, replay_of)
        INSERT INTO dispatcher.attempts
            (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, outcome_known, outcome, method,
             url, request_headers, body_sha256, response_headers, response_body, body_end, decision)
        SELECT r.id, 1, r.id, worker_id, :at, duration_ms, 1, true, 'ok', method, url, request_headers, :body,
               response_headers, response_body, body_end, decision
        FROM replay r JOIN dispatcher.attempts a ON a.delivery_id = r.replay_of AND a.outcome = 'ok'"""
    at = NOW + timedelta(days=3)
    with history.begin() as connection:
        connection.execute(text(replayed), {"id": uuid7(at), "at": at, "body": b"\x02" * 32})
    found = days(history)
    assert [sum(check.count for check in one.checks) for one in found] == [0, 1]
    assert found[1].counts.replays == 1


@pytest.mark.parametrize("metadata", [timedelta(days=90), timedelta(days=31)])
def test_what_is_past_its_retention_breaks_nothing(history: Engine, metadata: timedelta) -> None:
    policy = retention.Policy(metadata=metadata)
    done = True
    while done:
        with history.begin() as connection:
            done = bool(retention.step(connection, policy, now=NOW + timedelta(days=50)))
    assert breaches(history) == []
    assert [one.counts.ended for one in days(history)] == ([{}] if metadata.days == 31 else [ENDED_STATES])
    with history.begin() as connection:
        walk.emit(connection, 1, now=NOW + timedelta(days=50))
    found = breaches(history, f"DELETE FROM dispatcher.deliveries WHERE created_at > '{NOW + WEEK}'")
    assert [number for number, _ in found] == [1, 1], "what came later is missed as ever"


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_the_checks_of_several_days_are_added_up() -> None:
    one, two = (
        audit.Violation(1, "lost", "an event is lost", n, tuple(f"{n}{m}" for m in range(min(n, 5)))) for n in (2, 9)
    )
    other = audit.Violation(8, "asleep", "an endpoint sleeps", 0, ())
    assert audit.together([[other], [one], [two]]) == (
        audit.Violation(1, "lost", "an event is lost", 11, ("20", "21", "90", "91", "92")),
        other,
    )
