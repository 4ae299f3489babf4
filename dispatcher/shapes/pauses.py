"""Pauses: what is held for the time being."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import (
    Actor,
    EndpointId,
    EventTypeOrFamily,
    Instant,
    Mode,
    Paged,
    PauseId,
    TenantId,
    Text,
)

EVERYTHING = About(
    "True pauses everything: of every tenant or, with a tenant's key, of that tenant. It cannot be combined with "
    "other conditions.",
    example=False,
)


class PauseScope(TypedDict, total=False):
    """What is paused: deliveries that match all given conditions, or everything, by `all` alone."""

    all: Annotated[bool, EVERYTHING]
    tenant_id: Annotated[TenantId | None, About("Only deliveries of this tenant.")]
    endpoint_id: Annotated[EndpointId | None, About("Only deliveries to this endpoint.")]
    event_type: Annotated[EventTypeOrFamily | None, About("An event type, or `payment.*` for a family of types.")]
    mode: Annotated[Mode | None, About("Only events of this mode.", "test")]


@request
class NewPause(PauseScope, total=False):
    """A pause to be created. A tenant's key pauses only deliveries of its tenant."""

    reason: Annotated[Text | None, About("A reason that is shown with the deliveries that wait.", "the bank is away")]


class Pause(TypedDict):
    """A pause. The deliveries that it holds wait, for at most 7 days, and are sent when it ends."""

    id: PauseId
    tenant_id: Annotated[TenantId | None, About("The tenant; null means every tenant.")]
    endpoint_id: Annotated[EndpointId | None, About("The endpoint; null means every endpoint.", None)]
    event_type: Annotated[str | None, About("The event type or family; null means every type.", "payment.*")]
    mode: Annotated[Mode | None, About("The mode; null means both.", None)]
    reason: Annotated[str, About(example="the bank is away")]
    created_by: Actor
    created_at: Instant


class PausePage(Paged):
    """A page of pauses, the newest first."""

    data: list[Pause]
