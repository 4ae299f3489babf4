from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import DecisionRules, RetryAt, RetrySchedule, Stop, decide
from tests.retry.strategies import outcomes, schedules

C = OutcomeClass

SCHEDULE = RetrySchedule("three", tuple(timedelta(seconds=s) for s in (0, 5, 300)))
OFFSETS = replace(SCHEDULE, relative_to="first_attempt")

RETRYABLE = sorted(set(C) - {C.OK, C.INVALID_CONFIG, C.INTERNAL, C.WORKER_LOST})
ANSWERED = [
    C.REDIRECT_REFUSED,
    C.HTTP_4XX,
    C.HTTP_RETRYABLE,
    C.GONE,
    C.TOO_LARGE,
    C.THROTTLED,
    C.UNEXPECTED_2XX,
]
EXTEND = DecisionRules(retry_after="extend")


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def decided(outcome: Outcome | OutcomeClass, **given_: Any) -> RetryAt | Stop:
    if isinstance(outcome, OutcomeClass):
        outcome = Outcome(outcome)
    return decide(outcome, **{"schedule": SCHEDULE, "attempt": 1, "refunds": 0, "uniform": middle, **given_})


def test_success_ends_a_delivery() -> None:
    assert decided(Outcome(C.OK, status_code=200)) == Stop("delivered", "ok")


def test_success_on_the_last_attempt_is_no_exhaustion() -> None:
    assert decided(C.OK, attempt=3) == Stop("delivered", "ok")


@pytest.mark.parametrize("kind", RETRYABLE)
def test_whatever_is_not_a_success_is_retried_on_the_schedule(kind: OutcomeClass) -> None:
    assert decided(kind) == RetryAt(5.0, charged=True, from_first_attempt=False, reason=kind.value)
    assert decided(kind, attempt=2) == RetryAt(300.0, charged=True, from_first_attempt=False, reason=kind.value)


@pytest.mark.parametrize("kind", RETRYABLE)
def test_the_last_attempt_exhausts_and_says_by_what(kind: OutcomeClass) -> None:
    assert decided(kind, attempt=3) == Stop("exhausted", kind.value)
    assert decided(kind, attempt=4) == Stop("exhausted", kind.value)


def test_a_reason_names_the_status() -> None:
    assert decided(Outcome(C.HTTP_4XX, status_code=404), attempt=3) == Stop("exhausted", "http_4xx 404")


def test_offsets_are_told_as_such() -> None:
    decision = decided(C.DEADLINE, schedule=OFFSETS, attempt=2)
    assert decision == RetryAt(300.0, charged=True, from_first_attempt=True, reason="deadline")


def test_jitter_is_drawn_on_retries() -> None:
    decision = decided(C.RESET, schedule=replace(SCHEDULE, jitter=0.5))
    assert isinstance(decision, RetryAt)
    assert decision.wait_s == 5 * 1.25


def test_a_configuration_that_can_never_work_rejects_at_once() -> None:
    assert decided(C.INVALID_CONFIG) == Stop("rejected", "invalid_config")


@pytest.mark.parametrize("attempt", [1, 3, 99])
def test_a_failure_of_our_own_charges_nothing_even_after_the_last_attempt(attempt: int) -> None:
    decision = decided(C.INTERNAL, attempt=attempt, refunds=99, schedule=OFFSETS)
    assert decision == RetryAt(32.5, charged=False, from_first_attempt=False, reason="internal")


@pytest.mark.parametrize("refunds", [0, 1, 2])
def test_a_lost_worker_is_refunded_at_once(refunds: int) -> None:
    decision = decided(C.WORKER_LOST, attempt=3, refunds=refunds, schedule=OFFSETS)
    assert decision == RetryAt(0.0, charged=False, from_first_attempt=False, reason="worker_lost")


def test_after_three_refunds_a_lost_worker_is_charged() -> None:
    assert decided(C.WORKER_LOST, refunds=3) == RetryAt(
        5.0, charged=True, from_first_attempt=False, reason="worker_lost"
    )
    assert decided(C.WORKER_LOST, attempt=3, refunds=3) == Stop("exhausted", "worker_lost")


@pytest.mark.parametrize("kind", ANSWERED)
def test_a_permanent_status_rejects(kind: OutcomeClass) -> None:
    rules = DecisionRules(permanent_statuses=frozenset({418}))
    assert decided(Outcome(kind, status_code=418), rules=rules) == Stop("rejected", f"{kind.value} 418")
    assert isinstance(decided(Outcome(kind, status_code=419), rules=rules), RetryAt)


def test_410_disables_the_endpoint_where_the_profile_says_so() -> None:
    gone = Outcome(C.GONE, status_code=410)
    rules = DecisionRules(permanent_statuses=frozenset({410}), disable_on=frozenset({410}))
    assert decided(gone, rules=rules) == Stop("rejected", "gone 410", disable_endpoint=True)
    assert isinstance(decided(gone), RetryAt)


@pytest.mark.parametrize("kind", sorted(set(RETRYABLE) - set(ANSWERED)))
def test_a_status_without_an_answer_is_no_status(kind: OutcomeClass) -> None:
    """A headers_too_large carries the status that was read before: the rest of the answer was never judged."""
    rules = DecisionRules(permanent_statuses=frozenset({410}), disable_on=frozenset({410}))
    assert isinstance(decided(Outcome(kind, status_code=410), rules=rules), RetryAt)


def test_success_is_never_rejected_by_a_status() -> None:
    rules = DecisionRules(permanent_statuses=frozenset({200}), disable_on=frozenset({200}))
    assert decided(Outcome(C.OK, status_code=200), rules=rules) == Stop("delivered", "ok")


def throttled(retry_after_s: float | None) -> Outcome:
    return Outcome(C.THROTTLED, status_code=429, retry_after_s=retry_after_s)


def test_retry_after_is_ignored_by_default() -> None:
    decision = decided(throttled(30))
    assert decision == RetryAt(5.0, charged=True, from_first_attempt=False, reason="throttled 429")


@pytest.mark.parametrize(
    ("attempt", "wish_s", "granted_s"),
    [
        (1, 7, 7),
        (1, 1, 5),  # never sooner than the step
        (1, -1, 5),
        (1, 60, 60),
        (1, 61, 60),  # a step of 5 s: at most 60
        (1, 1e12, 60),
        (1, float("inf"), 60),
        (2, 599, 599),
        (2, 601, 600),  # a step of 300 s: at most twice
        (2, 7, 300),
    ],
)
def test_retry_after_extends_a_step_within_bounds(attempt: int, wish_s: float, granted_s: float) -> None:
    decision = decided(throttled(wish_s), attempt=attempt, rules=EXTEND)
    assert isinstance(decision, RetryAt)
    assert (decision.wait_s, decision.retry_after_s) == (granted_s, granted_s)


@pytest.mark.parametrize("wish_s", [None, float("nan")])
def test_a_retry_after_that_is_none_changes_nothing(wish_s: float | None) -> None:
    decision = decided(throttled(wish_s), rules=EXTEND)
    assert decision == RetryAt(5.0, charged=True, from_first_attempt=False, reason="throttled 429")


def test_a_retry_after_does_not_shorten_what_the_jitter_drew() -> None:
    decision = decided(throttled(6), rules=EXTEND, schedule=replace(SCHEDULE, jitter=1.0))
    assert isinstance(decision, RetryAt)
    assert (decision.wait_s, decision.retry_after_s) == (7.5, 6)


def test_a_retry_after_on_another_outcome_has_no_say() -> None:
    decision = decided(Outcome(C.HTTP_RETRYABLE, status_code=500, retry_after_s=30), rules=EXTEND)
    assert isinstance(decision, RetryAt)
    assert (decision.wait_s, decision.retry_after_s) == (5.0, None)


def test_with_offsets_a_retry_after_stands_beside_the_offset() -> None:
    """The two count from different instants, so only who knows both can take the later."""
    decision = decided(throttled(400), rules=EXTEND, schedule=OFFSETS, attempt=2)
    assert isinstance(decision, RetryAt)
    assert (decision.wait_s, decision.retry_after_s) == (300.0, 400.0)


def test_attempt_zero_does_not_exist() -> None:
    with pytest.raises(ValueError, match="the first send is 1"):
        decided(C.OK, attempt=0)


any_rules = st.builds(
    DecisionRules,
    permanent_statuses=st.frozensets(st.integers(min_value=400, max_value=410)),
    disable_on=st.frozensets(st.integers(min_value=400, max_value=410)),
    retry_after=st.sampled_from(["ignore", "extend"]),
    refund_limit=st.just(3),
)


@given(outcomes(), schedules(), st.integers(1, 101), st.integers(0, 9), any_rules, st.integers())
@settings(max_examples=300)
def test_a_charged_retry_is_never_early_and_never_later_than_declared(
    outcome: Outcome, schedule: RetrySchedule, attempt: int, refunds: int, rules: DecisionRules, seed: int
) -> None:
    decision = decide(
        outcome, schedule=schedule, attempt=attempt, refunds=refunds, rules=rules, uniform=Random(seed).uniform
    )
    if isinstance(decision, RetryAt) and decision.charged:
        declared_s = schedule.wait_before(attempt + 1).total_seconds()
        step_s = schedule.step_before(attempt + 1).total_seconds()
        bound_s = declared_s * (1 + schedule.jitter) * (1 + 1e-12)
        if decision.retry_after_s is not None:
            assert step_s <= decision.retry_after_s <= max(2 * step_s, 60)
            bound_s = max(bound_s, decision.retry_after_s)
        assert declared_s <= decision.wait_s <= bound_s
    elif isinstance(decision, RetryAt):
        assert 0 <= decision.wait_s <= 60
        assert not decision.from_first_attempt


@given(st.lists(outcomes(), min_size=1, max_size=8), schedules(), any_rules, st.integers())
@settings(max_examples=150)
def test_every_delivery_ends_after_at_most_n_charged_and_three_refunded_attempts(
    possible: list[Outcome], schedule: RetrySchedule, rules: DecisionRules, seed: int
) -> None:
    random = Random(seed)
    attempt, refunds, charged = 1, 0, 0
    for outcome in random.choices(possible, k=400):
        decision = decide(
            outcome, schedule=schedule, attempt=attempt, refunds=refunds, rules=rules, uniform=random.uniform
        )
        match decision:
            case Stop(state):
                charged += 1
                assert state in {"delivered", "exhausted", "rejected"}
                assert state != "exhausted" or charged == schedule.attempts
                break
            case RetryAt(charged=True):
                attempt += 1
                charged += 1
            case RetryAt():
                refunds += outcome.kind is C.WORKER_LOST
        assert charged < schedule.attempts
        assert refunds <= 3
    assert charged <= schedule.attempts


@given(outcomes(), schedules(), st.integers(1, 101), st.integers(0, 9), st.integers())
def test_the_same_outcome_is_decided_alike_twice(
    outcome: Outcome, schedule: RetrySchedule, attempt: int, refunds: int, seed: int
) -> None:
    first, second = (
        decide(outcome, schedule=schedule, attempt=attempt, refunds=refunds, uniform=Random(seed).uniform)
        for _ in range(2)
    )
    assert first == second
