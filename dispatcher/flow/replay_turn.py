"""The scheduler's turns: each carries out a part of one replay or cancellation.

A replay goes endpoint by endpoint, each with a cursor, a rate and a state of its own, so that a slow or dead one keeps
no other waiting. It never has more than a few deliveries that were not attempted yet, whatever its rate: it drips at
the pace of its receivers, and a fresh event finds a short queue. A cancellation, which ends deliveries that wait, takes
its turns in the same way; what differs is in `dispatcher.flow.cancel`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from dispatcher.clock import SYSTEM, Clock
from dispatcher.flow import cancel
from dispatcher.flow import replay as replaying
from dispatcher.flow.replay import ENDPOINT_DEPTH, STUCK_S
from dispatcher.flow.replay_choice import filter_from_stored, parse_destination
from dispatcher.store import originals, replay_endpoints, replays
from dispatcher.store.originals import Share

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.filter import Filter
    from dispatcher.store.originals import Original
    from dispatcher.store.replay_endpoints import Look
    from dispatcher.store.replays import Replay, State, Turn

BATCH: Final = 1000
"""Deliveries in one transaction of a step."""

ENDPOINTS: Final = 256
"""Endpoints that one step looks at."""

TOTAL_DEPTH: Final = 512
"""Deliveries of a replay that were not attempted yet, at all endpoints that answer."""

CATCH_UP_S: Final = 0.5
"""How much of the time that no scheduler was there, or no room, a replay with a rate makes up for: more would be a
burst. In any five seconds it makes a tenth more than its rate at most."""


def step(
    connection: Connection, *, batch: int = BATCH, clock: Clock = SYSTEM, now: datetime | None = None
) -> int | None:
    """Takes a turn and returns how many deliveries it handled; None where nothing is running. See `take_turn`."""
    turn = take_turn(connection, batch=batch, clock=clock, now=now)
    return None if turn is None else turn.count


@dataclass(frozen=True, slots=True)
class Step:
    """The replay or cancellation that had the turn, and how many deliveries were handled."""

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
    """Carries out the next part of the replay or cancellation that has waited longest for its turn.

    It handles at most `batch` deliveries, and no more than the rate and the receivers allow. None if nothing is running
    except those of `but`, or if no delivery is due yet. The deliveries and the cursors are committed together, so a
    kill at any line neither repeats nor loses a delivery.
    """
    turn = replays.next_running(connection, but=but, now=now)
    if turn is None:
        return None
    replay, chosen = turn.replay, filter_from_stored(turn.replay.filter)
    chosen = replace(chosen, as_of=chosen.as_of or replay.created_at)
    waited_s = turn.waited_s if replay.rate is None else min(turn.waited_s, max(CATCH_UP_S, 1 / replay.rate))
    limit = _allowed(replay.rate, waited_s, batch)
    state: State = "running"
    reason = None
    if replay.kind == "cancellation":
        ended = cancel.carry_out(connection, replay.id, chosen, limit=limit, now=now)
        count, state = ended.count, "done" if ended.done else "running"
    else:
        count, is_full = _replay_next(connection, turn, chosen, limit, clock=clock, now=now)
        state, reason = _standing(connection, replay.id, count, is_full=is_full)
    unused_s = 0.0 if replay.rate is None else max(0.0, waited_s - count / replay.rate)
    replays.advance(
        connection,
        replay.id,
        replayed=count,
        state=state,
        status_reason=reason,
        stepped_at=turn.at - timedelta(seconds=round(unused_s, 6)),
        now=now,
    )
    return Step(replay.id, count)


def _allowed(rate: float | None, waited_s: float, most: int) -> int:
    """How many deliveries the rate allows after the wait: at least one, since the turn comes only when one is due.

    >>> _allowed(None, 0.0, 1000), _allowed(10.0, 1.25, 1000), _allowed(1000.0, 1.0, 64)
    (1000, 12, 64)
    """
    return most if rate is None else max(1, min(most, int(rate * waited_s + 1e-6)))


def _replay_next(
    connection: Connection, turn: Turn, chosen: Filter, limit: int, *, clock: Clock, now: datetime | None
) -> tuple[int, bool]:
    """Makes the next deliveries for endpoints that have room. Returns how many, and whether the replay had none."""
    replay = turn.replay
    replays.keep_out(connection)
    looks = replay_endpoints.look(
        connection,
        replay.id,
        most=min(ENDPOINTS, limit),
        depth=ENDPOINT_DEPTH,
        stuck_s=STUCK_S,
        rate=replay.rate_per_endpoint,
        resumed_at=replay.resumed_at,
        now=now,
    )
    if not looks:
        return 0, False
    room = TOTAL_DEPTH - looks[0].young
    judged = _judge(connection, replay, looks)
    shares = _share(min(limit, room), {look.endpoint_id: _most(replay, look, judged) for look in looks})
    to = parse_destination(replay.goes_to)
    asked = [Share(look.endpoint_id, look.cursor, n) for look in looks if (n := shares[look.endpoint_id])]
    found = originals.take(connection, chosen, asked, goes_to=to, replay_id=replay.id) if asked else []
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
        waited_s = _waited_s(replay, look)
        unused_s = 0.0 if replay.rate_per_endpoint is None else max(0.0, waited_s - len(new) / replay.rate_per_endpoint)
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
    replaying.accept(connection, made, replay_id=replay.id, clock=clock, now=now)
    replay_endpoints.advance(connection, replay.id, rows, now=now)
    return len(made), room <= 0


def _waited_s(replay: Replay, look: Look) -> float:
    """The seconds since the endpoint's last delivery that count for its rate."""
    rate = replay.rate_per_endpoint
    return look.waited_s if rate is None else min(look.waited_s, max(CATCH_UP_S, 1 / rate))


def _judge(
    connection: Connection, replay: Replay, looks: Sequence[Look]
) -> dict[UUID, Literal["passed", "stopped", "open"]]:
    """The verdict on endpoints whose canary deliveries have all been made."""
    if replay.canary is None:
        return {}
    asked = [
        look.endpoint_id
        for look in looks
        if not look.passed and not look.is_deleted and look.made - look.canary_from >= replay.canary
    ]
    found = replay_endpoints.verdicts(connection, replay.id, asked) if asked else {}
    return {
        id_: "passed" if verdict.is_delivered else "open" if verdict.is_open else "stopped"
        for id_, verdict in found.items()
    }


def _most(replay: Replay, look: Look, judged: dict[UUID, Literal["passed", "stopped", "open"]]) -> int:
    """How many more deliveries an endpoint may get now."""
    if look.is_deleted:
        return 0
    most = _allowed(replay.rate_per_endpoint, _waited_s(replay, look), ENDPOINT_DEPTH - look.fresh)
    if replay.canary is None or look.passed or judged.get(look.endpoint_id) == "passed":
        return most
    return min(most, max(0, look.canary_from + replay.canary - look.made))


def _share(limit: int, most: dict[UUID, int]) -> dict[UUID, int]:
    """Divides `limit` evenly among the endpoints, of which none gets more than its `most`.

    >>> from uuid import UUID
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
    """The replay's state after a turn, and the reason if it waits."""
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
