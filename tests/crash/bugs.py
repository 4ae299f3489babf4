"""Seeded bugs: each breaks the product in one place, in the harness's own processes, and a judge must find it.

`plant` patches functions and statements of the product after its import. It raises AssertionError where what it wants
to replace is not there any more: then the bug is to be written anew (`tests/crash/test_bugs.py` tries all of them).
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

BUGS: dict[str, Bug] = {}


@dataclass(frozen=True)
class Bug:
    """`judges` are those of whom one must find it. `faults` are done meanwhile (`tests.crash.faults`), `kinds` are
    endpoints that the load has beside the usual ones, `forgets` is a defect of the receiver.
    """

    name: str
    what: str
    plant: Callable[[], None]
    judges: tuple[str, ...]
    faults: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    api: bool = False
    forgets: int = 0
    seed: int = 20_260_302


def bug(*judges: str, **values: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a function that plants a bug; its name and its docstring are the bug's."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        name = plant.__name__.replace("_", "-")
        BUGS[name] = Bug(name, (plant.__doc__ or "").partition("\n")[0], plant, judges, **values)
        return plant

    return register


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _edit(module: str, statement: str, old: str, new: str) -> None:
    """Replaces a part of one of the product's statements."""
    found = getattr(_module(module), statement)
    assert old in found.text, f"{module}.{statement} has no {old!r}"
    setattr(_module(module), statement, text(found.text.replace(old, new)))


def _wrap(module: str, path: str, make: Callable[[Any], Any]) -> None:
    """Replaces a function, or a method of a class, by what `make` makes of it."""
    *owners, name = path.split(".")
    owner = _module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, make(getattr(owner, name)))


DELIVERIES = "dispatcher.store.deliveries"
LOOP = "dispatcher.workers.loop"
SCHEDULER = "dispatcher.workers.scheduler"


@bug("charged", "audit", "duplicate", "unlogged", faults=("pause_worker",) * 2, kinds=("lag-2-900",) * 8)
def fence_removed() -> None:
    """A result is recorded whatever the number of the claim is."""
    _edit(DELIVERIES, "_RECORD", "AND d.claim_seq = r.claim_seq ", "")


@bug("lost", "phantom", faults=("kill_worker",) * 3)
def record_before_post() -> None:
    """A delivery is recorded as delivered before it is sent."""
    from dispatcher.model.outcome import Outcome, OutcomeClass, Phase

    tasks = set()

    def make(send: Any) -> Any:
        async def later(*args: Any, **values: Any) -> None:
            await asyncio.sleep(0.5)
            await send(*args, **values)

        async def at_once(*args: Any, **values: Any) -> Outcome:
            task = asyncio.create_task(later(*args, **values))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return Outcome(OutcomeClass.OK, Phase.BODY, status_code=200, duration_ms=1.0)

        return at_once

    _wrap("dispatcher.flow.deliver", "send", make)


@bug("lost")
def wakeup_lost_and_no_poll() -> None:
    """Wake-ups are lost, and nobody looks by himself: neither the scheduler nor a worker at its heartbeat."""

    async def slept(self: Any, _: float) -> None:
        await self._woken.wait()

    async def beat(self: Any) -> None:
        while True:
            await asyncio.sleep(self._term_s / 6)
            await self._beat()

    _wrap(SCHEDULER, "Scheduler._slept", lambda _: slept)
    _wrap(SCHEDULER, "Scheduler.wake", lambda _: lambda self: None)
    _wrap(LOOP, "WorkerLoop._keep_beating", lambda _: beat)


@bug("unprovoked", kinds=("slow-400",) * 2)
def lease_never_renewed() -> None:
    """A worker writes its first heartbeat only, and believes that it lives."""

    def make(beat: Any) -> Any:
        async def once(self: Any) -> None:
            if not self._alive_until_s:
                await beat(self)
            self._alive_until_s = self._clock.monotonic() + self._term_s

        return once

    _wrap(LOOP, "WorkerLoop._beat", make)


def _each_rescue(act: Callable[[Connection], object]) -> None:
    """Has the leading scheduler do something at each look for dead workers."""

    def make(rescue: Any) -> Any:
        def also(self: Any, connection: Connection) -> int:
            act(connection)
            found: int = rescue(self, connection)
            return found

        return also

    _wrap(SCHEDULER, "Scheduler._rescue_on", make)


@bug("lost", "audit")
def row_deleted() -> None:
    """The scheduler deletes a waiting delivery now and then."""
    _each_rescue(
        lambda connection: connection.execute(
            text("""DELETE FROM dispatcher.deliveries WHERE id IN (
                    SELECT id FROM dispatcher.deliveries WHERE state = 'waiting' ORDER BY id LIMIT 1)""")
        )
    )


@bug("phantom", "lost", forgets=50)
def receiver_forgets() -> None:
    """The receiver loses one request of fifty after it has accepted it; the product is whole."""


@bug("early")
def clock_step_unnoticed() -> None:
    """The clock by which deliveries are due is an hour ahead of the one by which they were made due."""
    now = "dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))"
    for statement in ("_LOCK_LANES", "_CLAIM"):
        _edit(DELIVERIES, statement, now, f"{now} + interval '1 hour'")


@bug("early")
def retry_early() -> None:
    """A retry waits half as long as the schedule says."""

    def make(row: Any) -> Any:
        def half(*args: Any) -> dict[str, Any]:
            found: dict[str, Any] = row(*args)
            if found.get("wait_s"):
                found["wait_s"] /= 2
            return found

        return half

    _wrap(DELIVERIES, "_row", make)


@bug("statistics")
def statistics_twice() -> None:
    """A fold adds each part twice."""

    def make(add: Any) -> Any:
        def twice(*args: Any, **values: Any) -> None:
            add(*args, **values)
            add(*args, **values)

        return twice

    _wrap("dispatcher.store.counts", "add", make)


@bug("charged", faults=("kill_worker",) * 3, kinds=("slow-400",) * 2)
def refund_charged() -> None:
    """An attempt that was lost with its worker is charged to the merchant."""

    def make(decide: Any) -> Any:
        def charge(*args: Any, **values: Any) -> Any:
            change = decide(*args, **values)
            return replace(change, charged=True) if getattr(change, "charged", None) is False else change

        return charge

    _wrap("dispatcher.flow.rescue", "decide", make)


@bug("order")
def ordered_claims_two() -> None:
    """An ordered endpoint gets as many at once as any other."""
    _edit(DELIVERIES, "_CLAIM", "CASE WHEN e.ordered THEN 1 ELSE e.max_in_flight END", "e.max_in_flight")
    _edit(DELIVERIES, "_CLAIM", "ORDER BY id\n         LIMIT 1)", "ORDER BY id\n         LIMIT 8)")


@bug("held", faults=("pause_endpoint",) * 2)
def paused_is_claimed() -> None:
    """A pause holds nothing."""
    _edit(DELIVERIES, "_CLAIM", "AND NOT held.whole", "")


@bug("held", faults=("disable_endpoint",) * 2)
def disabled_is_claimed() -> None:
    """A disabled endpoint is sent to."""
    _edit(DELIVERIES, "_CLAIM", "e.status = 'active' AND ", "")


@bug("replayed", faults=("replay",))
def replay_takes_twice() -> None:
    """A replay makes two deliveries of each."""

    def make(accept: Any) -> Any:
        return lambda connection, found, **values: accept(connection, [*found, *found], **values)

    _wrap("dispatcher.flow.replay", "accept", make)


_connections: list[psycopg.Connection[Any]] = []


@bug("left over")
def transaction_left_open() -> None:
    """The scheduler opens a transaction and forgets it."""

    def make(run: Any) -> Any:
        async def leak(self: Any) -> None:
            url = os.environ["DISPATCHER_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://", 1)
            connection = psycopg.connect(url)
            connection.execute("LOCK TABLE dispatcher.replays IN ACCESS SHARE MODE")
            _connections.append(connection)
            await run(self)

        return leak

    _wrap(SCHEDULER, "Scheduler.run", make)


@bug("lost", "left over", faults=("kill_worker",) * 2)
def claim_never_rescued() -> None:
    """Nobody takes back what a dead worker had claimed."""
    _wrap(DELIVERIES, "lost", lambda _: lambda *args, **values: [])


@bug("left over", faults=("stop_worker",) * 2)
def worker_row_left() -> None:
    """A worker leaves without deleting its row."""
    _wrap("dispatcher.store.workers", "retire", lambda _: lambda *args, **values: None)


@bug("left over", "lost")
def wakes_left() -> None:
    """A claim reads a lane's wakes and leaves them."""
    _edit(
        DELIVERIES,
        "_CLAIM",
        """DELETE FROM dispatcher.wakes w USING locked WHERE w.endpoint_id = ANY (ARRAY[locked.endpoint_id])
    RETURNING w.endpoint_id, w.succeeded, w.failed, w.stalled""",
        """SELECT w.endpoint_id, w.succeeded, w.failed, w.stalled
    FROM locked, dispatcher.wakes w WHERE w.endpoint_id = ANY (ARRAY[locked.endpoint_id])""",
    )


@bug("lost", "left over")
def lost_claim_kept() -> None:
    """The answer to a claim's commit is lost now and then, and the worker does not give the claim back."""
    turns = count(1)

    def make(claim: Any) -> Any:
        async def lose(self: Any) -> bool:
            if next(turns) % 10:
                found: bool = await claim(self)
                return found
            async with self._engine.begin() as connection:
                await connection.run_sync(self._claim_on)
            raise OperationalError("COMMIT", {}, ConnectionError("the answer was lost"))

        return lose

    _wrap(LOOP, "WorkerLoop._claim", make)
    _wrap(DELIVERIES, "give_up", lambda _: lambda *args, **values: 0)


@bug("lost", api=True)
def accepted_and_not_written() -> None:
    """The API says of one event of twenty that it is accepted, and has not written it."""
    turns = count(1)

    def make(accept: Any) -> Any:
        return lambda *args, **values: accept(*args, **values) if next(turns) % 20 else None

    _wrap("dispatcher.store.events", "accept", make)


@bug("forged")
def wrong_body_signed() -> None:
    """Of one attempt of fifty something else is signed than what is sent."""
    turns = count(1)

    def make(sign: Any) -> Any:
        def other(self: Any, route: Any, message_id: str, at: Any, content: bytes) -> Any:
            return sign(self, route, message_id, at, content if next(turns) % 50 else content + b" ")

        return other

    _wrap("dispatcher.flow.requests", "Requests.sign", make)


@bug("duplicate", "unlogged")
def sent_twice() -> None:
    """Of one attempt of fifty the request is sent twice."""
    turns = count(1)

    def make(send: Any) -> Any:
        async def again(*args: Any, **values: Any) -> Any:
            if next(turns) % 50 == 0:
                await send(*args, **values)
            return await send(*args, **values)

        return again

    _wrap("dispatcher.flow.deliver", "send", make)


@bug("duplicate", "unlogged", faults=("kill_worker",) * 4, kinds=("slow-400",) * 4)
def rescue_says_nothing() -> None:
    """What a dead worker had claimed waits again, and the log does not say that it may have been sent."""
    _edit(
        DELIVERIES,
        "_LOST",
        "WITH lost AS MATERIALIZED (",
        """WITH silent AS (
    UPDATE dispatcher.deliveries d SET state = 'waiting', claimed_by = NULL
    WHERE d.claimed_by IS NOT NULL AND NOT EXISTS (
        SELECT FROM dispatcher.workers w WHERE w.id = d.claimed_by AND w.heartbeat_until > statement_timestamp())
    RETURNING d.endpoint_id
), woken AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT DISTINCT endpoint_id, statement_timestamp() FROM silent
), lost AS MATERIALIZED (""",
    )
    _edit(
        DELIVERIES,
        "_LOST",
        "WHERE d.claimed_by IS NOT NULL AND NOT EXISTS (\n        SELECT FROM dispatcher.workers w\n",
        "WHERE false AND NOT EXISTS (\n        SELECT FROM dispatcher.workers w\n",
    )
