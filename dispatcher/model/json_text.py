"""JSON text: what producers and clients hand in, written once and checked."""

from __future__ import annotations

from datetime import date, datetime, time
from math import isfinite

import orjson

from dispatcher.errors import InvalidInput


def write(value: object, pointer: str) -> bytes:
    """The value as JSON. Dates and instants are written as RFC 3339 has them.

    Raises InvalidInput for what JSON does not have: a number that is not finite, an instant without a time zone.
    """
    try:
        text = orjson.dumps(value, _as_text, orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:  # orjson.JSONEncodeError is a TypeError
        said = error.__cause__ or error
        raise InvalidInput(pointer or "/", f"{type(value).__name__} ({said})", "any JSON value") from error
    if b"null" in text:  # which orjson also writes for numbers that JSON does not have
        _refuse_non_finite(value, pointer)
    return text


def check(text: bytes, pointer: str) -> None:
    """Raises InvalidInput where the bytes are not JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(pointer, f"bytes that are not JSON ({error})", "JSON text in UTF-8") from error


def _as_text(value: object) -> str:
    """A naive instant is refused: it would mean another one to each reader."""
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise TypeError("a datetime without a time zone")
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refuse_non_finite(value: object, pointer: str) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise InvalidInput(pointer, str(value), "a finite number: JSON has no other")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{pointer}/{key}")
    elif isinstance(value, list | tuple):
        for n, item in enumerate(value):
            _refuse_non_finite(item, f"{pointer}/{n}")
