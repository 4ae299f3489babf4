"""The one place that reads a clock or draws a random number.

The database's clock decides what is due (see `dispatcher.store`); this one stamps signatures and attempt rows.
Intervals are always measured by `monotonic`, steps of other clocks by `boottime`.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _now() -> datetime:
    return datetime.now(UTC)


_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former is Linux's


def _boottime() -> float:
    return time.clock_gettime(_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the time and chance come from; passed in, so that a test can bind them.

    `now` gives an aware UTC instant, `monotonic` seconds since an arbitrary start, `boottime` the same of a clock
    that goes on, where there is one, while the machine is suspended, `uniform(low, high)` a random float between the
    two.
    """

    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    boottime: Callable[[], float] = _boottime
    uniform: Callable[[float, float], float] = random.uniform


SYSTEM = Clock()
