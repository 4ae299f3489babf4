"""A call of the API as a value: what is asked, and how its answer is read. Nothing here is sent."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from dispatcher.client.answer import Answer, foreign, read_object
from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatcher.shapes import Page

T = TypeVar("T")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request whose answer is a T. `body` is JSON text; `query` has no empty parameters.

    A POST goes out under its `idempotency_key`, or under a new one; under none where it `has_key_in_body`. Iterating
    over a call is asking for its answer, so that an operation of several calls can `yield from` each.
    """

    method: Method
    path: str
    read: Callable[[Answer], T] = read_object
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    idempotency_key: str | None = None
    has_key_in_body: bool = False

    def __iter__(self) -> Generator[Call[Any], Any, T]:
        answer: T = yield self
        return answer


Steps: TypeAlias = Generator[Call[Any], Any, T]
"""An operation of several calls: yields each, is sent its answer, returns the operation's own."""

Described: TypeAlias = Call[T] | Steps[T]


def path(*segments: str) -> str:
    """The path of an object. Raises InvalidInput for a segment that would name another one.

    >>> path("events", "evt_1", "explain")
    '/v1/events/evt_1/explain'
    """
    for segment in segments:
        if not isinstance(segment, str) or segment in {"", ".", ".."}:
            raise InvalidInput("/id", repr(segment)[:80], "an id or a name")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def query(values: Mapping[str, Any]) -> dict[str, str]:
    """The query of those that are given. Raises InvalidInput for an instant without a time zone.

    >>> query({"limit": 10, "test": True, "cursor": None})
    {'limit': '10', 'test': 'true'}
    """
    return {name: _text(name, value) for name, value in values.items() if value is not None}


def _text(name: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime() if value.utcoffset() is None:
            raise InvalidInput(f"/{name}", str(value), "an instant with a time zone")
        case date():
            return value.isoformat()
    return str(value)


def after(call: Call[Page[T]], page: Page[T]) -> Call[Page[T]] | None:
    """The call of the next page; None after the last. Raises ForeignAnswer for pages that would never end."""
    if not page["has_more"]:
        return None
    cursor = next_cursor(page, call.query.get("cursor"), where=f"{call.method} {call.path}")
    return replace(call, query={**call.query, "cursor": cursor})


def next_cursor(page: Page[T], before: str | None, *, where: str) -> str:
    """The cursor behind a page with more after it. Raises ForeignAnswer for pages that would never end."""
    cursor = page["next_cursor"]
    if not isinstance(cursor, str) or cursor == before:
        raise foreign(where, 200, "a page with more after it and no cursor to get there")
    return cursor
