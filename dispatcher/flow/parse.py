"""From JSON to the event that it describes."""

from __future__ import annotations

import re
from datetime import datetime
from json import JSONDecoder
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT, parse_id
from dispatcher.model.event import Event, Mode, validate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

FIELDS: Final = (
    "type",
    "payload",
    "tenant_id",
    "id",
    "idempotency_key",
    "mode",
    "object_id",
    "not_before",
    "expires_at",
)


_SCAN: Final = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
_BLANK: Final = re.compile(r"[ \t\n\r]*")


def read_object(text: bytes) -> object:
    """The JSON value; of an object, the member `payload` as the bytes that it was written in.

    A payload is sent as it came: a number of more digits than a float has would be another one otherwise. Raises
    orjson.JSONDecodeError, a ValueError.

    >>> read_object(b'{"type": "a", "payload": {"amount": 12345678901234567890.10}}')
    {'type': 'a', 'payload': b'{"amount": 12345678901234567890.10}'}
    """
    values = orjson.loads(text)
    if isinstance(values, dict) and "payload" in values:
        try:
            values["payload"] = _member(text.decode(), "payload").encode()
        except RecursionError as error:  # at a depth of some 900, a little less than orjson's own limit
            raise orjson.JSONDecodeError("nested too deeply", "", 0) from error
    return values


def _member(text: str, name: str) -> str:
    """How the member of a JSON object is written; the last one of that name, as for every parser."""
    found = ""
    at = text.index("{") + 1
    while True:
        key, at = _SCAN(text, _after_blanks(text, at))
        start = _after_blanks(text, _after_blanks(text, at) + 1)
        _, at = _SCAN(text, start)
        if key == name:
            found = text[start:at]
        at = _after_blanks(text, at)
        if text[at] == "}":
            return found
        at += 1


def _after_blanks(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None
    return blank.end()


def parse_event(values: object, *, pointer: str = "", tenant_id: UUID = DEFAULT_TENANT) -> Event:
    """The event that an object of `read_object` describes, in the API's form. Raises InvalidInput naming the field."""
    if not isinstance(values, dict):
        raise InvalidInput(pointer or "/", type(values).__name__, 'an object such as {"type": …, "payload": …}')
    for name in values:
        if name not in FIELDS:
            raise InvalidInput(f"{pointer}/{name[:80]}", "a field that does not exist", ", ".join(FIELDS))
    for name in ("type", "payload"):
        if name not in values:
            raise InvalidInput(f"{pointer}/{name}", "nothing", "a value: it is required")
    return Event(
        type=_string(values, "type", pointer) or "",
        payload=values["payload"],
        tenant_id=_id(values, "tenant_id", "ten", pointer) or tenant_id,
        id=_id(values, "id", "evt", pointer),
        idempotency_key=_string(values, "idempotency_key", pointer),
        mode=_mode(values, pointer),
        object_id=_string(values, "object_id", pointer),
        not_before=_instant(values, "not_before", pointer),
        expires_at=_instant(values, "expires_at", pointer),
    )


def parse_line(line: bytes, number: int, *, tenant_id: UUID = DEFAULT_TENANT) -> Event:
    """The event on one line of a file; pointers start with the line's number, from 1."""
    try:
        values = read_object(line)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"line {number}", f"no JSON ({error})", "one JSON object a line") from error
    event = parse_event(values, pointer=f"line {number}: ", tenant_id=tenant_id)
    validate(event, pointer=f"line {number}: ")  # again when it is accepted, but there the line is not known
    return event


def _string(values: Mapping[str, Any], name: str, pointer: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{pointer}/{name}", type(value).__name__, "a string")
    return value


def _id(values: Mapping[str, Any], name: str, prefix: Any, pointer: str) -> UUID | None:
    value = _string(values, name, pointer)
    return None if value is None else parse_id(prefix, value, pointer=f"{pointer}/{name}")


def _mode(values: Mapping[str, Any], pointer: str) -> Mode:
    value = values.get("mode", Mode.LIVE)
    try:
        return Mode(value)
    except ValueError as error:
        raise InvalidInput(f"{pointer}/mode", repr(value)[:80], "live or test") from error


def _instant(values: Mapping[str, Any], name: str, pointer: str) -> datetime | None:
    value = _string(values, name, pointer)
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidInput(f"{pointer}/{name}", repr(value)[:80], "an RFC 3339 instant") from error
    if at.tzinfo is None:
        raise InvalidInput(f"{pointer}/{name}", repr(value)[:80], "an instant with a time zone")
    return at
