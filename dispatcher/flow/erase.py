"""Erases what events of one object said, everywhere; that there were such, and what became of them, stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.ids import format_id, uuid7
from dispatcher.store import deliveries, trail
from dispatcher.store import erasures as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.store.erasures import Erasure

REASON: Final = "erased"
"""Why the waiting deliveries of an erased event are cancelled."""

SETTLE: Final = timedelta(minutes=10)
"""For how long answers may still come in of what was in flight, from dispatcher.workers that lost the database too."""

AGAIN: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Found:
    """What an erasure would meet."""

    events: int
    payloads: int
    live_deliveries: int


def preview(connection: Connection, object_id: str, *, tenant_id: UUID | None = None, clock: Clock = SYSTEM) -> Found:
    """What there is of the object; changes nothing."""
    return Found(*store.count(connection, object_id, tenant_id, created_at=clock.now()))


def owner(connection: Connection, object_id: str) -> UUID | None:
    """The tenant that has events of the object; None where there are none.

    Raises InvalidInput where several have: an object's id is each tenant's own word, and what is erased is gone.
    """
    found = store.owners(connection, object_id, limit=2)
    if len(found) > 1:
        raise InvalidInput(
            "/tenant_id",
            f"events of {object_id!r} of more than one tenant",
            "the tenant whose events they are, or all_tenants=true for every tenant's",
        )
    return found[0] if found else None


def start(
    connection: Connection,
    object_id: str,
    *,
    by: str,
    tenant_id: UUID | None = None,
    reason: str | None = None,
    clock: Clock = SYSTEM,
) -> Erasure:
    """Notes that the object's events are to be erased, those of every tenant where none is named.

    Raises InvalidInput for an object id that no event can have.
    """
    if not 0 < len(object_id) <= 200 or not object_id.isprintable():
        raise InvalidInput("/object_id", repr(object_id)[:80], "1 to 200 printable characters")
    now = clock.now()
    return store.add(
        connection, uuid7(now), object_id=object_id, tenant_id=tenant_id, reason=reason, created_by=by, at=now
    )


def find(connection: Connection, erasure_id: UUID, *, own: UUID | None = None) -> Erasure:
    """The erasure. Raises NotFound where it is not there, or not of the tenant that is `own`, if given."""
    found = store.find(connection, erasure_id)
    if found is None or own not in (None, found.tenant_id):
        raise NotFound(f"there is no erasure {format_id('ers', erasure_id)}")
    return found


def step(
    connection: Connection,
    *,
    only: UUID | None = None,
    batch: int = 500,
    now: datetime | None = None,
    clock: Clock = SYSTEM,
) -> Erasure | None:
    """Erases the next `batch` events of an erasure whose turn it is; None where there is none.

    A pass goes through all of the object's events; it is repeated until nothing of them can be in flight any more. The
    first is noted in the audit log when it is through.
    """
    at = now or clock.now()
    one = store.take(connection, now=at, only=only)
    if one is None:
        return None
    if one.cursor == UUID(int=0):  # what is in flight is counted anew in each pass
        one = replace(one, in_flight=0)
    ids = store.events_of(connection, one, batch=batch)
    if ids:
        # First the payloads: whoever claims one of the deliveries from here on finds nothing to send.
        events, attempts = store.erase(connection, ids, now=at)
        live = store.live_of(connection, ids)
        cancelled = deliveries.cancel_chosen(connection, live, REASON, now=now) if live else 0
        if cancelled:
            attempts += store.erase(connection, ids, now=at)[1]  # their errors and targets stand elsewhere now
        one = replace(
            one,
            cursor=ids[-1],
            events=one.events + events,
            attempts=one.attempts + attempts,
            cancelled=one.cancelled + cancelled,
            in_flight=one.in_flight + store.still_live(connection, ids),
        )
    if len(ids) < batch:
        one = _passed(connection, one, at)
    return store.save(connection, one)


def _passed(connection: Connection, one: Erasure, at: datetime) -> Erasure:
    if one.passes == 0:
        trail.append(
            connection,
            actor=one.created_by,
            action="object.erased",
            object=format_id("ers", one.id),
            tenant_id=one.tenant_id,
            before=None,
            after={
                "object_id": one.object_id,
                "reason": one.reason,
                "events": one.events,
                "attempts": one.attempts,
                "cancelled_deliveries": one.cancelled,
                "in_flight": one.in_flight,
            },
        )
    settled_at = one.created_at + SETTLE
    if one.in_flight:
        again: datetime | None = at + AGAIN
    else:
        again = None if at >= settled_at else settled_at
    return replace(one, cursor=UUID(int=0), passes=one.passes + 1, next_pass_at=again)
