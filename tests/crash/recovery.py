"""After each single fault: how long until deliveries flow again, and until the backlog is gone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from tests.crash import faults
from tests.crash.judge import Verdict, judge
from tests.crash.load import Load, standard_targets
from tests.crash.matrix import tmpfs
from tests.crash.outages import LASTS_S, OUTAGES, Outage
from tests.crash.progress import Progress
from tests.support.ledger import Ledger
from tests.support.patience import PATIENCE_S, until
from tests.support.system import System, UpSystem

TERM_S = 30.0
"""The default of DISPATCHER_WORKER_LEASE_S."""

RATE = 40
SILENCE_S = 0.5
QUIET_S = 3.0
"""So long nothing may be late before the backlog counts as gone."""

Act = Callable[[System, random.Random], None]


@dataclass(frozen=True)
class Recovered:
    """In seconds since the fault was over or, `from_start`, since it began."""

    name: str
    from_start: bool
    flows_s: float
    gone_s: float
    verdict: Verdict

    @property
    def is_sound(self) -> bool:
        return self.verdict.sound

    def row(self) -> str:
        since = "its beginning" if self.from_start else "its end"
        duplicates = f"{self.verdict.duplicates}{'' if self.is_sound else ' (violations)'}"
        return f"| {self.name} | {since} | {self.flows_s:.1f} | {self.gone_s:.1f} | {duplicates} |"


HEAD = [
    "| fault | seconds since | until deliveries flow again | until the backlog is gone | duplicates |",
    "|---|---|---|---|---|",
]


def _all_workers(system: System, rng: random.Random) -> None:
    for name in system.names("worker"):
        system.kill(name)


def _as_act(outage: Outage) -> Act:
    return lambda system, rng: outage.act(system, [], lambda: None)


def cases() -> list[tuple[str, str, bool, Act]]:
    """The name of each fault, the system that it needs, whether it counts from its beginning, and itself."""
    found: list[tuple[str, str, bool, Act]] = [
        ("one of two workers killed", "stack", True, faults.kill_worker),
        ("all workers killed", "stack", True, _all_workers),
        ("one of two workers frozen past its term", "stack", True, faults.pause_worker),
        ("the only scheduler killed", "stack", True, faults.kill_scheduler),
        ("the API killed", "stack", True, faults.kill_api),
        ("every process but the supervisor killed", "stack", True, faults.kill_everything),
        ("Redis killed", "stack", True, faults.kill_redis),
    ]
    for outage in OUTAGES:
        if outage.name in ("kill", "freeze"):
            continue
        from_start = outage.needs == "up" or outage.name == "pg immediate stop"
        found.append((outage.name, outage.needs, from_start, _as_act(outage)))
    return found


@contextmanager
def _system(needs: str) -> Iterator[System]:
    match needs:
        case "disk":
            with tmpfs() as disk, System(workers=2, schedulers=1, term_s=TERM_S, api=True, disk=disk) as it:
                yield it
        case "up":
            with UpSystem(term_s=TERM_S, api=True) as it:
                yield it
        case _:
            with System(workers=2, schedulers=1, term_s=TERM_S, api=True) as it:
                yield it


def measure(system: System, ledger: Ledger, name: str, from_start: bool, act: Act, rng: random.Random) -> Recovered:
    """Does the fault under a load, and watches until nothing has been late for a while."""
    with Load(system, count=int(RATE * PATIENCE_S), seconds=PATIENCE_S) as load, Lateness(system) as lateness:
        time.sleep(QUIET_S)
        began_s = time.monotonic()
        act(system, rng)
        over_s = time.monotonic()
        until(lambda: lateness.looked_s - max(lateness.late_s, over_s) > QUIET_S, f"nothing is late after {name}")
        until_s = time.monotonic()
        load.finish()
    load.drain()
    verdict = judge(system, ledger, load)
    since_s = began_s if from_start else over_s
    arrived = [post.received_at_s for post in ledger.posts() if since_s < post.received_at_s < until_s]
    gone_s = max(0.0, lateness.late_s - since_s)
    return Recovered(name, from_start, flows_again(since_s, arrived), gone_s, verdict)


class Lateness:
    """Looks all the time whether anything that is due has waited for more than a second."""

    def __init__(self, system: System) -> None:
        self.late_s = self.looked_s = float("-inf")
        self._system = system
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lateness", daemon=True)

    def _look(self) -> None:
        late = "SELECT count(*) FROM dispatcher.deliveries WHERE due_at < now() - interval '1 second'"
        while not self._end.wait(0.05):
            is_late = self._system.rows(late)[0][0] > 0
            self.looked_s = time.monotonic()
            if is_late:
                self.late_s = self.looked_s

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def flows_again(since_s: float, arrived: Sequence[float]) -> float:
    """Seconds until the end of the longest silence since then; 0 where none was longer than half a second.

    >>> flows_again(10.0, [10.1, 10.3, 10.4]), flows_again(10.0, [10.1, 14.5, 14.6])
    (0.0, 4.5)
    """
    silences = [(after - before, after - since_s) for before, after in pairwise([since_s, *sorted(arrived)])]
    longest_s, ended_s = max(silences, default=(0.0, 0.0))
    return ended_s if longest_s > SILENCE_S else 0.0


def run(progress: Progress, *, seed: int, only: Collection[str] = ()) -> list[Recovered]:
    """Each fault in turn, or `only` those, on one system of each kind."""
    rng = random.Random(seed)
    done: list[Recovered] = []
    for line in HEAD:
        progress.line(line)
    for needs in ("stack", "disk", "up"):
        chosen = [case for case in cases() if case[1] == needs and (not only or case[0] in only)]
        if not chosen:
            continue
        try:
            with Ledger() as ledger, _system(needs) as system:
                system.register(ledger, standard_targets())
                for name, _, from_start, act in chosen:
                    progress.show(name)
                    done.append(measure(system, ledger, name, from_start, act, rng))
                    progress.line(done[-1].row())
                    if not done[-1].is_sound:
                        progress.line(str(done[-1].verdict))
                        said = [line for line in system.lines if "delivery.attempted" not in line]
                        progress.line("\n".join(said[-200:]))
        except OSError as error:
            progress.line(f"the {needs} faults are left out: {error}")
    return done


def lines(done: list[Recovered], place: str) -> list[str]:
    """The table as it stands in the document."""
    said = (
        f"Two workers, one scheduler, {RATE} events a second, a term of {TERM_S:g} s. Outages last {LASTS_S:g} s. "
        f"{place}."
    )
    return [said, "", *HEAD, *(one.row() for one in done)]
