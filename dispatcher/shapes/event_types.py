"""Event types: the catalogue of what may happen."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Instant, Paged


@request
class NewEventType(TypedDict, total=False):
    """The description and the schema of an event type; a member that is left out is removed."""

    description: Annotated[str | None, About(example="The payment has succeeded.", max_length=1000)]
    schema: Annotated[
        dict[str, Any] | bool | None,
        About(
            "A JSON Schema (2020-12) that payloads must meet. References stay inside of it, and what judging a "
            "payload takes must be bounded.",
            {"type": "object", "required": ["amount"]},
        ),
    ]


class EventType(TypedDict):
    """A type of event."""

    name: Annotated[str, About("The name of a type, or of a family such as `order.*`.", "payment.completed")]
    description: Annotated[str | None, About(example="The payment has succeeded.")]
    schema: Annotated[dict[str, Any] | bool | None, About(example={"type": "object", "required": ["amount"]})]
    schema_refusal: Annotated[
        str | None,
        About(
            "Why events of the type are refused until its schema is replaced. It was stored by an earlier "
            "version, which did not bound what judging a payload takes.",
            None,
        ),
    ]
    profiles: Annotated[list[str], About("The profiles whose catalogue has this type.", ["terminal"])]
    created_at: Annotated[
        Instant | None, About("When the type was created; null for a type that comes from a profile's file.", None)
    ]
    updated_at: Annotated[Instant | None, About(example=None)]


class EventTypePage(Paged):
    """The catalogue."""

    data: list[EventType]
