"""The worker process: its event loop, in a thread beside Celery's, and its life from start to drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvloop
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down

from dispatcher import config, telemetry, wiring
from dispatcher.clock import SYSTEM
from dispatcher.flow.deliver import Deliver
from dispatcher.ids import uuid7
from workers.app import check_broker, make_app
from workers.loop import CONNECTIONS, WorkerLoop

if TYPE_CHECKING:
    from collections.abc import Callable

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
    transport: PinnedTransport

    @classmethod
    def start(cls, settings: Settings) -> Process:
        """Starts the loop. Raises what the wiring and the database raise."""
        loop = uvloop.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="dispatcher-loop", daemon=True)
        thread.start()
        worker, transport = asyncio.run_coroutine_threadsafe(_build(settings), loop).result()
        return cls(loop, thread, worker, transport)

    def ring(self) -> None:
        """One bell: waits until a claim has been made."""
        asyncio.run_coroutine_threadsafe(self.worker.ring(), self.loop).result()

    def halt(self) -> None:
        """Claims no more; returns at once."""
        self.loop.call_soon_threadsafe(self.worker.halt)

    def stop(self) -> None:
        """Drains: see `WorkerLoop.stop`."""
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _stop(self) -> None:
        await self.worker.stop()
        await self.transport.aclose()


async def _build(settings: Settings) -> tuple[WorkerLoop, PinnedTransport]:
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
            keyring=keyring,
            schedules=schedules,
            clock=SYSTEM,
            worker_id=worker_id,
            user_agent=wiring.USER_AGENT,
            profiles=profiles,
            platform_keys=platform_keys,
            networks=settings.allow_networks,
            may_post=may_post,
        )

    worker = WorkerLoop(
        wiring.hot_engine(settings, connections=CONNECTIONS),
        make_deliver,
        worker_id=worker_id,
        max_in_flight=settings.max_in_flight,
        term_s=settings.worker_term_s,
        grace_s=settings.shutdown_grace_s,
    )
    await worker.start()
    return worker, transport


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
    """Runs a Celery worker until SIGTERM; returns after the drain.

    Raises ConfigurationError where settings are missing, Unavailable where the database or the broker cannot be used.
    """
    settings = settings or config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    allow_open_files()
    app = make_app(wiring.broker_url(settings))
    check_broker(app)
    wiring.check_database(settings)
    process = Process.start(settings)
    _current.append(process)
    # What is loaded by now stays; a delivery makes no cycles, so a collection every 700 objects found nothing and
    # took 14 % of the worker's time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    def halt(**_: object) -> None:
        process.halt()

    # Celery warns of root because of pickled messages; ours are JSON, and the only task takes no argument.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery would raise the root logger's level to its own; with somebody listening it leaves logging alone.
    setup_logging.connect(_keep_logging, weak=False)
    # The task may be waiting for room: it must return before Celery's own shutdown goes on.
    worker_shutting_down.connect(halt, weak=False)
    try:
        app.worker_main([*ARGUMENTS, "--loglevel=WARNING", f"--hostname=dispatcher-{os.getpid()}@%h"])
    finally:
        process.stop()
