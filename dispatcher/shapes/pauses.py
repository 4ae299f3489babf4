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
    Paged,
    PauseId,
    TenantId,
    Text,
)

EVERYTHING = About("Everything: of every tenant or, by a tenant's key, of its own. Stands alone.", example=False)


class PauseScope(TypedDict, total=False):
    """What is held: all that matches all that is given, or everything, by `all` alone."""

    all: Annotated[bool, EVERYTHING]
    tenant_id: Annotated[TenantId | None, About("Only what is this tenant's.")]
    endpoint_id: Annotated[EndpointId | None, About("Only what goes to this endpoint.")]
    event_type: Annotated[EventTypeOrFamily | None, About("A type, or `payment.*` for a family.")]


@request
class NewPause(PauseScope, total=False):
    """A pause to be made. A tenant's key holds only what is its tenant's."""

    reason: Annotated[Text | None, About("Shown with what waits.", "the bank is away")]


class Pause(TypedDict):
    """What is held. It waits, for 7 days at most, and is sent when the pause ends."""

    id: PauseId
    tenant_id: Annotated[TenantId | None, About("Null: of every tenant.")]
    endpoint_id: Annotated[EndpointId | None, About("Null: of every endpoint.", None)]
    event_type: Annotated[str | None, About("Null: of every type.", "payment.*")]
    reason: Annotated[str, About(example="the bank is away")]
    created_by: Actor
    created_at: Instant


class PausePage(Paged):
    """A page of pauses, the newest first."""

    data: list[Pause]
