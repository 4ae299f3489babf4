"""A share of the campaign and of the matrix, with a fixed seed and all judges: see `make crash`."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import campaign, disturbances, faults
from tests.crash.campaign import Score
from tests.crash.load import standard_targets
from tests.crash.matrix import Results, Run
from tests.crash.outages import OUTAGES
from tests.crash.progress import Progress
from tests.crash.steps import STEPS, Control
from tests.support.ledger import Ledger
from tests.support.system import System

pytestmark = pytest.mark.crash

# Without those that take longer than the rest of the share.
MIX = [(fault, weight) for fault, weight in campaign.MIX if fault not in (faults.stop_worker, faults.kill_redis)]

PAIRS = (
    ("claim: after commit", "kill"),
    ("enqueue: after commit", "kill"),
    ("rescue: before commit", "kill"),
    ("record: before", "pg terminate"),
    ("demand: after", "pg terminate"),
)


@pytest.fixture(scope="module")
def steps() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="dispatcher-steps-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def system(ledger: Ledger, steps: Path) -> Iterator[System]:
    with System(workers=2, schedulers=2, term_s=4, grace_s=16, api=True, steps=steps) as found:
        found.register(ledger, standard_targets())
        yield found


def test_under_faults_and_disturbances_every_promise_holds(system: System, ledger: Ledger, rng: random.Random) -> None:
    assert system.rows("SHOW fsync") == [("on",)]
    score = Score()
    verdict = campaign.play(system, ledger, rng, score, seconds=6.0, count=400, mix=MIX, whole=True)
    print(verdict, score)
    assert verdict.events >= 380
    assert {*disturbances.BY_NAME, "delete_endpoint"} <= set(score.done)
    assert score.done.total() >= 1
    assert verdict.sound, verdict


def test_faults_at_steps_of_the_walk_break_nothing(
    system: System, ledger: Ledger, steps: Path, rng: random.Random, tmp_path: Path
) -> None:
    results = Results(tmp_path / "hits.json")
    by_step, by_outage = {step.name: step for step in STEPS}, {outage.name: outage for outage in OUTAGES}
    run = Run(system, ledger, Control(steps), results, rng, rate=20)
    verdict = run.round([(by_step[step], by_outage[outage]) for step, outage in PAIRS], Progress())
    print(verdict, results.summary())
    assert set(results.hits) == set(PAIRS)
    assert verdict.sound, verdict
