"""The worker's loop: claims, delivers and records, all on one event loop.

Nothing here waits for the slowest of a batch: each delivery is a task of its own, results are recorded in bulk as
they come, and the next claim takes whatever room there is by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError

from dispatcher import telemetry
from dispatcher.errors import ConfigurationError
from dispatcher.flow.due_clock import DueClock
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import format_id, uuid7, uuid_texts
from dispatcher.model.delivery import Attempt, Released, Result, RetryAt, Stop
from dispatcher.model.event import Mode
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.store import deliveries, endpoints, workers
from dispatcher.wiring import read_schedules

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.flow.deliver import Deliver
    from dispatcher.flow.requests import Route
    from dispatcher.model.delivery import Claim
    from dispatcher.retry import RetrySchedule
    from dispatcher.store.deliveries import Claimed

BATCH: Final = 300
"""Deliveries in one claim: 306 µs a delivery all in, against 366–388 at 100; beyond it little is gained."""

FLUSH_RESULTS: Final = 200
FLUSH_S: Final = (0.02, 0.05)
FEW_RESULTS: Final = 5
"""Results are recorded at once, but not sooner than the first pause after the last time, and where they come thick,
not sooner than the second, unless so many wait: a lone one is seen at once, and a load shares its statements.

Thick begins at 5 in the first pause: against 20, a tenth less CPU of everything at 500 and at 1,000 deliveries a second
over two workers (1,261 ms a second for 1,376, 1,135 for 1,303).
"""

ROUTES: Final = 50_000
"""Endpoints whose parsed and unsealed state is kept."""

CONTENDED_S: Final = 0.02
"""Between two tries to claim where other workers had locked all lanes that are due: some twice what a claim takes."""

CONNECTIONS: Final = 3
"""To the database: one claims, one records, one shows that the worker lives."""

DEFECT_WAIT_S: Final = 60.0
"""Before an attempt that met a defect of ours is made again: the longest wait that is not charged."""

BACK_OFF_S: Final = (0.1, 2.0)
"""The first and the longest pause between tries while the database is away."""

_log = logging.getLogger(__name__)


MakeDeliver: TypeAlias = "Callable[[dict[int, RetrySchedule], Callable[[], bool], Callable[[], PlatformKeys]], Deliver]"
"""Makes what attempts deliveries, of the schedules, of whether it may post, and of the platform's keys."""


class WorkerLoop:
    """One process's share of the work. Every method but `ring_from_thread` belongs to the event loop.

    `term_s` is how long a heartbeat keeps its claims alive, `max_in_flight` how many deliveries it holds at once,
    `grace_s` how long `stop` lets deliveries in flight finish.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        make_deliver: MakeDeliver,
        *,
        worker_id: UUID,
        max_in_flight: int,
        term_s: float,
        grace_s: float,
        batch: int = BATCH,
    ) -> None:
        self.worker_id = worker_id
        self._engine = engine
        self._schedules: dict[int, RetrySchedule] = {}
        self._routes: dict[UUID, Route] = {}
        self._platform_keys = PlatformKeys()
        deliver = make_deliver(self._schedules, self._may_post, lambda: self._platform_keys)
        self._clock = deliver.clock
        self._due_clock = DueClock(self._clock, name=f"worker {worker_id}", term_s=term_s)
        self._deliver = replace(deliver, stamp=self._due_clock.stamp)
        self._max_in_flight = max_in_flight
        self._batch = batch
        self._term_s = term_s
        self._grace_s = grace_s
        self._alive_until_s = 0.0  # on the monotonic clock
        self._in_flight: dict[asyncio.Task[Result], tuple[Claim, Route]] = {}
        self._results: list[Result] = []
        self._recording: list[Result] = []
        self._claiming = asyncio.Lock()
        self._rung = asyncio.Event()
        self._claimed = asyncio.Condition()
        self._claims = 0
        self.bells = 0
        """Bells heard, and deliveries claimed, since the start."""
        self.claimed = 0
        self._room_made = asyncio.Event()
        self._have_results = asyncio.Event()
        self._flush_now = asyncio.Event()
        self._stopping = False
        self._drained = False
        self._duties: list[asyncio.Task[None]] = []

    @property
    def room(self) -> int:
        """How many more deliveries fit.

        Results that wait to be recorded take room: if recording falls behind, claiming stops.
        """
        if self._stopping:
            return 0
        return max(0, self._max_in_flight - len(self._in_flight) - len(self._results) - len(self._recording))

    async def start(self) -> None:
        """Registers the worker and begins. Raises SQLAlchemyError where the database does not answer."""
        await self._open_connections()
        await self._beat()
        try:
            self._platform_keys.self_test()
        except ConfigurationError as error:  # what it would sign waits, uncharged; everything else goes on
            telemetry.log(_log, logging.ERROR, "key.unusable", error=error)
        self._duties = [
            asyncio.create_task(duty, name=name)
            for name, duty in (
                ("beat", self._keep_beating()),
                ("claim", self._keep_claiming()),
                ("record", self._keep_recording()),
            )
        ]
        for duty in self._duties:
            duty.add_done_callback(die_of_a_defect)
        telemetry.log(_log, logging.INFO, "worker.started", worker_id=self.worker_id, max_in_flight=self._max_in_flight)

    async def _open_connections(self) -> None:
        """Opens what claiming, recording and the heartbeat take, before there is anything to record.

        A server that is shutting down smartly refuses new connections and serves those that are open.
        """
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(CONNECTIONS):
                await opened.enter_async_context(self._engine.connect())

    async def ring(self) -> None:
        """Asks for a claim; returns when a round of claims has ended, or the loop is stopping."""
        wanted = self._claims + 1
        self.bells += 1
        self._rung.set()
        async with self._claimed:
            await self._claimed.wait_for(lambda: self._claims >= wanted or self._stopping)

    def claim_now(self) -> None:
        """Asks for a claim without a bell, and does not wait for it."""
        self._rung.set()

    def halt(self) -> None:
        """Claims no more, and lets nobody wait for a claim."""
        self._stopping = True
        self._rung.set()
        self._room_made.set()
        self._halting = asyncio.ensure_future(self._release_waiters())

    async def _release_waiters(self) -> None:
        async with self._claimed:
            self._claimed.notify_all()

    async def stop(self) -> None:
        """Claims no more, lets deliveries in flight finish within the grace, records, releases the rest."""
        self.halt()
        beat, claim, record = self._duties
        await _ended(claim)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=self._grace_s)
        unfinished = dict(self._in_flight)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._drained = True
        self._have_results.set()
        self._flush_now.set()
        await _ended(record)
        beat.cancel()
        await _ended(beat)
        try:
            async with self._engine.begin() as connection:
                await connection.run_sync(workers.retire, self.worker_id)
        except SQLAlchemyError as error:  # its claims die when its heartbeat's term ends, a little later
            telemetry.log(_log, logging.WARNING, "worker.deregister_failed", worker_id=self.worker_id, error=error)
        await self._engine.dispose()
        telemetry.log(_log, logging.INFO, "worker.stopped", worker_id=self.worker_id, unfinished=len(unfinished))

    # --- claiming

    async def _keep_claiming(self) -> None:
        pause_s = BACK_OFF_S[0]
        while not self._stopping:
            await self._rung.wait()
            self._rung.clear()
            more = True
            while more and not self._stopping:
                await self._wait_for_room()
                if self._stopping or not self._may_post():
                    break
                try:
                    more = await self._claim()
                    pause_s = BACK_OFF_S[0]
                except SQLAlchemyError as error:
                    telemetry.log(_log, logging.WARNING, "claim.failed", worker_id=self.worker_id, error=error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, BACK_OFF_S[1])
                    more = False
                    self._rung.set()  # for all that the database knows, this worker goes on
            async with self._claimed:
                self._claims += 1
                self._claimed.notify_all()

    async def _wait_for_room(self) -> None:
        """Until a tenth is free, or anything is and 20 ms have passed: a claim of one costs as much as one of many."""
        enough = max(1, min(self._batch, self._max_in_flight // 10))
        while self.room < enough and not self._stopping:
            self._room_made.clear()
            if self.room >= enough or self._stopping:
                return
            try:
                await asyncio.wait_for(self._room_made.wait(), None if self.room == 0 else 0.02)
            except TimeoutError:
                if self.room > 0:
                    return

    async def _claim(self) -> bool:
        async with self._claiming:
            async with self._engine.begin() as connection:
                claimed = await connection.run_sync(self._claim_on)
            self.claimed += len(claimed.claims)
            create_task = asyncio.get_running_loop().create_task
            for claim in claimed.claims:
                route = self._routes[claim.endpoint_id]
                task = create_task(self._deliver(claim, route))
                self._in_flight[task] = (claim, route)
                task.add_done_callback(self._done)
        if claimed.more and not claimed.claims:
            self._rung.clear()  # the next round answers what has rung so far
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), CONTENDED_S)
        return claimed.more

    async def _give_up(self) -> None:
        """Gives back what the database says we claimed and we do not hold: a commit's answer may have been lost."""
        async with self._claiming:
            held = [claim.delivery_id for claim, _ in self._in_flight.values()]
            held += [result.claim.delivery_id for result in (*self._results, *self._recording)]
            async with self._engine.begin() as connection:
                given_up = await connection.run_sync(deliveries.give_up, self.worker_id, held)
        if given_up:
            telemetry.log(_log, logging.WARNING, "claims.released", worker_id=self.worker_id, deliveries=given_up)

    def _claim_on(self, connection: Connection) -> Claimed:
        room = self.room
        limit, lane_limit = share(room, self._max_in_flight)
        claimed = deliveries.claim(
            connection,
            worker_id=self.worker_id,
            room=room,
            batch=min(limit, self._batch),
            lane_limit=lane_limit,
            now=self._due_clock.bounds,
        )
        stale = {
            claim.endpoint_id
            for claim in claimed.claims
            if (route := self._routes.get(claim.endpoint_id)) is None or route.endpoint.version < claim.endpoint_version
        }
        if stale:
            if len(self._routes) + len(stale) > ROUTES:
                self._routes.clear()
                stale = {claim.endpoint_id for claim in claimed.claims}
            for endpoint in endpoints.fetch(connection, stale).values():
                self._routes[endpoint.id] = self._deliver.requests.route(endpoint)
            if any(self._lacks_a_key(self._routes[endpoint_id]) for endpoint_id in stale):  # made since the last beat?
                self._platform_keys = PlatformKeys.load(connection, self._deliver.requests.keyring, self._clock)
        if any(claim.schedule_id not in self._schedules for claim in claimed.claims):
            self._schedules.update(read_schedules(connection))
        return claimed

    def _lacks_a_key(self, route: Route) -> bool:
        at = self._clock.now()
        schemes = [signer.scheme for signer in route.signers if signer.scheme.key_owner == "platform"]
        return not all(self._platform_keys.signing(scheme, at) for scheme in schemes)

    def _done(self, task: asyncio.Task[Result]) -> None:
        claim, route = self._in_flight.pop(task)
        if task.cancelled():
            # Stopped in mid-flight: the POST may have been made. The claim dies with the worker's row, and the
            # rescue logs it as lost.
            return
        error = task.exception()
        if error is not None:
            delivery_id = format_id("dlv", claim.delivery_id)
            telemetry.log(_log, logging.ERROR, "attempt.failed_internally", delivery_id=delivery_id, exc_info=error)
            self._results.append(self._defect(claim, route, error))
        else:
            self._results.append(task.result())
        self._have_results.set()
        if len(self._results) >= FLUSH_RESULTS:
            self._flush_now.set()

    def _defect(self, claim: Claim, route: Route, error: BaseException) -> Result:
        """What a defect of ours does to an attempt: it may have been made, is not charged, and comes again later."""
        at = self._clock.now()
        outcome = Outcome(OutcomeClass.INTERNAL, known=False, error=f"a defect of ours: {type(error).__name__}")
        attempt = Attempt(
            id=uuid7(self._due_clock.stamp(at)),
            worker_id=self.worker_id,
            started_at=at,
            method=route.endpoint.method,
            url=route.endpoint.url,
            request_headers=[],
            body_sha256=None,
            outcome=outcome,
        )
        again = RetryAt(DEFECT_WAIT_S, charged=False, from_first_attempt=False, reason=str(OutcomeClass.INTERNAL))
        return Result(claim, attempt, again, self._clock.monotonic())

    # --- recording

    async def _keep_recording(self) -> None:
        recorded_at_s = self._clock.monotonic()
        while True:
            await self._have_results.wait()
            await self._until(recorded_at_s + FLUSH_S[0])
            if len(self._results) >= FEW_RESULTS:
                await self._until(recorded_at_s + FLUSH_S[1])
            recorded_at_s = self._clock.monotonic()
            self._have_results.clear()
            self._flush_now.clear()
            results, self._results = self._results, []
            self._recording = results
            try:
                await self._record(results)
            finally:
                self._recording = []
            self._room_made.set()
            self._rung.set()  # what was recorded may have freed a lane at its cap
            if self._drained and not self._results:
                return

    async def _until(self, at_s: float) -> None:
        """Waits until then on the monotonic clock, or until there is enough to record."""
        wait_s = at_s - self._clock.monotonic()
        if wait_s > 0 and not self._flush_now.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._flush_now.wait(), wait_s)

    async def _record(self, results: list[Result]) -> None:
        """Records until it is done: results exist nowhere else.

        Running it again after a commit whose answer was lost changes nothing. Of results that the database refuses
        for what they hold, the culprit is found by halving and recorded without its evidence, so that one delivery
        can neither stop the others nor kill worker after worker. Raises what the database says of it even then.
        """
        pause_s = BACK_OFF_S[0]
        while results:
            try:
                await self._record_once(results)
            except (OperationalError, InterfaceError, InternalError) as error:  # InternalError: read-only, say
                telemetry.log(
                    _log, logging.WARNING, "record.failed", worker_id=self.worker_id, results=len(results), error=error
                )
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, BACK_OFF_S[1])
            except DBAPIError as error:
                if len(results) > 1:
                    half = len(results) // 2
                    await self._record(results[:half])
                    await self._record(results[half:])
                    return
                bare = _without_evidence(results[0])
                if bare == results[0]:
                    raise
                delivery_id = format_id("dlv", results[0].claim.delivery_id)
                telemetry.log(_log, logging.ERROR, "record.stripped", delivery_id=delivery_id, error=error)
                results = [bare]
            else:
                telemetry.info_many(_log, "delivery.attempted", map(_attempted, results), at=self._clock.now())
                return

    async def _record_once(self, results: list[Result]) -> None:
        def record(connection: Connection) -> int:
            return deliveries.record(
                connection, results, monotonic_s=self._clock.monotonic(), now=self._due_clock.bounds
            )

        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(record)

    # --- living

    def _may_post(self) -> bool:
        """Whether the claims are surely still ours: no POST starts in the last fifth of the heartbeat's term."""
        return self._clock.monotonic() < self._alive_until_s

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._term_s / 6)
            has_beaten = False
            try:
                async with asyncio.timeout(self._term_s / 2):
                    await self._beat()
                    has_beaten = True
                    # What a stopping worker no longer holds it may have sent: that is the rescue's, which says so.
                    if not self._stopping:
                        await self._give_up()
                    # Whatever its row says and whatever has stopped the loop, a claim sets it right. Not before the
                    # first bell: until Celery has taken over the signals, SIGTERM ends it with what it has in flight.
                    if self._claims:
                        self._rung.set()
            except (SQLAlchemyError, TimeoutError) as error:
                if has_beaten:
                    telemetry.log(_log, logging.WARNING, "claims.release_failed", worker_id=self.worker_id, error=error)
                else:
                    telemetry.log(_log, logging.WARNING, "heartbeat.failed", worker_id=self.worker_id, error=error)

    async def _beat(self) -> None:
        # In a transaction of its own, since it may lock the one row of the clock.
        async with self._engine.begin() as connection:
            await connection.run_sync(self._due_clock.sample)
        asked_at_s = self._clock.monotonic()
        async with self._engine.begin() as connection:
            await connection.run_sync(
                partial(
                    workers.heartbeat,
                    worker_id=self.worker_id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    room=self.room,
                    term_s=self._term_s,
                    now=self._due_clock.bounds,
                )
            )
            self._platform_keys = await connection.run_sync(
                PlatformKeys.load, self._deliver.requests.keyring, self._deliver.clock
            )
        self._alive_until_s = asked_at_s + 0.8 * self._term_s


def share(room: int, max_in_flight: int) -> tuple[int, int | None]:
    """How much of its room a worker may take now, and how many of one lane may be in flight for it to get some of that.

    Endpoints that hang, each within its cap (None), could together fill a worker until their deadlines. The second half
    of its room is for lanes with few in flight, which are those that answer.

    >>> [share(room, 2000) for room in (2000, 1001, 1000, 501, 500, 1)]
    [(1000, None), (1, None), (500, 8), (1, 8), (500, 2), (1, 2)]
    """
    for part, limit in ((max_in_flight // 2, None), (max_in_flight // 4, 8)):
        if room > part:
            return room - part, limit
    return room, 2


def die_of_a_defect(duty: asyncio.Task[None]) -> None:
    """A worker without one of its duties would hold its claims for ever; dead, its claims are rescued."""
    if not duty.cancelled() and (error := duty.exception()) is not None:
        telemetry.log(_log, logging.CRITICAL, "worker.failed", duty=duty.get_name(), exc_info=error)
        os._exit(70)


def _without_evidence(result: Result) -> Result:
    """The same result, with nothing of what the receiver sent but the status."""
    if result.attempt is None:
        return result
    outcome = replace(
        result.attempt.outcome, response_headers=(), response_body=b"", error="the answer cannot be stored"
    )
    return replace(result, attempt=replace(result.attempt, request_headers=[], outcome=outcome))


def _attempted(result: Result) -> dict[str, telemetry.Value]:
    """The fields of the one line that the log has of an attempt, or of a claim that came to nothing."""
    claim, change, attempt = result.claim, result.change, result.attempt
    delivery, event, endpoint = uuid_texts(claim.delivery_id, claim.event.id, claim.endpoint_id)
    fields: dict[str, telemetry.Value] = {
        "delivery_id": f"dlv_{delivery}",
        "event_id": f"evt_{event}",
        "endpoint_id": f"ep_{endpoint}",
        "attempt": claim.number,
    }
    if claim.event.mode == Mode.TEST:
        fields["mode"] = claim.event.mode
    match change:
        case Stop():
            fields["decision"] = change.state
        case RetryAt():
            fields["decision"] = "retry"
            fields["charged"] = change.charged
            fields["wait_s"] = change.wait_s
            fields["wait_relative_to"] = "first_attempt" if change.from_first_attempt else "previous_failure"
        case Released():
            fields["decision"] = "released"
        case _:  # pragma: no cover - mypy proves that every change is above
            assert_never(change)
    if attempt is not None:
        outcome = attempt.outcome
        fields["outcome"] = outcome.kind
        if outcome.status_code is not None:
            fields["status_code"] = outcome.status_code
        fields["outcome_known"] = outcome.known
        fields["duration_ms"] = round(outcome.duration_ms)
    return fields


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
