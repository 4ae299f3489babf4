"""The whole system as `dispatcher up` runs it, on a fresh data directory, with its endpoints registered."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self
from uuid import UUID

import psycopg

from bench.accounting import Servers
from dispatcher import config, wiring
from dispatcher.flow.register import NewEndpoint
from dispatcher.ids import uuid7
from dispatcher.local.child import Program
from dispatcher.local.ports import free_port
from dispatcher.local.stack import Stack, standard_programs

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""The embedded server's own defaults, said again: a benchmark that does not wait for the disk measures something else.

They are read back from the server and stand in the result."""

KEY = f"dsk_{secrets.token_urlsafe(32)}"

_LOGGED = 'exec "$@" >>"$0" 2>&1'


def logging_to(path: Path, program: Program) -> Program:
    """The program with its output in a file, as in production; a shell replaces itself by it."""
    return replace(program, argv=["/bin/sh", "-c", _LOGGED, str(path), *program.argv])


class System:
    """Servers, scheduler and workers. A context manager; everything it made is removed at the end.

    `env` is the programs' own. `workers` 0 runs the servers alone, with `api` the HTTP API beside them, whose key is
    `KEY`: it is not on the walk.
    """

    def __init__(
        self, *, workers: int, durable: bool = True, api: bool = False, env: Mapping[str, str] | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dispatcher-bench-"))
        self.log_path = self._folder / "programs.log"
        self.workers = workers
        port = free_port("127.0.0.1") if api else 0
        programs = standard_programs("127.0.0.1", port, workers=workers, api=api)
        if not workers:
            programs = [program for program in programs if program.name == "api"]
        self.stack = Stack(
            migrate=lambda url: wiring.prepare_database(config.with_database(config.Settings(), url)),
            data_dir=self._folder / "data",
            port=port,
            programs=[logging_to(self.log_path, program) for program in programs],
            env={
                "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8",
                "DISPATCHER_SHUTDOWN_GRACE_S": "1",
                "DISPATCHER_BOOTSTRAP_KEY": KEY,
                **(env or {}),
            },
            postgres_settings=DURABLE if durable else {"fsync": "off"},
            output=lambda *_: None,
            grace_s=8,
        )

    def __enter__(self) -> Self:
        # The servers run as another user where we are root, and must reach their folder.
        self._folder.chmod(0o711)
        try:
            self.stack.start()
            self.settings = config.load(self.stack.environment())
            self.servers = Servers(self.stack.database_url, self.stack.broker_url)
            self._connection = psycopg.connect(self.dsn, autocommit=True)
            self._await_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for opened in ("_connection", "servers"):
            if hasattr(self, opened):
                getattr(self, opened).close()
        self.stack.stop()
        self.stack.remove()
        self.log_path.unlink(missing_ok=True)
        self._folder.rmdir()

    @property
    def dsn(self) -> str:
        """The database's URL as libpq writes it."""
        return self.stack.database_url.replace("postgresql+psycopg", "postgresql")

    def pids(self) -> dict[str, list[int]]:
        """Whose CPU counts, by name."""
        found: dict[str, list[int]] = {}
        for name, service in self.stack.supervisor.children.items():
            if service.pid is not None:
                found.setdefault(name.split("-", 1)[0], []).append(service.pid)
        return found

    def add_endpoints(
        self, urls: Sequence[str], *, per_tenant: int = 1, max_in_flight: int = 64
    ) -> tuple[list[UUID], dict[str, bytes]]:
        """Registers an endpoint for each URL, `per_tenant` of them for each new tenant, all for every type of event.

        Returns the tenants, and each URL's path with its secret. Merchants are tenants, so with one endpoint a tenant
        an event goes to one endpoint among all, as it does in production.
        """
        register = wiring.register(self.settings)
        engine = wiring.engine(self.settings)
        tenants: list[UUID] = []
        secrets: dict[str, bytes] = {}
        with engine.begin() as connection:
            for n, url in enumerate(urls):
                if n % per_tenant == 0:
                    tenants.append(uuid7())
                    connection.exec_driver_sql(
                        "INSERT INTO dispatcher.tenants (id, name) VALUES (%s, %s)", (tenants[-1], str(tenants[-1]))
                    )
                asked = NewEndpoint(url=url, tenant_id=tenants[-1], max_in_flight=max_in_flight)
                _, secret = register.create(connection, asked)
                assert secret is not None
                secrets["/" + url.split("/", 3)[3]] = secret.reveal()
        engine.dispose()
        return tenants, secrets

    def count(self, table: str) -> int:
        """The rows of one of the system's tables."""
        row = self._connection.execute(f"SELECT count(*) FROM dispatcher.{table}").fetchone()
        assert row is not None
        return int(row[0])

    def is_all_recorded(self) -> bool:
        """Whether no delivery is live; costs next to nothing while one is."""
        row = self._connection.execute("SELECT EXISTS (SELECT FROM dispatcher.deliveries)").fetchone()
        return row == (False,)

    def await_recorded(self, timeout_s: float) -> bool:
        """Waits until no delivery is live; False where the time did not suffice."""
        until = time.monotonic() + timeout_s
        while not self.is_all_recorded():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def log_lines(self) -> int:
        """Lines that the programs have logged about attempts: ours, and those of the plain Celery task."""
        try:
            log = self.log_path.read_bytes()
            return log.count(b" delivery.attempted ") + log.count(b" attempt.made ")
        except FileNotFoundError:
            return 0

    def _await_workers(self) -> None:
        until = time.monotonic() + 30
        while self.count("workers") < self.workers:
            if time.monotonic() > until:
                log = self.log_path.read_text(errors="replace")[-2000:] if self.log_path.exists() else ""
                raise RuntimeError(f"the workers do not start:\n{log}")
            time.sleep(0.05)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
