"""What follows from the outcome of an attempt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, assert_never

from dispatcher.model.delivery import RetryAt, Stop
from dispatcher.model.outcome import OutcomeClass, reason
from dispatcher.model.outcome_class import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.model.outcome import Outcome
    from dispatcher.retry.schedule import RetrySchedule

INTERNAL_WAIT_S: Final = (5.0, 60.0)
"""Bounds of the wait after a failure of our own: long enough not to spin, short enough to recover soon."""

RETRY_AFTER_FLOOR_S: Final = 60.0
"""A Retry-After of up to this is granted whatever the step; above it, at most twice the step."""


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """How a profile departs from "whatever is not a success is retried".

    An answer whose status is in `permanent_statuses` or `disable_on` rejects the delivery; the latter disable the
    endpoint too. `retry_after` "extend" lets a throttled answer's Retry-After lengthen the step, never shorten it.
    `refund_limit` is how many lost workers a delivery is forgiven, so that one that kills workers ends.
    """

    permanent_statuses: frozenset[int] = frozenset()
    disable_on: frozenset[int] = frozenset()
    retry_after: Literal["ignore", "extend"] = "ignore"
    refund_limit: int = 3


DEFAULT: Final = DecisionRules()

_DELIVERED: Final = Stop("delivered", OutcomeClass.OK.value)


def decide(
    outcome: Outcome,
    *,
    schedule: RetrySchedule,
    attempt: int,
    refunds: int,
    rules: DecisionRules = DEFAULT,
    uniform: Callable[[float, float], float],
) -> RetryAt | Stop:
    """What to do after `attempt` (1 is the first send) ended with `outcome`.

    `refunds` is how many attempts of the delivery were forgiven before. `uniform(low, high)` draws the jitter.
    It never answers "expired", which is the database clock's to say. Raises ValueError where `attempt` is below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt {attempt}; the first send is 1")
    match outcome.kind.verdict:
        case Verdict.DELIVERED:
            return _DELIVERED
        case Verdict.RETRIED:
            return _next_step(outcome, schedule, attempt, rules, uniform)
        case Verdict.BY_STATUS:
            if outcome.status_code in rules.disable_on:
                return Stop("rejected", _reason(outcome), disable_endpoint=True)
            if outcome.status_code in rules.permanent_statuses:
                return Stop("rejected", _reason(outcome))
            return _next_step(outcome, schedule, attempt, rules, uniform)
        case Verdict.REJECTED:
            return Stop("rejected", _reason(outcome))
        case Verdict.OUR_FAULT:
            return RetryAt(uniform(*INTERNAL_WAIT_S), charged=False, from_first_attempt=False, reason=_reason(outcome))
        case Verdict.FORGIVEN:
            if refunds < rules.refund_limit:
                return RetryAt(0.0, charged=False, from_first_attempt=False, reason=_reason(outcome))
            return _next_step(outcome, schedule, attempt, rules, uniform)
        case _:  # pragma: no cover - mypy proves that every verdict is above
            assert_never(outcome.kind.verdict)


def _next_step(
    outcome: Outcome,
    schedule: RetrySchedule,
    attempt: int,
    rules: DecisionRules,
    uniform: Callable[[float, float], float],
) -> RetryAt | Stop:
    """The wait that the schedule declares after `attempt`, or the end of the delivery."""
    if attempt >= schedule.attempts:
        return Stop("exhausted", _reason(outcome))
    wait_s = schedule.delay_s(attempt + 1, uniform)
    granted_s = _granted_retry_after_s(outcome, schedule, attempt, rules)
    if granted_s is not None and not schedule.from_first_attempt:
        wait_s = max(wait_s, granted_s)
    return RetryAt(
        wait_s,
        charged=True,
        from_first_attempt=schedule.from_first_attempt,
        reason=_reason(outcome),
        retry_after_s=granted_s,
    )


def _granted_retry_after_s(
    outcome: Outcome, schedule: RetrySchedule, attempt: int, rules: DecisionRules
) -> float | None:
    """Retry-After clamped to [step, max(2 × step, 60 s)], or None where it has no say."""
    wish_s = outcome.retry_after_s
    if rules.retry_after == "ignore" or outcome.kind is not OutcomeClass.THROTTLED or wish_s is None:
        return None
    if math.isnan(wish_s):
        return None
    step_s = schedule.step_before(attempt + 1).total_seconds()
    return min(max(wish_s, step_s), max(2 * step_s, RETRY_AFTER_FLOOR_S))


def _reason(outcome: Outcome) -> str:
    return reason(outcome.kind, outcome.status_code)
