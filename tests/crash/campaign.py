"""The campaign: rounds of kills, freezes, outages and disturbances under a load of every kind, each round judged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.crash import disturbances, faults
from tests.crash.documents import upper_bound
from tests.crash.faults import Fault
from tests.crash.judge import Verdict, judge
from tests.crash.load import Load, Stalled, standard_targets
from tests.crash.progress import Progress
from tests.support.ledger import Ledger
from tests.support.patience import PATIENCE_S
from tests.support.system import System

TERM_S = 8.0
"""The workers' term: longer than PostgreSQL's restart takes, as the promise presupposes."""

KILLS, EVENTS = 500, 100_000
"""What a campaign of the full length must reach."""

FULL_MINUTES = 30.0
ROUND_S = 120.0
RATE = 100
PAUSE_S = (0.8, 2.0)
"""Between the end of a fault and the next one."""

MIX: list[tuple[Fault, int]] = [
    (faults.kill_worker, 8),
    (faults.kill_scheduler, 5),
    (faults.kill_api, 4),
    (faults.kill_everything, 2),
    (faults.kill_redis, 1),
    (faults.flush_redis, 2),
    (faults.ring_falsely, 1),
    (faults.stop_worker, 1),
    (faults.restart_postgres, 1),
    (faults.terminate_backends, 2),
    (faults.pause_worker, 1),
]
"""Each with how often it is taken."""


@dataclass
class Score:
    """What has been done so far, and what the judges have said of it."""

    rounds: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    slowest_drain_s: float = 0.0
    kills: int = 0

    def add(self, verdict: Verdict, drain_s: float) -> None:
        self.rounds += 1
        for name in ("events", "deliveries", "posts", "attempts", "unknown", "duplicates"):
            self.totals[name] += getattr(verdict, name)
        self.found += verdict.found
        self.slowest_drain_s = max(self.slowest_drain_s, drain_s)

    def __str__(self) -> str:
        numbers = ", ".join(f"{self.totals[name]:,} {name}" for name in ("events", "deliveries", "posts"))
        return (
            f"{self.rounds} rounds, {self.kills:,} kills, {numbers}, {self.totals['duplicates']:,} duplicates"
            f" of {self.totals['unknown']:,} attempts of unknown outcome, {self.found.total()} violations"
        )


def weighted(mix: list[tuple[Fault, int]], rng: random.Random) -> Fault:
    return rng.choices([fault for fault, _ in mix], [weight for _, weight in mix])[0]


def play(
    system: System,
    ledger: Ledger,
    rng: random.Random,
    score: Score,
    *,
    seconds: float,
    count: int,
    mix: list[tuple[Fault, int]] | None = None,
    whole: bool = False,
    show: Callable[[], None] = lambda: None,
) -> Verdict:
    """One round: a load of so many events over so many seconds, faults and disturbances beside it, the verdict.

    Each disturbance is done at least once. With `whole` the load is not cut off where a slow machine has not accepted
    all of it in that time; the faults are.
    """
    ended = threading.Event()
    errors: list[BaseException] = []
    salt = rng.random()

    def disturb() -> None:
        own = random.Random(salt)
        named = disturbances.all_of(ledger)
        order = list(named)
        is_first = True
        try:
            while is_first or not ended.is_set():
                own.shuffle(order)
                for name in order:
                    if ended.wait(own.uniform(0.3, 1.5)) and not is_first:
                        break
                    named[name](system, own)
                    score.done[name] += 1
                is_first = False
        except BaseException as error:
            errors.append(error)

    with Load(system, count=count, seconds=seconds) as load:
        disturber = threading.Thread(target=disturb, name="disturbances", daemon=True)
        disturber.start()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline and load.running:
                time.sleep(rng.uniform(*PAUSE_S))
                fault = weighted(mix or MIX, rng)
                fault(system, rng)
                score.done[fault.__name__] += 1
                score.kills = system.history.kills
                show()
        finally:
            ended.set()
            if not whole:
                load.finish()
            disturber.join()
    if errors:
        raise errors[0]
    drain_s = 0.0
    stuck = []
    try:
        drain_s = load.drain(stalled_s=PATIENCE_S / 2)
    except Stalled as error:
        stuck.append(str(error))
    verdict = judge(system, ledger, load)
    verdict.add("lost", stuck)
    score.add(verdict, drain_s)
    return verdict


def run(progress: Progress, *, seed: int, minutes: float) -> tuple[Score, bool]:
    """Rounds for so long; what came of them, and whether no judge has found anything, and a full campaign was as large
    as it must be.
    """
    rng = random.Random(seed)
    score = Score()
    until = time.monotonic() + 60 * minutes
    with Ledger() as ledger, System(workers=3, schedulers=2, term_s=TERM_S, grace_s=16, api=True) as system:
        system.register(ledger, standard_targets())

        def show() -> None:
            left = max(0.0, until - time.monotonic())
            progress.show(f"{left / 60:.0f} min left, {score}")

        while time.monotonic() < until:
            seconds = min(ROUND_S, max(10.0, until - time.monotonic()))
            verdict = play(system, ledger, rng, score, seconds=seconds, count=int(RATE * seconds), show=show)
            if not verdict.sound:
                progress.line(f"BROKEN in round {score.rounds}: {verdict}")
                progress.line("\n".join(list(system.lines)[-100:]))
    progress.line("done: " + ", ".join(f"{name} {n}" for name, n in sorted(score.done.items())))
    small = minutes >= FULL_MINUTES and (score.kills < KILLS or score.totals["events"] < EVENTS)
    if small:
        progress.line(f"too small: a campaign of {FULL_MINUTES:g} minutes has {KILLS} kills and {EVENTS:,} events")
    sound = not score.found and not small
    progress.line(f"seed {seed}: {score}, slowest drain {score.slowest_drain_s:.1f} s: {'ok' if sound else 'BROKEN'}")
    return score, sound


def lines(score: Score, seed: int, minutes: float, place: str) -> list[str]:
    """The figures as they stand in the document."""
    n = score.totals["deliveries"]
    return [
        f"A campaign of {minutes:g} minutes with seed {seed} ({place}): {score}. "
        + (
            f"With no failure in {n:,} deliveries, the rate of failures is below {upper_bound(n)} with 95 % confidence."
            if not score.found
            else f"Found: {dict(score.found)}."
        ),
        "",
        "What was done: " + ", ".join(f"{name} {number}" for name, number in sorted(score.done.items())) + ".",
    ]
