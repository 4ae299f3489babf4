"""What each fault may cost, and the run of one scenario: a load, faults during it, the wait, the verdict."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.crash import faults
from tests.crash.faults import Fault, spread
from tests.support.ledger import Ledger
from tests.support.system import Load, System, Verdict, judge


@dataclass(frozen=True)
class Scenario:
    """`faults` are spread over the load. Only a killed or paused worker may cost duplicates; see `acceptable`."""

    name: str
    faults: tuple[Fault, ...]

    @property
    def takes_workers(self) -> bool:
        return faults.kill_worker in self.faults or faults.pause_worker in self.faults

    def acceptable(self, verdict: Verdict) -> bool:
        """Nothing lost and the log true, whatever happened; nothing doubled or unknown unless a worker was taken."""
        spotless = verdict.duplicates == 0 and verdict.admitted == 0
        return verdict.sound and (self.takes_workers or spotless)


@dataclass(frozen=True)
class Run:
    """`drain_s` is from the end of load and faults until the last delivery had ended."""

    scenario: Scenario
    verdict: Verdict
    drain_s: float
    repeated: int

    @property
    def acceptable(self) -> bool:
        return self.scenario.acceptable(self.verdict)

    def __str__(self) -> str:
        return (
            f"{self.scenario.name}: drained in {self.drain_s:.1f} s, {self.repeated} emits repeated\n  {self.verdict}"
        )


WORKERS_KILLED = Scenario("workers killed", (faults.kill_worker,) * 6)
WORKER_PAUSED = Scenario("a worker paused", (faults.pause_worker,))
SCHEDULERS_KILLED = Scenario("schedulers killed", (faults.kill_scheduler,) * 4)
REDIS_WIPED = Scenario(
    "Redis wiped and killed", (*(faults.flush_redis,) * 3, faults.kill_redis, faults.flush_redis, faults.kill_redis)
)
POSTGRES_RESTARTED = Scenario("PostgreSQL restarted", (faults.restart_postgres,) * 2)
FALSE_BELLS = Scenario("false and doubled bells", (faults.ring_falsely,) * 2)
WORKERS_STOPPED = Scenario("workers stopped", (faults.stop_worker,) * 4)


def run(
    scenario: Scenario, system: System, ledger: Ledger, rng: random.Random, *, count: int = 2000, over_s: float = 3.0
) -> Run:
    """Emits under faults, waits until everything has ended, judges. Raises AssertionError where it does not end."""
    if faults.ring_falsely in scenario.faults:
        faults.ring_falsely(system, rng)
    with Load(system, count=count, seconds=over_s) as load:
        spread(system, rng, list(scenario.faults), over_s=over_s)
    began = time.monotonic()
    load.drain()
    return Run(scenario, judge(system, ledger, load), time.monotonic() - began, load.repeated)
