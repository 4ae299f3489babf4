"""The clocks of the database and of the hosts are set while everything runs; the receiver's own clock is the judge."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dispatcher.local import postgres
from dispatcher.local.launch import launch
from tests.crash.judge import judge
from tests.crash.load import Load, standard_targets
from tests.support.faked_time import FakedClock
from tests.support.ledger import Ledger, Post
from tests.support.patience import until
from tests.support.system import REPOSITORY, System

pytestmark = pytest.mark.crash

HOUR_S, DAY_S = 3600, 86_400
WAITS_S = (0.5, 0.5, 1.0)
"""Of the schedule `tests.support.system.SCHEDULE`."""


@pytest.fixture(scope="module")
def clocks() -> Iterator[tuple[FakedClock, FakedClock]]:
    """The database's, and that of the worker and the scheduler."""
    with tempfile.TemporaryDirectory(prefix="dispatcher-clocks-") as folder:
        top = Path(folder)
        top.chmod(0o711)  # the database's account passes through, which it may not in pytest's own folders
        yield FakedClock(top / "database"), FakedClock(top / "host")


@pytest.fixture(scope="module")
def system(clocks: tuple[FakedClock, FakedClock], ledger: Ledger) -> Iterator[System]:
    database, host = clocks

    def launch_on_its_clock(*args: Any) -> Any:
        with database.inherited():
            return launch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "launch", launch_on_its_clock)
        with System(workers=1, schedulers=1, term_s=30.0, env=host.environment(REPOSITORY)) as found:
            found.register(ledger, standard_targets())
            yield found


def early(posts: list[Post]) -> list[str]:
    """The POSTs that came sooner after the one before than the schedule allows, by the receiver's clock."""
    by_delivery: dict[tuple[str, str], list[Post]] = defaultdict(list)
    for post in posts:
        by_delivery[post.webhook_id, post.path].append(post)
    return [
        f"{path}: attempt {n + 2} after {after.received_at_s - before.received_at_s:.3f} s"
        for (_, path), found in by_delivery.items()
        for n, (before, after) in enumerate(pairwise(found))
        if after.received_at_s - before.received_at_s < WAITS_S[n] - 0.02
    ]


@pytest.mark.parametrize("seconds", [HOUR_S, -DAY_S, DAY_S, -HOUR_S])
def test_a_step_of_a_clock_makes_nothing_early_and_holds_nothing_up(
    system: System, clocks: tuple[FakedClock, FakedClock], ledger: Ledger, seconds: int
) -> None:
    """Late by as much as the step, a delivery would not end before the patience does."""
    database, host = clocks
    before, steps = ledger.count(), "SELECT count(*) FROM dispatcher.clock_steps"
    recorded = system.rows(steps)[0][0]
    with Load(system, count=240, seconds=2.0, chunk=4, in_order=None) as load:
        until(lambda: ledger.count() > before + 60, "it is busy")
        database.step(seconds)
        until(lambda: ledger.count() > before + 180, "it is busy")
        host.step(seconds)
    load.drain()
    verdict = judge(system, ledger, load)
    # A signature carries the host's time, and while that is wrong by an hour no receiver believes it.
    assert verdict.found.keys() <= {"forged"}, verdict
    assert early(ledger.posts(before)) == []
    assert verdict.duplicates <= verdict.admitted, verdict
    assert system.rows(steps)[0][0] == recorded + 1
