"""Deliveries as rows of a file: CSV that no spreadsheet takes for formulas, or a JSON object a line.

No secret is among them: what a URL has behind its `?` may be one, and is left out.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Final, Literal

from dispatcher.cli.plain import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO

    from dispatcher.shapes import Delivery

Format = Literal["csv", "jsonl"]

FORMATS: Final[tuple[Format, ...]] = ("csv", "jsonl")

COLUMNS: Final = (
    "id",
    "created_at",
    "ended_at",
    "status",
    "status_reason",
    "attempt_count",
    "next_attempt_at",
    "event_id",
    "event_type",
    "object_id",
    "mode",
    "tenant_id",
    "endpoint_id",
    "url",
    "schedule",
    "replay_of",
)
"""Of the CSV, in this order; new ones will come behind them. `schedule` is its name."""

# What begins a formula, also behind what spreadsheets skip or take for a quote; the wide forms are read as the plain.
_FORMULA: Final = re.compile(r"[\s'\"`‘’“”\u200b\ufeff]*[=+\-@＝＋－﹣−＠]")
_NOT_TEXT: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def cell(value: object) -> str:
    r"""A value as the text of a cell: without control characters, and behind an apostrophe if it began a formula.

    >>> cell("=1+1"), cell(' "@SUM(A1)'), cell("a-b\r\n\x1b[2Jc"), cell(None), cell(-1)
    ("'=1+1", '\' "@SUM(A1)', 'a-b  [2Jc', '', "'-1")
    """
    text = "" if value is None else str(value)
    text = "".join(_plain(character) for character in text)
    return "'" + text if _FORMULA.match(text) else text


def _plain(character: str) -> str:
    if character in "\t\r\n":
        return " "
    return "" if unicodedata.category(character) in _NOT_TEXT else character


def masked(one: Delivery) -> Delivery:
    """The same without what its URL has behind the `?`."""
    place, mark, _ = one["url"].partition("?")
    return {**one, "url": place + ("?…" if mark else "")}


def lines(found: Iterable[Delivery], form: Format) -> Iterator[str]:
    """The file's lines, with their ends, as the deliveries come; the first of a CSV are the names of its columns."""
    write = _Line()
    if form == "csv":
        row = csv.writer(write, lineterminator="\n")
        row.writerow(COLUMNS)
        yield write.text
    for one in found:
        shown = masked(one)
        if form == "jsonl":
            yield json.dumps(shown) + "\n"
            continue
        values = {**shown, "schedule": shown["schedule"]["name"]}
        row.writerow([cell(values[name]) for name in COLUMNS])
        yield write.text


class _Line:
    """What csv writes to: keeps the last line."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def write(
    found: Iterable[Delivery], form: Format, to: TextIO, *, each: Callable[[Delivery], object] | None = None
) -> int:
    """Writes the lines as the deliveries come; `each` is told every one. Returns how many there were.

    What the encoding of `to` lacks is escaped. A mark for it could begin a formula.
    """
    count = 0

    def told() -> Iterator[Delivery]:
        nonlocal count
        for one in found:
            count += 1
            if each is not None:
                each(one)
            yield one

    to.writelines(escaped(line, to) for line in lines(told(), form))
    return count
