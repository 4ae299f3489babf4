"""From an accepted event to its deliveries: one for each endpoint that wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.ids import uuid7
from dispatcher.store.events import NewDelivery

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dispatcher.model.event import Event
    from dispatcher.store.events import NewEvent, Target


def fan_out(event: Event, stored: NewEvent, targets: Iterable[Target], *, at: datetime) -> list[NewDelivery]:
    """One delivery for each target, of the instant `at`.

    A target that an event reaches twice (through two tenants) cannot be: an endpoint has one tenant.
    """
    return [
        NewDelivery(
            id=uuid7(at),
            endpoint_id=target.endpoint_id,
            event_id=stored["id"],
            tenant_id=stored["tenant_id"],
            created_at=at,
            not_before=event.not_before,
            first_wait_s=target.first_wait_s,
            expires_at=event.expires_at,
            schedule_id=target.schedule_id,
            event_type=stored["type"],
            mode=stored["mode"],
            object_id=stored["object_id"],
        )
        for target in targets
    ]
