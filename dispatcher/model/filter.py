"""Which deliveries somebody means: the conditions of a search, a replay or a cancellation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dispatcher.errors import InvalidInput
from dispatcher.model.delivery import FAILED, LIVE, DeliveryState

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from dispatcher.model.event import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which deliveries; what is None does not matter.

    `undelivered` are all that have not been delivered. `but_delivered` leaves out those whose event has reached their
    endpoint by another delivery. `as_of` leaves out what ended then or later and, of live ones, what was made so.
    `host` is where the endpoint is; `outcome`, `status_code` and `error` are of the last attempt, the error by its
    words, of which the last one may be a beginning.
    """

    states: tuple[DeliveryState, ...] = ()
    undelivered: bool = False
    but_delivered: bool = False
    delivery_ids: tuple[UUID, ...] = ()
    as_of: datetime | None = None
    delivery_id: UUID | None = None
    tenant_id: UUID | None = None
    endpoint_id: UUID | None = None
    event_id: UUID | None = None
    event_type: str | None = None
    mode: Mode | None = None
    object_id: str | None = None
    host: str | None = None
    outcome: str | None = None
    status_code: int | None = None
    attempts_min: int | None = None
    attempts_max: int | None = None
    error: str | None = None
    replay_id: UUID | None = None
    target_url: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None


def of_failed(chosen: Filter, *, include_delivered: bool = False) -> Filter:
    """The same filter, over the failed deliveries where it names no state; with the delivered, if they are included.

    Unless they are, or it names them, it leaves out what has been delivered after all. Raises InvalidInput for a live
    state.
    """
    live = [state for state in chosen.states if state in LIVE]
    if live:
        raise InvalidInput("/status", ", ".join(live), "final states: what is live will be attempted anyway")
    if not chosen.states and not chosen.undelivered:
        chosen = replace(chosen, states=(*FAILED, DeliveryState.DELIVERED) if include_delivered else FAILED)
    return replace(chosen, but_delivered=not include_delivered and DeliveryState.DELIVERED not in chosen.states)
