"""Pages of objects: which one is asked for, and how it is answered."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Query

from dispatcher.errors import InvalidInput
from dispatcher.shapes.values import ReadInstant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def cursor_of(list_name: str) -> Any:
    """The query parameter `cursor` of a list. A cursor is the list's name, a dot and the last id of a page."""
    return Query(
        description="`next_cursor` of the page before, of the same list.",
        examples=[f"{list_name}.AZytzj9AfB6dK19qe4ydDg"],
        json_schema_extra={"pattern": rf"^{list_name}\.[A-Za-z0-9_-]{{21}}[AQgw]$"},
    )


Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.", examples=[50])]


InstantParameter = Annotated[datetime, ReadInstant()]
"""An instant in a query, in RFC 3339."""

CreatedAfter = Annotated[
    InstantParameter | None,
    Query(description="Only objects that were created at this time or later.", examples=["2026-03-02T09:00:00Z"]),
]
CreatedBefore = Annotated[
    InstantParameter | None,
    Query(description="Only objects that were created before this time.", examples=["2026-03-09T09:00:00Z"]),
]


def read_cursor(cursor: str | None, list_name: str) -> UUID | None:
    """The id after which a page of this list starts. Raises InvalidInput for an invalid cursor or another list's."""
    if cursor is None:
        return None
    try:
        found = UUID(bytes=base64.urlsafe_b64decode(cursor.partition(".")[2] + "=="))
        if write_cursor(found, list_name) != cursor:  # another list's, or another spelling of base64
            raise ValueError(cursor)
    except (ValueError, binascii.Error) as error:
        allowed = f"a next_cursor of an earlier page of the same list, which begins with {list_name}."
        raise InvalidInput("cursor", repr(cursor)[:80], allowed) from error
    return found


def write_cursor(last: UUID, list_name: str) -> str:
    """The cursor of a page of this list that starts after this id."""
    return f"{list_name}.{base64.urlsafe_b64encode(last.bytes).rstrip(b'=').decode()}"


def page(found: list[Any], limit: int, form: Callable[[Any], Mapping[str, Any]], list_name: str) -> dict[str, Any]:
    """A page of at most `limit` of the objects found; one more was asked for, to know whether there are more."""
    more = len(found) > limit
    cursor = write_cursor(found[limit - 1].id, list_name) if more else None
    return {"data": [form(one) for one in found[:limit]], "has_more": more, "next_cursor": cursor}


def whole(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All there is, in the form of a page."""
    return {"data": found, "has_more": False, "next_cursor": None}
