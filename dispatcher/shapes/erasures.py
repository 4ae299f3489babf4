"""Erasures: what is known of an object, taken away for good."""

from __future__ import annotations

from typing import Annotated, Literal, Required

from typing_extensions import TypedDict

from dispatcher.model import access
from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Actor, ErasureId, Instant, Paged, TenantId


@request
class NewErasure(TypedDict, total=False):
    """An erasure to be started."""

    object_id: Required[Annotated[str, About(example="pay_8f3k2", min_length=1, max_length=200, pattern=access.NAME)]]
    tenant_id: Annotated[
        TenantId | None,
        About("Whose events. An operator may leave it out where one tenant only has events of the object."),
    ]
    all_tenants: Annotated[
        bool, About("True erases the events of every tenant; for operators, without a `tenant_id`.", False)
    ]
    reason: Annotated[
        str | None, About(example="asked for by the customer", min_length=1, max_length=500, pattern=access.NAME)
    ]


class Erasure(TypedDict):
    """An erasure and its progress."""

    id: ErasureId
    object_id: Annotated[str, About(example="pay_8f3k2")]
    tenant_id: Annotated[TenantId | None, About("The tenant whose events are erased; null means every tenant.")]
    reason: Annotated[str | None, About(example="asked for by the customer")]
    created_by: Actor
    created_at: Instant
    status: Annotated[
        Literal["running", "done"],
        About("`done` when all events that existed at the time of the request have been erased.", "done"),
    ]
    events: Annotated[int, About("The number of events that were erased.", 3)]
    attempts: Annotated[int, About("The number of attempts whose responses and query strings were erased.", 5)]
    cancelled_deliveries: Annotated[int, About("The number of waiting deliveries that were cancelled.", 1)]
    in_flight_deliveries: Annotated[
        int, About("That were in flight at the latest look: what they are answered is erased later.", 0)
    ]
    next_check_at: Annotated[
        Instant | None, About("When deliveries that were in flight are checked again; null if none can be left.", None)
    ]


class ErasurePage(Paged):
    """A page of erasures, the newest first."""

    data: list[Erasure]
