"""Processes that stop without leaving: they are noticed and replaced, and what they held goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dispatcher.local.child import Child
from tests.crash.judge import judge
from tests.crash.load import Load, standard_targets
from tests.support.ledger import Ledger
from tests.support.patience import until
from tests.support.system import System

pytestmark = pytest.mark.crash


@pytest.fixture
def system(ledger: Ledger) -> Iterator[System]:
    with System(workers=1, schedulers=1, api=True, term_s=3) as found:
        found.register(ledger, standard_targets())
        yield found


def test_a_worker_a_scheduler_and_an_api_that_hang_are_replaced(
    system: System, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = system.stack.supervisor
    hung = [supervisor.children[name] for name in ("worker-1", "scheduler", "api")]
    # One that has not shown any sign of life yet is still starting.
    until(lambda: all(isinstance(child, Child) and child._has_pulse and child.pid for child in hung), "they live")
    pids = {child.name: supervisor.kill(child.name, signal.SIGSTOP) for child in hung}
    system.history.taken.update(pids.values())
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "hang_timeout_s", 3.0)
        until(lambda: all(child.pid not in (None, pids[child.name]) for child in hung), "they are replaced")
    with Load(system, count=100, seconds=0.5) as load:
        pass
    load.drain()
    verdict = judge(system, ledger, load)
    assert verdict.sound, verdict
