"""What people do to one delivery: have it attempted now, advance it along its schedule, or end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, NotFound
from dispatcher.flow import replay
from dispatcher.ids import format_id
from dispatcher.model.delivery import LIVE, DeliveryState
from dispatcher.model.event import Mode
from dispatcher.store import deliveries, endpoints, log, trail

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.log import LoggedDelivery


def find(connection: Connection, delivery_id: UUID, *, own: UUID | None) -> LoggedDelivery:
    """The delivery. Raises NotFound where it is not there, or not of the tenant `own`, if given."""
    found = log.find(connection, delivery_id)
    if found is None or own not in (None, found.tenant_id):
        raise NotFound(f"there is no delivery {format_id('dlv', delivery_id)}")
    return found


def retry(
    connection: Connection, delivery_id: UUID, *, by: str, own: UUID | None = None, clock: Clock = SYSTEM
) -> LoggedDelivery:
    """Has it attempted now: a waiting one at once, an ended one as a replay. Returns the one that will be attempted.

    Raises NotFound, and Conflict where it is in flight, was replayed before, or its endpoint is deleted.
    """
    find(connection, delivery_id, own=own)
    made = replay.retry(connection, delivery_id, clock=clock)
    before = find(connection, delivery_id, own=own)  # as it is after whoever else moved it
    if made is None:
        raise _not_retried(connection, before)
    after = before if made == delivery_id else find(connection, made, own=None)
    trail.append(
        connection,
        actor=by,
        action="delivery.retried",
        object=format_id("dlv", delivery_id),
        tenant_id=before.tenant_id,
        before={"status": str(before.state)},
        after={"status": str(after.state), "delivery_id": format_id("dlv", after.id)},
    )
    return after


def advance(connection: Connection, delivery_id: UUID, *, by: str, own: UUID | None = None) -> LoggedDelivery:
    """Makes the next attempt of a waiting delivery of test mode due now, whatever its schedule says.

    Only the wait before the attempt is left out: it is claimed, made and recorded as every other, and the wait after it
    counts from its failure. Raises NotFound, and Conflict where the delivery is of live mode, is held, is in flight or
    has ended.
    """
    before = find(connection, delivery_id, own=own)
    named = format_id("dlv", delivery_id)
    if before.mode != Mode.TEST:
        raise Conflict(
            f"{named} is of live mode; allowed: a delivery of test mode. To attempt a live one now, retry it",
            code="LIVE_MODE",
        )
    if before.state is DeliveryState.WAITING and before.held is not None:
        raise Conflict(f"{named} is held, so no attempt can be made now: {before.held}", code="HELD")
    moved = before.state is DeliveryState.WAITING and deliveries.hurry(connection, delivery_id)
    after = find(connection, delivery_id, own=own)
    if not moved:
        if after.state in LIVE:
            raise Conflict(f"{named} is in flight: it is being attempted now", code="IN_FLIGHT")
        raise Conflict(f"{named} has ended as {after.state}; to start its schedule anew, retry it", code="ENDED")
    trail.append(
        connection,
        actor=by,
        action="delivery.advanced",
        object=named,
        tenant_id=after.tenant_id,
        before={"next_attempt_at": None if before.due_at is None else before.due_at.isoformat()},
        after={"attempt_count": after.attempts},
    )
    return after


def _not_retried(connection: Connection, one: LoggedDelivery) -> Conflict:
    named = format_id("dlv", one.id)
    if one.state in LIVE:
        return Conflict(f"{named} is in flight: it is being attempted now", code="IN_FLIGHT")
    endpoint = endpoints.fetch(connection, [one.endpoint_id]).get(one.endpoint_id)
    if endpoint is None or endpoint.status == "deleted":
        return Conflict(f"the endpoint of {named} is deleted; nothing was changed", code="ENDPOINT_DELETED")
    return Conflict(f"{named} was replayed before: retry its replay", code="ALREADY_REPLAYED")


def cancel(
    connection: Connection, delivery_id: UUID, reason: str, *, by: str, own: UUID | None = None
) -> LoggedDelivery:
    """Ends a waiting delivery without sending it. Raises NotFound, and Conflict where it is in flight or has ended."""
    find(connection, delivery_id, own=own)
    if not deliveries.cancel(connection, delivery_id, reason):
        now = find(connection, delivery_id, own=own)
        if now.state in LIVE:
            raise Conflict(
                f"{format_id('dlv', delivery_id)} is in flight: a POST cannot be called back", code="IN_FLIGHT"
            )
        raise Conflict(f"{format_id('dlv', delivery_id)} has ended as {now.state}", code="ENDED")
    after = find(connection, delivery_id, own=own)
    trail.append(
        connection,
        actor=by,
        action="delivery.cancelled",
        object=format_id("dlv", delivery_id),
        tenant_id=after.tenant_id,
        before={"status": str(DeliveryState.WAITING)},
        after={"status": str(after.state), "reason": reason},
    )
    return after
