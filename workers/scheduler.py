"""The scheduler process: rings a bell for each batch that is due; one of the schedulers also keeps house.

It holds no state that matters: what is due stands in the database, and every duty may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

import redis.asyncio
import uvloop
from kombu.exceptions import KombuError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dispatcher import config, telemetry, wiring
from dispatcher.clock import SYSTEM
from dispatcher.flow import prune, replay, rescue
from dispatcher.ids import uuid7
from dispatcher.store import deliveries, workers
from dispatcher.wakeup import CHANNEL, redis_url
from workers.app import QUEUE, check_broker, make_app
from workers.tasks import DELIVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.clock import Clock
    from dispatcher.config import Settings
    from dispatcher.retry import RetrySchedule

TICK_S: Final = (0.02, 0.25)
"""The pause between two looks: the shorter while work is due or has just been, doubling to the longer when idle."""

RESCUE_EVERY_S: Final = 1.0
PRUNE_EVERY_S: Final = 60.0
COMPLAIN_EVERY_S: Final = 5.0  # while the database is away every tick fails, four times a second
LEADER_TERM_S: Final = 10.0
CONNECTIONS: Final = 2

_log = logging.getLogger(__name__)


class Scheduler:
    """Ticks until it is stopped. `term_s` is the workers' heartbeat term."""

    def __init__(
        self,
        engine: AsyncEngine,
        ring: Callable[[int], None],
        *,
        term_s: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self.id = uuid7()
        self._engine = engine
        self._ring = ring
        self._term_s = term_s
        self._clock = clock
        self._schedules: dict[int, RetrySchedule] = {}
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._term: int | None = None
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
        """Ticks and keeps house until `stop`."""
        _log.info("scheduler.started scheduler=%s", self.id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_ticking())
            group.create_task(self._keep_house())
        await self._engine.dispose()
        _log.info("scheduler.stopped scheduler=%s", self.id)

    async def _keep_ticking(self) -> None:
        pause_s, complain_at_s = TICK_S[0], float("-inf")
        while not self._stopping.is_set():
            try:
                due = await self.tick()
            except SQLAlchemyError as error:
                self._connected_since_s = self._clock.monotonic()
                if self._clock.monotonic() >= complain_at_s:
                    complain_at_s = self._clock.monotonic() + COMPLAIN_EVERY_S
                    _log.warning("tick.failed error=%s", telemetry.one_line(error))
                due = False
            pause_s = TICK_S[0] if due else min(2 * pause_s, TICK_S[1])
            self._woken.clear()
            if due or not await self._slept(pause_s):
                # Due, or woken: the next look is a short tick away, not sooner, so that what comes meanwhile
                # shares its bell.
                await asyncio.sleep(TICK_S[0] if due else 0)

    async def _slept(self, pause_s: float) -> bool:
        """Waits so long, or until woken; whether it was the whole time."""
        try:
            await asyncio.wait_for(self._woken.wait(), pause_s)
        except TimeoutError:
            return True
        return False

    async def tick(self) -> bool:
        """Looks once and rings for what is due; whether anything was."""
        asked_at_s = self._clock.monotonic()
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            demand = await connection.run_sync(deliveries.demand)
        self._stood_still(asked_at_s)
        if demand.due and demand.workers_with_room:
            try:
                await asyncio.to_thread(self._ring, demand.workers_with_room)
            except (OSError, KombuError, redis.RedisError) as error:  # the broker is away
                _log.warning("bell.failed error=%s", telemetry.one_line(error))
        return demand.due

    async def _keep_house(self) -> None:
        pruned_at_s, more = float("-inf"), False
        while not self._stopping.is_set():
            try:
                if await self._lead():
                    await self.rescue()
                    await self._replay()
                    if self._clock.monotonic() - pruned_at_s >= PRUNE_EVERY_S:
                        pruned_at_s = self._clock.monotonic()
                        await self._make_partitions()
                        more = True
                    if more:
                        more = await self._prune()
            except SQLAlchemyError as error:
                self._connected_since_s = self._clock.monotonic()
                _log.warning("rescue.failed error=%s", telemetry.one_line(error))
            try:
                await asyncio.wait_for(self._stopping.wait(), RESCUE_EVERY_S)
            except TimeoutError:
                continue

    async def _make_partitions(self) -> None:
        """A lock that was not to be had is tried for again in a minute; it says nothing of heartbeats."""
        try:
            async with self._engine.begin() as connection:
                await connection.run_sync(prune.make_partitions)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            _log.warning("rescue.failed error=%s", telemetry.one_line(error))

    async def _prune(self) -> bool:
        """Prunes for a second at most, since whoever is to be rescued waits; whether more is left."""
        until_s = self._clock.monotonic() + RESCUE_EVERY_S
        more = True
        while more and not self._stopping.is_set() and self._clock.monotonic() < until_s:
            async with self._engine.begin() as connection:
                more = await connection.run_sync(prune.prune)
        return more

    async def _lead(self) -> bool:
        async with self._engine.begin() as connection:
            term = await connection.run_sync(
                partial(workers.lead, name="scheduler", owner=self.id, term_s=LEADER_TERM_S)
            )
        if term is not None and term != self._term:
            _log.info("leader.elected scheduler=%s term=%d", self.id, term)
        self._term = term
        return term is not None

    async def rescue(self) -> int:
        """Takes back the claims of dead workers, unless the database has been away within the last term."""
        if self._clock.monotonic() - self._connected_since_s < self._term_s:
            return 0
        rescued = 0
        while not self._stopping.is_set():
            async with self._engine.begin() as connection:
                batch = await connection.run_sync(self._rescue_on)
            rescued += batch
            if batch == 0:
                break
        if rescued:
            _log.warning("rescue.done deliveries=%d", rescued)
            self.wake()
        return rescued

    def _rescue_on(self, connection: Connection) -> int:
        asked_at_s = self._clock.monotonic()
        server = workers.server_clock(connection)
        if self._stood_still(asked_at_s) or server.up_for_s < self._term_s:
            return 0
        self._schedules = wiring.read_schedules(connection)
        # Who is dead is judged by the time just read: if the database stands still from here on, nobody dies of it.
        return rescue.rescue(connection, self._schedules, clock=self._clock, now=server.now)

    def _stood_still(self, asked_at_s: float) -> bool:
        """Whether a small statement took so long that heartbeats, which waited too, may be old without fault."""
        now_s = self._clock.monotonic()
        if now_s - asked_at_s < self._term_s / 4:
            return False
        self._connected_since_s = now_s
        return True

    async def _replay(self) -> None:
        """Replays, or cancels, for a second at most: whoever is to be rescued waits, and the lead must be kept."""
        until_s = self._clock.monotonic() + RESCUE_EVERY_S
        while not self._stopping.is_set() and self._clock.monotonic() < until_s:
            async with self._engine.begin() as connection:
                done = await connection.run_sync(partial(replay.step, clock=self._clock))
            if not done:
                return
            self.wake()


def bell(app: Celery) -> Callable[[int], None]:
    """What rings: sends so many messages. Raises KombuError, RedisError or OSError while the broker is away."""

    def ring(times: int) -> None:
        with app.producer_or_acquire() as producer:
            for _ in range(times):
                app.send_task(DELIVER, queue=QUEUE, producer=producer, retry=False)

    return ring


async def _listen(url: str, wake: Callable[[], None]) -> None:
    """Hears wake-ups for as long as Redis is there; without them the scheduler polls."""
    while True:
        try:
            async with redis.asyncio.Redis.from_url(url) as client, client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                async for _ in subscription.listen():
                    wake()
        except (redis.RedisError, OSError) as error:
            _log.info("wakeup.failed error=%s", telemetry.one_line(error))
        await asyncio.sleep(1)


async def _main(settings: Settings) -> None:
    url = wiring.broker_url(settings)
    scheduler = Scheduler(
        wiring.hot_engine(settings, connections=CONNECTIONS), bell(make_app(url)), term_s=settings.worker_term_s
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

    Raises ConfigurationError where settings are missing, Unavailable where the database or the broker cannot be used.
    """
    settings = settings or config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    check_broker(make_app(wiring.broker_url(settings)))
    wiring.check_database(settings)
    uvloop.run(_main(settings))
