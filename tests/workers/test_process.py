"""What a worker process does for itself before it works, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from dispatcher import broker
from dispatcher.errors import Unavailable
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.workers.app import QUEUE, Bell, make_app
from tests.support import walk
from tests.support.patience import until
from tests.support.tls import Authority

CODE = """
import resource
from dispatcher.workers.process import OPEN_FILES, allow_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_open_files()
soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(soft == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)))
allow_open_files()
"""


def test_a_low_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


@contextmanager
def started(database_url: str, *argv: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours on this database, and on a broker that does not listen."""
    ours = {
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": "redis://user:secret-word@127.0.0.1:1/0",
        "DISPATCHER_SECRET_KEYS": walk.KEYS.reveal(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with subprocess.Popen(
        [sys.executable, *argv], env=os.environ | ours | env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_without_a_broker_a_worker_starts_and_sigterm_drains_it(migrated_database_url: str) -> None:
    with started(migrated_database_url, "-m", "dispatcher", "worker") as worker:
        assert worker.stderr is not None
        said = []
        for line in worker.stderr:
            said.append(line)
            if "broker.unusable" in line:
                worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, said
    whole = "".join(said)
    assert "broker.unusable broker=redis://127.0.0.1:1/0 error=" in whole
    assert "worker.stopped" in whole
    assert "secret-word" not in whole
    assert "Traceback" not in whole


def test_a_worker_that_nobody_asked_to_stop_drains_and_exits_with_an_error(migrated_database_url: str) -> None:
    """Celery ends itself in several ways, and says of each that it was fine."""
    code = (
        "from celery import Celery; Celery.worker_main = lambda *_: 0; "
        "from dispatcher.workers import process; process.main()"
    )
    with started(migrated_database_url, "-c", code) as worker:
        _, said = worker.communicate()
    assert worker.returncode == 70
    assert "worker.stopped" in said
    assert "worker.failed duty=consumer" in said


def test_a_worker_takes_bells_over_tls_as_a_user_with_few_rights(
    migrated_database_url: str, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """The embedded server has no TLS, so a proxy ends it; the user is the one of docs/operations.md."""
    operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (rule,) = re.findall(r"^ACL SETUSER dispatcher .*$", operations, re.MULTILINE)
    authority = Authority.create(tmp_path)
    place = urlsplit(redis_server.url)
    assert place.port is not None
    with (
        redis.Redis.from_url(redis_server.url) as admin,
        tls_proxy(authority.server_context("127.0.0.1"), place.port) as port,
    ):
        admin.execute_command(*rule.split())
        url = (
            f"rediss://dispatcher:password@127.0.0.1:{port}/0"
            f"?ssl_cert_reqs=required&ssl_ca_certs={authority.certificate_file()}"
        )
        assert broker.try_write(url) > 0
        assert broker.listeners(url) == 0
        with pytest.raises(Unavailable, match="certificate verify failed"):
            broker.try_write(url.partition("&")[0])
        bell = Bell(make_app(url))
        with started(migrated_database_url, "-m", "dispatcher", "worker", DISPATCHER_BROKER_URL=url) as worker:
            bell(3)
            until(lambda: not admin.llen(QUEUE), "the worker has taken the bells")
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate()
        bell.close()
        admin.acl_deluser("dispatcher")
    assert worker.returncode == 0, said
    assert "broker.unusable" not in said


@contextmanager
def tls_proxy(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """A TLS server that passes on to this port; gives its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.close()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context), loop)
    server = listening.result()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def end(server: asyncio.Server) -> None:
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
