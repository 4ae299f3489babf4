"""From JSON to the event that it describes."""

from __future__ import annotations

import re
from datetime import datetime
from json import JSONDecoder
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT, parse_id
from dispatcher.model import json_text
from dispatcher.model.event import Event, Mode, Target, validate

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
    "target",
)

MAX_BATCH: Final = 1000
"""Events in one batch."""

_SCAN: Final = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
_AFTER_BLANKS: Final = re.compile(r"[ \t\n\r]*").match


def read_object(text: bytes) -> object:
    """The JSON value; of an object, the member `payload` as the bytes that it was written in.

    A payload is sent as it came: a number of more digits than a float has would be another one otherwise. Raises
    orjson.JSONDecodeError, a ValueError, and InvalidInput for what nests too deeply for any parser.

    >>> read_object(b'{"type": "a", "payload": {"amount": 12345678901234567890.10}}')
    {'type': 'a', 'payload': b'{"amount": 12345678901234567890.10}'}
    """
    values = read_event(text)
    if isinstance(values, dict) and "payload" in values:
        values["payload"] = bytes(values["payload"])
    return values


def read_event(text: bytes) -> object:
    """As `read_object`, for `parse_event` alone: a payload within its limits is CheckedText."""
    values, kind = _parse(text, around=1)
    if isinstance(values, dict) and "payload" in values:
        written = text.decode()
        payload, _ = _payload(written, written.index("{"))
        values["payload"] = kind(payload)
    return values


def read_batch(text: bytes) -> list[object]:
    """The events of `{"events": [{…}, …]}`, each as `read_event` would read it.

    Raises orjson.JSONDecodeError for invalid JSON, InvalidInput for another object or one that holds too much.

    >>> read_batch(b'{"events": [{"payload": 1.10}, 2]}')
    [{'payload': b'1.10'}, 2]
    """
    json_text.check_size(text)
    values, kind = _parse(text, around=3)
    if not isinstance(values, dict):
        raise InvalidInput("/", type(values).__name__, 'an object such as {"events": […]}')
    for name in values:
        if name != "events":
            raise InvalidInput(f"/{name[:80]}", "a field that does not exist", "events")
    events = values.get("events")
    if not isinstance(events, list):
        found = type(events).__name__ if "events" in values else "nothing"
        raise InvalidInput("/events", found, f"a list of 1 to {MAX_BATCH} events")
    if not 1 <= len(events) <= MAX_BATCH:
        raise InvalidInput("/events", f"{len(events)} events", f"1 to {MAX_BATCH}")
    written = text.decode()
    _, at = _SCAN(written, _skip(written, written.index("{") + 1))
    at = _skip(written, _skip(written, at) + 1)
    for n, event in enumerate(events):
        if written[at] != ("," if n else "["):
            raise _twice()
        at = _skip(written, at + 1)
        if written[at] == "]":
            raise _twice()
        if isinstance(event, dict) and "payload" in event and written[at] == "{":
            payload, at = _payload(written, at)
            event["payload"] = kind(payload)
        else:
            _, at = _SCAN(written, at)
        at = _skip(written, at)
    if written[at] != "]" or written[_skip(written, at + 1)] != "}":
        raise _twice()
    return events


def _twice() -> InvalidInput:
    """Of two members of one name every parser knows one; what is walked through here is the other."""
    return InvalidInput("/events", "the field twice", "the field once")


def _parse(text: bytes, *, around: int) -> tuple[Any, type[bytes]]:
    """The value, and the type of its payloads, which are `around` levels inside: checked already, or to be checked.

    Which payload it is that nests too deeply, `validate` finds out. What would overflow the readers here is refused.
    """
    kind: type[bytes] = json_text.CheckedText
    if json_text.is_deeper(text, json_text.MAX_DEPTH + around):
        if json_text.is_deeper(text, json_text.MAX_PARSED_DEPTH):
            raise json_text.too_deep("/", json_text.MAX_REQUEST_DEPTH)
        kind = bytes
    return orjson.loads(text), kind


def _payload(text: str, at: int) -> tuple[bytes, int]:
    """How the member `payload` of the object that starts here is written, and where the object ends.

    The last one of that name, as for every parser. The text is known to be JSON.
    """
    found = ""
    while True:
        key, at = _SCAN(text, _skip(text, at + 1))
        start = _skip(text, _skip(text, at) + 1)
        _, at = _SCAN(text, start)
        if key == "payload":
            found = text[start:at]
        at = _skip(text, at)
        if text[at] == "}":
            return found.encode(), at + 1


def _skip(text: str, at: int) -> int:
    """The next place that is not white space."""
    if text[at] not in " \t\n\r":
        return at
    blank = _AFTER_BLANKS(text, at)
    assert blank is not None
    return blank.end()


def parse_event(values: object, *, pointer: str = "", tenant_id: UUID = DEFAULT_TENANT) -> Event:
    """The event that an object of `read_event` describes, in the API's form. Raises InvalidInput naming the field."""
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
        target=_target(values, pointer),
    )


def read_line(line: bytes, number: int) -> dict[str, Any]:
    """The object on one line of a file, as `read_object` has it, that describes an event.

    Raises InvalidInput for what describes none; pointers start with the line's number, from 1.
    """
    try:
        values = read_object(line)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"line {number}", f"invalid JSON ({error})", "one JSON object a line") from error
    except InvalidInput as error:
        raise InvalidInput(f"line {number}", error.found, error.allowed) from error
    event = parse_event(values, pointer=f"line {number}: ")
    validate(event, pointer=f"line {number}: ")  # again when it is accepted, but there the line is not known
    assert isinstance(values, dict)
    return values


def _string(values: Mapping[str, Any], name: str, pointer: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{pointer}/{name}", type(value).__name__, "a string")
    return value


def _id(values: Mapping[str, Any], name: str, prefix: Any, pointer: str) -> UUID | None:
    value = _string(values, name, pointer)
    return None if value is None else parse_id(prefix, value, pointer=f"{pointer}/{name}")


def _mode(values: Mapping[str, Any], pointer: str) -> Mode:
    value = values.get("mode")
    try:
        return Mode.LIVE if value is None else Mode(value)
    except ValueError as error:
        raise InvalidInput(f"{pointer}/mode", repr(value)[:80], "live or test") from error


def _target(values: Mapping[str, Any], pointer: str) -> Target | None:
    value = values.get("target")
    if value is None:
        return None
    pointer = f"{pointer}/target"
    if not isinstance(value, dict):
        raise InvalidInput(pointer, type(value).__name__, 'an object such as {"url": "https://…", "method": "POST"}')
    for name in value:
        if name not in ("url", "method"):
            raise InvalidInput(f"{pointer}/{name[:80]}", "a field that does not exist", "url, method")
    if "url" not in value:
        raise InvalidInput(f"{pointer}/url", "nothing", "a URL: it is required")
    return Target(value["url"], value.get("method"))


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
