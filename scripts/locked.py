"""Prints the part of requirements.lock that some packages need, hashes included.

`python scripts/locked.py` is the runtime: what pyproject.toml's dependencies and the extra `server` need.
`python scripts/locked.py hatchling` is what hatchling needs. Standard library only: an image runs it before
anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_ENTRY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==")
_PARENT = re.compile(r"    # (?:via |  )([A-Za-z0-9]\S*)")


def canonical(name: str) -> str:
    """The name as PEP 503 compares it, its extras and version left out."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", name, maxsplit=1)[0]).lower()


def declared(extra: str) -> set[str]:
    """What pyproject.toml declares as dependencies and for an extra, with the extras that it includes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {canonical(requirement) for requirement in project["dependencies"]}
    pending = [extra]
    while pending:
        for requirement in project["optional-dependencies"][pending.pop()]:
            if canonical(requirement) == canonical(project["name"]):
                pending += re.split(r"[\[\],]", requirement)[1:-1]
            else:
                names.add(canonical(requirement))
    return names


def entries() -> list[tuple[str, set[str], str]]:
    """Each entry of the lock file: its name, the packages that asked for it, its text."""
    found: list[tuple[str, set[str], str]] = []
    for text in re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE):
        if (entry := _ENTRY.match(text)) is not None:
            parents = {canonical(parent[1]) for line in text.splitlines() if (parent := _PARENT.match(line))}
            found.append((canonical(entry[1]), parents, text))
    return found


def needed(roots: set[str]) -> list[str]:
    """The texts of the entries that `roots` are or need. Raises KeyError for a root that is not locked."""
    locked = entries()
    chosen = set(roots)
    if missing := chosen - {name for name, _, _ in locked}:
        raise KeyError(f"not in requirements.lock: {', '.join(sorted(missing))}")
    while more := {name for name, parents, _ in locked if parents & chosen} - chosen:
        chosen |= more
    return [text for name, _, text in locked if name in chosen]


if __name__ == "__main__":
    sys.stdout.write("".join(needed({canonical(name) for name in sys.argv[1:]} or declared("server"))))
