"""Workers taken in the middle of their work: killed, and stopped for longer than their term."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash import scenarios
from tests.crash.scenarios import run
from tests.support.ledger import Ledger
from tests.support.system import System, standard_paths

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def system(ledger: Ledger) -> Iterator[System]:
    with System(workers=3, schedulers=2, term_s=3) as found:
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
