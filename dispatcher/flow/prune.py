"""Keeps the tables in shape: partitions are made ahead of time, and what has expired goes: holds, keys, answers,
signatures, previews, workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.store import counts, deliveries, events, idempotency, partitions, previews, tenants, workers

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.store.clock import Bounds, Now
    from dispatcher.store.partitions import DayPartition


def make_partition(connection: Connection, partition: DayPartition) -> None:
    """Makes a partition of next week, in a transaction of its own: attaching it locks a default partition, so it
    gives up after two seconds (a DBAPIError, tried again in a minute) rather than have claims wait behind it.
    """
    partitions.lock_briefly(connection)
    partitions.make(connection, partition)


def prune(
    connection: Connection, *, batch: int = 1000, now: datetime | None = None, bounds: Bounds | None = None
) -> bool:
    """One round, bounded by `batch` rows of each kind; whether some kind had that many, so that more may be left.

    `bounds` are those of the due clock, by which deliveries and events' keys expire and workers are dead.
    """
    due_now: Now = now or bounds
    pruned = (
        deliveries.expire(connection, batch=batch, now=due_now),
        deliveries.cancel_deleted(connection, batch=batch, now=due_now),
        deliveries.set_order(connection, batch=batch),
        events.forget(connection, batch=batch, now=due_now),
        idempotency.forget(connection, batch=batch, now=now),
        tenants.forget_signatures(connection, batch=batch, now=now),
        previews.forget(connection, batch=batch, now=now),
        counts.forget(connection, batch=batch, now=now),
    )
    workers.bury(connection, now=due_now)
    return max(pruned) >= batch
