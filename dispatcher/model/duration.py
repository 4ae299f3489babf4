"""Durations as people write them: `5s`, `1h30m`, `250ms`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

DURATION_SYNTAX: Final = 'numbers with units d, h, m, s or ms, largest first, as in "5s", "1h30m" or "250ms"'

_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
# "m" must not take the m of "ms".
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
# Enough for any duration that timedelta holds; keeps int() off texts of thousands of digits.
_MAX_CHARACTERS: Final = 64
_MAX: Final = timedelta.max // timedelta(milliseconds=1)


def parse_duration(text: str) -> timedelta:
    """The duration that `text` writes, to the millisecond. Raises ValueError; its text never repeats the input.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    match = _DURATION.fullmatch(text) if 0 < len(text) <= _MAX_CHARACTERS else None
    if match is None:
        raise ValueError(f"not a duration: {DURATION_SYNTAX}")
    ms = sum(int(count) * unit_ms for count, unit_ms in zip(match.groups(default="0"), _UNITS_MS.values(), strict=True))
    if ms > _MAX:
        raise ValueError("longer than 999,999,999 days")
    return timedelta(milliseconds=ms)


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back; below a millisecond, rounded down. Not for negatives.

    >>> format_duration(timedelta(hours=27, minutes=35, seconds=5))
    '1d3h35m5s'
    """
    rest = duration // timedelta(milliseconds=1)
    parts = []
    for unit, unit_ms in _UNITS_MS.items():
        count, rest = divmod(rest, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
