"""A schedule file's text: what it declares, everything wrong with it, and what in it is doubtful."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

from dispatcher import datafile
from dispatcher.datafile import LintWarning, all_problems, is_name, nearest, parse, refuse_unknown, shown, text_of
from dispatcher.model.duration import DURATION_SYNTAX, format_duration, parse_duration
from dispatcher.retry.schedule import MAX_ATTEMPTS, MAX_TOTAL, MAX_WAIT, RELATIVE_TO, RetrySchedule

__all__ = ["FIELDS", "LintWarning", "Reading", "all_problems", "is_name", "read_into", "read_schedule"]

FIELDS: Final = ("description", "source", "relative_to", "waits", "jitter")

_HASTY: Final = timedelta(seconds=1)


@dataclass(slots=True)
class Reading(datafile.Reading):
    """What came of reading one file: `schedule` is None exactly if there are `problems`."""

    schedule: RetrySchedule | None = None


def read_schedule(name: str, content: bytes, *, where: str) -> Reading:
    """Read a schedule file's bytes. `where` is how problems name the file. Raises nothing."""
    reading = Reading(where)
    read_into(reading, name, content)
    return reading


def read_into(reading: Reading, name: str, content: bytes) -> None:
    """Read a schedule file's bytes, noting on `reading` what came of it. Raises nothing."""
    document = parse(reading, name, content, fields=FIELDS)
    if document is not None:
        _read_fields(reading, name, document)


def _read_fields(reading: Reading, name: str, document: dict[str, Any]) -> None:
    refuse_unknown(reading, document, FIELDS, document="docs/retries.md")
    description = text_of(reading, "description", document.get("description", ""))
    source = text_of(reading, "source", document.get("source", ""))
    relative_to = _relative_to(reading, document.get("relative_to", "previous_failure"))
    waits = _waits(reading, document)
    jitter = _jitter(reading, document.get("jitter", 0.0))
    if relative_to == "first_attempt":
        _check_offsets(reading, waits)
    if reading.problems:
        return
    reading.schedule = RetrySchedule(
        name=name,
        waits=tuple(wait for wait in waits if wait is not None),
        relative_to="first_attempt" if relative_to == "first_attempt" else "previous_failure",
        jitter=jitter,
        description=description,
        source=source,
    )
    _lint(reading, reading.schedule)


def _relative_to(reading: Reading, value: object) -> str:
    if value in RELATIVE_TO:
        return str(value)
    hint = nearest(value, RELATIVE_TO, cutoff=0.4)
    reading.refuse("relative_to", shown(value), " or ".join(f'"{allowed}"' for allowed in RELATIVE_TO) + hint)
    return ""


def _waits(reading: Reading, document: dict[str, Any]) -> list[timedelta | None]:
    """Each wait, None where it was refused."""
    allowed = f"1 to {MAX_ATTEMPTS} durations, one for each attempt: {DURATION_SYNTAX}"
    match document.get("waits"):
        case None:
            reading.refuse("waits", "nothing", allowed)
            return []
        case list() as found if 1 <= len(found) <= MAX_ATTEMPTS:
            waits = [_wait(reading, f"waits[{index}]", value) for index, value in enumerate(found)]
        case list() as found:
            reading.refuse("waits", f"{len(found)} waits", allowed)
            return []
        case other:
            reading.refuse("waits", shown(other), allowed)
            return []
    total = sum((wait for wait in waits if wait is not None), timedelta(0))
    if total > MAX_TOTAL and document.get("relative_to") != "first_attempt":
        reading.refuse("waits", f"{format_duration(total)} in all", f"at most {format_duration(MAX_TOTAL)} in all")
    return waits


def _wait(reading: Reading, key: str, value: object) -> timedelta | None:
    limit = f"at most {format_duration(MAX_WAIT)}"
    if not isinstance(value, str):
        reading.refuse(key, shown(value), f"a string: {DURATION_SYNTAX}")
        return None
    try:
        wait = parse_duration(value)
    except ValueError:
        reading.refuse(key, shown(value), f"{DURATION_SYNTAX}; {limit}")
        return None
    if wait > MAX_WAIT:
        reading.refuse(key, shown(value), limit)
        return None
    return wait


def _check_offsets(reading: Reading, waits: list[timedelta | None]) -> None:
    """Offsets from the first attempt start at zero, which is the first attempt itself, and ascend."""
    if waits and waits[0]:
        reading.refuse("waits[0]", f'"{format_duration(waits[0])}"', 'with first_attempt, "0s": it is attempt 1 itself')
    for index, (earlier, later) in enumerate(pairwise(waits), start=1):
        if earlier is not None and later is not None and later <= earlier:
            reading.refuse(
                f"waits[{index}]",
                f'"{format_duration(later)}"',
                f'with first_attempt, an offset later than the one before it, "{format_duration(earlier)}"',
            )


def _jitter(reading: Reading, value: object) -> float:
    match value:
        case int() | float() if not isinstance(value, bool) and 0 <= value <= 1:
            # -0.0 is 0.0, and NaN compares false above.
            return math.fabs(value)
        case _:
            reading.refuse("jitter", shown(value), "a number from 0 to 1: a wait is multiplied by up to 1 + jitter")
            return 0.0


def _lint(reading: Reading, schedule: RetrySchedule) -> None:
    """What is allowed and yet likely a slip."""
    for key in ("description", "source"):
        if not getattr(schedule, key):
            reading.doubt(key, "missing; say for people what this schedule is and who declared it")
    if schedule.waits[0]:
        reading.doubt("waits[0]", f"the first send waits {format_duration(schedule.waits[0])}; usual is 0s")
    if schedule.attempts == 1:
        reading.doubt("waits", "one attempt, so nothing is ever retried")
    steps = [schedule.step_before(attempt) for attempt in range(1, schedule.attempts + 1)]
    for index, (earlier, later) in enumerate(pairwise(steps), start=1):
        if later < earlier:
            text = f"{format_duration(later)} after {format_duration(earlier)}: the waits shrink"
            reading.doubt(f"waits[{index}]", text)
        if later < _HASTY:
            reading.doubt(f"waits[{index}]", f"a retry after {format_duration(later)} gives no time to recover")
