"""PostgreSQL as a child of this process, on a Unix socket that only we can reach."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from dispatcher.errors import Unavailable
from dispatcher.local import binaries, processes
from dispatcher.local.accounts import server_account
from dispatcher.local.files import FilesMissing, last_line, open_log, read_secret, require, tail, write_secret
from dispatcher.local.launch import launch, server_environment
from dispatcher.local.paths import key_of, make_data_dir, make_servers_dir, make_socket_dir
from dispatcher.local.starting import START_TIMEOUT_S, StartLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dispatcher.local.accounts import Account

StopMode = Literal["fast", "immediate", "kill"]

ROLE = "dispatcher"
DATABASE = "dispatcher"
PORT = 5432  # names the socket's file only: nothing listens on TCP

DEFAULT_SETTINGS: Mapping[str, str] = {
    # Durability is what the product promises, so it is spelled out.
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    # Nobody replicates from an embedded server: the WAL carries what recovery needs and no more.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # A full-page image follows each checkpoint: fewer of them, spread out.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    # Our statements are short; compiling them costs more than running them.
    "jit": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    # A DETAIL line quotes rows, and rows hold payloads.
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
    "kill": signal.SIGKILL,
}
_STATUS_LINE = 7  # of postmaster.pid, counted from 0: LOCK_FILE_LINE_PM_STATUS of PostgreSQL's miscadmin.h
# How long a stop in immediate mode may take before SIGKILL.
IMMEDIATE_S: Final = 15.0
_POLL_S = 0.02
# Each try that is refused is a line in the server's log, so a long recovery is asked less often.
_SLOW_POLL_S, _SLOW_POLL_AFTER_S = 0.25, 2.0
_LOG_BYTES = 64_000  # of a log's end, in which a recovery's progress is looked for
# Parallel queries take their shared memory from /dev/shm; Docker gives 64 MB by default.
_SHM_BYTES = 128 * 1024 * 1024
# One segment of the WAL: with less than this left, a server may find no room to start.
_LITTLE_ROOM_BYTES = 16 * 1024 * 1024


class EmbeddedPostgres:
    """One PostgreSQL cluster below a data directory, and the server process that serves it.

    Connections go through a Unix socket in a 0700 folder and prove a generated password (SCRAM). As root, the server
    runs as `nobody`. `settings` (name → value in the server's own notation) override `DEFAULT_SETTINGS`. A start is
    waited for while its log moves, at most `start_timeout_s` when it does not, and until `interrupted`. Not
    thread-safe: one thread starts and stops it.
    """

    name = "postgres"
    # Immediate mode takes 5 s where a backend hangs: then the server itself kills it.
    hung_steps: Final = ((signal.SIGQUIT, IMMEDIATE_S), (signal.SIGKILL, 0.0))

    def __init__(
        self,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        interrupted: Callable[[], bool] = bool,
    ) -> None:
        self.data_dir = data_dir
        self._start_timeout_s = start_timeout_s
        self._interrupted = interrupted
        self.settings: dict[str, str] = {**DEFAULT_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._cluster = data_dir / "postgres"
        self._password = ""
        self._started_on: Path | None = None

    @property
    def pid(self) -> int | None:
        """The server's process number; None when it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def log_path(self) -> Path:
        """The file that takes what the server prints."""
        return self.data_dir / "postgres.log"

    @property
    def last_line(self) -> str:
        """What the server printed last, but for the refusals of our own tries to connect."""
        return last_line(self.log_path, _LOG_BYTES, without=" FATAL: ")

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy with psycopg, password included; the same after every restart."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of another database of this server. Raises Unavailable before the first start."""
        if self._socket_dir is None:
            raise Unavailable("PostgreSQL was not started yet.")
        host = quote(str(self._socket_dir), safe="/")
        return f"postgresql+psycopg://{ROLE}:{self._password}@/{quote(database)}?host={host}&port={PORT}"

    def connect(self, database: str = DATABASE, *, timeout_s: int = 5) -> psycopg.Connection:
        """Open a connection in autocommit mode, for administration."""
        return psycopg.connect(
            host=str(self._socket_dir),
            port=PORT,
            user=ROLE,
            password=self._password,
            dbname=database,
            connect_timeout=timeout_s,
            autocommit=True,
        )

    def start(self) -> None:
        """Start the server, creating the cluster where there is none, and return once it answers.

        A server that a killed predecessor left on this data directory is stopped first. Raises Unavailable, with the
        server's own last words, when it does not start. Only the first start creates anything: a later one raises
        FilesMissing where what it started on has vanished.
        """
        if self.pid is not None:
            return
        account = server_account()
        if self._started_on is None:
            self.data_dir = make_data_dir(self.data_dir)
            servers_dir = make_servers_dir(self.data_dir, account)
            cluster = servers_dir / "postgres"
        else:
            cluster = self._started_on
            servers_dir = cluster.parent
            for path in (self.data_dir, cluster, cluster / "PG_VERSION", self.data_dir / "postgres_password"):
                require(path)
        self._cluster = cluster
        program = binaries.find_postgres(servers_dir, account, cluster)
        if not (cluster / "PG_VERSION").exists():
            self._create_cluster(program, cluster)
        password = check_cluster(self.data_dir, cluster, account)
        if self._started_on is not None and password != self._password:
            raise FilesMissing(
                f"{self.data_dir} holds another cluster than the one that this system started on: "
                "was a volume unmounted?"
            )
        self._password = password
        self._stop_orphan(cluster)
        self._socket_dir = make_socket_dir(self.data_dir, account)
        for stale in self._socket_dir.glob(f".s.PGSQL.{PORT}*"):
            stale.unlink()  # its lock file names a process whose number may be another program's by now
        argv = [str(program / "postgres"), "-D", str(cluster), "-k", str(self._socket_dir)]
        settings = {
            **self.settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_permissions": "0700",
            "dynamic_shared_memory_type": _shared_memory_type(),
            # The processes of this cluster carry it in their titles: see _stop_orphan.
            "cluster_name": self._cluster_name,
        }
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        until = time.monotonic() + self._start_timeout_s
        while not self._launch(argv):
            # Backends of a killed server may hold its shared memory for a moment; longer only if they hang.
            if time.monotonic() > until:
                raise Unavailable(f"PostgreSQL does not start: {tail(self.log_path)}")
            self._kill_backends()
        self._create_database()
        self._started_on = cluster

    def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """Stop the server: `fast` rolls back what is open, `immediate` and `kill` leave recovery to the next start.

        After `timeout_s` it is stopped in immediate mode, and killed only if that does not help in `IMMEDIATE_S`.
        Returns once it has left.
        """
        process = self._process
        if process is None:
            return
        ladder = ["fast", "immediate", "kill"]
        steps: list[StopMode] = [step for step in _STOP_SIGNALS if ladder.index(step) >= ladder.index(mode)]
        for step in steps:
            if process.poll() is None:
                process.send_signal(_STOP_SIGNALS[step])
            if process.poll() is None and step != mode:
                process.send_signal(signal.SIGCONT)  # a stopped process takes no other signal but SIGKILL
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s if step == mode else max(timeout_s, IMMEDIATE_S))
                break
        self._process = None

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would."""
        self.stop("kill")

    def end_slow_shutdown(self) -> None:
        """Make a smart shutdown, which SIGTERM began, a fast one.

        It refuses every new connection for as long as one client stays, and some client may need a new one.
        """
        pid = self.pid
        if pid is not None and self._status() == "stopping":
            processes.send(pid, _STOP_SIGNALS["fast"])

    def _status(self) -> str:
        """What the server says of itself in its lock file: starting, ready, stopping; empty where it says nothing."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start the server; its URL stays."""
        self.stop(mode)
        self.start()

    def shows_life(self, timeout_s: float = 5.0) -> bool:
        """Tell whether the server answers within about `timeout_s`.

        One that refuses us for another reason than its own shutdown, such as too many connections or a recovery that
        is under way, answers too. Once connected, this waits for as long as the server takes.
        """
        try:
            with self.connect("postgres", timeout_s=max(2, math.ceil(timeout_s))) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            return "FATAL" in str(error) and "shutting down" not in str(error)
        return True

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the server to leave; its exit code, or None when it still runs after `timeout_s`."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    @property
    def _cluster_name(self) -> str:
        return f"dispatcher-{key_of(self.data_dir)}"

    def _create_cluster(self, program: Path, cluster: Path) -> None:
        """Run initdb in a folder beside and move it into place, so that a cluster exists whole or not at all."""
        account = server_account()
        building = cluster.with_name(f"{cluster.name}.new")
        binaries.remove_tree(building)
        building.mkdir(mode=0o700)
        account.own(building)
        self._password = secrets.token_urlsafe(24)
        password_file = building.with_name("postgres.pw")
        write_secret(password_file, self._password)
        account.own(password_file)
        argv = [str(program / "initdb"), "-D", str(building), f"--username={ROLE}", f"--pwfile={password_file}"]
        argv += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        # The default of 4,096 rounds makes weak passwords costly to guess. Ours is 192 random bits, and the rounds cost
        # each client 2 ms of the 4 that a connection takes.
        argv += ["-c", "scram_iterations=1"]
        if self.settings["fsync"] == "off":
            argv.append("--no-sync")
        try:
            ended = subprocess.run(
                argv,
                cwd="/",
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                **account.popen_arguments(),
            )
        except OSError as error:
            raise Unavailable(f"PostgreSQL's initdb does not run: {error}.") from error
        finally:
            password_file.unlink()
        if ended.returncode:
            raise Unavailable(f"PostgreSQL's initdb failed: {_last_reason(ended.stdout.decode(errors='replace'))}")
        write_secret(self.data_dir / "postgres_password", self._password)
        building.rename(cluster)

    def _launch(self, argv: list[str]) -> bool:
        """Start the process and wait till it answers; False when it left because memory of a dead one is in use.

        A recovery logs its progress every ten seconds (`log_startup_progress_interval`), however long it takes.
        """
        account = server_account()
        with open_log(self.log_path) as log:
            written = log.tell()
            self._process = launch(argv, log, account)
        limit, began_s = StartLimit(self._start_timeout_s), time.monotonic()
        while True:
            if self._process.poll() is not None:
                words = self._words_since(written)
                if "shared memory block" in words:
                    return False
                raise Unavailable(f"PostgreSQL does not start: {_last_reason(words)}{self._lack_of_room()}")
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    self.stop("immediate")
                    raise Unavailable(
                        f"PostgreSQL started but does not let us in: {_last_reason(self._words_since(written))}"
                    ) from error
                if self._interrupted():
                    self.stop("immediate")  # what a recovery has done is kept or done again
                    raise Unavailable("PostgreSQL was told to stop while it was starting.") from error
                if limit.exceeded(self.last_line):
                    self.stop("immediate")
                    raise Unavailable(
                        f"PostgreSQL does not answer, and {limit}: {_last_reason(self._words_since(written))}"
                    ) from error
                time.sleep(_POLL_S if time.monotonic() - began_s < _SLOW_POLL_AFTER_S else _SLOW_POLL_S)
            else:
                return True

    def _lack_of_room(self) -> str:
        """Say that the disk is full, if it is: then the server's own words are often missing, or tell of a symptom."""
        room = os.statvfs(self.data_dir)
        free = room.f_frsize * room.f_bavail
        return f" ({self.data_dir} has {free // 2**20} MB left)" if free < _LITTLE_ROOM_BYTES else ""

    def _words_since(self, offset: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(offset)
            return log.read(64_000).decode(errors="replace")

    def _create_database(self) -> None:
        with self.connect("postgres") as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _stop_orphan(self, cluster: Path) -> None:
        """Stop the server that a killed supervisor left on this cluster; remove a lock file that nobody holds."""
        lock_file = cluster / "postmaster.pid"
        try:
            pid = int(lock_file.read_text().partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return
        found = processes.identify(pid)
        if found is None:
            # PostgreSQL needs the stale file: it names the shared memory that backends may still be attached to.
            return
        if str(cluster) not in found.command or "postgres" not in found.command:
            # The number is some other program's by now, and PostgreSQL would take that for a server.
            self._kill_backends()
            lock_file.unlink()
            return
        steps = [(signal.SIGINT, 15.0), (signal.SIGQUIT, IMMEDIATE_S), (signal.SIGKILL, 5.0)]
        if not processes.stop(found, steps):
            raise Unavailable(f"PostgreSQL process {found.pid} of {self.data_dir} cannot be stopped.")

    def _kill_backends(self) -> None:
        """Kill the processes of a killed server of ours that have not noticed yet."""
        title = f"postgres: {self._cluster_name}: "
        for found in processes.identify_all():
            if found.command.startswith(title):
                processes.send(found.pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def check_cluster(data_dir: Path, cluster: Path, account: Account) -> str:
    """The password of the cluster. Raises Unavailable where it belongs to another user or has none."""
    if (owner := cluster.stat().st_uid) != account.uid:
        raise Unavailable(f"{cluster} belongs to user {owner}, and PostgreSQL would run as {account.name}.")
    kept = read_secret(data_dir / "postgres_password")
    if kept is None:
        raise Unavailable(f"{data_dir} holds a cluster but not the file postgres_password that opens it.")
    return kept


def _shared_memory_type() -> str:
    """Where parallel queries share memory: /dev/shm when it is roomy, else files of the data directory."""
    if os.uname().sysname != "Linux":
        return "posix"
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108 - only looked at
    except OSError:
        return "mmap"
    return "posix" if room.f_frsize * room.f_bavail >= _SHM_BYTES else "mmap"


def _last_reason(words: str) -> str:
    lines = [line for line in words.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR", "error:"))]
    return (telling or lines or ["it printed nothing."])[-1]
