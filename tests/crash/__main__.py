"""`python -m tests.crash`: rounds of mixed faults on one system, each judged by the receivers' ledger.

CRASH_ROUNDS (default: as many as fit into five minutes) and CRASH_SEED choose how long and which; a seed repeats the
choice of faults, not the machine's timing. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import sys
import time

from tests.crash import faults, scenarios
from tests.crash.scenarios import Run, Scenario, run
from tests.support.ledger import Ledger
from tests.support.system import System, standard_paths

DEFAULT_S = 300.0
TERM_S = 8.0
"""The workers' term: longer than PostgreSQL's restart takes, as the promise presupposes."""

EVENTS = 3000
OVER_S = 8.0

MIX = (
    faults.kill_worker,
    faults.pause_worker,
    faults.kill_scheduler,
    faults.flush_redis,
    faults.kill_redis,
    faults.hang_redis,
    faults.restart_postgres,
    faults.stop_worker,
    faults.ring_falsely,
)
PLANNED = (
    scenarios.WORKERS_KILLED,
    scenarios.POSTGRES_RESTARTED,
    scenarios.WORKER_PAUSED,
    scenarios.REDIS_WIPED,
    scenarios.SCHEDULERS_KILLED,
    scenarios.WORKERS_STOPPED,
    scenarios.FALSE_BELLS,
)
COLUMNS = ("events", "deliveries", "posts", "attempts", "unknown", "lost", "duplicates", "unexplained", "unlogged")


def choose(n: int, rng: random.Random) -> Scenario:
    """Every other round a scenario of the tests, while there are any, then mixes; half of those take no worker."""
    if n % 2 == 0 and n // 2 < len(PLANNED):
        return PLANNED[n // 2]
    allowed = MIX if rng.random() < 0.5 else MIX[2:]
    return Scenario("mix", tuple(rng.choice(allowed) for _ in range(rng.randint(3, 7))))


def describe(done: Run) -> str:
    kinds = ", ".join(fault.__name__ for fault in done.scenario.faults) if done.scenario.name == "mix" else ""
    numbers = "".join(f"{getattr(done.verdict, name):>12}" for name in COLUMNS)
    return f"{'ok' if done.acceptable else 'BROKEN':7}{done.drain_s:>8.1f}{numbers}  {done.scenario.name} {kinds}"


def main() -> int:
    rounds = int(os.environ.get("CRASH_ROUNDS") or 0)
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(1_000_000))
    rng = random.Random(seed)
    logging.basicConfig(level=logging.CRITICAL)  # the supervisor's warnings are what we make it say
    print(f"seed {seed}: {f'{rounds} rounds' if rounds else f'about {DEFAULT_S:.0f} s'} of {EVENTS} events each")
    print(f"{'':7}{'drain_s':>8}{''.join(f'{name:>12}' for name in COLUMNS)}", flush=True)
    began = time.monotonic()
    broken: list[str] = []
    done: list[Run] = []
    with Ledger() as ledger, System(workers=3, schedulers=2, term_s=TERM_S) as system:
        system.register(ledger, standard_paths())
        while len(done) < rounds if rounds else time.monotonic() - began < DEFAULT_S:
            scenario = choose(len(done), rng)
            try:
                finished = run(scenario, system, ledger, rng, count=EVENTS, over_s=OVER_S)
            except AssertionError as error:
                broken.append(f"{scenario.name} {[fault.__name__ for fault in scenario.faults]}: {error}")
                break
            done.append(finished)
            print(describe(finished), flush=True)
            if not finished.acceptable:
                broken.append(str(finished))
        if broken:
            print("\n".join(list(system.lines)[-200:]))
    for text in broken:
        print(text)
    lost, twice = (sum(getattr(one.verdict, name) for one in done) for name in ("lost", "duplicates"))
    slowest = max((one.drain_s for one in done), default=0.0)
    print(
        f"seed {seed}: {len(done)} rounds, {sum(one.verdict.events for one in done)} events, lost {lost}, "
        f"duplicates {twice} (all after a killed or paused worker and admitted by the log unless BROKEN stands above), "
        f"slowest drain {slowest:.1f} s: {'BROKEN' if broken else 'ok'}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
