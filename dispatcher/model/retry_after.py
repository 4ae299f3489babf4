"""Reading Retry-After, which receivers fill with anything."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?\Z")
_LONGEST_DATE = 64  # characters; the longest form of RFC 9110, section 5.6.7, has 33


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds from `now` (aware) that a receiver asks for, at least 0; None where it is not understood.

    Never raises. The caller bounds the number: anything below 10^12 comes through.

    >>> from datetime import datetime, UTC
    >>> now = datetime(2015, 10, 21, 7, 28, tzinfo=UTC)
    >>> parse_retry_after("7", now), parse_retry_after("Wed, 21 Oct 2015 07:28:30 GMT", now)
    (7.0, 30.0)
    >>> parse_retry_after("-1", now), parse_retry_after("soon", now)
    (None, None)
    """
    text = value.strip(" \t")
    if _SECONDS.match(text):
        return float(text)
    if len(text) > _LONGEST_DATE or not text[:3].isalpha():
        return None
    try:
        then = parsedate_to_datetime(text)
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)  # the parser drops "-0000", and the asctime form is UTC by definition
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
