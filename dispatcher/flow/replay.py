"""Makes new deliveries of old events. They are ordinary deliveries: the same event id, the whole schedule, one path.

A replay goes endpoint by endpoint, each with a cursor, a rate and a state of its own, so that a slow or dead one keeps
no other waiting. It never has more than a few deliveries that were not attempted yet, whatever its rate: it drips at
the pace of its receivers, and a fresh event finds a short queue. A cancellation, which ends deliveries that wait, is
asked for, kept and carried out in the same way; what differs is in `dispatcher.flow.cancel`.
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
from dispatcher.ids import format_id, parse_id, uuid7, uuid7_in_order
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.filter import Filter, of_failed
from dispatcher.store import deliveries, events, log, originals, replay_endpoints, replays, trail
from dispatcher.store.originals import Share, Summary
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from dispatcher.store.originals import GoesTo, Original
    from dispatcher.store.replay_endpoints import Look
    from dispatcher.store.replays import Kind, Replay, State, Turn

BATCH: Final = 1000
"""Deliveries in one transaction of a step."""

ENDPOINTS: Final = 256
"""Endpoints that one step looks at."""

ENDPOINT_DEPTH: Final = 64
"""Deliveries of a replay at one endpoint that were not attempted yet: as many as an endpoint has in flight at most,
unless it was given more."""

TOTAL_DEPTH: Final = 512
"""Deliveries of a replay that were not attempted yet, at all endpoints that answer."""

STUCK_S: Final = 2.0
"""An endpoint that has left a delivery due for so long without an attempt gets no more, and what it has counts for the
endpoint only: or a few that do not answer would use up what all share."""

CATCH_UP_S: Final = 0.5
"""How much of the time that no scheduler was there, or no room, a replay with a rate makes up for: more would be a
burst. In any five seconds it makes a tenth more than its rate at most."""

FASTEST: Final = 1000.0
"""Deliveries a second that a replay without a rate is expected to make."""

_LATELY_S: Final = 5.0
_FORESEEABLE_S: Final = 10 * 365 * 86_400.0

_EVENTS_ONLY: Final = frozenset(
    {"tenant_id", "endpoint_id", "event_id", "event_type", "object_id", "created_after", "created_before"}
    | {"as_of", "but_delivered"}
)
"""What of a filter speaks of events and endpoints, not of deliveries."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a replay goes: deliveries a second in all and to each endpoint, how many of each go first, and where to.

    None is no limit, and no canary.
    """

    rate: float | None = None
    rate_per_endpoint: float | None = None
    canary: int | None = None
    goes_to: GoesTo = "same"


def goes_to(text: str, *, pointer: str = "/to") -> GoesTo:
    """Where a replay goes, as it is written. Raises InvalidInput."""
    if text in ("same", "matching"):
        return text  # type: ignore[return-value]
    try:
        return parse_id("ep", text)
    except InvalidInput as error:
        raise InvalidInput(pointer, repr(text), "same, matching, or the id of an endpoint: ep_…") from error


def written(to: GoesTo) -> str:
    """The same as text."""
    return format_id("ep", to) if isinstance(to, UUID) else to


_NAMES: Final = {"states": "status", "target_url": "url"}


def of_events(chosen: Filter, *, include_delivered: bool = False) -> Filter:
    """The filter of a replay to the endpoints that match today.

    Raises InvalidInput where it speaks of deliveries: events that matched nobody have none.
    """
    for field in fields(Filter):
        if field.name not in _EVENTS_ONLY and getattr(chosen, field.name) != field.default:
            name = _NAMES.get(field.name, field.name)
            raise InvalidInput(
                f"/{name}",
                "a condition on deliveries",
                "conditions on events where to is matching: tenant_id, endpoint_id, event_id, event_type, object_id, "
                "created_after, created_before, include_delivered",
            )
    return replace(chosen, but_delivered=not include_delivered)


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done now, and how long that would take; `filter` chooses nothing that came later."""

    kind: Kind
    filter: Filter
    summary: Summary
    estimated_s: float
    options: Options


def preview(
    connection: Connection,
    chosen: Filter,
    *,
    kind: Kind = "replay",
    options: Options = Options(),
    own: UUID | None = None,
    now: datetime | None = None,
) -> Preview:
    """What a replay or a cancellation of the filter would do, and the filter with the instant frozen.

    Raises NotFound where it goes to an endpoint that is not there, or not of the tenant `own`, if given.
    """
    if isinstance(options.goes_to, UUID):
        register.find(connection, options.goes_to, tenant_id=own)
    summary = _summarise(connection, chosen, kind, options, now)
    estimated_s = summary.count / min(options.rate or FASTEST, FASTEST)
    if kind == "replay":
        estimated_s = max(estimated_s, summary.longest_s, summary.most / (options.rate_per_endpoint or FASTEST))
    return Preview(kind, replace(chosen, as_of=summary.at), summary, estimated_s, options)


def _summarise(connection: Connection, chosen: Filter, kind: Kind, options: Options, now: datetime | None) -> Summary:
    if kind == "replay":
        return originals.summarise(connection, chosen, goes_to=options.goes_to, now=now)
    found = log.summarise_live(connection, chosen, now=now)
    return Summary(
        count=found.count,
        oldest=found.oldest,
        newest=found.newest,
        already_delivered=found.already_delivered,
        endpoints=0,
        endpoints_disabled=found.endpoints_disabled,
        longest_s=found.longest_s,
        most=0,
        payload_gone=0,
        not_visible=0,
        at=found.at,
        in_flight=found.in_flight,
    )


def start(
    connection: Connection,
    chosen: Filter,
    *,
    by: str,
    kind: Kind = "replay",
    tenant_id: UUID | None = None,
    options: Options = Options(),
    total: int | None = None,
    clock: Clock = SYSTEM,
    now: datetime | None = None,
) -> Replay:
    """Asks for a replay, or a cancellation, of all that the filter chooses now or chose when it was previewed.

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
        to_dict(chosen),
        kind=kind,
        tenant_id=tenant_id,
        rate=options.rate,
        rate_per_endpoint=options.rate_per_endpoint,
        canary=options.canary,
        goes_to=written(options.goes_to),
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
    by: str,
    own: UUID | None = None,
    clock: Clock = SYSTEM,
) -> Replay:
    """Replays what failed to reach an endpoint, whenever it was made: its failed deliveries that ended since then.

    Reads the endpoint's failed deliveries by the index ended_failed. Raises NotFound where the endpoint is not there,
    or not of the tenant `own`, if given, and InvalidInput for an invalid span.
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
    """How many deliveries the turn has done of the one whose turn it is; None if it is nobody's. See `take_turn`."""
    found = take_turn(connection, batch=batch, clock=clock, now=now)
    return None if found is None else found.count


@dataclass(frozen=True, slots=True)
class Step:
    """What a turn has done, and for whom."""

    replay_id: UUID
    count: int


def take_turn(
    connection: Connection,
    *,
    batch: int = BATCH,
    but: Collection[UUID] = (),
    clock: Clock = SYSTEM,
    now: datetime | None = None,
) -> Step | None:
    """Does the next of one that runs, `batch` deliveries at most and no more than its rate and its receivers allow.

    None if none but those of `but` is running, or none has come to a delivery yet. Those that run take turns. What it
    does and its cursors commit together, so a kill at any line repeats and loses nothing.
    """
    turn = replays.next_running(connection, but=but, now=now)
    if turn is None:
        return None
    one, chosen = turn.replay, from_dict(turn.replay.filter)
    chosen = replace(chosen, as_of=chosen.as_of or one.created_at)
    waited_s = turn.waited_s if one.rate is None else min(turn.waited_s, max(CATCH_UP_S, 1 / one.rate))
    limit = _allowed(one.rate, waited_s, batch)
    state: State = "running"
    reason = None
    if one.kind == "cancellation":
        ended = cancel.carry_out(connection, one.id, chosen, limit=limit, now=now)
        count, state = ended.count, "done" if ended.done else "running"
    else:
        count, is_full = _replay_next(connection, turn, chosen, limit, clock=clock, now=now)
        state, reason = _standing(connection, one.id, count, is_full=is_full)
    unused_s = 0.0 if one.rate is None else max(0.0, waited_s - count / one.rate)
    replays.advance(
        connection,
        one.id,
        replayed=count,
        state=state,
        status_reason=reason,
        stepped_at=turn.at - timedelta(seconds=round(unused_s, 6)),
        now=now,
    )
    return Step(one.id, count)


def _allowed(rate: float | None, waited_s: float, most: int) -> int:
    """How many deliveries have come due: at least the one for which it was looked at.

    >>> _allowed(None, 0.0, 1000), _allowed(10.0, 1.25, 1000), _allowed(1000.0, 1.0, 64)
    (1000, 12, 64)
    """
    return most if rate is None else max(1, min(most, int(rate * waited_s + 1e-6)))


def _replay_next(
    connection: Connection, turn: Turn, chosen: Filter, limit: int, *, clock: Clock, now: datetime | None
) -> tuple[int, bool]:
    """Makes the next deliveries of those endpoints that have room; how many, and whether the replay had none left."""
    one = turn.replay
    replays.keep_out(connection)
    looks = replay_endpoints.look(
        connection,
        one.id,
        most=min(ENDPOINTS, limit),
        depth=ENDPOINT_DEPTH,
        stuck_s=STUCK_S,
        rate=one.rate_per_endpoint,
        resumed_at=one.resumed_at,
        now=now,
    )
    if not looks:
        return 0, False
    room = TOTAL_DEPTH - looks[0].young
    judged = _judge(connection, one, looks)
    shares = _share(min(limit, room), {look.endpoint_id: _most(one, look, judged) for look in looks})
    to = goes_to(one.goes_to)
    asked = [Share(look.endpoint_id, look.cursor, n) for look in looks if (n := shares[look.endpoint_id])]
    found = originals.take(connection, chosen, asked, goes_to=to, replay_id=one.id) if asked else []
    by_endpoint: dict[UUID, list[Original]] = {}
    for original in found:
        by_endpoint.setdefault(original.endpoint_id, []).append(original)
    made: list[Original] = []
    rows: list[replay_endpoints.Advance] = []
    for look in looks:
        share, own = shares[look.endpoint_id], by_endpoint.get(look.endpoint_id, [])
        verdict = judged.get(look.endpoint_id)
        if not share and not look.is_deleted and verdict is None:
            continue  # its turn is still to come
        # To one endpoint an event goes once, however many of its deliveries were chosen.
        new = list({original.event_id: original for original in reversed(own)}.values())[::-1]
        made += new
        state: replay_endpoints.State = "running"
        reason = None
        if look.is_deleted:
            state, reason = "done", "the endpoint was deleted"
        elif verdict == "stopped":
            state, reason = "stopped", f"the first {look.made - look.canary_from} all failed their first attempt"
        elif share and (len(own) < share or look.made + len(new) >= look.total):
            state = "done"
        waited_s = _waited_s(one, look)
        unused_s = 0.0 if one.rate_per_endpoint is None else max(0.0, waited_s - len(new) / one.rate_per_endpoint)
        rows.append(
            replay_endpoints.Advance(
                endpoint_id=look.endpoint_id,
                made=len(new),
                cursor=own[-1].cursor if own else look.cursor,
                state=state,
                status_reason=reason,
                passed=look.passed or verdict == "passed",
                stepped_at=turn.at - timedelta(seconds=round(unused_s, 6)),
            )
        )
    _accept(connection, made, replay_id=one.id, clock=clock, now=now)
    replay_endpoints.advance(connection, one.id, rows, now=now)
    return len(made), room <= 0


def _waited_s(one: Replay, look: Look) -> float:
    """The seconds of the endpoint's own rate that are not used up."""
    rate = one.rate_per_endpoint
    return look.waited_s if rate is None else min(look.waited_s, max(CATCH_UP_S, 1 / rate))


def _judge(
    connection: Connection, one: Replay, looks: Sequence[Look]
) -> dict[UUID, Literal["passed", "stopped", "open"]]:
    """What is known of endpoints of which those that go first have all been made."""
    if one.canary is None:
        return {}
    asked = [
        look.endpoint_id
        for look in looks
        if not look.passed and not look.is_deleted and look.made - look.canary_from >= one.canary
    ]
    found = replay_endpoints.verdicts(connection, one.id, asked) if asked else {}
    return {
        id_: "passed" if verdict.is_delivered else "open" if verdict.is_open else "stopped"
        for id_, verdict in found.items()
    }


def _most(one: Replay, look: Look, judged: dict[UUID, Literal["passed", "stopped", "open"]]) -> int:
    """How many more an endpoint may get now."""
    if look.is_deleted:
        return 0
    most = _allowed(one.rate_per_endpoint, _waited_s(one, look), ENDPOINT_DEPTH - look.fresh)
    if one.canary is None or look.passed or judged.get(look.endpoint_id) == "passed":
        return most
    return min(most, max(0, look.canary_from + one.canary - look.made))


def _share(limit: int, most: dict[UUID, int]) -> dict[UUID, int]:
    """Deals out `limit`, one to each in turn, until it is used up or nobody may get more.

    >>> a, b, c = UUID(int=1), UUID(int=2), UUID(int=3)
    >>> list(_share(7, {a: 1, b: 9, c: 3}).values()), list(_share(2, {a: 1, b: 9, c: 3}).values())
    ([1, 3, 3], [1, 1, 0])
    """
    shares = dict.fromkeys(most, 0)
    open_ = [id_ for id_, n in most.items() if n > 0]
    while limit > 0 and open_:
        each = max(1, limit // len(open_))
        for id_ in open_:
            n = min(each, most[id_] - shares[id_], limit)
            shares[id_] += n
            limit -= n
        open_ = [id_ for id_ in open_ if shares[id_] < most[id_]]
    return shares


def _standing(connection: Connection, replay_id: UUID, count: int, *, is_full: bool) -> tuple[State, str | None]:
    """What a replay's state is after a step, and why it rests, if it does."""
    is_running, stopped = replay_endpoints.left(connection, replay_id)
    if not is_running:
        return ("paused", f"{_endpoints(stopped)} stopped") if stopped else ("done", None)
    if count:
        return "running", None
    if is_full:
        return "running", f"waits until some of {TOTAL_DEPTH} that it has made have been attempted"
    found = replay_endpoints.standing(connection, replay_id)
    if found.held == found.running:
        return "running", f"waits for {_endpoints(found.held)} disabled or paused"
    return "running", f"waits for the first attempts, or the rate, of {found.running - found.held} endpoints"


def _endpoints(count: int) -> str:
    return "1 endpoint that is" if count == 1 else f"{count} endpoints that are"


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

    Where it goes on, endpoints that are stopped try their next ones, also if it has been running.

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
    """How far a replay is: what has become of what it made, its endpoints, its pace, and when it may have made all.

    `pace` is in deliveries a second, None where nothing is known of it.
    """

    counts: replay_endpoints.Counts
    running: int
    stopped: int
    pace: float | None
    estimated_end: datetime | None


def progress(connection: Connection, one: Replay, *, now: datetime | None = None) -> Progress:
    """How far it is. Counts all that it has made."""
    at = now or replays.now(connection)
    counts, standing = replay_endpoints.counts(connection, one.id), replay_endpoints.standing(connection, one.id)
    pace = _pace(one, at)
    end = None
    left = (one.total or 0) - one.replayed
    if one.state == "running" and pace and left / pace < _FORESEEABLE_S:
        end = at + timedelta(seconds=round(max(0, left) / pace))
    return Progress(counts, standing.running, standing.stopped, pace, end)


def endpoints(
    connection: Connection, replay_id: UUID, *, own: UUID | None = None, after: UUID | None = None, limit: int = 50
) -> list[replay_endpoints.Progress]:
    """How far it is with its endpoints, from `after` on. Raises NotFound as `find` does."""
    find(connection, replay_id, own=own)
    return replay_endpoints.list_(
        connection, replay_id, depth=ENDPOINT_DEPTH, stuck_s=STUCK_S, after=after, limit=limit
    )


def _pace(one: Replay, at: datetime) -> float | None:
    """Deliveries a second lately, of one that runs; since its start, while that is all there is."""
    if one.state != "running":
        return None
    since_s = (at - (one.marked_at or one.created_at)).total_seconds()
    if one.pace is not None and since_s < _LATELY_S:
        return one.pace
    return (one.replayed - one.marked) / since_s if since_s > 0 else None


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
    share = Share(logged.endpoint_id, UUID(int=0), 1)
    found = originals.take(connection, Filter(delivery_id=delivery_id), [share])
    made = _accept(connection, found, replay_id=None, clock=clock, now=now)
    return made[0] if made else None


def _accept(
    connection: Connection, found: list[Original], *, replay_id: UUID | None, clock: Clock, now: datetime | None
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
            replay_of=original.replay_of,
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
    given = {one.name: value for one in fields(Filter) if (value := getattr(chosen, one.name)) != one.default}
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
