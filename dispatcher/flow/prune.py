"""Keeps the tables in shape: partitions are made ahead of time, and what has expired goes: holds, keys, answers,
signatures, previews, workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from dispatcher.store import counts, deliveries, events, idempotency, partitions, previews, tenants, workers

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.store.clock import Bounds, Now
    from dispatcher.store.partitions import DayPartition

FIRST: Final = UUID(int=0)
"""Before the first endpoint."""

ENDPOINTS: Final = 5_000
"""How many endpoints one round looks at."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Whether more may be left, and behind which endpoint the next round is to go on."""

    more: bool
    after: UUID


def make_partition(connection: Connection, partition: DayPartition) -> None:
    """Makes a partition of next week, in a transaction of its own: attaching it locks a default partition, so it
    gives up after two seconds (a DBAPIError, tried again in a minute) rather than have claims wait behind it.
    """
    partitions.lock_briefly(connection)
    partitions.make(connection, partition)


def prune(
    connection: Connection,
    *,
    after: UUID = FIRST,
    endpoints: int = ENDPOINTS,
    batch: int = 1000,
    now: datetime | None = None,
    bounds: Bounds | None = None,
) -> Pruned:
    """One round, bounded by `batch` rows of each kind, and by so many endpoints, those behind `after`.

    More may be left where some kind had that many rows, or there are more endpoints. `bounds` are those of the due
    clock, by which deliveries and events' keys expire and workers are dead.
    """
    due_now: Now = now or bounds
    most = max(
        deliveries.expire(connection, batch=batch, now=due_now),
        events.forget(connection, batch=batch, now=due_now),
        idempotency.forget(connection, batch=batch, now=now),
        tenants.forget_signatures(connection, batch=batch, now=now),
        previews.forget(connection, batch=batch, now=now),
        counts.forget(connection, batch=batch, now=now),
    )
    workers.bury(connection, now=due_now)
    swept = deliveries.sweep(connection, after=after, endpoints=endpoints, batch=batch, now=due_now)
    if swept.most >= batch:
        return Pruned(more=True, after=after)
    return Pruned(more=most >= batch or swept.last is not None, after=swept.last or FIRST)
