"""After each single fault: how long until deliveries flow again, and until the backlog is gone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.crash import faults
from tests.crash.judge import judge
from tests.crash.load import Load, standard_targets
from tests.crash.matrix import tmpfs
from tests.crash.outages import LASTS_S, OUTAGES, Outage
from tests.crash.progress import Progress
from tests.support.ledger import Ledger
from tests.support.patience import PATIENCE_S
from tests.support.system import System, UpSystem

TERM_S = 30.0
"""The default of DISPATCHER_WORKER_TERM_S."""

RATE = 40
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
    duplicates: int
    is_sound: bool

    def row(self) -> str:
        since = "its beginning" if self.from_start else "its end"
        sound = "" if self.is_sound else " (violations)"
        return f"| {self.name} | {since} | {self.flows_s:.1f} | {self.gone_s:.1f} | {self.duplicates}{sound} |"


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
    late = "SELECT count(*) FROM dispatcher.deliveries WHERE due_at < now() - interval '1 second'"
    with Load(system, count=int(RATE * PATIENCE_S), seconds=PATIENCE_S) as load:
        time.sleep(QUIET_S)
        began_s = time.monotonic()
        act(system, rng)
        since_s = began_s if from_start else time.monotonic()
        late_s = since_s
        while time.monotonic() - max(late_s, since_s) < QUIET_S or not load.committed:
            if system.rows(late)[0][0]:
                late_s = time.monotonic()
            time.sleep(0.05)
        load.finish()
    load.drain()
    verdict = judge(system, ledger, load)
    arrived = (post.received_at_s for post in ledger.posts() if post.received_at_s > since_s + 0.001)
    flows_s = min(arrived, default=since_s) - since_s
    return Recovered(name, from_start, flows_s, late_s - since_s, verdict.duplicates, verdict.sound)


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
