"""Keeps the due clock steady: notices steps of the database's clock by a clock that cannot be set, and corrects them.

Every worker and scheduler has a `DueClock`. It reads the database's clock every now and then, and between what it had
before sending the statement and what it had after the answer, its own monotonic clock. The difference of the two
clocks is known as an interval, as wide as the round trip. When an interval does not meet the one before, the
database's clock has stepped: the due clock is corrected by as much, once, whoever notices it.

Until a step is noticed, no statement of the process is misled by it either: each passes `bounds`, and the database
keeps the due clock within them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dispatcher import telemetry
from dispatcher.store import clock as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.clock import Clock
    from dispatcher.store.clock import Bounds, Reading

STEP_S: Final = 0.1
"""What two readings may differ by beyond what their round trips and the drift explain. NTP corrects more by a step."""

DRIFT: Final = 200e-6
"""How much the two clocks drift apart, a second of time: an interval widens by it. What is more is followed all the
same as long as it stays below `STEP_S` from one reading to the next."""

PRECISE_S: Final = 0.05
"""A reading that took longer is made again where it matters, up to `TRIES` times."""

TRIES: Final = 3

HOST_TOLERANCE_S: Final = 0.25
"""An attempt is stamped by the host's clock where that is as close to the due clock."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """A step that nobody has recorded yet, and by how many seconds the due clock is to be corrected for it."""

    change_s: float
    seq: int


@dataclass(frozen=True, slots=True)
class _Reference:
    """Between which seconds the due clock's time minus the monotonic clock's lay at `at_s` on the latter."""

    low_s: float
    high_s: float
    at_s: float
    seq: int
    since_s: float

    def at(self, now_s: float) -> tuple[float, float]:
        """The same now, widened by the drift."""
        drift_s = DRIFT * max(0.0, now_s - self.at_s)
        return self.low_s - drift_s, self.high_s + drift_s


class DueClock:
    """One process's knowledge of the due clock. `term_s` is after how long it may contradict what others recorded."""

    def __init__(self, clock: Clock, *, name: str, term_s: float) -> None:
        self._clock = clock
        self._name = name
        self._term_s = term_s
        self._reference: _Reference | None = None
        self._oldest_xid = ""

    @property
    def read_at_s(self) -> float:
        """When it was read last, on the clock that is never set; minus infinity where it never was."""
        return float("-inf") if self._reference is None else self._reference.at_s

    @property
    def has_stepped(self) -> bool:
        """Whether any step has ever been recorded, as far as this process knows."""
        return self._reference is not None and self._reference.seq > 0

    @property
    def bounds(self) -> Bounds | None:
        """Between which instants the due clock is now; None before the first reading."""
        if self._reference is None:
            return None
        now_s = self._clock.boottime()
        low_s, high_s = self._reference.at(now_s)
        return _instant(now_s + low_s), _instant(now_s + high_s)

    def stamp(self, at: datetime) -> datetime:
        """The host's time as the due clock has it: itself where the two agree, else the middle of what is known.

        So attempts are in order and as far apart as they were, also where a host's clock steps.
        """
        if self._reference is None:
            return at
        now_s = self._clock.boottime()
        low_s, high_s = self._reference.at(now_s)
        if low_s - HOST_TOLERANCE_S <= (at - _EPOCH).total_seconds() - now_s <= high_s + HOST_TOLERANCE_S:
            return at
        return _instant(now_s + (low_s + high_s) / 2)

    def sample(self, connection: Connection) -> bool:
        """Reads the clock and, where it has stepped, corrects it in the connection's transaction; whether it did."""
        corrected = False
        while (step := self._look(connection)) is not None:
            if not store.correct(
                connection,
                seq=step.seq,
                change_s=step.change_s,
                noticed_by=self._name,
                oldest_xid=self._oldest_xid,
                unnoticed_s=self._clock.boottime() - self.read_at_s,
            ):
                continue  # another process was first: what it recorded is read now
            telemetry.log(
                _log, logging.WARNING, "clock.stepped", noticed_by=self._name, change_s=round(-step.change_s, 3)
            )
            store.repair(connection)
            corrected = True
        return corrected

    def _look(self, connection: Connection) -> Step | None:
        step: Step | None = None
        for _ in range(TRIES):
            asked_at_s = self._clock.boottime()
            reading = store.read(connection)
            answered_at_s = self._clock.boottime()
            is_precise = answered_at_s - asked_at_s <= PRECISE_S
            had_one = self._reference is not None
            step = self.observe(reading, asked_at_s, answered_at_s)
            if is_precise or (had_one and step is None):
                break
        return step

    def observe(self, reading: Reading, asked_at_s: float, answered_at_s: float) -> Step | None:
        """Takes note of a reading; the step that it shows, if so, of which the process then takes no note yet.

        A monotonic clock may stand still with its machine, and then the database's seems to have stepped forward. So a
        process whose reference has lasted for a term puts right what others recorded if the due clock fell behind it,
        and never if it ran ahead: the clock that has counted more time is right.
        """
        shown_s = (reading.now - _EPOCH).total_seconds()
        low_s, high_s = shown_s - answered_at_s, shown_s - asked_at_s
        reference = self._reference
        if reference is None:
            self._adopt(reading, low_s, high_s, answered_at_s, since_s=answered_at_s)
            return None
        known_low_s, known_high_s = reference.at(answered_at_s)
        if low_s <= known_high_s + STEP_S and high_s >= known_low_s - STEP_S:
            if max(low_s, known_low_s) <= min(high_s, known_high_s):
                low_s, high_s = max(low_s, known_low_s), min(high_s, known_high_s)
            self._adopt(reading, low_s, high_s, answered_at_s, since_s=reference.since_s)
            return None
        if reading.seq > reference.seq and (low_s > known_high_s or answered_at_s - reference.since_s < self._term_s):
            self._adopt(reading, low_s, high_s, answered_at_s, since_s=answered_at_s)
            return None
        # Rather late than early, by as much as the round trip was long.
        return Step((known_low_s + known_high_s) / 2 - high_s, reading.seq)

    def _adopt(self, reading: Reading, low_s: float, high_s: float, at_s: float, *, since_s: float) -> None:
        self._reference = _Reference(low_s, high_s, at_s, reading.seq, since_s)
        self._oldest_xid = reading.oldest_xid


def _instant(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
