"""The worker process: its event loop, in a thread beside Celery's, and its life from start to drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_ready, worker_shutting_down

from dispatcher import config, pulse, telemetry, wiring
from dispatcher.clock import SYSTEM
from dispatcher.flow.deliver import Deliver
from dispatcher.flow.requests import Requests
from dispatcher.ids import uuid7
from dispatcher.wakeup import broker_name
from dispatcher.workers.app import Bell, make_app
from dispatcher.workers.doorbell import Doorbell
from dispatcher.workers.loop import CONNECTIONS, WorkerLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from dispatcher.config import Settings
    from dispatcher.egress import PinnedTransport
    from dispatcher.flow.signing_keys import PlatformKeys
    from dispatcher.retry import RetrySchedule

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """The running loop, as Celery's thread sees it."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    worker: WorkerLoop
    doorbell: Doorbell
    transport: PinnedTransport

    @classmethod
    def start(cls, settings: Settings, app: Celery, pulse_pipe: str | None = None) -> Process:
        """Starts the loop; `pulse_pipe` as in `dispatcher.pulse`. Raises what the wiring and the database raise."""
        loop = uvloop.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="dispatcher-loop", daemon=True)
        thread.start()
        parts = asyncio.run_coroutine_threadsafe(_build(settings, app), loop).result()
        loop.call_soon_threadsafe(pulse.start, pulse_pipe)
        return cls(loop, thread, *parts)

    def ring(self) -> None:
        """One bell: waits until a claim has been made."""
        asyncio.run_coroutine_threadsafe(self.worker.ring(), self.loop).result()

    def attached(self) -> None:
        """The consumer waits for bells; returns at once."""
        self.loop.call_soon_threadsafe(self.doorbell.attached)

    def lost(self, error: BaseException) -> None:
        """The consumer cannot use the broker; returns at once."""
        self.loop.call_soon_threadsafe(self.doorbell.lost, error)

    def halt(self) -> None:
        """Claims no more; returns at once."""
        self.loop.call_soon_threadsafe(self.worker.halt)

    def stop(self) -> None:
        """Drains: see `WorkerLoop.stop`."""
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _stop(self) -> None:
        self.doorbell.stop()
        await self.worker.stop()
        await self.transport.aclose()


async def _build(settings: Settings, app: Celery) -> tuple[WorkerLoop, Doorbell, PinnedTransport]:
    keyring = wiring.keyring(settings)
    transport = wiring.transport(settings)
    profiles = wiring.profiles(settings)
    worker_id = uuid7()

    def make_deliver(
        schedules: dict[int, RetrySchedule],
        may_post: Callable[[], bool],
        platform_keys: Callable[[], PlatformKeys],
    ) -> Deliver:
        return Deliver(
            transport=transport,
            requests=Requests(keyring, profiles, platform_keys, wiring.USER_AGENT, settings.allow_networks),
            schedules=schedules,
            clock=SYSTEM,
            worker_id=worker_id,
            may_post=may_post,
        )

    worker = WorkerLoop(
        wiring.hot_engine(settings, connections=CONNECTIONS),
        make_deliver,
        worker_id=worker_id,
        max_in_flight=settings.max_in_flight,
        term_s=settings.worker_lease_s,
        grace_s=settings.shutdown_grace_s,
    )
    bell = Bell(app)

    def try_broker() -> None:
        try:
            bell(1)
        finally:
            bell.close()

    doorbell = Doorbell(
        worker,
        try_broker,
        broker=broker_name(wiring.broker_url(settings)),
        look_every_s=settings.worker_lease_s / 6,  # as often as its heartbeat makes it claim without a bell
    )
    await worker.start()
    doorbell.start()
    return worker, doorbell, transport


OPEN_FILES: Final = 8192
"""What a worker may have open: its 4,096 connections at most, the resolver's, the database's, and room."""


def allow_open_files() -> None:
    """Raises the soft limit of open files as far as needed and allowed: many systems start with 256 or 1024, with
    which the first slow receivers would turn every other attempt into `internal`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_current: list[Process] = []


def current() -> Process:
    """The loop of the process. Raises IndexError outside of a worker."""
    return _current[0]


def _keep_logging(**_: object) -> None:
    """Logging is set up already: see `telemetry.set_up`."""


ARGUMENTS: Final = ("--quiet", "worker", "--without-gossip", "--without-mingle", "--without-heartbeat")


def main(settings: Settings | None = None) -> None:
    """Runs a Celery worker until SIGTERM; returns after the drain. Exits with 70 where something else has ended it.

    Raises ConfigurationError where settings are missing, Unavailable where the database cannot be used. A broker that
    cannot be used is waited for: see `dispatcher.workers.doorbell`.
    """
    settings = settings or config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    allow_open_files()
    wiring.require(settings, "database_url", "broker_url", "secret_keys")
    app = make_app(wiring.broker_url(settings))
    wiring.check_database(settings, direct=True)
    process = Process.start(settings, app, os.environ.pop(config.PULSE, None))
    _current.append(process)
    # What is loaded by now stays; a delivery makes no cycles, so a collection every 700 objects found nothing and
    # took 14 % of the worker's time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    asked: list[bool] = []
    hubs: list[Any] = []

    def note_hub(sender: Any, **_: object) -> None:
        hubs.append(sender.hub)

    def halt(**_: object) -> None:
        asked.append(True)
        process.halt()
        # The consumer's event loop, to which the signal's thread belongs, waits for up to 10 s on RabbitMQ. A call from
        # another thread ends that.
        for hub in hubs:
            process.loop.call_soon_threadsafe(hub.call_soon, lambda: None)

    # Celery warns of root because of pickled messages; ours are JSON, and the only task takes no argument.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # These would log each try to reach the broker, and tracebacks. The doorbell logs an outage once.
    for name in ("consumer.consumer", "loops", "request"):
        logging.getLogger(f"celery.worker.{name}").setLevel(logging.CRITICAL + 1)
    # Celery would raise the root logger's level to its own; with somebody listening it leaves logging alone.
    setup_logging.connect(_keep_logging, weak=False)
    worker_ready.connect(note_hub, weak=False)
    # The task may be waiting for room: it must return before Celery's own shutdown goes on.
    worker_shutting_down.connect(halt, weak=False)
    try:
        app.worker_main([*ARGUMENTS, "--loglevel=WARNING", f"--hostname=dispatcher-{os.getpid()}@%h"])
    finally:
        process.stop()
    if not asked:
        telemetry.log(_log, logging.CRITICAL, "worker.failed", duty="consumer")
        sys.exit(70)
