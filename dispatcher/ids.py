"""Identifiers: UUID version 7 (RFC 9562 section 5.7), written with a prefix that says what they name.

Stored as `uuid`; the prefix exists only at the edges. A UUIDv7 starts with its creation time in milliseconds,
so ids sort by time and a range of time is a range of ids (which is how the tables are partitioned).

>>> parse_id("evt", "evt_01890a5d-ac96-774b-bcce-b302099a8057")
UUID('01890a5d-ac96-774b-bcce-b302099a8057')
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from dispatcher.errors import InvalidInput

Prefix = Literal["evt", "ep", "dlv", "att", "rpl", "ten", "key"]

PREFIXES: Final[tuple[Prefix, ...]] = ("evt", "ep", "dlv", "att", "rpl", "ten", "key")

DEFAULT_TENANT: Final = UUID("00000000-0000-7000-8000-000000000001")
"""The tenant that owns what names no tenant; made by the first migration."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)  # made once: making it costs more than dividing by it


def uuid7(at: datetime | None = None) -> UUID:
    """A new UUIDv7, of the instant `at` or of now. 74 of its bits are random."""
    ms = time.time_ns() // 1_000_000 if at is None else (at - _EPOCH) // _MS
    random_bits = int.from_bytes(os.urandom(10))
    high = (ms & 0xFFFFFFFFFFFF) << 80
    return UUID(int=high | 0x7000 << 64 | (random_bits >> 68) << 64 | 0x8000 << 48 | random_bits & 0x3FFFFFFFFFFFFFFF)


def created_at(value: UUID) -> datetime:
    """The instant, to the millisecond, that a UUIDv7 carries."""
    return _EPOCH + timedelta(milliseconds=value.int >> 80)


def first_id(at: datetime) -> UUID:
    """The smallest UUID of the millisecond of `at`: the bound of a partition or of a search by time.

    Before 1970 there are none: the smallest of all.
    """
    return UUID(int=max(0, (at - _EPOCH) // _MS) << 80)


def format_id(prefix: Prefix, value: UUID | str) -> str:
    """`evt_<uuid>`: contains no dot, since Standard Webhooks joins id and timestamp by one."""
    return f"{prefix}_{value}"


def parse_id(prefix: Prefix, text: str, *, pointer: str = "/id") -> UUID:
    """The UUID in `<prefix>_<uuid>`. Raises InvalidInput naming `pointer` for anything else."""
    head, _, tail = text.partition("_")
    try:
        if head != prefix:
            raise ValueError(head)
        return UUID(tail)
    except ValueError as error:
        raise InvalidInput(pointer, repr(text[:80]), f"{prefix}_ and a UUID") from error
