"""From an accepted event to its deliveries: one for each endpoint that it goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.ids import uuid7_in_order
from dispatcher.store.events import NewDelivery

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dispatcher.flow.targets import Route
    from dispatcher.model.event import Event
    from dispatcher.store.events import NewEvent, Recipient


def fan_out(
    event: Event, stored: NewEvent, recipients: Iterable[Recipient], *, at: datetime, route: Route | None = None
) -> list[NewDelivery]:
    """One delivery for each recipient, of the instant `at`; their ids are in the order in which they are made.

    A delivery is its endpoint's tenant's: a reseller sees what went to its own URL, and its merchant does not.

    That to the event's own target has the URL and the method of `route`. An endpoint that an event reaches twice
    (through two tenants) cannot be: an endpoint has one tenant.
    """
    made: list[NewDelivery] = []
    for recipient in recipients:
        delivery = NewDelivery(
            id=uuid7_in_order(at),
            endpoint_id=recipient.endpoint_id,
            event_id=stored["id"],
            tenant_id=recipient.tenant_id or stored["tenant_id"],
            created_at=at,
            not_before=event.not_before,
            first_wait_s=recipient.first_wait_s,
            expires_at=event.expires_at,
            schedule_id=recipient.schedule_id,
            event_type=stored["type"],
            mode=stored["mode"],
            object_id=stored["object_id"],
        )
        if recipient.ordered:
            delivery["ordered"] = True
        if route is not None and recipient.own:
            delivery["target_url"], delivery["target_method"] = route.url, route.method
        made.append(delivery)
    return made
