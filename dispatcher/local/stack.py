"""The whole system on one machine: servers, then migrations, then our own processes."""

from __future__ import annotations

import errno
import http.client
import json
import os
import secrets
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from dispatcher.config import COMMAND_LINE_KEY
from dispatcher.errors import Unavailable
from dispatcher.local import processes
from dispatcher.local.accounts import server_account
from dispatcher.local.child import Program, print_line
from dispatcher.local.files import write_secret
from dispatcher.local.lock import DataDirLock
from dispatcher.local.paths import default_data_dir, make_data_dir, remove_data_dir
from dispatcher.local.ports import check_port, free_port
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.local.running import Running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.local.starting import START_TIMEOUT_S, announced
from dispatcher.local.supervisor import Supervisor, stop_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def standard_programs(
    host: str, port: int, *, workers: int, schedulers: int = 1, api: bool = True, command_line_key: str = ""
) -> list[Program]:
    """Return our processes; the API, which comes last, is ready when it says so at /readyz.

    `command_line_key` is told to the API alone.
    """

    def program(name: str, command: str) -> Program:
        return Program(name, [sys.executable, "-m", "dispatcher", command])

    found = [program("scheduler" if schedulers == 1 else f"scheduler-{n}", "scheduler") for n in _counted(schedulers)]
    found += [program(f"worker-{n}", "worker") for n in _counted(workers)]
    if api:
        argv = [sys.executable, "-m", "dispatcher", "api"]
        env = {COMMAND_LINE_KEY: command_line_key} if command_line_key else {}
        found.append(Program("api", argv, env, ready=lambda: answers(host, port, "/readyz")))
    return found


def reachable(host: str) -> str:
    """Where this machine reaches what listens on `host`: a wildcard address on loopback.

    >>> reachable("0.0.0.0"), reachable("192.0.2.1")
    ('127.0.0.1', '192.0.2.1')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not bound


def answers(host: str, port: int, path: str) -> bool:
    """Tell whether an HTTP server answers 200 there within a second."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=1)
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
    `data_dir` None means the default one; it is locked, and says to the commands of this machine how to reach the
    API. `port` 0 takes a free one. `migrate` gets the database's URL before any program starts. `programs` replaces
    the standard ones, which `workers`, `schedulers` and `api` count. `env` is added to every program's environment.
    `grace_s` is how long the programs may take to stop, `start_timeout_s` how long each server and the API may take to
    start without showing any progress, `hang_timeout_s` how long one may show no sign of life.
    """

    def __init__(
        self,
        *,
        migrate: Callable[[str], None],
        data_dir: Path | None = None,
        database_url: str | None = None,
        direct_database_url: str | None = None,
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
        start_timeout_s: float = START_TIMEOUT_S,
        hang_timeout_s: float = 60.0,
    ) -> None:
        self.host = host
        self.port = port or free_port(host)
        self._port_given = bool(port)
        self.data_dir = make_data_dir(data_dir or default_data_dir())
        self.postgres = None
        if database_url is None:
            self.postgres = EmbeddedPostgres(
                self.data_dir,
                postgres_settings,
                start_timeout_s=start_timeout_s,
                interrupted=lambda: self.supervisor.interrupted,
            )
        self.redis = EmbeddedRedis(self.data_dir, start_timeout_s=start_timeout_s) if broker_url is None else None
        self._lock = DataDirLock(self.data_dir)
        self._command_line_key = f"dcl_{secrets.token_urlsafe(32)}"
        self._database_url = database_url
        self._direct_database_url = direct_database_url
        self._broker_url = broker_url
        self._migrate = migrate
        if programs is None:
            programs = standard_programs(
                host,
                self.port,
                workers=workers,
                schedulers=schedulers,
                api=api,
                command_line_key=self._command_line_key,
            )
        self._programs = programs
        self._env = dict(env or {})
        self.supervisor = Supervisor(
            record=self.data_dir / "processes",
            output=output,
            grace_s=grace_s,
            start_timeout_s=start_timeout_s,
            hang_timeout_s=hang_timeout_s,
        )

    @property
    def url(self) -> str:
        """Where the API listens."""
        return _url(self.host, self.port)

    @property
    def database_url(self) -> str:
        """The database's URL, password included. Raises Unavailable before an embedded server was started."""
        return self._database_url if self.postgres is None else self.postgres.url  # type: ignore[return-value]

    @property
    def broker_url(self) -> str:
        """The broker's URL, password included. Raises Unavailable before an embedded server was started."""
        return self._broker_url if self.redis is None else self.redis.url  # type: ignore[return-value]

    @property
    def _keeps_keyring(self) -> bool:
        """Whether nobody gave a keyring, so that the data directory keeps one."""
        return self.postgres is not None and not os.environ.get("DISPATCHER_SECRET_KEYS")

    def environment(self) -> dict[str, str]:
        """Return what every program gets in addition to our own environment; the servers must run."""
        found = {
            "DISPATCHER_DATABASE_URL": self.database_url,
            "DISPATCHER_BROKER_URL": self.broker_url,
            "DISPATCHER_HOST": self.host,
            "DISPATCHER_PORT": str(self.port),
            "DISPATCHER_DATA_DIR": str(self.data_dir),
            # Output that waits in a buffer is lost in a crash.
            "PYTHONUNBUFFERED": "1",
        }
        if self._direct_database_url is not None:
            found["DISPATCHER_DIRECT_DATABASE_URL"] = self._direct_database_url
        if self._keeps_keyring:
            found["DISPATCHER_SECRET_KEYS"] = secret_keys(self.data_dir)
        return {**found, **self._env}

    def start(self) -> None:
        """Start everything and return when it serves.

        What a killed predecessor left on the data directory is stopped first. Raises Unavailable, everything stopped
        again, when the data directory is in use or something does not start.
        """
        self._lock.acquire()
        try:
            self._start()
        except OSError as error:
            self.stop()
            if error.errno not in _DISK_ERRORS:
                raise
            raise Unavailable(f"The data directory {self.data_dir} cannot be written: {error.strerror}.") from error
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        stop_leftovers(self.data_dir / "processes")
        # Only now: what was left over may have listened on it.
        if self._port_given:
            check_port(self.host, self.port)
        self.supervisor.start([server for server in (self.postgres, self.redis) if server is not None])
        if self.supervisor.interrupted:
            return
        with announced("migrate"):
            self._migrate(self.database_url)
        environment = self.environment()
        self.supervisor.start(
            Program(one.name, one.argv, {**environment, **one.env}, one.cwd, one.ready) for one in self._programs
        )
        ourselves = processes.identify(os.getpid())
        assert ourselves is not None
        running = Running(
            ourselves.pid,
            ourselves.started,
            _url(reachable(self.host), self.port),
            self.database_url,
            self.broker_url,
            self._command_line_key,
            keeps_keyring=self._keeps_keyring,
            direct_database_url=self._direct_database_url,
        )
        write_secret(self.data_dir / "running", json.dumps(asdict(running)))

    def stop(self) -> None:
        """Stop everything in the reverse order of the start, and let go of the data directory."""
        self.supervisor.stop()
        if self._lock.held:
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
        remove_data_dir(self.data_dir, server_account())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _counted(number: int) -> range:
    return range(1, number + 1)
