"""What a search for anything finds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import Paged


class Found(TypedDict):
    """One thing that was found."""

    kind: Annotated[
        Literal["event", "endpoint", "delivery", "attempt", "replay", "tenant", "key"], About(example="event")
    ]
    id: Annotated[str, About(example="evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e")]
    summary: Annotated[str, About("One line for people.", "payment.completed: matched no endpoint")]
    object: Annotated[
        dict[str, Any],
        About(
            "The object as its own resource returns it; an attempt also has its `delivery_id`.",
            {"id": "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e", "type": "payment.completed", "deliveries": 0},
        ),
    ]


class FoundPage(Paged):
    """All that was found, in one page."""

    data: list[Found]
