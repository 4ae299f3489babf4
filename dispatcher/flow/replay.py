"""Makes new deliveries of old events. They are ordinary deliveries: the same event id, the whole schedule, one path.

A replay or a cancellation of many is started, paused and observed here, and the scheduler carries it out in turns
(`dispatcher.flow.replay_turn`). What it chooses is in `dispatcher.flow.replay_choice`. `retry` replays
one delivery at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow import register
from dispatcher.flow.replay_choice import DEFAULT_OPTIONS, Options, filter_to_stored, format_destination
from dispatcher.ids import format_id, uuid7, uuid7_in_order
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import deliveries, events, log, originals, replay_endpoints, replays, trail
from dispatcher.store.originals import Share

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.model.event import Mode
    from dispatcher.store.originals import Original
    from dispatcher.store.replays import Kind, Replay

ENDPOINT_DEPTH: Final = 64
"""Deliveries of a replay at one endpoint that were not attempted yet: as many as an endpoint has in flight at most,
unless it was given more."""

STUCK_S: Final = 2.0
"""An endpoint that has left a delivery due for so long without an attempt gets no more, and what it has counts for the
endpoint only: or a few that do not answer would use up what all share."""

_LATELY_S: Final = 5.0
_FORESEEABLE_S: Final = 10 * 365 * 86_400.0


def start(
    connection: Connection,
    chosen: Filter,
    *,
    by: str,
    kind: Kind = "replay",
    tenant_id: UUID | None = None,
    options: Options = DEFAULT_OPTIONS,
    total: int | None = None,
    clock: Clock = SYSTEM,
    now: datetime | None = None,
) -> Replay:
    """Starts a replay, or a cancellation, of all that the filter chooses now or chose when it was previewed.

    What ends later is left out, or the replay's own failures would be replayed without end. `tenant_id` is whose it
    is, by default the filter's tenant; `total` how many a previewed cancellation has. A replay writes down how many
    each endpoint has, by one statement. Raises NotFound where it goes to an endpoint that is not there, or not theirs.
    """
    if isinstance(options.goes_to, UUID):
        register.find(connection, options.goes_to, tenant_id=tenant_id)
    if chosen.as_of is None:
        chosen = replace(chosen, as_of=now or replays.now(connection))
    if kind == "cancellation" and total is None:
        total = log.summarise_live(connection, chosen, now=now).count
    id_ = uuid7(now or clock.now())
    tenant_id = tenant_id or chosen.tenant_id
    replays.start(
        connection,
        id_,
        filter_to_stored(chosen),
        kind=kind,
        tenant_id=tenant_id,
        rate=options.rate,
        rate_per_endpoint=options.rate_per_endpoint,
        canary=options.canary,
        goes_to=format_destination(options.goes_to),
        total=total or 0,
        by=by,
        now=now,
    )
    if kind == "replay":
        total = originals.share_out(connection, id_, chosen, goes_to=options.goes_to, now=now)
        replays.set_total(connection, id_, total)
    made = _get(connection, id_)
    after: dict[str, Any] = {"filter": made.filter, "total": total, "rate": options.rate}
    if kind == "replay":
        after |= {"rate_per_endpoint": options.rate_per_endpoint, "canary": options.canary, "to": made.goes_to}
    _note(connection, made, "started", by, before=None, after=after)
    return made


def recover(
    connection: Connection,
    endpoint_id: UUID,
    *,
    since: datetime,
    until: datetime | None = None,
    mode: Mode | None = None,
    by: str,
    own: UUID | None = None,
    clock: Clock = SYSTEM,
) -> Replay:
    """Replays an endpoint's failed deliveries that ended since then, whenever they were made; of one mode, if given.

    Reads the endpoint's failed deliveries by the index ended_failed. Raises NotFound where the endpoint is not there,
    or not of the tenant `own`, if given, and InvalidInput for an invalid span.
    """
    if until is not None and until <= since:
        raise InvalidInput("/until", until.isoformat(), "an instant after since")
    endpoint = register.find(connection, endpoint_id, tenant_id=own)
    chosen = of_failed(Filter(endpoint_id=endpoint_id, mode=mode, ended_after=since, ended_before=until))
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


def set_state(
    connection: Connection,
    replay_id: UUID,
    state: Literal["running", "paused", "cancelled"],
    *,
    by: str,
    own: UUID | None = None,
    now: datetime | None = None,
) -> Replay:
    """Pauses, resumes or cancels a replay or cancellation. What it has done stays; a state that it has already is kept.

    When it resumes, endpoints that were stopped try their next deliveries, even if it was running already.

    Raises NotFound where it is not there, or not of the tenant `own`, if given, and Conflict where it has ended.
    """
    find(connection, replay_id, own=own)
    replays.lock(connection, replay_id)
    before = find(connection, replay_id, own=own)
    if before.ended_at is not None:
        raise Conflict(f"{format_id('rpl', replay_id)} has ended: it is {before.state}", code="REPLAY_ENDED")
    tried = replay_endpoints.resume(connection, replay_id) if state == "running" else 0
    if not replays.set_state(connection, replay_id, state, now=now) and not tried:
        return before
    after = _get(connection, replay_id)
    verb = {"running": "resumed", "paused": "paused", "cancelled": "cancelled"}[state]
    _note(connection, after, verb, by, before={"status": before.state}, after={"status": after.state})
    return after


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: the states of its deliveries and endpoints, its pace, and when it may be complete.

    `pace` is in deliveries a second; None if it is unknown.
    """

    counts: replay_endpoints.Counts
    running: int
    stopped: int
    pace: float | None
    estimated_end: datetime | None


def progress(connection: Connection, replay: Replay, *, now: datetime | None = None) -> Progress:
    """How far the replay is. Counts all deliveries that it made."""
    at = now or replays.now(connection)
    counts, standing = replay_endpoints.counts(connection, replay.id), replay_endpoints.standing(connection, replay.id)
    pace = _pace(replay, at)
    end = None
    left = (replay.total or 0) - replay.replayed
    if replay.state == "running" and pace and left / pace < _FORESEEABLE_S:
        end = at + timedelta(seconds=round(max(0, left) / pace))
    return Progress(counts, standing.running, standing.stopped, pace, end)


def endpoints(
    connection: Connection, replay_id: UUID, *, own: UUID | None = None, after: UUID | None = None, limit: int = 50
) -> list[replay_endpoints.Progress]:
    """How far the replay is at each endpoint, after the endpoint `after`. Raises NotFound as `find` does."""
    find(connection, replay_id, own=own)
    return replay_endpoints.list_(
        connection, replay_id, depth=ENDPOINT_DEPTH, stuck_s=STUCK_S, after=after, limit=limit
    )


def _pace(replay: Replay, at: datetime) -> float | None:
    """Deliveries a second of a running replay: over the last seconds or, until these are known, since its start."""
    if replay.state != "running":
        return None
    since_s = (at - (replay.marked_at or replay.created_at)).total_seconds()
    if replay.pace is not None and since_s < _LATELY_S:
        return replay.pace
    return (replay.replayed - replay.marked) / since_s if since_s > 0 else None


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
    replay: Replay,
    verb: str,
    by: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"{replay.kind}.{verb}",
        object=format_id("rpl", replay.id),
        tenant_id=replay.tenant_id,
        before=before,
        after=after,
    )


def retry(
    connection: Connection, delivery_id: UUID, *, clock: Clock = SYSTEM, now: datetime | None = None
) -> UUID | None:
    """Attempts one delivery now: a waiting delivery itself, an ended one by a new delivery.

    Returns the id of the delivery that will be attempted; None if it is in flight, unknown or replayed already.
    """
    if deliveries.hurry(connection, delivery_id, now=now):
        return delivery_id
    logged = log.find(connection, delivery_id)
    if logged is None or logged.ended_at is None:
        return None
    replays.take_turns(connection, delivery_id)
    share = Share(logged.endpoint_id, UUID(int=0), 1)
    chosen = originals.take(connection, Filter(delivery_id=delivery_id), [share])
    made = accept(connection, chosen, replay_id=None, clock=clock, now=now)
    return made[0] if made else None


def accept(
    connection: Connection, chosen: list[Original], *, replay_id: UUID | None, clock: Clock, now: datetime | None
) -> list[UUID]:
    """Makes a new delivery for each of the chosen old ones, in one statement, and returns their ids in that order."""
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
            replay_of=original.replay_of,
            target_url=original.target_url,
            target_method=original.target_method,
            ordered=original.ordered,
        )
        for original in chosen
    ]
    if new:
        events.accept(connection, [], new, now=now)
    return [delivery["id"] for delivery in new]
