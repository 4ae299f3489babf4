"""A schedule laid out in time, if every attempt failed at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

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


@dataclass(frozen=True, slots=True)
class DatedAttempt:
    """One attempt that is to come, with the least and the most jitter; later still where a failure takes time."""

    number: int
    earliest: datetime
    latest: datetime


def preview(schedule: RetrySchedule) -> tuple[PlannedAttempt, ...]:
    """Every attempt of `schedule`, in order."""
    planned = []
    earliest = latest = timedelta(0)
    for number, wait in enumerate(schedule.waits, start=1):
        most = wait * (1 + schedule.jitter)
        earliest, latest = (wait, most) if schedule.from_first_attempt else (earliest + wait, latest + most)
        planned.append(PlannedAttempt(number, wait, earliest, latest))
    return tuple(planned)


def ahead(
    schedule: RetrySchedule, number: int, at: datetime, *, first_at: datetime | None = None
) -> tuple[DatedAttempt, ...]:
    """The attempts of a delivery from `number` on, which is to start `at`, if every one of them failed at once.

    `first_at` is when attempt 1 started, where it has. Never empty: one beyond the schedule's last is alone.
    """
    planned = [DatedAttempt(number, at, at)]
    earliest = latest = at
    base = first_at or at
    for later in range(number + 1, schedule.attempts + 1):
        wait = schedule.wait_before(later)
        most = wait * (1 + schedule.jitter)
        if schedule.from_first_attempt:  # none starts before the one before it has ended
            earliest, latest = max(earliest, base + wait), max(latest, base + most)
        else:
            earliest, latest = earliest + wait, latest + most
        planned.append(DatedAttempt(later, earliest, latest))
    return tuple(planned)
