"""The JSON of a request: written once, so that a retry sends the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.model import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_ITEMS: Final = 1000
"""Of a request that carries many objects."""

MAX_BYTES: Final = 15 * 1024 * 1024
"""Of a request that carries many objects: the API takes 16 MiB."""

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""Of one payload; the API's own limit is 256 KiB by default, and it says so better."""


def write(values: Mapping[str, Any], *, pointer: str = "") -> bytes:
    """An object. Raises InvalidInput for a value that JSON does not have."""
    return json_text.write(dict(values), pointer, depth=json_text.MAX_REQUEST_DEPTH)


def given(values: Mapping[str, Any], *, keep: str = "") -> dict[str, Any]:
    """Those that are not None, and `keep` if it is there: what is left out is the API's to choose."""
    return {name: value for name, value in values.items() if value is not None or name == keep}


def write_event(event: Mapping[str, Any], *, pointer: str = "") -> bytes:
    """An event. A payload of `bytes` is JSON text that is sent as it is. Raises InvalidInput.

    >>> write_event({"type": "fx.rate", "payload": b'{"rate": 1.10}'})
    b'{"type":"fx.rate","payload":{"rate": 1.10}}'
    """
    if "payload" not in event:
        raise InvalidInput(f"{pointer}/payload", "nothing", "a value: it is required")
    values = given(event, keep="payload")
    if isinstance(payload := event["payload"], bytes):
        _check_text(payload, f"{pointer}/payload")
        values["payload"] = orjson.Fragment(payload)
    return json_text.write(values, pointer, depth=json_text.MAX_REQUEST_DEPTH)


def batches(items: Iterable[bytes], *, name: str) -> Iterator[bytes]:
    """Objects of one list each, which hold all the items in their order: of at most 1,000, and of at most 15 MiB.

    >>> list(batches([b"1", b"2"], name="events"))
    [b'{"events":[1,2]}']
    """
    taken: list[bytes] = []
    size = 0
    for item in items:
        if taken and (len(taken) == MAX_ITEMS or size + len(item) > MAX_BYTES):
            yield _list(name, taken)
            taken, size = [], 0
        taken.append(item)
        size += len(item) + 1
    if taken:
        yield _list(name, taken)


def _list(name: str, items: list[bytes]) -> bytes:
    return b'{"%b":[%b]}' % (name.encode(), b",".join(items))


def _check_text(payload: bytes, pointer: str) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidInput(pointer, f"{len(payload)} bytes", f"at most {MAX_PAYLOAD_BYTES} bytes")
    json_text.check(payload, pointer)
