"""Every seeded bug and every step still fits the product. That each bug is found: `make crash ARGS=--seeded`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crash.bugs import BUGS
from tests.crash.judge import JUDGES
from tests.support.system import REPOSITORY

pytestmark = pytest.mark.crash

# Each in a child of its own, which takes its patches along; the modules are imported once.
PLANT_ALL = """
import os, pathlib
import dispatcher.api.serve, dispatcher.workers.process, dispatcher.workers.scheduler
import dispatcher.store.erasures, dispatcher.store.replay_endpoints
from tests.crash import bugs, steps
def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
works = {bug.name: bug.plant for bug in bugs.BUGS.values()}
works |= {role: (lambda role=role: steps.watch(pathlib.Path("."), role)) for role in ("worker", "scheduler", "api")}
failed = [name for name, work in works.items() if child(work)]
assert not failed, failed
print(len(works))
"""


def test_every_seeded_bug_and_every_step_fits_the_product() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == len(BUGS) + 3
    assert len(BUGS) >= 15
    assert all(set(bug.judges) <= JUDGES.keys() for bug in BUGS.values())
