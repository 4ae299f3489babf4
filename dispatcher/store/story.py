"""The statements that find what belongs to one delivery: its replays, its expiry and method, its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from dispatcher.model.delivery import DeliveryState

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

MOST: Final = 100
"""Replays of one delivery that are told of: the oldest ones."""

# Its replays are of its event, which both tables have an index of.
_REPLAYS = text("""
SELECT id, state, created_at, endpoint_id FROM (
    SELECT r.id, r.state, r.created_at, r.endpoint_id, r.tenant_id FROM dispatcher.deliveries r
    WHERE r.event_id = :event_id AND r.replay_of = :id
    UNION ALL
    SELECT r.id, r.state, r.created_at, r.endpoint_id, r.tenant_id FROM dispatcher.ended_deliveries r
    WHERE r.event_id = :event_id AND r.replay_of = :id
) found
WHERE CAST(:own AS uuid) IS NULL OR tenant_id = :own
ORDER BY id LIMIT :most
""")

_MORE = text("""
SELECT expires_at - dispatcher.clock_correction(), target_method FROM dispatcher.deliveries WHERE id = :id
UNION ALL
SELECT NULL, target_method FROM dispatcher.ended_deliveries WHERE id = :id
""")

_SCHEDULE = text("SELECT body FROM dispatcher.schedule_versions WHERE name = :name AND hash = :hash")


@dataclass(frozen=True, slots=True)
class Replayed:
    """A delivery beside another one, of the same event."""

    id: UUID
    state: DeliveryState
    created_at: datetime
    endpoint_id: UUID


def replays(connection: Connection, delivery_id: UUID, event_id: UUID, *, own: UUID | None = None) -> list[Replayed]:
    """The deliveries that replay this one, the oldest first; `own` limits them to one tenant's."""
    values = {"id": delivery_id, "event_id": event_id, "own": own, "most": MOST}
    return [
        Replayed(id_, DeliveryState(state), created_at, endpoint_id)
        for id_, state, created_at, endpoint_id in connection.execute(_REPLAYS, values)
    ]


def more(connection: Connection, delivery_id: UUID) -> tuple[datetime | None, str | None]:
    """When a delivery expires, None where it does not or has ended; the method that its event's target asks for."""
    row = connection.execute(_MORE, {"id": delivery_id}).first()
    return (None, None) if row is None else (row[0], row[1])


def schedule(connection: Connection, name: str, version: str) -> str:
    """The canonical body of a version of a schedule that a delivery has pinned, and which is therefore there."""
    found: str = connection.execute(_SCHEDULE, {"name": name, "hash": version}).scalar_one()
    return found
