"""Makes new deliveries of old events. They are ordinary deliveries: the same event id, the whole schedule, one path.

A cancellation, which ends deliveries that wait, is asked for, kept and carried out in the same way; what differs is in
`dispatcher.flow.cancel`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import orjson

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow import cancel, register
from dispatcher.ids import format_id, uuid7, uuid7_in_order
from dispatcher.model.delivery import FAILED, LIVE, DeliveryState
from dispatcher.store import deliveries, events, log, replays, trail
from dispatcher.store.log import Filter
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.store.log import Summary
    from dispatcher.store.replays import Kind, Replay

BATCH: Final = 1000
"""Deliveries in one transaction of a step."""

CATCH_UP_S: Final = 5.0
"""How much of the time that no scheduler was there a replay with a rate makes up for: more would be a burst."""

FASTEST: Final = 1000.0
"""Deliveries a second that a replay without a rate is expected to make."""


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


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done now, and how long that would take; `filter` chooses nothing that came later."""

    kind: Kind
    filter: Filter
    summary: Summary
    estimated_s: float


def preview(
    connection: Connection,
    chosen: Filter,
    *,
    kind: Kind = "replay",
    rate: float | None = None,
    now: datetime | None = None,
) -> Preview:
    """What a replay or a cancellation of the filter would do, and the filter with the instant frozen."""
    summary = _summarise(connection, chosen, kind, now)
    estimated_s = summary.count / min(rate or FASTEST, FASTEST)
    if kind == "replay":
        estimated_s = max(estimated_s, summary.longest_s)
    return Preview(kind, replace(chosen, as_of=summary.at), summary, estimated_s)


def _summarise(connection: Connection, chosen: Filter, kind: Kind, now: datetime | None) -> Summary:
    if kind == "replay":
        return log.summarise_originals(connection, chosen, now=now)
    return log.summarise_live(connection, chosen, now=now)


def start(
    connection: Connection,
    chosen: Filter,
    *,
    by: str,
    kind: Kind = "replay",
    tenant_id: UUID | None = None,
    rate: float | None = None,
    total: int | None = None,
    clock: Clock = SYSTEM,
    now: datetime | None = None,
) -> Replay:
    """Asks for a replay, or a cancellation, of all that the filter chooses now or chose when it was previewed.

    What ends later is left out, or the replay's own failures would be replayed without end. `tenant_id` is whose it
    is, by default the filter's tenant; `rate` the deliveries a second, by default as fast as it goes; `total` how many
    were previewed.
    """
    if total is None or chosen.as_of is None:
        summary = _summarise(connection, chosen, kind, now)
        total = summary.count
        chosen = replace(chosen, as_of=chosen.as_of or summary.at)
    id_ = uuid7(now or clock.now())
    tenant_id = tenant_id or chosen.tenant_id
    replays.start(
        connection, id_, to_dict(chosen), kind=kind, tenant_id=tenant_id, rate=rate, total=total, by=by, now=now
    )
    made = _get(connection, id_)
    _note(connection, made, "started", by, before=None, after={"filter": made.filter, "total": total, "rate": rate})
    return made


def recover(
    connection: Connection,
    endpoint_id: UUID,
    *,
    since: datetime,
    until: datetime | None = None,
    by: str,
    own: UUID | None = None,
    clock: Clock = SYSTEM,
) -> Replay:
    """Replays what failed to reach an endpoint, whenever it was made: its failed deliveries that ended since then.

    Reads the endpoint's failed deliveries by the index ended_failed. Raises NotFound where the endpoint is not there,
    or not of the tenant `own`, if given, and InvalidInput for a span that is none.
    """
    if until is not None and until <= since:
        raise InvalidInput("/until", until.isoformat(), "an instant after since")
    endpoint = register.find(connection, endpoint_id, tenant_id=own)
    chosen = of_failed(Filter(endpoint_id=endpoint_id, ended_after=since, ended_before=until))
    made = start(connection, chosen, by=by, tenant_id=own, clock=clock)
    trail.append(
        connection,
        actor=by,
        action="endpoint.recovered",
        object=format_id("ep", endpoint_id),
        tenant_id=endpoint.tenant_id,
        before=None,
        after={"replay_id": format_id("rpl", made.id), "since": made.filter["ended_after"], "total": made.total},
    )
    return made


def step(
    connection: Connection, *, batch: int = BATCH, clock: Clock = SYSTEM, now: datetime | None = None
) -> int | None:
    """Does the next of one that runs, `batch` deliveries at most and no more than its rate allows; how many.

    None if none is running, or none has come to a delivery yet. Those that run take turns. What it does and its
    cursor commit together, so a kill at any line repeats and loses nothing.
    """
    turn = replays.next_running(connection, now=now)
    if turn is None:
        return None
    one, chosen = turn.replay, from_dict(turn.replay.filter)
    chosen = replace(chosen, as_of=chosen.as_of or one.created_at)
    limit, unused_s = _allowed(one.rate, turn.waited_s, batch)
    if one.kind == "cancellation":
        ended = cancel.carry_out(connection, one.id, chosen, limit=limit, now=now)
        count, done, cursor = ended.count, ended.done, None
    else:
        replays.keep_out(connection)
        found = log.originals(connection, chosen, after=one.cursor, limit=limit)
        _replay(connection, found, replay_id=one.id, clock=clock, now=now)
        count, done, cursor = len(found), len(found) < limit, found[-1].id if found else None
    replays.advance(
        connection,
        one.id,
        cursor=cursor,
        replayed=count,
        done=done,
        stepped_at=turn.at - timedelta(seconds=unused_s),
        now=now,
    )
    return count


def _allowed(rate: float | None, waited_s: float, batch: int) -> tuple[int, float]:
    """How many deliveries a step may do, and how many seconds of what it has waited are left for the next one.

    >>> _allowed(None, 0.0, 1000), _allowed(10.0, 1.25, 1000), _allowed(10.0, 3600.0, 1000)
    ((1000, 0.0), (12, 0.05), (50, 0.0))
    """
    if rate is None:
        return batch, 0.0
    waited_s = min(waited_s, max(CATCH_UP_S, 1 / rate))
    limit = max(1, min(batch, int(rate * waited_s)))  # one has come due, or it would not be its turn
    return limit, round(max(0.0, waited_s - limit / rate), 6)


def set_state(
    connection: Connection,
    replay_id: UUID,
    state: Literal["running", "paused", "cancelled"],
    *,
    by: str,
    own: UUID | None = None,
    now: datetime | None = None,
) -> Replay:
    """Pauses one, has it go on, or ends it; what it has done stays done. What is so already is left as it is.

    Raises NotFound where it is not there, or not of the tenant `own`, if given, and Conflict where it has ended.
    """
    find(connection, replay_id, own=own)
    replays.lock(connection, replay_id)
    before = find(connection, replay_id, own=own)
    if before.ended_at is not None:
        raise Conflict(f"{format_id('rpl', replay_id)} has ended: it is {before.state}", code="REPLAY_ENDED")
    if not replays.set_state(connection, replay_id, state, now=now):
        return before
    after = _get(connection, replay_id)
    verb = {"running": "resumed", "paused": "paused", "cancelled": "cancelled"}[state]
    _note(connection, after, verb, by, before={"status": before.state}, after={"status": after.state})
    return after


def find(connection: Connection, replay_id: UUID, *, own: UUID | None = None) -> Replay:
    """The replay or cancellation. Raises NotFound where it is not there, or not of the tenant `own`, if given."""
    found = replays.find(connection, replay_id)
    if found is None or own not in (None, found.tenant_id):
        raise NotFound(f"there is no replay {format_id('rpl', replay_id)}")
    return found


def _get(connection: Connection, replay_id: UUID) -> Replay:
    found = replays.find(connection, replay_id)
    assert found is not None
    return found


def _note(
    connection: Connection,
    one: Replay,
    verb: str,
    by: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"{one.kind}.{verb}",
        object=format_id("rpl", one.id),
        tenant_id=one.tenant_id,
        before=before,
        after=after,
    )


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
            id=uuid7_in_order(at),
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
            target_url=original.target_url,
            target_method=original.target_method,
            ordered=original.ordered,
        )
        for original in found
    ]
    if new:
        events.accept(connection, [], new, now=now)
    return [delivery["id"] for delivery in new]


def to_dict(chosen: Filter) -> dict[str, Any]:
    """What matters of a filter, as JSON has it."""
    given = {field.name: value for field in fields(Filter) if (value := getattr(chosen, field.name))}
    plain: dict[str, Any] = orjson.loads(to_json(given))
    return plain


def from_dict(kept: dict[str, Any]) -> Filter:
    """The filter that `to_dict` has written."""
    values = dict(kept)
    for name in ("delivery_id", "tenant_id", "endpoint_id", "event_id", "replay_id"):
        if name in values:
            values[name] = UUID(values[name])
    for name in ("created_after", "created_before", "ended_after", "ended_before", "as_of"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "states" in values:
        values["states"] = tuple(DeliveryState(state) for state in values["states"])
    if "delivery_ids" in values:
        values["delivery_ids"] = tuple(map(UUID, values["delivery_ids"]))
    return Filter(**values)
