"""Tests the harness: one run for each seeded bug, which the right judge must find."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.crash import disturbances, faults
from tests.crash.bugs import Bug
from tests.crash.faults import Fault, spread
from tests.crash.judge import Verdict, found_by, judge
from tests.crash.load import Load, Stalled, Target, standard_targets, type_of
from tests.support.ledger import Ledger
from tests.support.system import System

TERM_S = 3.0
EVENTS, OVER_S = 900, 6.0
STALLED_S, SETTLES_S = 25.0, 20.0
"""A seeded bug may leave deliveries for ever: how long the run waits for what does not move, and then for the rest."""


@dataclass(frozen=True)
class Hunt:
    """`found` are those of the bug's judges that found it, `others` what else was found."""

    bug: Bug
    verdict: Verdict
    took_s: float

    @property
    def found(self) -> list[str]:
        return found_by(self.verdict, self.bug.judges)

    @property
    def example(self) -> str:
        return self.verdict.examples[self.found[0]][0] if self.found else ""

    def __str__(self) -> str:
        others = sorted(name for name in self.verdict.found if name not in self.bug.judges)
        beside = f" (and {', '.join(others)})" if others else ""
        return f"{self.bug.name:26} {self.took_s:5.0f} s  {', '.join(self.found) or 'NOT FOUND'}{beside}"


def extra_targets(bug: Bug) -> list[Target]:
    return [Target(f"/{kind}/extra-{n}", (f"extra.t{n}",)) for n, kind in enumerate(bug.kinds)]


def hunt(bug: Bug, *, count: int = EVENTS, over_s: float = OVER_S) -> Hunt:
    """Runs a system with this bug, with its faults, and has it judged."""
    began = time.monotonic()
    rng = random.Random(bug.seed)
    extra = extra_targets(bug)

    def choose(n: int) -> str:
        return extra[n // 12 % len(extra)].types[0] if extra and n % 12 == 1 else type_of(n)

    with (
        Ledger(forgets=bug.forgets) as ledger,
        System(workers=2, schedulers=1, term_s=TERM_S, api=bug.api, bug=bug.name) as system,
    ):
        system.register(ledger, standard_targets() + extra)
        chosen: list[Fault] = [disturbances.BY_NAME.get(name) or getattr(faults, name) for name in bug.faults]
        with Load(system, count=count, seconds=over_s, choose=choose) as load:
            spread(system, rng, chosen, over_s=over_s)
        with suppress(Stalled):  # the judge says of which deliveries
            load.drain(stalled_s=STALLED_S, within_s=60.0)
        verdict = judge(system, ledger, load, settles_s=SETTLES_S)
    return Hunt(bug, verdict, time.monotonic() - began)
