"""JSON text: what producers and clients hand in, written once and checked.

The limits of JSON are here, and hold at every entrance. Those of the parsers lie beyond them: orjson reads 1,024 levels
and writes 254, Python's reader stops somewhere below 1,000, each version elsewhere.
"""

from __future__ import annotations

from datetime import date, datetime, time
from itertools import accumulate
from json import JSONDecoder
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_DEPTH: Final = 128
"""How deep a value may nest that is kept as it was given, such as a payload: `[[1]]` is two levels deep."""

MAX_REQUEST_DEPTH: Final = MAX_DEPTH + 4
"""How deep a request may nest: `{"endpoints": [{"metadata": …}]}` puts three levels around a value."""

MAX_PARSED_DEPTH: Final = 256
"""Beyond it no event is parsed. Up to it every parser works, so that the fault is found in its place: of a batch only
the one event that nests too deeply is refused."""


class CheckedText(bytes):
    """JSON text that was read as a part of another and nests no deeper than MAX_DEPTH: it is not read a second time.

    It goes from `dispatcher.model.parse` to `dispatcher.model.event.validate`, and nowhere else: orjson rejects it.
    """

    __slots__ = ()


MAX_CONTAINERS: Final = 200_000
"""Objects and arrays in one request: 200 for each event of a full batch."""

MAX_VALUES: Final = 1_000_000
"""Members and items in one request: 1,000 for each event of a full batch."""

_NOT_OPENING: Final = bytes(set(range(256)) - set(b"[{"))
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_NO_VALUES: Final = bytes(set(range(256)) - set(b'[{,"'))
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = {ord("["): 1, ord("]"): -1}
_ROUNDS: Final = 2


def write(value: object, pointer: str, *, depth: int = MAX_DEPTH) -> bytes:
    """The value as JSON. Dates and instants are written as RFC 3339 has them.

    Raises InvalidInput for what JSON does not have: a number that is not finite, an instant without a time zone; for an
    integer of more than 64 bits; and for what nests deeper than `depth` levels.
    """
    try:
        text = orjson.dumps(value, _as_text, orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:  # orjson.JSONEncodeError is a TypeError
        said = error.__cause__ or error
        if str(said) == "Recursion limit reached":
            raise too_deep(pointer or "/", depth) from error
        allowed = "any JSON value; an integer beyond 64 bits in a payload of bytes, which is sent as it is"
        raise InvalidInput(pointer or "/", f"{type(value).__name__} ({said})", allowed) from error
    if is_deeper(text, depth):
        raise too_deep(pointer or "/", depth)
    if b"null" in text:  # which orjson also writes for numbers that JSON does not have
        _refuse_non_finite(value, pointer)
    return text


def check(text: bytes, pointer: str) -> None:
    """Raises InvalidInput where the bytes are not JSON, or nest deeper than MAX_DEPTH."""
    read(text, pointer)


def read(text: bytes, pointer: str, *, depth: int = MAX_DEPTH) -> Any:
    """The value. Raises InvalidInput where the bytes are not JSON, or nest deeper than `depth` levels."""
    if is_deeper(text, depth):
        raise too_deep(pointer, depth)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(pointer, f"bytes that are not JSON ({error})", "JSON text in UTF-8") from error


def too_deep(pointer: str, depth: int = MAX_DEPTH) -> InvalidInput:
    """The error for what nests too deeply."""
    return InvalidInput(pointer, f"JSON nested more than {depth} levels deep", f"at most {depth} levels")


def is_deeper(text: bytes, depth: int) -> bool:
    """Whether JSON text nests deeper than `depth` levels, found without recursion in time proportional to its length.

    Of text that is not JSON it holds for what a parser reads before it meets the fault, unless the text is shorter than
    any JSON of such depth.

    >>> is_deeper(b'{"a": ["[[["]}', 2), is_deeper(b'{"a": ["[[["]}', 1)
    (False, True)
    """
    if len(text) < 2 * depth or len(text.translate(None, _NOT_OPENING)) <= depth:
        return False  # of a text of 1 kB, this is all that is done, in half a microsecond (measured)
    marks = _outside_strings(text, _NO_MARKS).translate(_AS_SQUARE)
    if not marks:
        return False
    for level in range(_ROUNDS):  # each takes the innermost level away, wherever it is, faster than counting does
        less = marks.replace(b"[]", b"")
        if not less:
            return level >= depth
        if len(less) == len(marks):  # not JSON
            return less.count(b"[") > depth - level
        marks = less
    return max(accumulate(map(_STEPS.__getitem__, marks))) > depth - _ROUNDS


def _outside_strings(text: bytes, others: bytes) -> bytes:
    """The text without its strings and without the bytes in `others`; `others` has no quotation mark."""
    if b"\\" in text:
        text = _without_escapes(text)
    marks = text.translate(None, others).replace(b'""', b"")
    if b'"' in marks:  # strings that hold such marks
        marks = b"".join(marks.split(b'"')[::2])
    return marks


def _without_escapes(text: bytes) -> bytes:
    """The text without its escaped quotation marks and backslashes; what else is escaped may be left out too."""
    if text.count(b"\\") * 50 > len(text):
        return text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Where escapes are few, they are cut out one by one: to look for two bytes takes ten times as long as for one.
    first, *parts = text.split(b"\\")
    ahead = iter(parts)
    kept = (part[1:] if part else next(ahead, b"") for part in ahead)  # an empty part: an escaped backslash
    return b"".join((first, *kept))


def members(text: bytes, names: Collection[str]) -> dict[str, bytes]:
    """The text of the top-level members of these names, as it stands; of a name that comes twice, the last one.

    `text` is JSON that was checked before. What is not an object has no members.

    >>> members(b'{"a": 1.0e2, "b": {"c": [1, 2]}, "d": null}', ("a", "b", "x"))
    {'a': b'1.0e2', 'b': b'{"c": [1, 2]}'}
    """
    content = text.decode()
    at = _after_space(content, 0)
    if content[at] != "{":
        return {}
    found: dict[str, bytes] = {}
    at = _after_space(content, at + 1)
    while content[at] != "}":
        name, end = _DECODER.raw_decode(content, at)
        start = _after_space(content, _after_space(content, end) + 1)  # past the colon
        _, end = _DECODER.raw_decode(content, start)
        if name in names:
            found[name] = content[start:end].encode()
        at = _after_space(content, end)
        if content[at] == ",":
            at = _after_space(content, at + 1)
    return found


_DECODER: Final = JSONDecoder()
"""It only finds where values end; what it reads there is not used."""


def _after_space(content: str, at: int) -> int:
    while content[at] in " \t\r\n":
        at += 1
    return at


def check_size(text: bytes) -> None:
    """Raises InvalidInput for a request of more than MAX_CONTAINERS objects and arrays, or MAX_VALUES values.

    It is for the long bodies of bulk requests. A body of 16 MiB could hold five million arrays: reading them took ten
    seconds of the event loop (measured), most of it in the garbage collector.
    """
    if text.count(b"[") + text.count(b"{") + text.count(b",") <= MAX_CONTAINERS:
        return
    marks = _outside_strings(text, _NO_VALUES)
    if (containers := len(marks) - marks.count(b",")) > MAX_CONTAINERS:
        raise InvalidInput("/", f"{containers} objects and arrays", f"at most {MAX_CONTAINERS} in one request")
    if len(marks) > MAX_VALUES:
        raise InvalidInput("/", f"{len(marks)} values", f"at most {MAX_VALUES} in one request")


def _as_text(value: object) -> str:
    """A naive instant is refused: it would mean another one to each reader."""
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise TypeError("a datetime without a time zone")
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refuse_non_finite(value: object, pointer: str) -> None:
    ahead: list[tuple[str, object]] = [(pointer, value)]
    while ahead:
        place, item = ahead.pop()
        if isinstance(item, float) and not isfinite(item):
            raise InvalidInput(place, str(item), "a finite number: JSON has no other")
        if isinstance(item, dict):
            ahead += [(f"{place}/{key}", below) for key, below in item.items()]
        elif isinstance(item, list | tuple):
            ahead += [(f"{place}/{n}", below) for n, below in enumerate(item)]
