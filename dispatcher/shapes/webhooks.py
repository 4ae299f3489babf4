"""What is delivered: the bodies that receivers get."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import EventId, Instant, Mode


class DeliveredEvent(TypedDict):
    """An event as a profile with the body form `envelope` delivers it. Every attempt sends the same bytes."""

    id: EventId
    type: Annotated[str, About(example="payment.completed")]
    timestamp: Annotated[Instant, About("When the event was accepted.", "2026-03-02T09:00:00.123Z")]
    mode: Annotated[Mode, About("`test` of a sandbox's event, and of a ping.", "live")]
    metadata: NotRequired[
        Annotated[
            Any,
            About(
                "The payload's member `metadata`, where the profile's `envelope_members` name it, as `checkout` does, "
                "and the payload has it. Other names appear in the same way.",
                {"checkoutId": "chk_1"},
            ),
        ]
    ]
    data: Annotated[Any, About("The event's payload.", {"amount": 1000})]
