"""PgBouncer in transaction mode before a server of the tests: Debian's program, a process of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg
from sqlalchemy.engine import make_url

from dispatcher.local.accounts import server_account
from dispatcher.local.ports import free_port
from tests.support.patience import PATIENCE_S

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

SETTINGS = """
[databases]
{database} = host={host} port={port} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 300
server_round_robin = 1
{more}
"""


class Pooler:
    """Pools connections to the database that `database_url` names; clients need no password. `url` leads through it."""

    def __init__(self, database_url: str, *, connections: int = 3, more: str = "") -> None:
        assert PROGRAM is not None
        server = make_url(database_url)
        port = free_port("127.0.0.1")
        self.url = f"postgresql+psycopg://anybody@127.0.0.1:{port}/{server.database}"
        self._account = server_account()  # it refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="dispatcher-pooler-"))
        self._file = self._folder / "pgbouncer.ini"
        self._file.write_text(
            SETTINGS.format(
                database=server.database,
                host=server.query["host"],
                port=server.query["port"],
                user=server.username,
                password=server.password,
                listen_port=port,
                connections=connections,
                more=more,
            )
        )
        for path in (self._folder, self._file):
            path.chmod(0o700 if path.is_dir() else 0o600)
            self._account.own(path)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns once it answers."""
        assert PROGRAM is not None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-q", str(self._file)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._account.popen_arguments(),
            )
        until = time.monotonic() + PATIENCE_S
        while True:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            try:
                psycopg.connect(self.url.replace("+psycopg", "", 1), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Ends it as a crash would: every connection through it is cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)
