"""The whole system as real processes on a temporary data directory, and what can be done to it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from uuid import UUID

import redis
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from dispatcher import config, wiring
from dispatcher.flow.register import NewEndpoint, Register
from dispatcher.local import processes
from dispatcher.local.accounts import server_account
from dispatcher.local.child import Child
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.ports import free_port
from dispatcher.local.running import find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.local.stack import Stack, standard_programs
from dispatcher.wakeup import Wakeup
from tests.crash.history import History
from tests.support.patience import PATIENCE_S, until

if TYPE_CHECKING:
    from tests.crash.load import Target

REPOSITORY = Path(__file__).parents[2]
SCHEDULE = ("crash", 'description = "Short."\nwaits = ["0s", "500ms", "500ms", "1s"]\n')


class Receiver(Protocol):
    """Where a system's endpoints are: the ledger, say."""

    url: str

    def know(self, secrets: Mapping[str, str], /) -> None:
        """The secret of each path, by which the receiver can check signatures."""


class System:
    """Servers, schedulers and workers; `data_dir` None makes a temporary one, removed at the end.

    `history` is what is done to it. With a `bug` (`tests.crash.bugs`), or where `steps` is a directory by which
    processes can be stopped at a step (`tests.crash.steps`), they are started by `tests.crash.process`. `disk` is where
    the servers' files lie, if elsewhere.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        schedulers: int = 1,
        term_s: float = 3.0,
        grace_s: float = 5.0,
        data_dir: Path | None = None,
        api: bool = False,
        bug: str | None = None,
        steps: Path | None = None,
        disk: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.history = History()
        self.has_api = api
        self.targets: list[Target] = []
        self.endpoint_ids: dict[str, UUID] = {}
        self._top = Path(tempfile.mkdtemp(prefix="dispatcher-crash-"))
        self._top.chmod(0o711)  # the servers' account passes through
        schedules_dir = self._top / "schedules"
        schedules_dir.mkdir()
        (schedules_dir / f"{SCHEDULE[0]}.toml").write_text(SCHEDULE[1])
        self.data_dir = data_dir or self._top / "data"
        self.disk = disk
        if disk is not None:  # the record of it is what `make_servers_dir` looks for
            self.data_dir.mkdir(exist_ok=True, mode=0o711)
            (self.data_dir / "servers_location").write_text(str(disk))
        self.term_s = term_s
        self.workers = workers
        self._engine: Engine | None = None
        self.lines: deque[str] = deque(maxlen=20_000)
        self._env = {
            "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
            "DISPATCHER_SCHEDULES_DIR": str(schedules_dir),
            "DISPATCHER_WORKER_LEASE_S": str(term_s),
            "DISPATCHER_SHUTDOWN_GRACE_S": str(grace_s),
            "PYTHONPATH": str(REPOSITORY),
            **({"CRASH_BUG": bug} if bug else {}),
            **({"CRASH_STEPS": str(steps)} if steps else {}),
            **(env or {}),
        }
        self.api_key = self._env.setdefault("DISPATCHER_BOOTSTRAP_KEY", f"dsk_{secrets.token_urlsafe(32)}")
        port, programs = free_port("127.0.0.1"), None
        if bug or steps:
            from tests.crash.process import wrap

            programs = wrap(standard_programs("127.0.0.1", port, workers=workers, schedulers=schedulers, api=api))
        self.stack = Stack(
            migrate=lambda url: wiring.prepare_database(self._settings(url)),
            data_dir=self.data_dir,
            port=port,
            workers=workers,
            schedulers=schedulers,
            api=api,
            programs=programs,
            env=self._env,
            output=self._note,
            grace_s=grace_s + 3,
            start_timeout_s=PATIENCE_S,
        )

    def _settings(self, url: str) -> config.Settings:
        ours = {name: value for name, value in self._env.items() if name.startswith(config.PREFIX)}
        return config.with_database(config.load(ours), url)

    def _note(self, name: str, line: str) -> None:
        self.lines.append(f"{time.strftime('%H:%M:%S')} {name} | {line}")

    def start(self) -> None:
        try:
            self.stack.start()
            self._reach(self.stack.database_url, self.stack.broker_url)
            self.url = self.stack.url
            expected = len(self.names("worker"))
            alive = "SELECT count(*) FROM dispatcher.workers WHERE heartbeat_until > now()"
            until(lambda: self.rows(alive)[0][0] >= expected, "the workers live")
        except BaseException:
            self.stack.stop()
            raise

    def _reach(self, database_url: str, broker_url: str) -> None:
        self.database_url, self.broker_url = database_url, broker_url
        if self._engine is None:  # the database's URL stays; a producer may be using it
            self._engine = create_engine(database_url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        self.wakeup = Wakeup(broker_url)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def stop(self) -> None:
        self.engine.dispose()
        self.stack.stop()

    def remove(self) -> None:
        remove_data_dir(self._top, server_account())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    # --- faults

    def names(self, kind: str) -> list[str]:
        """The processes of a kind: worker, scheduler."""
        return [name for name in self.stack.supervisor.children if name.startswith(kind)]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signals a process once it runs and, for SIGKILL, waits until it is gone; the supervisor restarts it.

        Whatever stops a worker takes it: what it has in flight may be lost.
        """
        child = self.stack.supervisor.children[name]
        until(lambda: child.pid is not None, f"{name} runs")
        if name.startswith("worker") and number in (signal.SIGKILL, signal.SIGSTOP):
            assert child.pid is not None
            self.history.taken.add(child.pid)
        killed = self.stack.supervisor.kill(name, number)
        if number == signal.SIGKILL:
            self.history.kills += 1
            until(lambda: child.pid != killed, f"{name} is gone")

    def stop_worker(self, name: str) -> None:
        """Asks a worker to leave, and has another take its place.

        One that has only just started is ended by the signal itself: that is a kill.
        """
        child = self.stack.supervisor.children[name]
        assert isinstance(child, Child)
        pid = child.pid
        self.note_workers()
        codes: list[int | None] = []

        def leave() -> None:
            child.terminate()
            codes.append(child.wait(PATIENCE_S))
            child.stop()

        self.stack.supervisor.restart(name, leave)
        if pid is not None:
            (self.history.stopped if codes == [0] else self.history.taken).add(pid)

    def note_workers(self) -> None:
        """Remembers whose the workers' ids are: who leaves takes its row along."""
        self.history.note_workers(self.rows("SELECT id, pid FROM dispatcher.workers"))

    def take_all_workers(self) -> None:
        """Notes that no worker could renew its heartbeat for a term."""
        pids = (self.stack.supervisor.children[name].pid for name in self.names("worker"))
        self.history.taken.update(pid for pid in pids if pid is not None)

    def busy_workers(self, patience_s: float = 2.0) -> list[str]:
        """The workers that hold deliveries right now; those with a heartbeat where none gets any in that time."""
        deadline = time.monotonic() + patience_s
        while not (found := self._workers("EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.claimed_by = w.id)")):
            if time.monotonic() > deadline and (found := self._workers("true")):
                break
            assert time.monotonic() < deadline + PATIENCE_S, "no worker lives"
            time.sleep(0.02)
        return found

    def _workers(self, condition: str) -> list[str]:
        pids = {self.stack.supervisor.children[name].pid: name for name in self.names("worker")}
        rows = self.rows(f"SELECT pid FROM dispatcher.workers w WHERE heartbeat_until > now() AND {condition}")
        return [pids[pid] for (pid,) in rows if pid in pids]

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.broker_url, socket_timeout=5)

    def flush_redis(self) -> None:
        with self.redis() as client:
            until(lambda: _answers(client), "Redis answers")
            client.flushall()

    def restart_postgres(self) -> None:
        """A restart in immediate mode: connections are cut, what was not committed is gone, the log is replayed."""
        postgres = self.stack.postgres
        assert postgres is not None
        self.stack.supervisor.restart("postgres", lambda: postgres.stop("immediate"))

    # --- what the database says

    def rows(self, sql: str, **values: Any) -> list[Any]:
        """Of one statement, tried again while the database is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.engine.connect() as connection:
                    return list(connection.execute(text(sql), values))
            except DBAPIError as error:
                if isinstance(error, ProgrammingError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def in_flight(self) -> int:
        return int(self.rows("SELECT count(*) FROM dispatcher.deliveries WHERE state = 'in_flight'")[0][0])

    def register(self, receiver: Receiver, targets: Sequence[Target]) -> None:
        """Registers an endpoint for each target, and tells the receiver their secrets."""
        register = self.registrar()
        found = {}
        for target in targets:
            with self._connected() as connection, connection.begin():
                asked = NewEndpoint(
                    url=receiver.url + target.path,
                    schedule=SCHEDULE[0],
                    event_types=list(target.types),
                    **target.values,
                )
                endpoint, secret = register.create(connection, asked)
            assert secret is not None
            found[target.path] = secret.reveal_whsec()
            self.targets.append(target)
            self.endpoint_ids[target.path] = endpoint.id
        receiver.know(found)

    def _connected(self) -> Connection:
        """A connection, as soon as the database admits one: a fault may just have restarted it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.engine.connect()
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def registrar(self) -> Register:
        """What registers endpoints, with this system's keys."""
        settings = self._settings(self.database_url)
        return wiring.register(replace(settings, secret_keys=secret_keys(self.data_dir)))


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


class UpSystem(System):
    """The same through `python -m dispatcher up`: its supervisor is a process of its own, which can be killed."""

    def command(self) -> list[str]:
        module = "tests.crash.process" if "CRASH_STEPS" in self._env else "dispatcher"
        return [sys.executable, "-m", module, "up", "--port", "0", "--workers", str(self.workers)]

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command(),
            env={**os.environ, **self._env, "DISPATCHER_DATA_DIR": str(self.data_dir)},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready))
        self._reader.start()
        if not ready.wait(PATIENCE_S) or (running := find_running(self.data_dir)) is None:
            self._process.kill()
            raise AssertionError("\n".join(self.lines))
        self._reach(running.database_url, running.broker_url)
        self.url = running.url

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._note("up", line.rstrip())
                if line.startswith("ready "):
                    ready.set()
        ready.set()

    def kill_supervisor(self) -> None:
        """As the kernel would: no handler runs. Its guard may still be stopping the others when this returns."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def wait(self) -> int:
        """Wait until `up` has left by itself; its exit code."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def kill_guard(self) -> None:
        """The process that would stop everything in the supervisor's place."""
        for one in processes.identify_all():
            if "dispatcher/local/guard.py" in one.command and _parent_of(one.pid) == self._process.pid:
                processes.send(one.pid, signal.SIGKILL)

    def take_all_workers(self) -> None:
        """Notes them now, since a worker that leaves deletes its row; and the supervisor's children, whatever they are,
        since a worker that is starting has no row yet.
        """
        self.note_workers()
        self.history.taken.update(self.history.workers.values())
        children = (one.pid for one in processes.identify_all() if _parent_of(one.pid) == self._process.pid)
        self.history.taken.update(children)

    def stop(self) -> None:
        self.engine.dispose()
        self._process.terminate()
        self.wait()
