"""What is recorded, what is fenced off, and when the next attempt is due."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher.clock import Clock
from dispatcher.flow import rescue
from dispatcher.model.delivery import Claim, Released, Stop
from dispatcher.model.outcome import BodyEnd, Outcome, OutcomeClass
from dispatcher.store import deliveries, log
from dispatcher.wiring import read_schedules
from tests.support import walk
from tests.support.walk import NOW


def later(seconds: float) -> timedelta:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def claimed(engine: Engine) -> tuple[UUID, Claim]:
    """An endpoint of ours and a claim of its one delivery, whose worker lives for 30 s."""
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
    return endpoint.id, claim


def lose(connection: Connection, *, at: float = 31.0) -> int:
    return rescue.rescue(connection, read_schedules(connection), clock=Clock(now=lambda: later(at)), now=later(at))


def decided(attempt: Any) -> tuple[Any, ...]:
    """The decision of a row, as it is stored."""
    return (attempt.decision, attempt.charged, attempt.wait_s, attempt.from_first_attempt)


def claim_again(connection: Connection, *, at: float = 31.0) -> Claim:
    (claim,) = walk.claim(connection, walk.add_worker(connection, now=later(at)), now=later(at))
    return claim


def test_a_success_ends_the_delivery_and_keeps_its_attempt(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        assert walk.record(connection, [walk.result(claim, started_at=later(1))], now=later(2)) == 1
        assert walk.live(connection) == []
        (row,), (attempt,) = walk.ended(connection), walk.attempts(connection)
        (logged,) = log.attempts(connection, claim.delivery_id)
    assert (row.id, row.state, row.reason, row.attempts, row.refunds) == (claim.delivery_id, "delivered", "ok", 1, 0)
    assert (row.ended_at, row.first_attempt_at, row.last_outcome, row.last_status_code) == (later(2), NOW, "ok", 200)
    assert (attempt.number, attempt.claim_seq, attempt.outcome, attempt.outcome_known) == (1, 1, "ok", True)
    assert (attempt.status_code, attempt.response_body, attempt.decision) == (200, b"ok", "delivered")
    assert (logged.started_at, logged.body_sha256, logged.request_headers) == (
        later(1), b"\x01" * 32, [["webhook-id", "evt_1"]],
    )  # fmt: skip
    assert walk.broken_promises(engine) == []


def test_a_failure_goes_back_to_waiting_until_the_wait_is_over(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(5))], now=later(2))
        (row,) = walk.live(connection)
        assert (row.state, row.claimed_by, row.attempts, row.due_at) == ("waiting", None, 1, later(7))
        assert (row.reason, row.last_outcome, row.last_status_code) == ("http_retryable 503", "http_retryable", 503)
        (attempt,) = walk.attempts(connection)
        assert decided(attempt) == ("retry in 5 s", True, 5.0, False)
        again = claim_again(connection, at=7)
        assert (again.seq, again.number) == (2, 2)


def test_the_wait_runs_from_the_failure_however_long_the_result_waited(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    failed_at_s = 100.0
    with engine.begin() as connection:
        result = walk.result(claim, walk.retry(300), ended_monotonic_s=failed_at_s)
        walk.record(connection, [result], now=later(250), monotonic_s=failed_at_s + 240)  # failed at 10
        assert walk.live(connection)[0].due_at == later(310)


def test_a_wait_that_passed_while_the_database_was_away_is_over_at_once_and_not_before(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(5))], now=later(60), monotonic_s=50.0)
        assert walk.live(connection)[0].due_at == later(60)


def test_offsets_run_from_the_start_of_attempt_1_and_not_from_its_claim(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_schedule(connection, 0, 60, 600, first_attempt=True)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection)
        claim = claim_again(connection, at=0)
        # Claimed at 0, begun at 3, failed at 5 after 2 s, recorded at 9.
        slow = replace(walk.FAILED, duration_ms=2000.0)
        result = walk.result(claim, walk.retry(60, from_first_attempt=True), slow, ended_monotonic_s=5.0)
        walk.record(connection, [result], now=later(9), monotonic_s=9.0)
        assert walk.live(connection)[0].due_at == later(63)
        claim = claim_again(connection, at=63)
        result = walk.result(claim, walk.retry(600, from_first_attempt=True), slow, ended_monotonic_s=66.0)
        walk.record(connection, [result], now=later(66), monotonic_s=66.0)
        assert walk.live(connection)[0].due_at == later(603)


def test_a_lost_first_attempt_does_not_move_the_offsets_before_the_one_that_counted(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_schedule(connection, 0, 60, first_attempt=True)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection)
        claim_again(connection, at=0)
        assert lose(connection, at=31) == 1
        claim = claim_again(connection, at=31)
        assert claim.number == 1
        failed = walk.result(claim, walk.retry(60, from_first_attempt=True), replace(walk.FAILED, duration_ms=0.0))
        walk.record(connection, [failed], now=later(40))
        assert walk.live(connection)[0].due_at == later(100)


def test_a_granted_retry_after_extends_an_offset_from_the_first_attempt(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        change = walk.retry(60, from_first_attempt=True, retry_after_s=90.0)
        walk.record(connection, [walk.result(claim, change, ended_monotonic_s=10.0)], now=later(12), monotonic_s=12.0)
        assert walk.live(connection)[0].due_at == later(100)


def test_a_released_claim_leaves_no_trace_but_its_number(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, Released())])
        (row,) = walk.live(connection)
        assert (row.state, row.attempts, row.refunds, row.claim_seq, row.due_at) == ("waiting", 0, 0, 1, NOW)
        assert walk.attempts(connection) == []
        assert claim_again(connection, at=0).seq == 2


def test_an_expired_delivery_ends_without_an_attempt(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, Stop("expired", "expired before it was delivered"))])
        (row,) = walk.ended(connection)
    assert (row.state, row.attempts) == ("expired", 0)


CHANGES = {
    "delivered": walk.DELIVERED,
    "exhausted": walk.EXHAUSTED,
    "retry": walk.retry(5),
    "released": Released(),
    "expired": Stop("expired", "expired"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_recording_twice_changes_nothing_the_second_time(
    engine: Engine, claimed: tuple[UUID, Claim], change: Stop
) -> None:
    _, claim = claimed
    result = walk.result(claim, change)
    with engine.begin() as connection:
        assert walk.record(connection, [result], now=later(1)) == 1
        before = (walk.live(connection), walk.ended(connection), walk.attempts(connection))
        assert walk.record(connection, [result], now=later(2)) == 0
        assert (walk.live(connection), walk.ended(connection), walk.attempts(connection)) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_recording_twice_changes_nothing_after_another_has_claimed(
    engine: Engine, claimed: tuple[UUID, Claim], change: Stop
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(5))], now=later(1))
        claim_again(connection, at=6)
        before = (walk.live(connection), walk.attempts(connection))
        assert walk.record(connection, [walk.result(claim, change)], now=later(7)) == 0
        assert (walk.live(connection), walk.attempts(connection)) == before
        assert walk.ended(connection) == []


def test_a_worker_that_lost_its_claim_cannot_record_but_its_attempt_replaces_the_lost_one(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        assert lose(connection) == 1
        (lost,) = walk.attempts(connection)
        assert (lost.outcome, lost.outcome_known, lost.body_sha256, lost.number) == ("worker_lost", False, None, 1)
        assert decided(lost) == ("not charged, again in 0 s", False, 0.0, False)
        again = claim_again(connection)
        assert (again.seq, again.number, again.refunds) == (2, 1, 1)
        assert walk.record(connection, [walk.result(claim, walk.retry(5))], now=later(32)) == 0
        (row,) = walk.live(connection)
        assert (row.state, row.claim_seq, row.attempts, row.refunds) == ("in_flight", 2, 0, 1)
        (attempt,) = walk.attempts(connection)
        assert (attempt.outcome, attempt.status_code, attempt.outcome_known) == ("http_retryable", 503, True)
        assert (attempt.body_sha256, *decided(attempt)) == (b"\x01" * 32, *decided(lost))


def test_a_late_failure_is_evidence_only_although_nobody_has_claimed_since(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        lose(connection)
        (before,) = walk.live(connection)
        for change in (walk.retry(5), walk.EXHAUSTED, Released()):
            assert walk.record(connection, [walk.result(claim, change)], now=later(32)) == 0
        assert walk.live(connection) == [before]
        assert [attempt.outcome for attempt in walk.attempts(connection)] == ["http_retryable"]


def test_a_late_success_ends_the_delivery_if_nobody_has_claimed_since(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        lose(connection)
        assert walk.record(connection, [walk.result(claim)], now=later(32)) == 1
        assert walk.live(connection) == []
        (row,), (attempt,) = walk.ended(connection), walk.attempts(connection)
    assert (row.state, row.attempts, row.refunds, row.last_outcome) == ("delivered", 1, 1, "ok")
    assert (attempt.outcome, *decided(attempt)) == ("ok", "delivered", True, None, None)
    assert walk.broken_promises(engine) == []


def test_a_late_success_is_evidence_only_once_another_has_claimed(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    _, claim = claimed
    with engine.begin() as connection:
        lose(connection)
        again = claim_again(connection)
        assert walk.record(connection, [walk.result(claim)], now=later(32)) == 0
        (attempt,) = walk.attempts(connection)
        assert (attempt.outcome, *decided(attempt)) == ("ok", "not charged, again in 0 s", False, 0.0, False)
        assert walk.record(connection, [walk.result(again)], now=later(33)) == 1
        assert len(walk.attempts(connection)) == 2
        assert len(walk.ended(connection)) == 1


def test_the_rescue_of_a_claim_that_was_recorded_meanwhile_changes_nothing(
    engine: Engine, claimed: tuple[UUID, Claim]
) -> None:
    """The rescuer's second statement again, after the worker's: as if the commit's answer had been lost."""
    _, claim = claimed
    lost = Outcome(OutcomeClass.WORKER_LOST, known=False)
    with engine.begin() as connection:
        walk.record(connection, [walk.result(claim, walk.retry(5))], now=later(1))
        before = (walk.live(connection), walk.attempts(connection))
        assert walk.record(connection, [walk.result(claim, walk.retry(0, charged=False), lost)], now=later(31)) == 0
        assert (walk.live(connection), walk.attempts(connection)) == before


def test_three_lost_workers_are_forgiven_and_the_next_ones_charged_until_the_schedule_is_exhausted(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        schedule = walk.add_schedule(connection, 0, 1, 1)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection)
        at, numbers = 0.0, []
        while walk.live(connection):
            numbers.append(claim_again(connection, at=at).number)
            assert lose(connection, at=at + 30) == 1
            at += 31
        (row,) = walk.ended(connection)
    assert numbers == [1, 1, 1, 1, 2, 3]
    assert (row.state, row.reason, row.attempts, row.refunds) == ("exhausted", "worker_lost", schedule.attempts, 3)
    assert walk.broken_promises(engine) == []


def test_the_living_are_not_rescued(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    with engine.begin() as connection:
        assert lose(connection, at=29.999) == 0
        assert lose(connection, at=30) == 1
        assert lose(connection, at=31) == 0


def test_a_retired_worker_is_rescued_at_once(engine: Engine, claimed: tuple[UUID, Claim]) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dispatcher.workers"))
        assert lose(connection, at=0) == 1


@pytest.mark.parametrize("success", [True, False])
def test_a_worker_that_records_while_it_is_rescued_waits_and_neither_deadlocks(
    engine: Engine, claimed: tuple[UUID, Claim], success: bool
) -> None:
    _, claim = claimed
    result = walk.result(claim) if success else walk.result(claim, walk.retry(5))
    with engine.connect() as rescuer, engine.connect() as worker, ThreadPoolExecutor(1) as pool:
        found = deliveries.lost(rescuer, batch=10, now=later(31))
        recording = pool.submit(walk.record, worker, [result], now=later(31))
        walk.wait_until_blocked(engine)
        lost = Outcome(OutcomeClass.WORKER_LOST, known=False)
        walk.record(rescuer, [walk.result(item.claim, walk.retry(0, charged=False), lost) for item in found])
        rescuer.commit()
        assert recording.result() == int(success)
        worker.commit()
    with engine.connect() as connection:
        assert len(walk.ended(connection)) == int(success)
        assert len(walk.live(connection)) == int(not success)
        assert [attempt.outcome for attempt in walk.attempts(connection)] == ["ok" if success else "http_retryable"]


def test_two_rescuers_share_the_dead_without_waiting(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 6)
        walk.claim(connection, walk.add_worker(connection))
    with engine.connect() as one, engine.connect() as other:
        other.execute(text("SET LOCAL statement_timeout = 500"))
        first, second = (deliveries.lost(c, batch=4, now=later(31)) for c in (one, other))
        assert (len(first), len(second)) == (4, 2)
        assert not {lost.claim.delivery_id for lost in first} & {lost.claim.delivery_id for lost in second}


def test_a_rejection_that_disables_the_endpoint_holds_its_other_deliveries_and_says_so_in_its_history(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, event_types=("a",))
        walk.add_endpoint(connection, event_types=("b",))
        walk.emit(connection, 3, type_="a")
        walk.emit(connection, 1, type_="b")
        worker_id = walk.add_worker(connection)
        claims = [c for c in walk.claim(connection, worker_id) if c.endpoint_id == endpoint.id][:2]
        gone = Outcome(OutcomeClass.GONE, status_code=410)
        stop = Stop("rejected", "gone 410", disable_endpoint=True)
        walk.record(connection, [walk.result(claim, stop, gone) for claim in claims], now=later(3))
        statuses = walk.rows(connection, "SELECT status, status_reason, version FROM dispatcher.endpoints ORDER BY id")
        assert [(row.status, row.status_reason, row.version) for row in statuses] == [
            ("disabled", "gone 410", 2),
            ("active", None, 1),
        ]
        history = walk.rows(
            connection,
            "SELECT version, status, status_reason, changed_at FROM dispatcher.endpoint_history"
            " WHERE endpoint_id = :id ORDER BY version",
            id=endpoint.id,
        )
        assert [tuple(row) for row in history][1:] == [(2, "disabled", "gone 410", later(3))]
        assert [row.state for row in walk.ended(connection)] == ["rejected", "rejected"]
        walk.emit(connection, type_="a", now=later(4))
        assert walk.claim(connection, worker_id, now=later(5)) == []


HOSTILE = {
    "NUL in the error": Outcome(OutcomeClass.CONNECT, error="no\0thing"),
    "lone surrogates in the error": Outcome(OutcomeClass.INTERNAL, error="file \udcff\ud800 of ours"),
    "latin-1 headers": Outcome(
        OutcomeClass.OK, status_code=200, response_headers=(("x-\xe9", "\xff\xfe"), ("set-cookie", 'a="\\u0000"'))
    ),
    "NUL in a header": Outcome(OutcomeClass.OK, status_code=200, response_headers=(("x", "a\0b"),)),
    "16 KiB of anything": Outcome(
        OutcomeClass.OK, status_code=200, response_body=bytes(range(256)) * 64, body_end=BodyEnd.CAPPED
    ),
    "status 999": Outcome(OutcomeClass.HTTP_RETRYABLE, status_code=999),
    "status 600": Outcome(OutcomeClass.HTTP_RETRYABLE, status_code=600),
    "status 99999 of a foreign transport": Outcome(OutcomeClass.HTTP_RETRYABLE, status_code=99999),
    "a Retry-After of 10^12": Outcome(OutcomeClass.THROTTLED, status_code=429, retry_after_s=1e12),
    "a thousand headers": Outcome(
        OutcomeClass.OK, status_code=200, response_headers=tuple((f"x-{n}", "v" * 50) for n in range(1000))
    ),
}


def test_hostile_evidence_is_recorded_whole_and_fails_no_batch(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, len(HOSTILE))
        claims = walk.claim(connection, walk.add_worker(connection))
        outcomes = dict(zip([claim.delivery_id for claim in claims], HOSTILE.values(), strict=True))
        results = [
            walk.result(
                claim,
                walk.DELIVERED if outcomes[claim.delivery_id].ok else walk.retry(5),
                outcomes[claim.delivery_id],
                request_headers=[(b"x-\xe9", b"\xff")],
            )
            for claim in claims
        ]
        assert walk.record(connection, results) == len(HOSTILE)
        for delivery_id, outcome in outcomes.items():
            (attempt,) = log.attempts(connection, delivery_id)
            assert attempt.response_body == outcome.response_body
            kept = [[name, value.replace("\0", "\ufffd")] for name, value in outcome.response_headers]
            assert attempt.response_headers == kept
            assert attempt.request_headers == [["x-\xe9", "\xff"]]
            assert attempt.status_code == outcome.status_code
            assert attempt.body_end == outcome.body_end
        errors = {attempt.error for attempt in walk.attempts(connection)}
        assert {"no\ufffdthing", "file ?? of ours"} <= errors


def test_a_wake_reports_what_succeeded_and_failed_for_each_endpoint(engine: Engine) -> None:
    with engine.begin() as connection:
        one = walk.add_endpoint(connection, event_types=("a",))
        walk.add_endpoint(connection, event_types=("b",))
        walk.emit(connection, 3, type_="a")
        walk.emit(connection, 2, type_="b")
        claims = walk.claim(connection, walk.add_worker(connection))
        connection.execute(text("DELETE FROM dispatcher.wakes"))
        mine = [claim for claim in claims if claim.endpoint_id == one.id]
        others = [claim for claim in claims if claim.endpoint_id != one.id]
        results = [walk.result(mine[0]), walk.result(mine[1], walk.retry(5)), walk.result(mine[2], walk.retry(3600))]
        walk.record(connection, [*results, *(walk.result(claim) for claim in others)])
        wakes = {
            row.endpoint_id: (row.due_at, row.succeeded, row.failed)
            for row in walk.rows(connection, "SELECT * FROM dispatcher.wakes")
        }
        assert wakes == {one.id: (later(5), 1, 2), others[0].endpoint_id: (later(60), 2, 0)}
