"""Keeps a set of processes running: starts them in order, restarts what dies, stops them in the reverse order."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

from dispatcher import telemetry
from dispatcher.errors import Unavailable
from dispatcher.local import processes
from dispatcher.local.child import Child, Program, print_line
from dispatcher.local.files import FilesMissing, read_secret, write_secret
from dispatcher.local.guard import Guard
from dispatcher.local.silence import Silence
from dispatcher.local.starting import START_TIMEOUT_S, StartLimit, announced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 10.0
# One that ran this long did not die of its start: the next wait is the first one again.
STEADY_AFTER_S = 30.0

_READY_POLL_S = 0.05
# How often the supervisor looks after what waits to be done again.
_LOOK_EVERY_S = 1.0


class Service(Protocol):
    """What can be supervised: a `Child`, an `EmbeddedPostgres`, an `EmbeddedRedis`."""

    @property
    def name(self) -> str:
        """Told apart from the others by this."""

    @property
    def pid(self) -> int | None:
        """None when it does not run."""

    @property
    def last_line(self) -> str:
        """What it printed last; empty where that is nothing."""

    @property
    def hung_steps(self) -> Sequence[tuple[signal.Signals, float]]:
        """What a hung process is sent, in turn, and for how many seconds to wait before the next."""

    def shows_life(self, timeout_s: float) -> bool:
        """Tell whether it has shown a sign of life since the last call. A server may take longer to say so."""

    def start(self) -> None:
        """Return when it runs; raise Unavailable when it cannot."""

    def wait(self) -> int | None:
        """Return the exit code once it has left."""

    def stop(self) -> None:
        """Return when it has left."""

    def kill(self) -> None:
        """Kill it and return when it has left."""

    def end_slow_shutdown(self) -> None:
        """Have a server that waits for its clients to leave, and admits no others, leave at once."""


class _Keeper:
    """Starts one service again whenever it leaves on its own; a thread of its own waits for that."""

    def __init__(
        self,
        service: Service,
        changed: Callable[[], None],
        give_up: Callable[[FilesMissing], None],
        hang_timeout_s: Callable[[], float],
        guard: Guard,
    ) -> None:
        self.service = service
        self.restarts = 0
        self._changed = changed
        self._give_up = give_up
        self._hang_timeout_s = hang_timeout_s
        self._guard = guard
        self._wanted = False
        self._lock = threading.RLock()  # one of start, stop and restart at a time
        self._retire = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_at_s = 0.0
        self._back_off_s = FIRST_BACK_OFF_S
        self._watched: int | None = None
        self._silence: Silence | None = None  # of the run that `_start_service` began
        self._answered = threading.Event()

    def start(self) -> None:
        """Start the service and keep it from now on."""
        with self._lock:
            self._start_service()
            telemetry.log(_log, logging.INFO, "process.started", process=self.service.name, pid=self.service.pid)
            self._wanted = True
            self._retire = threading.Event()
            if not isinstance(self.service, Child):
                threading.Thread(
                    target=self._ask, args=(self._retire,), name=f"{self.service.name}-asked", daemon=True
                ).start()
            self._thread = threading.Thread(target=self._keep, name=f"{self.service.name}-keeper", daemon=True)
            self._thread.start()

    def stop(self, act: Callable[[], None] | None = None) -> None:
        """Stop the service for good; `act` replaces its own way to stop."""
        self.retire()
        with self._lock:
            pid = self.service.pid
            (act or self.service.stop)()
            self._forget()
            if pid is not None:
                telemetry.log(_log, logging.INFO, "process.stopped", process=self.service.name, pid=pid)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._changed()

    def terminate(self) -> None:
        """Restart the program no more and ask it to stop, without waiting."""
        self.retire()
        # Under the lock: a start that is under way is waited for, and none can follow.
        with self._lock:
            if isinstance(self.service, Child):
                self.service.terminate()

    def restart(self, act: Callable[[], None] | None = None) -> None:
        """Stop the service (`act` replaces its own way) and start it again at once."""
        with self._lock:
            self._silence = None  # it may take its time to stop
            (act or self.service.stop)()
            self._start_service()
            self.restarts += 1
        self._changed()

    def retire(self) -> None:
        """Restart the service no more."""
        self._wanted = False
        self._retire.set()

    def look(self, elapsed_s: float | None, limit_s: float) -> None:
        """Count `elapsed_s` more seconds of silence, or from zero again if None, and stop the process if it hangs."""
        silence = self._silence
        if silence is None or not self._wanted or self.service.pid != silence.pid:
            return
        if isinstance(self.service, Child):
            alive = self.service.shows_life()
        else:
            alive = self._answered.is_set()
            self._answered.clear()
        silent_for_s = silence.count(elapsed_s, alive=alive)
        number = silence.due(limit_s, self.service.hung_steps)
        if number is None:
            return
        telemetry.log(
            _log,
            logging.ERROR,
            "process.hung",
            process=self.service.name,
            pid=silence.pid,
            silent_for_s=round(silent_for_s, 1),
            signal=number.name,
        )
        processes.send(silence.pid, number, group=isinstance(self.service, Child))
        if number != signal.SIGKILL:
            processes.send(silence.pid, signal.SIGCONT)  # a stopped process takes no other signal but SIGKILL

    def _ask(self, retire: threading.Event) -> None:
        """Ask a server for a sign of life, again and again. A thread of its own runs this: an answer may take long."""
        while not retire.wait(self._hang_timeout_s() / 6):
            try:
                if self.service.pid is not None and self.service.shows_life(self._hang_timeout_s()):
                    self._answered.set()
            except Exception:  # noqa: BLE001 - this thread must outlive it
                telemetry.log(
                    _log, logging.ERROR, "supervisor.failed_internally", process=self.service.name, exc_info=True
                )

    def _keep(self) -> None:
        while self._wanted:
            try:
                self._await_exit()
            except Exception:  # noqa: BLE001 - a keeper that died of it would never start its service again
                telemetry.log(
                    _log, logging.ERROR, "supervisor.failed_internally", process=self.service.name, exc_info=True
                )
                self._retire.wait(FIRST_BACK_OFF_S)

    def _await_exit(self) -> None:
        """Wait until the service leaves, and start it again if it is still wanted."""
        code = self.service.wait()
        with self._lock:
            if not self._wanted or self.service.pid is not None:  # somebody restarted it on purpose
                return
            gone, self._watched = self._watched, None
            if gone is not None:
                self._guard.forget(gone)
        ran_s = time.monotonic() - self._started_at_s
        if ran_s >= STEADY_AFTER_S:
            self._back_off_s = FIRST_BACK_OFF_S
        ended_by = _signal_name(code)
        telemetry.log(
            _log,
            logging.WARNING,
            "process.exited",
            process=self.service.name,
            pid=gone,
            signal=ended_by,
            exit_code=code if ended_by is None else None,
            ran_s=round(ran_s, 1),
            restart_in_s=self._back_off_s,
        )
        self._start_again()

    def _start_again(self) -> None:
        """Wait and start the service, again and again until it starts or is not wanted any more."""
        while not self._retire.wait(self._back_off_s):
            self._back_off_s = min(self._back_off_s * 2, LONGEST_BACK_OFF_S)
            with self._lock:
                if not self._wanted or self.service.pid is not None:
                    return
                try:
                    self._start_service()
                except FilesMissing as error:
                    self.retire()
                    self._give_up(error)
                    return
                except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                    expected = isinstance(error, (Unavailable, OSError))
                    telemetry.log(
                        _log,
                        logging.ERROR,
                        "process.start_failed",
                        process=self.service.name,
                        restart_in_s=self._back_off_s,
                        error=error,
                        exc_info=None if expected else error,
                    )
                    continue
                self.restarts += 1
            telemetry.log(
                _log,
                logging.WARNING,
                "process.restarted",
                process=self.service.name,
                pid=self.service.pid,
                restarts=self.restarts,
            )
            self._changed()
            return

    def _start_service(self) -> None:
        self._forget()
        try:
            with announced(self.service.name, lambda: self.service.last_line):
                self.service.start()
        except BaseException:
            if self.service.pid is not None:
                self.service.stop()  # it is not complete, and the guard does not know of it
            raise
        self._started_at_s = time.monotonic()
        self._watched = self.service.pid
        if self._watched is not None:
            # A server has answered by now. A program shows when it has come so far.
            self._silence = Silence(self._watched, started=not isinstance(self.service, Child))
            if isinstance(self.service, Child):
                self._guard.watch(self._watched, signal.SIGTERM, stage=0)
            else:
                # For PostgreSQL the fast shutdown; Redis takes it for the same as SIGTERM.
                self._guard.watch(self._watched, signal.SIGINT, stage=1)

    def _forget(self) -> None:
        self._silence = None
        if self._watched is not None:
            self._guard.forget(self._watched)
            self._watched = None


class Supervisor:
    """Runs services until it is stopped.

    `record` is a file that lists what runs, for `stop_leftovers`; `output` takes each line of a child's output;
    `grace_s` is how long programs may take, together, to stop; `start_timeout_s` how long one that is not ready may
    print nothing. A process that shows no sign of life for `hang_timeout_s` is stopped and started again. Thread-safe.
    Should this process be killed, a guard process stops everything in its place.
    """

    def __init__(
        self,
        *,
        record: Path | None = None,
        output: Callable[[str, str], None] = print_line,
        grace_s: float = 20.0,
        start_timeout_s: float = START_TIMEOUT_S,
        hang_timeout_s: float = 60.0,
    ) -> None:
        self.hang_timeout_s = hang_timeout_s
        self._record = record
        self._record_lock = threading.Lock()
        self._record_failed = False
        self._output = output
        self._grace_s = grace_s
        self._start_timeout_s = start_timeout_s
        self._keepers: dict[str, _Keeper] = {}
        self._guard: Guard | None = None
        self._stopping = threading.Event()
        self._caretaker: threading.Thread | None = None
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._given_up: FilesMissing | None = None

    @property
    def children(self) -> Mapping[str, Service]:
        """What is supervised, by name, in the order of the start; each has a `pid`."""
        return {name: keeper.service for name, keeper in list(self._keepers.items())}  # a thread may add some

    @property
    def interrupted(self) -> bool:
        """Tell whether `run` has received a signal to stop, or must give up, and has not acted on it yet."""
        return not self._signals.empty()

    def restarts(self, name: str) -> int:
        """Return how many times that one was started again."""
        return self._keepers[name].restarts

    def start(self, services: Iterable[Service | Program]) -> None:
        """Start these, in order, after whatever runs already, and wait for the programs that say when they are ready.

        Raises Unavailable when one does not start, leaves, or is not ready and prints nothing for `start_timeout_s`;
        what was started runs on until `stop`.
        """
        if self._guard is None:
            self._guard = Guard(self._grace_s)
            self._stopping.clear()
            self._caretaker = threading.Thread(target=self._take_care, name="supervisor", daemon=True)
            self._caretaker.start()
        started: list[_Keeper] = []
        for service in services:
            supervised = Child(service, self._output) if isinstance(service, Program) else service
            keeper = _Keeper(supervised, self._write_record, self._give_up, lambda: self.hang_timeout_s, self._guard)
            self._keepers[supervised.name] = keeper
            keeper.start()
            started.append(keeper)
            self._write_record()
        for keeper in started:
            self._await_ready(keeper)

    def stop(self) -> None:
        """Stop everything in the reverse order of the start: the programs together, then the servers one by one.

        The servers are kept running until the programs have left. A signal to every process at once, as systemd sends
        by default, stops PostgreSQL too and cuts every connection, since its backends end on SIGTERM; and a worker
        needs the database to record what its deliveries in flight came to.

        A second SIGTERM or SIGINT, when `run` is waiting, ends the programs' grace.
        """
        keepers = list(reversed(self._keepers.values()))
        children = [(keeper, keeper.service) for keeper in keepers if isinstance(keeper.service, Child)]
        servers = [keeper for keeper in keepers if not isinstance(keeper.service, Child)]
        self._stopping.set()
        if self._caretaker is not None:
            self._caretaker.join()
            self._caretaker = None
        for keeper, _ in children:
            keeper.retire()
        for keeper, _ in children:
            keeper.terminate()
        until = time.monotonic() + self._grace_s
        for keeper, child in children:
            while child.pid is not None and time.monotonic() < until:
                if self.interrupted:
                    until = 0.0
                for server in servers:
                    server.service.end_slow_shutdown()
                child.wait(_READY_POLL_S)
            if child.pid is not None:
                telemetry.log(_log, logging.WARNING, "process.killed", process=child.name, pid=child.pid)
            keeper.stop(child.kill)
        for keeper in servers:
            keeper.retire()
        for keeper in servers:
            keeper.stop()
        self._keepers.clear()
        if self._guard is None:
            return  # nothing was started, and the record, if there is one, is somebody else's
        self._guard.close()
        self._guard = None
        if self._record is not None:
            try:
                self._record.unlink(missing_ok=True)
            except OSError as error:
                telemetry.log(_log, logging.ERROR, "process.list_failed", file=self._record, error=error)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one process, as a crash would; it is then restarted. Returns the number it had.

        Raises Unavailable when it does not run right now.
        """
        pid = self._keepers[name].service.pid
        if pid is None or not processes.send(pid, number):
            raise Unavailable(f"{name} does not run.")
        return pid

    def restart(self, name: str, act: Callable[[], None] | None = None) -> None:
        """Stop one and start it again at once; `act` replaces its own way to stop."""
        self._keepers[name].restart(act)

    def stop_one(self, name: str) -> None:
        """Stop one and leave it so, until `start_one`."""
        self._keepers[name].stop()

    def start_one(self, name: str) -> None:
        """Start one that `stop_one` stopped."""
        self._keepers[name].start()
        self._write_record()

    def run(self, start: Callable[[], None]) -> None:
        """Call `start`, which starts what is to run, wait for SIGTERM or SIGINT, and stop everything.

        Must be called in the main thread. A signal that comes during `start` ends this as soon as `start` returns.
        Raises FilesMissing, everything stopped, when a server's files have vanished.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            # A SimpleQueue can be put into from a signal handler; an Event could deadlock.
            signal.signal(number, lambda received, _: self._signals.put(received))
        try:
            start()
            self._signals.get()
        finally:
            try:
                self.stop()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        if self._given_up is not None:
            raise self._given_up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_ready(self, keeper: _Keeper) -> None:
        child = keeper.service
        if not isinstance(child, Child) or child.program.ready is None:
            return
        limit = StartLimit(self._start_timeout_s)
        with announced(child.name, lambda: child.last_line):
            while not child.program.ready():
                if self.interrupted:
                    return
                words = child.last_line or "it printed nothing."
                if child.pid is None or keeper.restarts:
                    raise Unavailable(f"{child.name} ended before it was ready: {words}")
                if limit.exceeded(child.lines):
                    raise Unavailable(f"{child.name} is not ready, and {limit}: {words}")
                time.sleep(_READY_POLL_S)

    def _give_up(self, error: FilesMissing) -> None:
        """Have `run` stop everything and raise the error: what it tells of, no further start can mend."""
        telemetry.log(_log, logging.CRITICAL, "supervisor.gave_up", error=error)
        self._given_up = error
        self._signals.put(0)

    def _take_care(self) -> None:
        """Look for processes that hang, and do again what failed. A thread of its own runs this."""
        looked_at_s = time.monotonic()
        while not self._stopping.wait(min(_LOOK_EVERY_S, self.hang_timeout_s / 12)):
            elapsed_s = time.monotonic() - looked_at_s
            looked_at_s += elapsed_s
            try:
                self.look(elapsed_s)
                if self._record_failed:
                    self._write_record()
            except Exception:  # noqa: BLE001 - this thread must outlive it
                telemetry.log(_log, logging.ERROR, "supervisor.failed_internally", process="supervisor", exc_info=True)

    def look(self, elapsed_s: float) -> None:
        """Look at every process, `elapsed_s` seconds after the last look, and stop those that hang.

        After a look that came late this process did not run itself: the machine stood still, or it was stopped. So did
        the others perhaps, and their silence counts from zero again.
        """
        late = elapsed_s > self.hang_timeout_s / 4
        for keeper in list(self._keepers.values()):
            keeper.look(None if late else elapsed_s, self.hang_timeout_s)

    def _write_record(self) -> None:
        """Write the list of what runs. Where that fails, nothing else must: it is logged once and tried again."""
        if self._record is None:
            return
        with self._record_lock:
            pids = [one.pid for one in self.children.values() if isinstance(one, Child) and one.pid is not None]
            found = [processes.identify(pid) for pid in pids]
            listed = [[one.pid, one.started, one.command] for one in found if one is not None]
            try:
                write_secret(self._record, json.dumps(listed))
            except (OSError, Unavailable) as error:
                if not self._record_failed:
                    telemetry.log(_log, logging.ERROR, "process.list_failed", file=self._record, error=error)
                self._record_failed = True
            else:
                self._record_failed = False


def stop_leftovers(record: Path, grace_s: float = 20.0) -> int:
    """Stop the programs that a killed supervisor listed in `record` and that still run; return how many did.

    A process is touched only if it is the one that was listed: a number alone may be somebody else's by now. Servers
    are not listed: each one's start looks after what is left of itself.
    """
    if read_secret(record) is None:
        return 0
    running = leftovers(record)
    for one in running:
        processes.send(one.pid, signal.SIGTERM, group=True)
    until = time.monotonic() + grace_s
    for one in running:
        processes.stop(one, [(signal.SIGTERM, max(0.0, until - time.monotonic()))])
        processes.send(one.pid, signal.SIGKILL, group=True)
        telemetry.log(_log, logging.WARNING, "process.leftover_stopped", pid=one.pid, command=one.command)
    record.unlink(missing_ok=True)
    return len(running)


def leftovers(record: Path) -> list[processes.Identity]:
    """The programs that a killed supervisor listed in `record` and that still run."""
    text = read_secret(record)
    if text is None:
        return []
    running = []
    with contextlib.suppress(ValueError):
        for pid, started, command in json.loads(text):
            listed = processes.Identity(pid, started, command)
            if processes.is_running(listed):
                running.append(listed)
    return running


def _signal_name(code: int | None) -> str | None:
    """The signal that ended a process, or None where it exited with a code."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return None
