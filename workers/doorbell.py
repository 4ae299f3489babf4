"""Whether bells reach this worker, and what it does while they do not.

Bells only shorten the wait: what is due stands in the database. So a broker that is away, full, read-only or frozen
stops no worker. It asks the database by itself then, as often as an idle scheduler does, and no sooner: while the
broker is well, all of this costs nothing but a look at two counters.

The broker is usable if Celery's consumer is attached to it and a message can be sent to it. The consumer says the
first by itself. The second is tried where there is reason for doubt: the worker has claimed deliveries, and no bell has
come. A full Redis, for example, still serves the consumer, but takes no bell from the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

from dispatcher import telemetry
from dispatcher.clock import SYSTEM
from dispatcher.workers.loop import die_of_a_defect

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.clock import Clock
    from dispatcher.workers.loop import WorkerLoop

POLL_S: Final = 0.25
"""Between two claims while the broker is unusable: the longest pause of the scheduler between two looks."""

RETRY_S: Final = 1.0
"""Between two tries of an unusable broker."""

SETTLED_S: Final = 2.0
"""How long a consumer must have been attached: it asks for messages once a second, and learns then if it may not."""

TRY_S: Final = 20.0
"""How long one try may take: to connect and to send have time-outs of 5 s each."""

_log = logging.getLogger(__name__)


class Doorbell:
    """Has `worker` claim by itself while the broker is unusable. Every method belongs to the worker's event loop.

    `try_broker` sends a bell, or raises; it may block and is called in a thread. `look_every_s` is how often the worker
    is asked whether it claimed without a bell.
    """

    def __init__(
        self,
        worker: WorkerLoop,
        try_broker: Callable[[], None],
        *,
        broker: str,
        look_every_s: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self._worker = worker
        self._try_broker = try_broker
        self._broker = broker
        self._look_every_s = look_every_s
        self._clock = clock
        self._unusable = asyncio.Event()
        self._attached_at_s: float | None = None
        self._seen = (0, 0)
        self._duties: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to look."""
        self._duties = [
            asyncio.create_task(self._keep_polling(), name="poll"),
            asyncio.create_task(self._keep_looking(), name="look"),
        ]
        for duty in self._duties:
            duty.add_done_callback(die_of_a_defect)

    def stop(self) -> None:
        """Polls no more."""
        for duty in self._duties:
            duty.cancel()

    def attached(self) -> None:
        """Celery's consumer waits for bells. The claim is for those that rang before."""
        self._attached_at_s = self._clock.monotonic()
        self._worker.claim_now()

    def lost(self, error: BaseException) -> None:
        """Celery's consumer cannot use the broker."""
        self._attached_at_s = None
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._unusable.is_set():
            return
        self._unusable.set()
        telemetry.log(_log, logging.WARNING, "broker.unusable", broker=self._broker, error=error)

    async def _keep_polling(self) -> None:
        while True:
            await self._unusable.wait()
            self._worker.claim_now()
            await asyncio.sleep(POLL_S)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S if self._unusable.is_set() else self._look_every_s)
            await self.look()

    async def look(self) -> None:
        """Tries the broker if it is unusable or in doubt."""
        (bells, claimed), self._seen = self._seen, (self._worker.bells, self._worker.claimed)
        if self._unusable.is_set():
            if self._attached_at_s is not None and self._clock.monotonic() - self._attached_at_s >= SETTLED_S:
                await self._try()
        elif self._worker.bells == bells and self._worker.claimed > claimed:
            await self._try()

    async def _try(self) -> None:
        attached_at_s = self._attached_at_s
        try:
            async with asyncio.timeout(TRY_S):
                await _in_daemon_thread(self._try_broker)
        except Exception as error:  # noqa: BLE001 - whatever the broker's libraries raise
            self._fail(error)
            return
        if self._unusable.is_set() and attached_at_s is not None and self._attached_at_s == attached_at_s:
            self._unusable.clear()
            telemetry.log(_log, logging.WARNING, "broker.usable", broker=self._broker)


async def _in_daemon_thread(call: Callable[[], None]) -> None:
    """Like `asyncio.to_thread`, but the process does not wait for the thread when it ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            call()
        except Exception as raised:  # noqa: BLE001 - passed on
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="dispatcher-broker", daemon=True).start()
    await done
