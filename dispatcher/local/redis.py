"""Redis (or Valkey) as a child of this process, holding doorbells only: it persists nothing."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from dispatcher import telemetry
from dispatcher.errors import Unavailable
from dispatcher.local import binaries, processes
from dispatcher.local.accounts import server_account
from dispatcher.local.files import last_line, open_log, read_secret, require, tail, write_secret
from dispatcher.local.launch import launch
from dispatcher.local.paths import make_data_dir, make_servers_dir
from dispatcher.local.ports import free_port
from dispatcher.local.starting import START_TIMEOUT_S, StartLimit

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

_POLL_S = 0.01


class EmbeddedRedis:
    """One Redis server on a free port of 127.0.0.1, behind a generated password.

    TCP and not a Unix socket, since then one URL serves Celery (which says `redis+socket://`) and redis-py (which
    says `unix://`). As root, the server runs as `nobody`. Not thread-safe: one thread starts and stops it.
    """

    name = "redis"
    hung_steps: Final = ((signal.SIGKILL, 0.0),)

    def __init__(self, data_dir: Path, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self.data_dir = data_dir
        self._start_timeout_s = start_timeout_s
        self._password = secrets.token_urlsafe(24)
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process number; None when it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def log_path(self) -> Path:
        """The file that takes what the server prints."""
        return self.data_dir / "redis.log"

    @property
    def last_line(self) -> str:
        """What the server printed last."""
        return last_line(self.log_path)

    @property
    def url(self) -> str:
        """The URL for Celery and redis-py, password included; the same after every restart."""
        if self._port is None:
            raise Unavailable("Redis was not started yet.")
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start the server and return once it answers.

        A server that a killed predecessor left on this data directory is stopped first. Raises Unavailable, with the
        server's own last words, when it does not start, and FilesMissing where the data directory of its first start
        has vanished.
        """
        if self.pid is not None:
            return
        if self._port is None:
            self.data_dir = make_data_dir(self.data_dir)
        else:
            require(self.data_dir)
        account = server_account()
        program = binaries.find_redis(make_servers_dir(self.data_dir, account), account)
        self._stop_orphan()
        if self._port is None:
            self._port = free_port()
        with open_log(self.log_path) as log:
            # The configuration comes on stdin: a password on the command line is everybody's.
            self._process = launch([str(program), "-"], log, account, self._configuration().encode())
        self._write_pid()
        self._await_answer()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the server and return once it has left; after `timeout_s` it is killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._pid_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would: every doorbell is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end_slow_shutdown(self) -> None:
        """Do nothing: Redis waits for no client."""

    def restart(self) -> None:
        """Stop and start the server, which is empty afterwards; its URL stays."""
        self.stop()
        self.start()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the server to leave; its exit code, or None when it still runs after `timeout_s`."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    @property
    def _pid_path(self) -> Path:
        return self.data_dir / "redis.pid"

    def _write_pid(self) -> None:
        assert self._process is not None
        if (found := processes.identify(self._process.pid)) is not None:
            try:
                write_secret(self._pid_path, f"{found.pid} {found.started}")
            except OSError as error:
                # Without the file one Redis, which holds nothing, may outlive a killed supervisor and its killed guard.
                telemetry.log(_log, logging.ERROR, "process.list_failed", file=self._pid_path, error=error)

    def _configuration(self) -> str:
        lines = [
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self._password}",
            'save ""',
            "appendonly no",
            "dir /",
            "daemonize no",
            "timeout 0",
            "tcp-keepalive 60",
        ]
        return "\n".join(lines) + "\n"

    def _await_answer(self) -> None:
        assert self._process is not None
        limit = StartLimit(self._start_timeout_s)
        while not self.shows_life():
            if self._process.poll() is not None:
                raise Unavailable(f"Redis does not start: {tail(self.log_path)}")
            if limit.exceeded(self.log_path.stat().st_size):
                self.stop()
                raise Unavailable(f"Redis does not answer, and {limit}: {tail(self.log_path)}")
            time.sleep(_POLL_S)

    def shows_life(self, timeout_s: float = 2.0) -> bool:
        """Tell whether our server, which takes our password, is there. The inline protocol needs no client."""
        try:
            with socket.create_connection(("127.0.0.1", self._port or 0), timeout=timeout_s) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                expected = b"+OK\r\n+PONG\r\n"
                found = b""
                while len(found) < len(expected) and (part := connection.recv(64)):
                    found += part
                return found == expected
        except OSError:
            return False

    def _stop_orphan(self) -> None:
        """Stop the server that a killed supervisor left on this data directory."""
        recorded = read_secret(self._pid_path)
        if recorded is None:
            return
        pid, _, started = recorded.partition(" ")
        steps = [(signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)]
        if pid.isdigit() and not processes.stop(processes.Identity(int(pid), started, command=""), steps):
            raise Unavailable(f"Redis process {pid} of {self.data_dir} cannot be stopped.")
        self._pid_path.unlink(missing_ok=True)
