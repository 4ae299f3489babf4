"""`dispatcher up` killed in the middle of its work: the next start finds everything and goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.crash.judge import judge
from tests.crash.load import Load, standard_targets
from tests.support.ledger import Ledger
from tests.support.patience import until
from tests.support.system import UpSystem

pytestmark = pytest.mark.crash

EVENTS = 600
"""Of the load, which the kill falls into."""


@pytest.fixture
def system() -> Iterator[UpSystem]:
    with UpSystem(workers=1, term_s=3) as found:
        yield found


def test_a_killed_system_goes_on_where_it_was(system: UpSystem, ledger: Ledger) -> None:
    system.register(ledger, standard_targets())
    with Load(system, count=EVENTS, seconds=2.0) as load:
        until(lambda: ledger.count() > EVENTS // 4, "it is busy")
        system.take_all_workers()
        system.kill_supervisor()
        time.sleep(0.3)
        system.start()
    load.drain()
    verdict = judge(system, ledger, load)
    print(verdict)
    assert verdict.sound, verdict
    assert verdict.events >= 0.95 * EVENTS
