"""Makes new deliveries of old events. They are ordinary deliveries: the same event id, the whole schedule, one path."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import InvalidInput
from dispatcher.ids import uuid7
from dispatcher.model.delivery import FAILED, LIVE, DeliveryState
from dispatcher.store import deliveries, events, log, replays
from dispatcher.store.log import Filter

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH = 1000


def of_failed(chosen: Filter) -> Filter:
    """The same filter, over the failed deliveries where it names no state. Raises InvalidInput for a live state."""
    live = [state for state in chosen.states if state in LIVE]
    if live:
        raise InvalidInput("/status", ", ".join(live), "final states: what is live will be attempted anyway")
    return chosen if chosen.states or chosen.undelivered else replace(chosen, states=FAILED)


def count(connection: Connection, chosen: Filter) -> int:
    """How many deliveries a replay of the filter would make now."""
    return log.count_originals(connection, chosen)


def start(connection: Connection, chosen: Filter) -> UUID:
    """Asks for a replay of all that the filter chooses now; returns its id.

    What ends later is left out, or the replay's own failures would be replayed without end.
    """
    replay_id = uuid7()
    replays.start(connection, replay_id, _to_json(chosen))
    return replay_id


def step(
    connection: Connection, *, batch: int = BATCH, clock: Clock = SYSTEM, now: datetime | None = None
) -> int | None:
    """Replays the next `batch` deliveries of the oldest running replay; how many, or None if no replay is running.

    The new deliveries and the replay's cursor commit together, so a kill at any line repeats and loses nothing.
    """
    replay = replays.next_running(connection)
    if replay is None:
        return None
    found = log.originals(
        connection,
        _from_json(replay.filter),
        after=replay.cursor,
        limit=batch,
        ended_before=replay.created_at,
    )
    _replay(connection, found, replay_id=replay.id, clock=clock, now=now)
    replays.advance(
        connection,
        replay.id,
        cursor=found[-1].id if found else None,
        replayed=len(found),
        done=len(found) < batch,
    )
    return len(found)


def retry(
    connection: Connection, delivery_id: UUID, *, clock: Clock = SYSTEM, now: datetime | None = None
) -> UUID | None:
    """Has one delivery attempted now: a waiting one at once, an ended one as a replay.

    Returns the id of the delivery that will be attempted; None where it is in flight, unknown or replayed already.
    """
    if deliveries.hurry(connection, delivery_id, now=now):
        return delivery_id
    logged = log.find(connection, delivery_id)
    if logged is None or logged.ended_at is None:
        return None
    replays.take_turns(connection, delivery_id)
    found = log.originals(connection, Filter(delivery_id=delivery_id), after=None, limit=1)
    made = _replay(connection, found, replay_id=None, clock=clock, now=now)
    return made[0] if made else None


def _replay(
    connection: Connection, found: list[log.Original], *, replay_id: UUID | None, clock: Clock, now: datetime | None
) -> list[UUID]:
    at = now or clock.now()
    new = [
        events.NewDelivery(
            id=uuid7(at),
            endpoint_id=original.endpoint_id,
            event_id=original.event_id,
            tenant_id=original.tenant_id,
            created_at=at,
            not_before=None,
            first_wait_s=original.first_wait_s,
            expires_at=None,
            schedule_id=original.schedule_id,
            event_type=original.event_type,
            mode=original.mode,
            object_id=original.object_id,
            replay_id=replay_id,
            replay_of=original.id,
        )
        for original in found
    ]
    if new:
        events.accept(connection, [], new, now=now)
    return [delivery["id"] for delivery in new]


def _to_json(chosen: Filter) -> dict[str, Any]:
    return {field.name: value for field in fields(Filter) if (value := getattr(chosen, field.name))}


def _from_json(stored: dict[str, Any]) -> Filter:
    values = dict(stored)
    for name in ("delivery_id", "tenant_id", "endpoint_id", "event_id"):
        if name in values:
            values[name] = UUID(values[name])
    for name in ("created_after", "created_before"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "states" in values:
        values["states"] = tuple(DeliveryState(state) for state in values["states"])
    return Filter(**values)
