"""Figures in the documents, between markers, so that a command can replace them."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def replace(document: str, marker: str, lines: Sequence[str]) -> None:
    """Writes the lines between `<!-- marker: begin … -->` and `<!-- marker: end -->`."""
    path = DOCS / document
    text = path.read_text()
    before, begin, rest = text.partition(f"<!-- {marker}: begin")
    note, _, rest = rest.partition("-->\n")
    _, end, after = rest.partition(f"<!-- {marker}: end -->")
    assert begin, f"{document} has no beginning of {marker!r}"
    assert end, f"{document} has no end of {marker!r}"
    body = "\n".join(lines)
    path.write_text(f"{before}{begin}{note}-->\n{body}\n{end}{after}")


def where() -> str:
    """The commit and the machine of a figure."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=DOCS, capture_output=True, text=True, check=False
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    day = datetime.now(UTC).date()
    commit = done.stdout.strip() or "unknown"
    return f"{day}, commit {commit}, {platform.machine()} with {cores} cores, {platform.system()}"


def upper_bound(n: int) -> str:
    """The 95 % upper confidence bound of a rate, where none of so many failed.

    >>> upper_bound(100_000), upper_bound(0)
    ('3.0e-05', 'unknown')
    """
    return f"{1 - 0.05 ** (1 / n):.1e}" if n else "unknown"
