"""Identifiers: UUID version 7 (RFC 9562 section 5.7), written with a prefix that says what they name.

Stored as `uuid`; the prefix exists only at the edges. A UUIDv7 starts with its creation time in milliseconds,
so ids sort by time and a range of time is a range of ids (which is how the tables are partitioned).

>>> parse_id("evt", "evt_01890a5d-ac96-774b-bcce-b302099a8057")
UUID('01890a5d-ac96-774b-bcce-b302099a8057')
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, get_args
from uuid import UUID

import orjson

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Prefix = Literal["evt", "ep", "dlv", "att", "rpl", "ten", "key", "aud", "pau", "ers", "prv"]

NOUNS: Final[Mapping[Prefix, str]] = {
    "evt": "event",
    "ep": "endpoint",
    "dlv": "delivery",
    "att": "attempt",
    "rpl": "replay",
    "ten": "tenant",
    "key": "key",
    "aud": "change",
    "pau": "pause",
    "ers": "erasure",
    "prv": "preview",
}
"""What an id with each prefix names; a parameter for such an id is called `<noun>_id`."""

DEFAULT_TENANT: Final = UUID("00000000-0000-7000-8000-000000000001")
"""The tenant that owns what names no tenant; made by the first migration."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)  # made once: making it costs more than dividing by it


def uuid7(at: datetime | None = None) -> UUID:
    """A new UUIDv7, of the instant `at` or of now. 74 of its bits are random."""
    ms = time.time_ns() // 1_000_000 if at is None else (at - _EPOCH) // _MS
    with _sequence.lock:
        random_bits = _sequence.random_bits()
    high = (ms & 0xFFFFFFFFFFFF) << 80
    return UUID(int=high | 0x7000 << 64 | (random_bits >> 68) << 64 | 0x8000 << 48 | random_bits & 0x3FFFFFFFFFFFFFFF)


class _Sequence:
    """Where `uuid7_in_order` is: the millisecond of the last id, and its counter of 42 bits; and random bytes in stock,
    since to ask the system for each id's costs as much as the rest of it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ms = self.counter = 0
        self._stock = b""
        self._at = 0

    def random_bits(self) -> int:
        """80 bits that were given to nobody before. Hold the lock."""
        if self._at >= len(self._stock):
            self._stock, self._at = os.urandom(2_560), 0
        start = self._at
        self._at = start + 10
        return int.from_bytes(self._stock[start : self._at])


_sequence = _Sequence()
_LOWER_HALF: Final = (1 << 41) - 1
_SET_BACK_MS: Final = 1000


def uuid7_in_order(at: datetime) -> UUID:
    """A new UUIDv7 of the instant `at`, greater than every one before that this process made with it.

    42 of its bits count within a millisecond, from a random start (RFC 9562 section 6.2, method 1); 32 are random. A
    clock that is set back by less than a second makes ids of its latest millisecond; by more, the order starts anew.
    """
    ms = (at - _EPOCH) // _MS
    with _sequence.lock:
        random_bits = _sequence.random_bits()
        if ms > _sequence.ms or ms < _sequence.ms - _SET_BACK_MS:
            _sequence.ms, _sequence.counter = ms, random_bits >> 32 & _LOWER_HALF  # never counts up to the end
        else:
            _sequence.counter += 1
        ms, counter = _sequence.ms, _sequence.counter
    high = (ms & 0xFFFFFFFFFFFF) << 80
    low = (counter & 0x3FFFFFFF) << 32 | random_bits & 0xFFFFFFFF
    return UUID(int=high | 0x7000 << 64 | (counter >> 30) << 64 | 0x8000 << 48 | low)


def _after_fork() -> None:
    """A child counts from elsewhere and draws other bits; and a lock that a thread held at the fork would stay held in
    it for ever.
    """
    global _sequence  # noqa: PLW0603
    _sequence = _Sequence()


os.register_at_fork(after_in_child=_after_fork)


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
    if type(value) is UUID:  # str() takes twice as long, and an attempt writes five ids; orjson knows no subclass
        return f"{prefix}_{orjson.dumps(value).decode()[1:-1]}"
    return f"{prefix}_{value}"


def uuid_texts(first: UUID, second: UUID, third: UUID) -> tuple[str, str, str]:
    """Three UUIDs as text, by one call of orjson: a call for each takes 0.4 µs more.

    >>> uuid_texts(UUID(int=1), UUID(int=2), UUID(int=3))[2]
    '00000000-0000-0000-0000-000000000003'
    """
    text = orjson.dumps((first, second, third), default=str).decode()  # 36 characters each, after `["` and `","`
    return text[2:38], text[41:77], text[80:116]


def parse_id(prefix: Prefix, text: str, *, pointer: str = "/id") -> UUID:
    """The UUID in `<prefix>_<uuid>`. Raises InvalidInput naming `pointer` for anything else."""
    head, _, tail = text.partition("_")
    try:
        found = UUID(tail)
        if head != prefix or str(found) != tail:  # an id has one spelling; UUID() reads a dozen
            raise ValueError(text)
        return found
    except ValueError as error:
        raise InvalidInput(pointer, repr(text[:80]), f"{prefix}_ and a UUID") from error


# Short ids: the first characters of an id

SHORT_UUID: Final = (
    "[0-9a-f]{1,8}"
    "|[0-9a-f]{8}-[0-9a-f]{0,4}"
    "|[0-9a-f]{8}(-[0-9a-f]{4}){1}-[0-9a-f]{0,4}"
    "|[0-9a-f]{8}(-[0-9a-f]{4}){2}-[0-9a-f]{0,4}"
    "|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{0,12}"
)
"""A pattern of the first characters of a UUID, as ids write it. A whole UUID matches too."""

_SHORT_ID: Final = re.compile(rf"([a-z]{{2,3}})_({SHORT_UUID})")
_PREFIXES: Final[tuple[Prefix, ...]] = get_args(Prefix)


@dataclass(frozen=True, slots=True)
class IdRange:
    """All ids that begin with the same characters: one kind of object, from the UUID `low` to the UUID `high`."""

    prefix: Prefix
    low: UUID
    high: UUID


def is_short(text: str) -> bool:
    """Whether the text is the beginning of an id, and not a whole one.

    >>> is_short("dlv_0189"), is_short("dlv_01890a5d-ac96-774b-bcce-b302099a8057"), is_short("pay_0189")
    (True, False, False)
    """
    match = _SHORT_ID.fullmatch(text)
    return match is not None and match[1] in _PREFIXES and len(match[2]) < len(str(DEFAULT_TENANT))


def parse_short_id(prefixes: Collection[Prefix], text: str, *, pointer: str = "/id") -> IdRange:
    """The ids that begin with `text`. Raises InvalidInput for anything but the beginning of an id of these kinds.

    >>> parse_short_id(["evt", "dlv"], "dlv_0189").high
    UUID('0189ffff-ffff-ffff-ffff-ffffffffffff')
    """
    match = _SHORT_ID.fullmatch(text)
    prefix = next((prefix for prefix in prefixes if match is not None and match[1] == prefix), None)
    if match is None or prefix is None:
        allowed = f"{', '.join(f'{prefix}_' for prefix in prefixes)} and a UUID, or the first characters of one"
        raise InvalidInput(pointer, repr(text[:80]), allowed)
    digits = match[2].replace("-", "")
    return IdRange(prefix, UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
