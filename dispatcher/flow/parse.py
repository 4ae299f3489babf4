"""From JSON to the event that it describes."""

from __future__ import annotations

from datetime import datetime
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


def parse_event(values: object, *, pointer: str = "", tenant_id: UUID = DEFAULT_TENANT) -> Event:
    """The event that a JSON object describes, in the API's form. Raises InvalidInput naming the field."""
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
        values = orjson.loads(line)
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
