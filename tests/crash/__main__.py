"""`python -m tests.crash [--matrix | --seeded | --recovery] [--write] [--only NAME …]`: see CONTRIBUTING.md.

CRASH_MINUTES is how long the campaign (30) or the matrix (30) may take, CRASH_SEED what it chooses: a seed repeats the
choice of faults, not the machine's timing. CRASH_RESULTS is the file that keeps what the matrix has hit. Exits with 1
where a promise was broken or a seeded bug was not found.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys

from tests.crash import campaign, documents, matrix, recovery, seeded
from tests.crash.bugs import BUGS
from tests.crash.progress import Progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--matrix", action="store_true", help="every step of the walk × every fault")
    mode.add_argument("--seeded", action="store_true", help="the harness itself: does it find each seeded bug?")
    mode.add_argument("--recovery", action="store_true", help="how long each fault lasts on")
    parser.add_argument("--write", action="store_true", help="write the figures into the documents")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these bugs, or these faults")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # the supervisor's warnings are what we make it say
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(1_000_000))
    minutes = float(os.environ.get("CRASH_MINUTES") or campaign.FULL_MINUTES)
    progress = Progress()
    if asked.seeded:
        return _seeded(progress, asked.only, write=asked.write)
    progress.line(f"seed {seed}")
    if asked.matrix:
        path = matrix.results_path()
        sound = matrix.run(
            progress,
            seed=seed,
            minutes=minutes,
            path=path,
            only=lambda outage: not asked.only or outage.name in asked.only,
        )
        if asked.write:
            results = matrix.Results.read(path)
            lines = [results.summary() + f" ({documents.where()}).", "", "```", *results.table(), "```"]
            documents.replace("reliability.md", "matrix", lines)
    elif asked.recovery:
        done = recovery.run(progress, seed=seed, only=asked.only)
        sound = all(one.is_sound for one in done)
        if asked.write:
            documents.replace("operations.md", "recovery", recovery.lines(done, documents.where()))
    else:
        score, sound = campaign.run(progress, seed=seed, minutes=minutes)
        if asked.write:
            documents.replace("reliability.md", "campaign", campaign.lines(score, seed, minutes, documents.where()))
    progress.line("verdict: ok" if sound else "verdict: BROKEN")
    return 0 if sound else 1


def _seeded(progress: Progress, only: list[str], *, write: bool) -> int:
    hunts = []
    for name, bug in BUGS.items():
        if only and name not in only:
            continue
        progress.show(f"{name}: {bug.what}")
        hunts.append(seeded.hunt(bug))
        progress.line(str(hunts[-1]))
    missed = [hunt.bug.name for hunt in hunts if not hunt.found]
    progress.line(f"verdict: {len(hunts) - len(missed)} of {len(hunts)} seeded bugs found{_named(missed)}")
    if write:
        rows = [f"| {one.bug.what} | {', '.join(one.found) or 'not found'} | {one.took_s:.0f} |" for one in hunts]
        head = ["| seeded bug | found by the judge | seconds |", "|---|---|---|"]
        count = f"{len(hunts) - len(missed)} of {len(hunts)} found ({documents.where()})."
        documents.replace("reliability.md", "seeded", [count, "", *head, *rows])
    return 1 if missed else 0


def _named(missed: list[str]) -> str:
    return f"; not found: {', '.join(missed)}" if missed else ""


if __name__ == "__main__":
    sys.exit(main())
