"""The scheduler process: rings a bell for each batch that is due; one of the schedulers has other duties too.

It holds no state that matters: what is due stands in the database, and every duty may be done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import redis.asyncio
import uvloop
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dispatcher import config, pulse, telemetry, wiring
from dispatcher.clock import SYSTEM
from dispatcher.flow import erase, prune, replay_turn, rescue, retention
from dispatcher.flow.due_clock import DueClock
from dispatcher.ids import uuid7
from dispatcher.store import clock as due_clock
from dispatcher.store import counts, deliveries, partitions, replays, workers
from dispatcher.wakeup import CHANNEL, broker_name, redis_url
from dispatcher.workers.app import Bell, make_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from dispatcher.clock import Clock
    from dispatcher.config import Settings
    from dispatcher.retry import RetrySchedule

TICK_S: Final = (0.01, 0.25)
"""The pause between two looks: the shorter after a bell, doubling to the longer while there is nothing to ring for.

10 ms against 20: at half load a median of 16 to 20 ms from accept to receive against 18 to 32, for the same CPU.
"""

RESCUE_EVERY_S: Final = 1.0
PRUNE_EVERY_S: Final = 60.0
FOLD_EVERY_S: Final = 5.0  # what is counted in the same rows meanwhile is written once
FOLD_BATCH, FOLD_BITE = 1000, 50  # tallies in a transaction, and in a statement
FOLD_COUNTS: Final = 20_000  # in a transaction: held in memory, some 0.5 kB each
FOLD_SHARE: Final = 0.2
"""Of the time that a fold may keep the database busy, for as long as it keeps up. All at once, a fold of 300 endpoints'
five seconds kept a core busy for 100 to 300 ms: the 99th percentile beside dead endpoints was that of the folds."""
FOLD_REST_S: Final = 1.0  # at most, after a step: the server ends whoever idles in a transaction (`wiring.LIMITS`)
COMPLAIN_EVERY_S: Final = 5.0  # while the database is away every tick fails, four times a second
LEADER_TERM_S: Final = 10.0
RESCUE_TIMEOUT_S: Final = 10.0
"""Of each statement by which the lead is kept, the dead are found and their claims taken back: each reads no more than
its batch. The next try is a second away."""

RESCUE_LOCK_S: Final = 2.0
"""How long such a statement waits for a lock."""

DUTY_TIMEOUT_S: Final = 60.0
"""Of each statement of the other duties but retention: a batch takes milliseconds."""

RETAIN_TIMEOUT_S: Final = 3600.0
"""Of each statement of retention, which copies a day's partition. No statement of the scheduler may take longer."""

CONNECTIONS: Final = 8
"""One for each of the things that it keeps doing, so that none waits for another: see `Scheduler.run`."""

REPLAY_EVERY_S: Final = (0.05, 1.0)
"""The pause between two rounds of replays: the shorter while one runs."""

_T = TypeVar("_T")

_LIMIT: Final = text("""
SELECT set_config('statement_timeout', CAST(:statement AS text), true),
       set_config('lock_timeout', CAST(:lock AS text), true)
""")

_log = logging.getLogger(__name__)


class Scheduler:
    """Ticks until it is stopped. `term_s` is the workers' heartbeat term."""

    def __init__(
        self,
        engine: AsyncEngine,
        ring: Callable[[int], None],
        *,
        term_s: float,
        policy: retention.Policy | None = None,
        clock: Clock = SYSTEM,
        broker: str = "",
    ) -> None:
        self.id = uuid7()
        self._engine = engine
        self._ring = ring
        self._broker = broker
        self._broker_fails = False
        self._term_s = term_s
        self._policy = policy or retention.Policy()
        self._clock = clock
        self._due_clock = DueClock(clock, name=f"scheduler {self.id}", term_s=term_s)
        self._server_started_at: datetime | None = None
        self._schedules: dict[int, RetrySchedule] = {}
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._term: int | None = None
        self._leads_until_s = float("-inf")
        # Heartbeats could not be renewed while the database was away from us, or stood still, or before we looked:
        # rescue only after one whole term of good connection.
        self._connected_since_s = clock.monotonic()

    def wake(self) -> None:
        """Something was committed: look now."""
        self._woken.set()

    def stop(self) -> None:
        """Ends `run` after the step that is under way."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Ticks and does its duties until `stop`, each in a task and on a connection of its own."""
        telemetry.log(_log, logging.INFO, "scheduler.started", scheduler_id=self.id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_ticking())
            group.create_task(self._keep_rescuing())
            group.create_task(self._keep_partitions())
            group.create_task(self._keep_erasing())
            group.create_task(self._keep_pruning())
            group.create_task(self._keep_folding())
            group.create_task(self._keep_replaying())
            group.create_task(self._keep_retaining())
        await self._engine.dispose()
        telemetry.log(_log, logging.INFO, "scheduler.stopped", scheduler_id=self.id)

    async def _keep_ticking(self) -> None:
        pause_s, complain_at_s = TICK_S[0], float("-inf")
        while not self._stopping.is_set():
            self._woken.clear()  # before the look: what is committed while it lasts, it may not see
            try:
                rang = await self.tick()
            except SQLAlchemyError as error:
                self._connected_since_s = self._clock.monotonic()
                if self._clock.monotonic() >= complain_at_s:
                    complain_at_s = self._clock.monotonic() + COMPLAIN_EVERY_S
                    telemetry.log(_log, logging.WARNING, "tick.failed", error=error)
                rang = False
            looked_at_s = self._clock.monotonic()
            pause_s = TICK_S[0] if rang else min(2 * pause_s, TICK_S[1])
            if not rang:
                await self._slept(pause_s)
            # However many producers wake: what comes within the shorter pause shares its look and its bell.
            await self._stops_within(max(0.0, looked_at_s + TICK_S[0] - self._clock.monotonic()))

    async def _slept(self, pause_s: float) -> None:
        """Waits so long, or until woken."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), pause_s)

    async def tick(self) -> bool:
        """Looks once and rings for what is due; whether there was a bell to ring, and the broker took it."""
        if self._due_clock.bounds is None:
            await self._read_clock()
        asked_at_s = self._clock.monotonic()
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            bells, has_stepped = await connection.run_sync(self._look)
        self._stood_still(asked_at_s)
        if has_stepped:
            await self._read_clock()
        return bells > 0 and await self._rang(bells)

    def _look(self, connection: Connection) -> tuple[int, bool]:
        """How many bells to ring, and whether the database's clock has stepped, by what the same statement read."""
        asked_at_s = self._clock.boottime()
        demand = deliveries.demand(connection, now=self._due_clock.bounds)
        step = self._due_clock.observe(demand.reading, asked_at_s, self._clock.boottime())
        return demand.bells, step is not None

    async def _rang(self, bells: int) -> bool:
        """Rings; whether the broker took the bells. An outage is two lines of the log, however long it lasts."""
        try:
            await asyncio.to_thread(self._ring, bells)
        except Exception as error:  # noqa: BLE001 - whatever the broker's libraries raise
            if not self._broker_fails:
                telemetry.log(_log, logging.WARNING, "bell.failed", broker=self._broker, error=error)
            self._broker_fails = True
            return False
        if self._broker_fails:
            telemetry.log(_log, logging.WARNING, "broker.usable", broker=self._broker)
        self._broker_fails = False
        return True

    async def _read_clock(self) -> None:
        """Notices a step of the database's clock, and corrects it in a transaction of its own."""
        async with self._engine.begin() as connection:
            await connection.run_sync(self._due_clock.sample)

    @contextlib.asynccontextmanager
    async def _transaction(self, timeout_s: float, *, lock_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction whose statements end after so long: one that is stuck keeps its locks, and vacuum waiting, no
        longer than that. `lock_s` is how long they wait for a lock, if not as long.
        """
        async with self._engine.begin() as connection:
            limits = {"statement": round(timeout_s * 1000), "lock": round((lock_s or timeout_s) * 1000)}
            await connection.execute(_LIMIT, limits)
            yield connection

    async def _keep_rescuing(self) -> None:
        """Keeps the lead, and rescues while it has it."""
        while not self._stopping.is_set():
            await self._rescue_in_lead()
            await self._stops_within(RESCUE_EVERY_S)

    async def _rescue_in_lead(self) -> None:
        """One round; what fails is logged by its own name, and done again in the next one."""
        began_s = self._clock.monotonic()
        try:
            leads = await self._lead()
        except SQLAlchemyError as error:
            self._note_outage(error, began_s)
            telemetry.log(_log, logging.WARNING, "leader.election_failed", scheduler_id=self.id, error=error)
            return
        if not leads:
            return
        try:
            await self.rescue()
        except SQLAlchemyError as error:
            self._note_outage(error, began_s)
            telemetry.log(_log, logging.WARNING, "rescue.failed", error=error)
            return
        try:
            await self._repair()
        except SQLAlchemyError as error:
            self._note_outage(error, began_s)
            telemetry.log(_log, logging.WARNING, "clock.repair_failed", error=error)

    def _note_outage(self, error: SQLAlchemyError, began_s: float) -> None:
        """Heartbeats may be old because of the error. That a lock was not available says nothing of heartbeats."""
        if not isinstance(getattr(error, "orig", None), LockNotAvailable) or self._stood_still(began_s):
            self._connected_since_s = self._clock.monotonic()

    async def _repair(self) -> None:
        """Repairs what was accepted between a step and its notice, by transactions that committed later."""
        if self._due_clock.has_stepped:
            async with self._transaction(RESCUE_TIMEOUT_S, lock_s=RESCUE_LOCK_S) as connection:
                await connection.run_sync(due_clock.repair)

    async def _keep_doing(self, name: str, duty: Callable[[], Awaitable[object]], *, every_s: float) -> None:
        """Does its duty over and over while this scheduler leads; what fails is logged and done again."""
        done_at_s = float("-inf")
        while not self._stopping.is_set():
            now_s = self._clock.monotonic()
            if now_s < self._leads_until_s and now_s - done_at_s >= every_s:
                done_at_s = now_s
                try:
                    await duty()
                except SQLAlchemyError as error:  # such as a lock that was not to be had
                    telemetry.log(_log, logging.WARNING, "duty.failed", duty=name, error=error)
            await self._stops_within(RESCUE_EVERY_S)

    async def _keep_partitions(self) -> None:
        await self._keep_doing("partitions", self._make_partitions, every_s=PRUNE_EVERY_S)

    async def _keep_erasing(self) -> None:
        await self._keep_doing("erase", self._erase, every_s=0.0)

    async def _keep_pruning(self) -> None:
        await self._keep_doing("prune", self._prune, every_s=PRUNE_EVERY_S)

    async def _make_partitions(self) -> None:
        """A partition is a transaction of its own: it holds one lock while it waits for none."""
        async with self._transaction(DUTY_TIMEOUT_S) as connection:
            missing = await connection.run_sync(partitions.missing)
        for partition in missing:
            async with self._transaction(DUTY_TIMEOUT_S) as connection:
                await connection.run_sync(prune.make_partition, partition)

    async def _keep_retaining(self) -> None:
        """To rewrite a large day's partition may take minutes."""
        while not await self._stops_within(PRUNE_EVERY_S):
            if self._clock.monotonic() >= self._leads_until_s:
                continue
            try:
                await self.retain()
            except SQLAlchemyError as error:  # such as a lock that was not to be had: in a minute, then
                telemetry.log(_log, logging.WARNING, "retention.failed", error=error)

    async def retain(self) -> None:
        """One step: a day dropped, or a partition rewritten. Two schedulers that do so wait for one another's locks."""
        async with self._transaction(RETAIN_TIMEOUT_S) as connection:
            done = await connection.run_sync(partial(retention.step, policy=self._policy, now=self._kept_from()))
        for one in done:
            telemetry.log(_log, logging.INFO, "retention.done", partition=one.partition.name, action=one.action)

    def _kept_from(self) -> datetime:
        """By what time retention deletes: the earlier of the host's and the due clock, since either may be wrong."""
        bounds, at = self._due_clock.bounds, self._clock.now()
        return at if bounds is None else min(at, bounds[0])

    async def _stops_within(self, pause_s: float) -> bool:
        """Waits so long; whether `stop` was called meanwhile."""
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return False
        return True

    async def _erase(self) -> None:
        """Erases while there is something to be erased now, and this scheduler leads."""
        while self._leads():
            async with self._transaction(DUTY_TIMEOUT_S) as connection:
                if await connection.run_sync(erase.step) is None:
                    return

    async def _prune(self) -> None:
        """Prunes until nothing is left, while this scheduler leads."""
        after, more = prune.FIRST, True
        while more and self._leads():
            async with self._transaction(DUTY_TIMEOUT_S) as connection:
                pruned = await connection.run_sync(partial(prune.prune, after=after, bounds=self._due_clock.bounds))
            async with self._transaction(DUTY_TIMEOUT_S) as connection:
                swept = await connection.run_sync(partial(retention.sweep, policy=self._policy, now=self._kept_from()))
            after, more = pruned.after, pruned.more or swept

    def _leads(self) -> bool:
        """Whether this scheduler goes on and has the lead, as far as its own clock knows."""
        return not self._stopping.is_set() and self._clock.monotonic() < self._leads_until_s

    async def _lead(self) -> bool:
        if self._due_clock.bounds is None:
            await self._read_clock()
        asked_at_s = self._clock.monotonic()
        async with self._transaction(RESCUE_TIMEOUT_S, lock_s=RESCUE_LOCK_S) as connection:
            term = await connection.run_sync(
                partial(
                    workers.lead,
                    name="scheduler",
                    owner=self.id,
                    term_s=LEADER_TERM_S,
                    now=self._due_clock.bounds,
                )
            )
        if term is not None and term != self._term:
            telemetry.log(_log, logging.INFO, "leader.elected", scheduler_id=self.id, term=term)
        self._term = term
        self._leads_until_s = float("-inf") if term is None else asked_at_s + LEADER_TERM_S
        return term is not None

    async def rescue(self) -> int:
        """Takes back the claims of dead workers, unless the database has been away within the last term."""
        if self._clock.monotonic() - self._connected_since_s < self._term_s:
            return 0
        rescued = 0
        while not self._stopping.is_set():
            async with self._transaction(RESCUE_TIMEOUT_S, lock_s=RESCUE_LOCK_S) as connection:
                batch = await connection.run_sync(self._rescue_on)
            rescued += batch
            if batch == 0:
                break
        if rescued:
            telemetry.log(_log, logging.WARNING, "rescue.done", deliveries=rescued)
            self.wake()
        return rescued

    def _rescue_on(self, connection: Connection) -> int:
        asked_at_s = self._clock.monotonic()
        server = workers.server_clock(connection, now=self._due_clock.bounds)
        if self._stood_still(asked_at_s) or self._was_restarted(server):
            return 0
        self._schedules = wiring.read_schedules(connection)
        # Who is dead is judged by the time just read: if the database stands still from here on, nobody dies of it.
        return rescue.rescue(connection, self._schedules, clock=self._clock, now=server.now)

    def _was_restarted(self, server: workers.ServerClock) -> bool:
        """Whether the database is not the server that it was: heartbeats had to wait for the new one."""
        before, self._server_started_at = self._server_started_at, server.started_at
        if before in (None, server.started_at):  # before its first look, it has waited for a whole term
            return False
        self._connected_since_s = self._clock.monotonic()
        return True

    def _stood_still(self, asked_at_s: float) -> bool:
        """Whether a small statement took so long that heartbeats, which waited too, may be old without fault."""
        now_s = self._clock.monotonic()
        if now_s - asked_at_s < self._term_s / 4:
            return False
        self._connected_since_s = now_s
        return True

    async def _keep_folding(self) -> None:
        """A fold takes its time, so that deliveries do not wait for it."""
        while not await self._stops_within(FOLD_EVERY_S):
            if self._clock.monotonic() >= self._leads_until_s:
                continue
            try:
                paced = True
                while await self._fold(paced=paced) and not self._stopping.is_set():
                    paced = False  # it does not keep up
            except SQLAlchemyError as error:
                telemetry.log(_log, logging.WARNING, "statistics.update_failed", error=error)

    async def _fold(self, *, paced: bool) -> bool:
        """Folds a batch of tallies into counts, by steps, with pauses or at once; whether more may be left."""
        taken = counts.Taken()
        async with self._transaction(DUTY_TIMEOUT_S) as connection:

            async def step(statement: Callable[[Connection], _T]) -> _T:
                began_s = self._clock.monotonic()
                found = await connection.run_sync(statement)
                if paced:
                    took_s = self._clock.monotonic() - began_s
                    await self._stops_within(min(FOLD_REST_S, took_s * (1 / FOLD_SHARE - 1)))
                return found

            more = True
            while more and taken.tallies < FOLD_BATCH and len(taken.counts) < FOLD_COUNTS:
                more = await step(partial(counts.take, taken=taken, batch=FOLD_BITE)) == FOLD_BITE
            for part in taken.parts():
                await step(partial(counts.add, part=part))
        return more

    async def _keep_replaying(self) -> None:
        pause_s = REPLAY_EVERY_S[1]
        while not await self._stops_within(pause_s):
            try:
                pause_s = REPLAY_EVERY_S[0] if await self.replay() else REPLAY_EVERY_S[1]
            except SQLAlchemyError as error:
                pause_s = REPLAY_EVERY_S[1]
                telemetry.log(_log, logging.WARNING, "duty.failed", duty="replay", error=error)

    async def replay(self) -> bool:
        """Replays, or cancels, for a second at most, while it has the lead; whether any is left that runs.

        One that cannot go on now waits for the next round. Another scheduler may come to lead while a step is under
        way: the step has the replay's row locked, so the other passes over it.
        """
        until_s = self._clock.monotonic() + RESCUE_EVERY_S
        resting: list[UUID] = []
        while not self._stopping.is_set() and self._clock.monotonic() < min(until_s, self._leads_until_s):
            async with self._transaction(DUTY_TIMEOUT_S) as connection:
                done = await connection.run_sync(partial(replay_turn.take_turn, but=tuple(resting), clock=self._clock))
                if done is None:
                    return bool(resting) or await connection.run_sync(replays.runs)
            if done.count:
                self.wake()
            else:
                resting.append(done.replay_id)
        return self._clock.monotonic() < self._leads_until_s


async def _listen(url: str, wake: Callable[[], None]) -> None:
    """Hears wake-ups for as long as Redis is there; without them the scheduler polls."""
    failing = False
    while True:
        try:
            async with redis.asyncio.Redis.from_url(url) as client, client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                failing = False
                async for _ in subscription.listen():
                    wake()
        except (redis.RedisError, OSError) as error:
            if not failing:
                telemetry.log(_log, logging.INFO, "wakeup.listen_failed", error=error)
            failing = True
        await asyncio.sleep(1)


async def _main(settings: Settings, pulse_pipe: str | None) -> None:
    pulse.start(pulse_pipe)
    url = wiring.broker_url(settings)
    scheduler = Scheduler(
        wiring.hot_engine(settings, connections=CONNECTIONS, statement_timeout_s=RETAIN_TIMEOUT_S),
        Bell(make_app(url)),
        term_s=settings.worker_lease_s,
        policy=wiring.retention_policy(settings),
        broker=broker_name(url),
    )
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, scheduler.stop)
    heard = redis_url(url)
    listener = asyncio.create_task(_listen(heard, scheduler.wake)) if heard is not None else None
    await scheduler.run()
    if listener is not None:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


def main(settings: Settings | None = None) -> None:
    """Runs a scheduler until SIGTERM.

    Raises ConfigurationError where settings are missing, Unavailable where the database cannot be used.
    """
    settings = settings or config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    wiring.require(settings, "database_url", "broker_url")
    wiring.check_database(settings, direct=True)
    uvloop.run(_main(settings, os.environ.pop(config.PULSE, None)))
