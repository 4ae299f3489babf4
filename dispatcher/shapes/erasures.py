"""Erasures: what is known of an object, taken away for good."""

from __future__ import annotations

from typing import Annotated, Literal, Required

from typing_extensions import TypedDict

from dispatcher.model import access
from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Actor, ErasureId, Instant, Paged, TenantId


@request
class NewErasure(TypedDict, total=False):
    """What is to be erased."""

    object_id: Required[Annotated[str, About(example="pay_8f3k2", min_length=1, max_length=200, pattern=access.NAME)]]
    tenant_id: Annotated[
        TenantId | None,
        About("Whose events. An operator may leave it out where one tenant only has events of the object."),
    ]
    all_tenants: Annotated[bool, About("Every tenant's events; for operators, without a tenant_id.", False)]
    reason: Annotated[
        str | None, About(example="asked for by the customer", min_length=1, max_length=500, pattern=access.NAME)
    ]


class Erasure(TypedDict):
    """An erasure, and how far it is."""

    id: ErasureId
    object_id: Annotated[str, About(example="pay_8f3k2")]
    tenant_id: Annotated[TenantId | None, About("Null: every tenant's.")]
    reason: Annotated[str | None, About(example="asked for by the customer")]
    created_by: Actor
    created_at: Instant
    status: Annotated[
        Literal["running", "done"],
        About("Done once all events were erased that were there when it was asked for.", "done"),
    ]
    events: Annotated[int, About("That had a payload, or none any more, and are erased now.", 3)]
    attempts: Annotated[int, About("Whose answers and queries are erased.", 5)]
    cancelled_deliveries: Annotated[int, About("That waited.", 1)]
    in_flight_deliveries: Annotated[
        int, About("That were in flight at the latest look: what they are answered is erased later.", 0)
    ]
    next_look_at: Annotated[
        Instant | None, About("When what was in flight is looked at again; null: nothing can be any more.", None)
    ]


class ErasurePage(Paged):
    """A page of erasures, the newest first."""

    data: list[Erasure]
