"""An Event: what happened, as a producer hands it in, and the bytes that are sent for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal, get_args
from urllib.parse import quote, urlencode
from uuid import UUID

from dispatcher.errors import InvalidInput
from dispatcher.ids import DEFAULT_TENANT, format_id
from dispatcher.model import event_type, json_text

Method = Literal["POST", "GET"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)
MAX_PAYLOAD_BYTES: Final = 256 * 1024
MAX_TARGET_CHARACTERS: Final = 2048
ENVELOPE: Final = ("id", "type", "timestamp", "mode", "data")
"""The members of every envelope."""

_TYPE = re.compile(event_type.TYPE)


class Verdict(StrEnum):
    """What became of an event at an endpoint. With the first four it has a delivery there, else it has none."""

    MATCHED = "matched"
    DISABLED = "disabled"  # the delivery is held, or was
    PAUSED = "paused"  # the delivery is held
    LIMITED = "limited"  # the delivery waits for room
    FILTERED = "filtered"
    OVERRIDDEN_BY_TARGET = "overridden_by_target"
    NOT_REGISTERED_YET = "not_registered_yet"
    DELETED = "deleted"


class Mode(StrEnum):
    """Whether real money is meant."""

    LIVE = "live"
    TEST = "test"


_MODES: Final = tuple(Mode)


class BodyForm(StrEnum):
    """How the stored payload becomes the body; chosen by the profile."""

    ENVELOPE = "envelope"  # {id, type, timestamp, mode, data}
    VERBATIM = "verbatim"  # the payload's own bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Where one event goes, instead of to its tenant's endpoints. `method` None is the first one of the profile."""

    url: str
    method: Method | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a producer emits.

    `payload` is any JSON value, or `bytes` that are JSON text already and are kept as they are. `id` is a UUIDv7
    of the producer's own, which doubles as the idempotency key. `object_id` is the payment, order or refund that
    the event is about: what an operator searches by. The event is not sent before `not_before`, and no attempt
    starts after `expires_at` (aware instants). With a `target` it goes there rather than to the endpoints of its
    tenant, where the tenant's profile allows that.
    """

    type: str
    payload: Any
    tenant_id: UUID = DEFAULT_TENANT
    id: UUID | None = None
    idempotency_key: str | None = None
    mode: Mode = Mode.LIVE
    object_id: str | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    target: Target | None = None


@dataclass(slots=True)  # never changed, but freezing costs what is made for each delivery a microsecond
class StoredEvent:
    """The immutable columns of an event: the body is a function of these alone.

    `payload` None is gone: erased, or past its retention.
    """

    id: UUID
    type: str
    mode: str
    payload: bytes | None
    created_at: datetime
    object_id: str | None = None


def validate(event: Event, *, pointer: str = "") -> bytes:
    """The payload's bytes, if the event can be accepted.

    Raises InvalidInput, naming the field, for a type that is not dotted words of at most 128 characters, a payload
    that is not JSON or is over 256 KiB, an empty or over-long key or object id, a naive instant, invalid ids, an
    invalid target.
    """
    if (
        not isinstance(event.type, str)
        or len(event.type) > event_type.MAX_LENGTH
        or _TYPE.fullmatch(event.type) is None
    ):
        raise InvalidInput(
            f"{pointer}/type",
            repr(event.type)[:80],
            "dotted words of A-Z a-z 0-9 _ -, at most 128 characters, such as payment.completed",
        )
    for name, limit in (("object_id", 200), ("idempotency_key", 255)):
        value = getattr(event, name)
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable()):
            raise InvalidInput(f"{pointer}/{name}", repr(value)[:80], f"1 to {limit} printable characters")
    for name in ("not_before", "expires_at"):
        instant = getattr(event, name)
        if instant is not None and (not isinstance(instant, datetime) or not _is_aware(instant)):
            raise InvalidInput(f"{pointer}/{name}", repr(instant)[:80], "an instant with a time zone")
    if not isinstance(event.tenant_id, UUID):
        raise InvalidInput(f"{pointer}/tenant_id", repr(event.tenant_id)[:80], "a UUID")
    if event.id is not None and not isinstance(event.id, UUID):
        raise InvalidInput(f"{pointer}/id", repr(event.id)[:80], "a UUID")
    if event.mode not in _MODES:
        raise InvalidInput(f"{pointer}/mode", repr(event.mode)[:80], "live or test")
    if event.target is not None:
        _check_target(event.target, f"{pointer}/target")
    payload = _payload_bytes(event.payload, f"{pointer}/payload")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidInput(f"{pointer}/payload", f"{len(payload)} bytes", f"at most {MAX_PAYLOAD_BYTES} bytes")
    return payload


def _check_target(target: Target, pointer: str) -> None:
    """What every target must be; whether it may be this one is for the tenant's profile to say."""
    if not isinstance(target, Target):
        raise InvalidInput(pointer, type(target).__name__, "a Target")
    if not isinstance(target.url, str) or not 0 < len(target.url) <= MAX_TARGET_CHARACTERS:
        found = f"{len(target.url)} characters" if isinstance(target.url, str) else type(target.url).__name__
        raise InvalidInput(f"{pointer}/url", found, f"a URL of at most {MAX_TARGET_CHARACTERS} characters")
    if target.method is not None and target.method not in METHODS:
        raise InvalidInput(f"{pointer}/method", repr(target.method)[:80], " or ".join(METHODS))


def _is_aware(instant: datetime) -> bool:
    """Whether it is an instant that UTC can express; year 1 and year 9999 reach beyond it in some time zones."""
    try:
        return instant.utcoffset() is not None and instant.astimezone(UTC) is not None
    except OverflowError:
        return False


def _payload_bytes(payload: Any, pointer: str) -> bytes:
    if isinstance(payload, bytes):
        if isinstance(payload, json_text.CheckedText):
            return bytes(payload)  # orjson takes no type derived from it
        if len(payload) <= MAX_PAYLOAD_BYTES:  # the caller says so of longer ones; do not parse them first
            json_text.check(payload, pointer)
        return payload
    return json_text.write(payload, pointer)


def body_hash(event: Event, payload: bytes) -> bytes:
    """SHA-256 over all that a repeat under one idempotency key must have in common.

    Of the payload, its bytes as they are stored: the same values in another order of keys are another body.
    """
    parts: tuple[str | None, ...] = (
        str(event.type),
        str(event.mode),
        event.object_id,
        *(None if at is None else at.astimezone(UTC).isoformat() for at in (event.not_before, event.expires_at)),
    )
    if event.target is not None:  # left out otherwise: keys outlive an upgrade
        parts += (event.target.url, event.target.method)
    return sha256(repr(parts).encode() + b"\0" + payload).digest()


def body(event: StoredEvent, form: BodyForm, envelope_members: tuple[str, ...] = ()) -> bytes:
    """The exact bytes that every attempt sends and signs.

    The envelope has the payload's top-level members `envelope_members` beside `data` too, as far as they are there.

    >>> from dispatcher.ids import DEFAULT_TENANT
    >>> at = datetime(2026, 1, 1, tzinfo=UTC)
    >>> body(StoredEvent(DEFAULT_TENANT, "refund.failed", "live", b"[1]", at), BodyForm.VERBATIM)
    b'[1]'
    """
    assert event.payload is not None  # what is gone is never sent
    if form is BodyForm.VERBATIM:
        return event.payload
    beside = b""
    if envelope_members:
        copied = json_text.members(event.payload, envelope_members)
        beside = b"".join(b'"%b":%b,' % (name.encode(), copied[name]) for name in envelope_members if name in copied)
    return b'{"id":"%b","type":"%b","timestamp":"%b","mode":"%b",%b"data":%b}' % (
        format_id("evt", event.id).encode(),
        event.type.encode(),
        _timestamp(event.created_at).encode(),
        event.mode.encode(),
        beside,
        event.payload,
    )


def get_url(url: str, event: StoredEvent) -> str:
    """The exact URL that every attempt by GET asks for and signs: what the event is about stands in its query.

    >>> from dispatcher.ids import DEFAULT_TENANT
    >>> event = StoredEvent(DEFAULT_TENANT, "payment.paid", "live", b"1", datetime(2026, 1, 1, tzinfo=UTC), "ord/1 &2")
    >>> get_url("https://shop.example.com/notify?shop=7", event).partition("&type")[2]
    '=payment.paid&object_id=ord%2F1%20%262&timestamp=2026-01-01T00%3A00%3A00.000Z'
    """
    said = {"id": format_id("evt", event.id), "type": event.type}
    if event.object_id is not None:
        said["object_id"] = event.object_id
    query = urlencode(said | {"timestamp": _timestamp(event.created_at)}, quote_via=quote, safe="")
    before, hash_, fragment = url.partition("#")
    joint = "" if before.endswith(("?", "&")) else "&" if "?" in before else "?"
    return f"{before}{joint}{query}{hash_}{fragment}"


@lru_cache(maxsize=256)  # what was accepted together has one instant
def _timestamp(created_at: datetime) -> str:
    return created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
