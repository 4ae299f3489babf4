"""A schedule laid out in time, if every attempt failed at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.retry.schedule import RetrySchedule


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """One attempt of a delivery that never succeeds.

    `wait` is what the file declares; `earliest` and `latest` are offsets from the event with the least and the
    most jitter, equal where there is none. Failures are taken to need no time, so with "previous_failure" a real
    attempt starts later by what the attempts before it took.
    """

    number: int
    wait: timedelta
    earliest: timedelta
    latest: timedelta


def preview(schedule: RetrySchedule) -> tuple[PlannedAttempt, ...]:
    """Every attempt of `schedule`, in order."""
    planned = []
    earliest = latest = timedelta(0)
    for number, wait in enumerate(schedule.waits, start=1):
        most = wait * (1 + schedule.jitter)
        earliest, latest = (wait, most) if schedule.from_first_attempt else (earliest + wait, latest + most)
        planned.append(PlannedAttempt(number, wait, earliest, latest))
    return tuple(planned)
