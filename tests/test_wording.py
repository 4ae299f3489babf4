"""Forms that a reader has to read twice do not come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BANNED = {
    r"(?<!here )\bis no (?!longer|more\b|need|other|less|way\b|use\b|limit)\w": 'say "is not a …", or "invalid …"',
    r"\b(that|which|what) (is|are) (none|no such)\b": 'say "invalid …", or what it is instead',
    r"\b(is|are) none of (the|this|ours|its|them|these)\b": 'say "is not among …"',
    r"\b(upon|amongst|whereof|thereof|hereby|shall)\b": "say it in everyday words",
}
"""A pattern, and what to write instead."""


def texts() -> Iterator[Path]:
    for folder in ("dispatcher", "workers"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))


@pytest.mark.parametrize(("pattern", "instead"), BANNED.items())
def test_no_text_has_a_banned_form(pattern: str, instead: str) -> None:
    banned = re.compile(pattern)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if banned.search(line)
    ]
    assert found == [], instead
