"""A retry schedule: when each attempt of a delivery may start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

RelativeTo = Literal["previous_failure", "first_attempt"]

RELATIVE_TO: Final[tuple[RelativeTo, ...]] = get_args(RelativeTo)

MAX_ATTEMPTS: Final = 100
MAX_WAIT: Final = timedelta(days=30)
MAX_TOTAL: Final = timedelta(days=365)

_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The declared waits of a delivery; attempt 1 is the first send.

    `waits[n-1]` precedes attempt n. With `relative_to` "previous_failure" it runs from the end of attempt n-1
    (for attempt 1, from the event); with "first_attempt" it is the offset from the start of attempt 1, whose own
    is zero. `jitter` only lengthens: a wait is multiplied by uniform(1, 1 + jitter). `source` says who declared
    the numbers.

    Raises ValueError for values that no schedule can have; `dispatcher.retry.schedule_file` says which and where.
    """

    name: str
    waits: tuple[timedelta, ...]
    relative_to: RelativeTo = "previous_failure"
    jitter: float = 0.0
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.waits) <= MAX_ATTEMPTS:
            raise ValueError(f"{len(self.waits)} waits; allowed: 1 to {MAX_ATTEMPTS}")
        if any(not timedelta(0) <= wait <= MAX_WAIT or wait % _MS for wait in self.waits) or self.total > MAX_TOTAL:
            raise ValueError("a wait is negative, too long or finer than a millisecond, or the total is too long")
        if self.relative_to not in RELATIVE_TO:
            raise ValueError(f"relative_to {self.relative_to!r}; allowed: {RELATIVE_TO}")
        if self.relative_to == "first_attempt" and (
            self.waits[0] or any(later <= earlier for earlier, later in pairwise(self.waits))
        ):
            raise ValueError("offsets from the first attempt start at zero and ascend")
        if not 0.0 <= self.jitter <= 1.0:
            raise ValueError(f"jitter {self.jitter}; allowed: 0 to 1")

    @property
    def attempts(self) -> int:
        """How many charged attempts a delivery gets."""
        return len(self.waits)

    @property
    def total(self) -> timedelta:
        """From the event to the start of the last attempt, if failures took no time and jitter drew nothing."""
        if self.relative_to == "first_attempt":
            return self.waits[-1]
        return sum(self.waits, timedelta(0))

    @property
    def from_first_attempt(self) -> bool:
        """Whether waits are offsets from the start of attempt 1."""
        return self.relative_to == "first_attempt"

    def wait_before(self, attempt: int) -> timedelta:
        """The declared wait, or offset, before `attempt`. Raises IndexError outside 1 to `attempts`."""
        if not 1 <= attempt <= len(self.waits):
            raise IndexError(f"attempt {attempt}; {self.name} has 1 to {len(self.waits)}")
        return self.waits[attempt - 1]

    def step_before(self, attempt: int) -> timedelta:
        """The declared time between `attempt` and the one before it, whatever the waits are relative to."""
        wait = self.wait_before(attempt)
        if self.from_first_attempt and attempt > 1:
            return wait - self.waits[attempt - 2]
        return wait

    def delay_s(self, attempt: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds before `attempt`, jitter drawn by `uniform(low, high)`; never less than the declared wait."""
        wait_s = self.wait_before(attempt).total_seconds()
        if not self.jitter:
            return wait_s
        return max(wait_s, wait_s * uniform(1.0, 1.0 + self.jitter))

    def canonical(self) -> str:
        """What decides behaviour, as JSON with sorted keys: the body of a row in `schedule_versions`.

        Name, description and source are left out: rewording them must not make a new version.
        """
        content = {
            "jitter": self.jitter + 0.0,  # -0.0 behaves as 0.0
            "relative_to": self.relative_to,
            "waits_ms": [wait // _MS for wait in self.waits],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def version(self) -> str:
        """SHA-256 (hex) of `canonical()`: equal exactly when two schedules behave alike."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def from_canonical(cls, name: str, text: str) -> RetrySchedule:
        """The schedule whose `canonical()` is `text`. Raises ValueError if none is: the stored row is corrupt."""
        try:
            content = json.loads(text)
            schedule = cls(
                name=name,
                waits=tuple(timedelta(milliseconds=ms) for ms in content["waits_ms"]),
                relative_to=content["relative_to"],
                jitter=float(content["jitter"]),
            )
            exact = schedule.canonical() == text
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"the stored version of schedule {name!r} is corrupt") from error
        if not exact:
            raise ValueError(f"the stored version of schedule {name!r} is not in canonical form")
        return schedule
