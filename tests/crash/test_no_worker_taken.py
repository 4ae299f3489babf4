"""What takes no worker: schedulers, Redis and PostgreSQL killed, false bells, workers that are asked to leave.

The workers' term is long: the promise holds while no heartbeat is missed, and a busy machine may miss a short term's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash import scenarios
from tests.support.ledger import Ledger
from tests.support.system import System, standard_paths

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def system(ledger: Ledger) -> Iterator[System]:
    with System(workers=3, schedulers=2, term_s=120, grace_s=60) as found:
        found.register(ledger, standard_paths())
        yield found


@pytest.mark.parametrize(
    "scenario",
    [
        scenarios.SCHEDULERS_KILLED,
        scenarios.REDIS_WIPED,
        scenarios.FALSE_BELLS,
        scenarios.WORKERS_STOPPED,
    ],
    ids=lambda scenario: scenario.name.replace(" ", "_"),
)
def test_while_no_worker_is_taken_nothing_is_lost_or_sent_twice(
    scenario: scenarios.Scenario, system: System, ledger: Ledger, rng: random.Random
) -> None:
    done = scenarios.run(scenario, system, ledger, rng)
    print(done)
    assert done.verdict.events >= 2000
    assert done.verdict.admitted == 0, done
    assert done.verdict.duplicates == 0, done
    assert done.acceptable, done


def test_no_committed_event_is_lost_or_sent_twice(system: System, ledger: Ledger, rng: random.Random) -> None:
    """A restart in immediate mode, while producers commit and workers record."""
    assert system.rows("SHOW fsync") == [("on",)]
    done = scenarios.run(scenarios.POSTGRES_RESTARTED, system, ledger, rng)
    print(done)
    assert done.verdict.events >= 2000
    assert done.verdict.duplicates == 0, done
    assert done.acceptable, done
