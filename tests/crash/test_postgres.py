"""PostgreSQL restarted in immediate mode, within the workers' term, while producers commit and workers record."""

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
    with System(workers=2, term_s=10) as found:
        found.register(ledger, standard_paths())
        yield found


def test_no_committed_event_is_lost_or_sent_twice(system: System, ledger: Ledger, rng: random.Random) -> None:
    assert system.rows("SHOW fsync") == [("on",)]
    done = scenarios.run(scenarios.POSTGRES_RESTARTED, system, ledger, rng)
    print(done)
    assert done.verdict.events >= 2000
    assert done.verdict.duplicates == 0, done
    assert done.acceptable, done
