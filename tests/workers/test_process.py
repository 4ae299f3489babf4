"""What a worker process does for itself before it works, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import walk

CODE = """
import resource
from workers.process import OPEN_FILES, allow_open_files
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
    code = "from celery import Celery; Celery.worker_main = lambda *_: 0; from workers import process; process.main()"
    with started(migrated_database_url, "-c", code) as worker:
        _, said = worker.communicate()
    assert worker.returncode == 70
    assert "worker.stopped" in said
    assert "worker.failed duty=consumer" in said
