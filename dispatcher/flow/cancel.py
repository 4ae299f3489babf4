"""Ends many deliveries that wait, chosen by a filter: a cancellation, carried out batch by batch as a replay is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.ids import format_id
from dispatcher.store import deliveries, log

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter


@dataclass(frozen=True, slots=True)
class Ended:
    """How many deliveries a step has ended, and whether none is left that will have to be."""

    count: int
    done: bool


def carry_out(
    connection: Connection, cancellation_id: UUID, chosen: Filter, *, limit: int, now: datetime | None = None
) -> Ended:
    """Ends up to `limit` deliveries as `cancelled`, with the cancellation as their reason.

    What is in flight cannot be called back, but it may come back to wait: only when none of it is left is it done.
    """
    ids = log.choose_waiting(connection, chosen, limit=limit)
    reason = f"cancelled by {format_id('rpl', cancellation_id)}"
    count = deliveries.cancel_chosen(connection, ids, reason, now=now) if ids else 0
    return Ended(count, done=len(ids) < limit and not log.has_live(connection, chosen))
