"""The whole system on one machine: servers, then migrations, then our own processes."""

from __future__ import annotations

import http.client
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from dispatcher.errors import Unavailable
from dispatcher.local import processes
from dispatcher.local.accounts import server_account
from dispatcher.local.child import Program, print_line
from dispatcher.local.files import read_secret, write_secret
from dispatcher.local.lock import DataDirLock
from dispatcher.local.paths import default_data_dir, make_data_dir, remove_data_dir
from dispatcher.local.ports import free_port
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.local.secret_keys import secret_keys
from dispatcher.local.supervisor import Supervisor, stop_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Running:
    """A system that runs on a data directory: whose process it is, and how to reach it. The URLs hold passwords."""

    pid: int
    started: str
    url: str
    database_url: str
    broker_url: str


def find_running(data_dir: Path) -> Running | None:
    """Return the system that runs on this data directory now, for commands beside it; None without one.

    Raises Unavailable where the data directory is another user's.
    """
    try:
        text = read_secret(data_dir / "running")
    except PermissionError as error:
        raise Unavailable(
            f"The data directory {data_dir} is another user's: run this as that user, or set DISPATCHER_DATA_DIR."
        ) from error
    if text is None:
        return None
    running = Running(**json.loads(text))
    alive = processes.is_running(processes.Identity(running.pid, running.started, command=""))
    return running if alive else None


def standard_programs(host: str, port: int, *, workers: int, schedulers: int = 1, api: bool = True) -> list[Program]:
    """Return our processes; the API, which comes last, is ready when it says so at /readyz."""

    def program(name: str, command: str) -> Program:
        return Program(name, [sys.executable, "-m", "dispatcher", command])

    found = [program("scheduler" if schedulers == 1 else f"scheduler-{n}", "scheduler") for n in _counted(schedulers)]
    found += [program(f"worker-{n}", "worker") for n in _counted(workers)]
    if api:
        argv = [sys.executable, "-m", "dispatcher", "api"]
        found.append(Program("api", argv, ready=lambda: answers(host, port, "/readyz")))
    return found


def answers(host: str, port: int, path: str) -> bool:
    """Tell whether an HTTP server answers 200 there within a second. A wildcard address is asked on loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not bound
    connection = http.client.HTTPConnection(reachable, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Stack:
    """Servers and processes of one machine, started and stopped as one.

    `database_url` and `broker_url` name servers of the operator's; where one is None the server is embedded.
    `data_dir` None means the default one; it is used, and locked, only if a server is embedded. `port` 0 takes a free
    one. `migrate` gets the database's URL before any program starts. `programs` replaces the standard ones, which
    `workers`, `schedulers` and `api` count. `env` is added to every program's environment. `grace_s` is how long the
    programs may take to stop.
    """

    def __init__(
        self,
        *,
        migrate: Callable[[str], None],
        data_dir: Path | None = None,
        database_url: str | None = None,
        broker_url: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        workers: int = 2,
        schedulers: int = 1,
        api: bool = True,
        programs: Sequence[Program] | None = None,
        env: Mapping[str, str] | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        output: Callable[[str, str], None] = print_line,
        grace_s: float = 20.0,
    ) -> None:
        self.host = host
        self.port = port or free_port(host)
        self.data_dir: Path | None = None
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedRedis | None = None
        self._lock: DataDirLock | None = None
        if database_url is None or broker_url is None:
            self.data_dir = make_data_dir(data_dir or default_data_dir())
            self._lock = DataDirLock(self.data_dir)
        if self.data_dir is not None and database_url is None:
            self.postgres = EmbeddedPostgres(self.data_dir, postgres_settings)
        if self.data_dir is not None and broker_url is None:
            self.redis = EmbeddedRedis(self.data_dir)
        self._database_url = database_url
        self._broker_url = broker_url
        self._migrate = migrate
        if programs is None:
            programs = standard_programs(host, self.port, workers=workers, schedulers=schedulers, api=api)
        self._programs = programs
        self._env = dict(env or {})
        self.supervisor = Supervisor(
            record=None if self.data_dir is None else self.data_dir / "processes",
            output=output,
            grace_s=grace_s,
        )

    @property
    def url(self) -> str:
        """Where the API listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def database_url(self) -> str:
        """The database's URL, password included. Raises Unavailable before an embedded server was started."""
        return self._database_url if self.postgres is None else self.postgres.url  # type: ignore[return-value]

    @property
    def broker_url(self) -> str:
        """The broker's URL, password included. Raises Unavailable before an embedded server was started."""
        return self._broker_url if self.redis is None else self.redis.url  # type: ignore[return-value]

    def environment(self) -> dict[str, str]:
        """Return what every program gets in addition to our own environment; the servers must run."""
        found = {
            "DISPATCHER_DATABASE_URL": self.database_url,
            "DISPATCHER_BROKER_URL": self.broker_url,
            "DISPATCHER_HOST": self.host,
            "DISPATCHER_PORT": str(self.port),
            # Output that waits in a buffer is lost in a crash.
            "PYTHONUNBUFFERED": "1",
        }
        if self.data_dir is not None:
            found["DISPATCHER_DATA_DIR"] = str(self.data_dir)
            if self.postgres is not None and not os.environ.get("DISPATCHER_SECRET_KEYS"):
                found["DISPATCHER_SECRET_KEYS"] = secret_keys(self.data_dir)
        return {**found, **self._env}

    def start(self) -> None:
        """Start everything and return when it serves.

        What a killed predecessor left on the data directory is stopped first. Raises Unavailable, everything stopped
        again, when the data directory is in use or something does not start.
        """
        if self._lock is not None:
            self._lock.acquire()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        if self.data_dir is not None:
            stop_leftovers(self.data_dir / "processes")
        self.supervisor.start([server for server in (self.postgres, self.redis) if server is not None])
        if self.supervisor.interrupted:
            return
        self._migrate(self.database_url)
        environment = self.environment()
        self.supervisor.start(
            Program(one.name, one.argv, {**environment, **one.env}, one.cwd, one.ready, one.ready_timeout_s)
            for one in self._programs
        )
        if self.data_dir is not None:
            ourselves = processes.identify(os.getpid())
            assert ourselves is not None
            running = Running(ourselves.pid, ourselves.started, self.url, self.database_url, self.broker_url)
            write_secret(self.data_dir / "running", json.dumps(asdict(running)))

    def stop(self) -> None:
        """Stop everything in the reverse order of the start, and let go of the data directory."""
        self.supervisor.stop()
        if self.data_dir is not None and self._lock is not None and self._lock.held:
            (self.data_dir / "running").unlink(missing_ok=True)
            self._lock.release()

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, wait for SIGTERM or SIGINT, and stop. For the main thread."""

        def start() -> None:
            self.start()
            if not self.supervisor.interrupted:
                on_ready()

        try:
            self.supervisor.run(start)
        finally:
            self.stop()

    def remove(self) -> None:
        """Remove the data directory of a stopped, temporary system, with what was made for it elsewhere."""
        if self.data_dir is not None:
            remove_data_dir(self.data_dir, server_account())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _counted(number: int) -> range:
    return range(1, number + 1)
