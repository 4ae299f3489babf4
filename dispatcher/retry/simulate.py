"""What a schedule makes of an outage: when attempts are made, and how late the delivery is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from dispatcher.model.delivery import Stop
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry.decision import DEFAULT, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dispatcher.retry.decision import DecisionRules
    from dispatcher.retry.schedule import RetrySchedule

Span = tuple[timedelta, timedelta]
"""From the event's acceptance: from when, until just before when."""

_UP = Outcome(OutcomeClass.OK, status_code=200)
_DOWN = Outcome(OutcomeClass.CONNECT)


@dataclass(frozen=True, slots=True)
class SimulatedAttempt:
    """One attempt, `offset` after the event was accepted."""

    number: int
    offset: timedelta
    ok: bool


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a delivery goes: its attempts, the state in which the last of them ends it, and why, as the log has it."""

    attempts: tuple[SimulatedAttempt, ...]
    ended: str
    reason: str

    @property
    def delay(self) -> timedelta:
        """From the event to the start of the last attempt."""
        return self.attempts[-1].offset


def simulate(
    schedule: RetrySchedule,
    down: Sequence[Span],
    *,
    answers: Sequence[Outcome] = (),
    rules: DecisionRules = DEFAULT,
    takes: timedelta = timedelta(0),
    uniform: Callable[[float, float], float] = lambda low, _: low,
) -> Simulation:
    """Walks a delivery down the schedule, as workers would.

    The first attempts get these `answers`, judged by the `rules` of a profile; those after them fail in the spans of
    `down`, and else succeed. A failing attempt `takes` so long; `uniform` draws the jitter, the least of it by default.
    What the queue and the endpoint's cap add is left out.

    >>> from dispatcher.retry import RetrySchedule
    >>> two = RetrySchedule("two", (timedelta(0), timedelta(seconds=5), timedelta(minutes=5)))
    >>> simulate(two, [(timedelta(0), timedelta(seconds=10))]).delay
    datetime.timedelta(seconds=305)
    """
    first = at = timedelta(seconds=schedule.delay_s(1, uniform))
    attempts: list[SimulatedAttempt] = []
    while True:
        number = len(attempts) + 1
        if number <= len(answers):
            outcome = answers[number - 1]
        else:
            outcome = _DOWN if any(begin <= at < end for begin, end in down) else _UP
        attempts.append(SimulatedAttempt(number, at, outcome.ok))
        change = decide(outcome, schedule=schedule, attempt=number, refunds=0, rules=rules, uniform=uniform)
        if isinstance(change, Stop):
            return Simulation(tuple(attempts), change.state, change.reason)
        base = first if change.from_first_attempt else at + takes
        at = max(at + takes, base + timedelta(seconds=change.wait_s))
