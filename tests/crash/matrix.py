"""The matrix: every step of the walk × every fault, each done exactly while a process stands at the step.

What was hit is kept in a file, so that several runs fill the matrix. A run takes pairs that were not hit yet, several
at once where their processes differ, judges after each round of some pairs, and prints all that is known.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import disturbances
from tests.crash.judge import Verdict, judge
from tests.crash.load import Load, standard_targets
from tests.crash.outages import OUTAGES, Outage, kill
from tests.crash.progress import Progress
from tests.crash.steps import STEPS, Control, Step
from tests.support.ledger import Ledger
from tests.support.patience import PATIENCE_S, until
from tests.support.system import System, UpSystem

TERM_S = 6.0
HIT_S = 20.0
"""How long a step may take to be reached before its pair is left for another run."""

PAIRS_A_ROUND = 12
DISK_BYTES = 700 << 20
RATE = 60
"""Events a second that keep the steps coming."""

Pair = tuple[str, str]

DUTIES = ("lead", "rescue", "replay", "fold", "erase", "prune", "partitions", "retention")


def left_out(step: Step, outage: Outage) -> str | None:
    """Why a pair makes no sense, if so."""
    if outage.uses == "broker" and step.name.startswith(DUTIES):
        return "the duty does not use the broker"
    if outage.name == "pg cancel" and step.name.startswith(("post", "bell", "wake-up", "answer")):
        return "no statement of this process runs there"
    if outage.needs == "up" and step.role == "scheduler" and step.name.startswith(DUTIES) and "commit" not in step.name:
        return "a kill of this process there is the same"
    return None


def pairs() -> list[tuple[Step, Outage]]:
    return [(step, outage) for outage in OUTAGES for step in STEPS if left_out(step, outage) is None]


@dataclass
class Results:
    """How often each pair was hit, and in which round something was found, kept in a file."""

    path: Path
    hits: Counter[Pair] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        found = cls(path)
        if path.exists():
            kept = json.loads(path.read_text())
            found.hits.update({(step, outage): n for step, outage, n in kept["hits"]})
            found.broken.update(kept["broken"])
        return found

    def write(self) -> None:
        kept = {"hits": [[*pair, n] for pair, n in sorted(self.hits.items())], "broken": self.broken}
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(kept, indent=1))
        beside.replace(self.path)

    def missing(self) -> list[tuple[Step, Outage]]:
        return [(step, outage) for step, outage in pairs() if not self.hits[step.name, outage.name]]

    def table(self) -> list[str]:
        """A row for each step; a pair is how often it was hit, `-` where it is left out, `.` where it is missing."""
        lines = [f"{'step':32}" + "".join(f"{n:>4}" for n in range(1, len(OUTAGES) + 1))]
        reasons: dict[str, list[str]] = defaultdict(list)
        for step in STEPS:
            cells = []
            for outage in OUTAGES:
                reason = left_out(step, outage)
                hits = self.hits[step.name, outage.name]
                cells.append("-" if reason else str(hits or "."))
                if reason and step.name not in reasons[reason]:
                    reasons[reason].append(step.name)
            lines.append(f"{step.name:32}" + "".join(f"{cell:>4}" for cell in cells))
        lines += ["", "faults: " + ", ".join(f"{n} {outage.name}" for n, outage in enumerate(OUTAGES, start=1))]
        lines += [f"left out: {reason}: {', '.join(names)}" for reason, names in reasons.items()]
        return lines

    def summary(self) -> str:
        wanted = pairs()
        hit = sum(1 for step, outage in wanted if self.hits[step.name, outage.name])
        return f"{hit} of {len(wanted)} pairs hit, {len(STEPS)} steps, {len(OUTAGES)} faults, {self.hits.total()} hits"


@contextmanager
def tmpfs() -> Iterator[Path]:
    """A small file system in memory for the servers' files. Raises OSError where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-disk-"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=711", "tmpfs", folder], check=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        folder.rmdir()
        raise OSError("no file system can be mounted here: that needs root") from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@contextmanager
def system_for(needs: str, steps: Path) -> Iterator[System]:
    match needs:
        case "disk":
            with (
                tmpfs() as disk,
                System(workers=2, schedulers=1, term_s=TERM_S, api=True, steps=steps, disk=disk) as it,
            ):
                yield it
        case "up":
            with UpSystem(term_s=TERM_S, api=True, steps=steps) as it:
                yield it
        case _:
            with System(workers=3, schedulers=2, term_s=TERM_S, api=True, steps=steps) as it:
                yield it


class Run:
    """Rounds of pairs on one system."""

    def __init__(
        self,
        system: System,
        ledger: Ledger,
        control: Control,
        results: Results,
        rng: random.Random,
        *,
        rate: int = RATE,
    ) -> None:
        self.system, self.ledger, self.control, self.results, self.rng = system, ledger, control, results, rng
        self.rate = rate

    def round(self, chosen: list[tuple[Step, Outage]], progress: Progress) -> Verdict:
        """Hits the pairs under a load, waits until everything has ended, and judges."""
        seconds = PATIENCE_S
        with Load(self.system, count=int(self.rate * seconds), seconds=seconds) as load:
            for group in grouped(chosen):
                for step, outage in self.hit([step for step, _ in group], group[0][1]):
                    self.results.hits[step.name, outage.name] += 1
                progress.show(self.results.summary())
            load.finish()
        load.drain(stalled_s=90.0)
        return judge(self.system, self.ledger, load)

    def hit(self, steps: list[Step], outage: Outage) -> list[tuple[Step, Outage]]:
        """Stops a process at each of the steps, and does the fault; those that were reached in time."""
        for step in steps:
            self.control.arm(step)
        if any(step.name.startswith("rescue") for step in steps):
            self._kill_busy_worker()
        deadline = time.monotonic() + HIT_S + self.system.term_s
        asked_s = dropped_s = 0.0
        while not all(self.control.hit(step) for step in steps) and time.monotonic() < deadline:
            if any(step.name.startswith("replay") for step in steps) and time.monotonic() > asked_s:
                disturbances.replay_delivered(self.system, self.rng)
                asked_s = time.monotonic() + 3
            if any(step.name.startswith("partitions") for step in steps) and time.monotonic() > dropped_s:
                disturbances.drop_last_partition(self.system)
                dropped_s = time.monotonic() + 3
            time.sleep(0.01)
        hit = {step: pid for step in steps if (pid := self.control.hit(step)) is not None}

        def release() -> None:
            for step in steps:
                self.control.release(step)

        try:
            if hit:
                self.system.history.taken.update(pid for step, pid in hit.items() if step.role == "worker")
                outage.act(self.system, list(hit.values()), release)
        finally:
            release()
        return [(step, outage) for step in hit]

    def _kill_busy_worker(self) -> None:
        """By its number, since a supervisor that is a process of its own has told us no names."""
        busy = """SELECT pid FROM dispatcher.workers w WHERE heartbeat_until > now()
                  AND EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.claimed_by = w.id) LIMIT 1"""
        found: list[int] = []

        def is_busy() -> bool:
            found[:] = [pid for (pid,) in self.system.rows(busy)]
            return bool(found)

        until(is_busy, "a worker holds a claim")
        kill(self.system, found, lambda: None)


def grouped(chosen: list[tuple[Step, Outage]]) -> list[list[tuple[Step, Outage]]]:
    """Pairs of one fault together, one of each kind of process."""
    groups: list[list[tuple[Step, Outage]]] = []
    for pair in chosen:
        for group in groups:
            if group[0][1] == pair[1] and pair[0].role not in {step.role for step, _ in group}:
                group.append(pair)
                break
        else:
            groups.append([pair])
    return groups


def run(progress: Progress, *, seed: int, minutes: float, path: Path, only: Callable[[Outage], bool]) -> bool:
    """Fills the matrix for so long; whether nothing was found."""
    results = Results.read(path)
    rng = random.Random(seed)
    deadline = time.monotonic() + 60 * minutes
    sound = True
    for needs in ("stack", "up", "disk"):
        wanted = [pair for pair in results.missing() if pair[1].needs == needs and only(pair[1])]
        rng.shuffle(wanted)
        wanted.sort(key=lambda pair: pair[1].name)
        if not wanted or time.monotonic() > deadline:
            continue
        steps = Path(tempfile.mkdtemp(prefix="dispatcher-steps-"))
        try:
            with Ledger() as ledger, system_for(needs, steps) as system:
                system.register(ledger, standard_targets())
                running = Run(system, ledger, Control(steps), results, rng)
                while wanted and time.monotonic() < deadline:
                    chosen, wanted = wanted[:PAIRS_A_ROUND], wanted[PAIRS_A_ROUND:]
                    verdict = running.round(chosen, progress)
                    names = sorted({outage.name for _, outage in chosen})
                    progress.line(f"{'ok' if verdict.sound else 'BROKEN'}  {', '.join(names)}  {verdict}")
                    if not verdict.sound:
                        sound = False
                        results.broken[", ".join(names)] = str(verdict)
                    results.write()
        except OSError as error:
            progress.line(f"the {needs} faults are left out: {error}")
        finally:
            shutil.rmtree(steps)
    for line in results.table():
        progress.line(line)
    progress.line(results.summary())
    return sound


def results_path() -> Path:
    return Path(os.environ.get("CRASH_RESULTS") or ".crash-matrix.json")
