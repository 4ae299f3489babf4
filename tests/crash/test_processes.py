"""Workers taken in the middle of their work: killed, and stopped for longer than their term."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest

from dispatcher.local.child import Child
from tests.crash import scenarios
from tests.crash.scenarios import run
from tests.support.ledger import Ledger
from tests.support.patience import until
from tests.support.system import Load, System, judge, standard_paths

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def system(ledger: Ledger) -> Iterator[System]:
    with System(workers=3, schedulers=2, api=True, term_s=3) as found:
        found.register(ledger, standard_paths())
        yield found


@pytest.mark.parametrize(
    "scenario",
    [scenarios.WORKERS_KILLED, scenarios.WORKER_PAUSED],
    ids=lambda scenario: scenario.name.replace(" ", "_"),
)
def test_a_worker_that_is_taken_loses_nothing_and_every_duplicate_is_admitted(
    scenario: scenarios.Scenario, system: System, ledger: Ledger, rng: random.Random
) -> None:
    done = run(scenario, system, ledger, rng)
    print(done)
    assert done.verdict.events >= 2000
    assert done.verdict.duplicates <= done.verdict.admitted, done
    assert done.acceptable, done


def test_a_worker_a_scheduler_and_an_api_that_hang_are_replaced(
    system: System, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = system.stack.supervisor
    hung = [supervisor.children[name] for name in ("worker-1", "scheduler-1", "api")]
    # One that has not shown any sign of life yet is still starting.
    until(lambda: all(isinstance(child, Child) and child._has_pulse and child.pid for child in hung), "they live")
    pids = {child.name: supervisor.kill(child.name, signal.SIGSTOP) for child in hung}
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "hung_after_s", 3.0)
        until(lambda: all(child.pid not in (None, pids[child.name]) for child in hung), "they are replaced")
    with Load(system, count=200, seconds=0.5) as load:
        pass
    load.drain()
    verdict = judge(system, ledger, load)
    assert verdict.sound, verdict
