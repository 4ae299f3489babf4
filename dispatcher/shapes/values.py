"""What the members of several shapes are: ids, instants, and texts with limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from typing_extensions import TypedDict

from dispatcher.model import event_type, limits
from dispatcher.shapes.about import About

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ids import Prefix

T = TypeVar("T")

# Ids

UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""How the UUID of an id is written."""

EXAMPLE_UUID: Final = "019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"


def about_id(prefix: Prefix, example: str = EXAMPLE_UUID) -> About:
    """Describes an id with this prefix.

    `dispatcher.ids` reads ids, with a clearer error: the pattern is only for the document.
    """
    return About(example=f"{prefix}_{example}", document={"pattern": f"^{prefix}_{UUID}$"})


EventId = Annotated[str, about_id("evt")]
EndpointId = Annotated[str, about_id("ep")]
DeliveryId = Annotated[str, about_id("dlv")]
AttemptId = Annotated[str, about_id("att")]
ReplayId = Annotated[str, about_id("rpl")]
TenantId = Annotated[str, about_id("ten", "00000000-0000-7000-8000-000000000001")]
KeyId = Annotated[str, about_id("key")]
PauseId = Annotated[str, about_id("pau")]
ErasureId = Annotated[str, about_id("ers")]
ChangeId = Annotated[str, about_id("aud")]
PreviewToken = Annotated[str, about_id("prv")]

Actor = Annotated[
    str, About("The id of a key, or `cli:` and the account's name.", "key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968")
]

# Instants


Instant = Annotated[str, About(example="2026-03-02T09:00:00Z", document={"format": "date-time"})]
"""An instant in an answer: RFC 3339, in UTC."""


def instant(at: datetime) -> str:
    """An instant for an answer. It stays a datetime until the answer is written: orjson does that at no cost."""
    return cast("str", at)


def instant_or_none(at: datetime | None) -> str | None:
    """The same of one that may be missing."""
    return cast("str | None", at)


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class ReadInstant:
    """Has text in RFC 3339 read as an aware datetime: pydantic would also take seconds since 1970, and days."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Of a datetime, after our own look at the text."""
        return {
            "type": "function-before",
            "function": {"type": "no-info", "function": _check_instant},
            "schema": {"type": "datetime", "tz_constraint": "aware", "strict": False},
        }


def _check_instant(value: object) -> object:
    if not isinstance(value, str) or not _RFC3339(value):
        raise ValueError("an RFC 3339 instant with a time zone, such as 2026-03-02T09:00:00Z")
    return value


InstantGiven = Annotated[datetime | str, ReadInstant()]
"""An instant in a request: an aware datetime, or RFC 3339 text."""

# Texts

Text = Annotated[str, About(max_length=limits.TEXT)]
EventTypeName = Annotated[
    str, About(example="payment.completed", pattern=event_type.TYPE, max_length=event_type.MAX_LENGTH)
]
EventTypeOrFamily = Annotated[
    str, About(example="payment.*", pattern=event_type.TYPE_OR_FAMILY, max_length=event_type.MAX_LENGTH)
]
EventTypeChoice = Annotated[
    str, About(example="payment.*", pattern=event_type.TYPE_FAMILY_OR_ALL, max_length=event_type.MAX_LENGTH)
]
ObjectId = Annotated[
    str,
    About("The payment, order or refund that the event is about.", "pay_8f3k2", min_length=1, max_length=200),
]

Mode: TypeAlias = Literal["live", "test"]
Method: TypeAlias = Literal["POST", "GET"]
PayloadGone: TypeAlias = Literal["erased", "retention"]
"""Why a payload is not there any more."""


class Paged(TypedDict):
    """What every page has beside its `data`."""

    has_more: Annotated[bool, About(example=False)]
    next_cursor: Annotated[str | None, About("The cursor of the next page; null on the last page.", None)]


class Page(Paged, Generic[T]):
    """What every page is: some of the objects. The document's pages have names of their own."""

    data: list[T]
