"""Lists: the columns of each are declared once, and each row is one line.

On a terminal a list fits the width: columns without a value vanish, ids are shown as a prefix, long texts are cut with
an ellipsis, and a wide terminal gets more columns. In a pipe every column is printed, with whole values.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import click

from dispatcher.cli import plain
from dispatcher.cli.output import console, one_line, print_fields, print_json, print_line, value_text
from dispatcher.client.call import next_cursor
from dispatcher.clock import SYSTEM

if TYPE_CHECKING:
    from rich.text import Text

    from dispatcher.cli.output import Command, Output
    from dispatcher.shapes import Page

Row = TypeVar("Row")

Kind = Literal["text", "id", "time", "url"]
Where = Literal["anywhere", "terminal", "pipe", "room"]

PAGE: Final = 1000
"""Objects in the largest page of the API."""

ELLIPSIS: Final = "…"
ARROW: Final = " → "
NARROW: Final = 80
"""Columns of the terminal for which every list is made."""

_ID: Final = re.compile(r"([a-z]{2,3}_)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MILLISECOND: Final = 13
"""Characters of an id's UUID that are shown at least: its time, to the millisecond."""
_UUID: Final = 36
_TAIL: Final = 2
_LONGEST: Final = 20
"""Characters that a shortened id may take at 80 columns, and three more for each four that a wider terminal has."""
_GAPS: Final = (2, 1)
_FLOOR: Final = 4
"""The width of a cut column on a terminal that is too narrow for its least width."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `field` is the member of the shape that it shows; `text` makes its value from a row.

    `least` is the width to which it may be cut, 0 that it is always whole. A column with `where` "room" needs a
    terminal on which all others are whole. `short` replaces `text` on a terminal. `after` is the field of the column
    from which an arrow leads here. `keep` is the part of a text that is not cut, `share` the part of the room that the
    column gets, where most get 2.
    """

    head: str
    field: str
    text: Callable[[Any], object] | None = None
    kind: Kind = "text"
    least: int = 0
    where: Where = "anywhere"
    short: Callable[[Any], object] | None = None
    after: str = ""
    keep: Literal["start", "end"] = "start"
    share: int = 2

    def value(self, row: Any) -> object:
        """What a pipe gets."""
        return row[self.field] if self.text is None else self.text(row)

    def shown(self, row: Any) -> object:
        """What a terminal gets."""
        return self.value(row) if self.short is None else self.short(row)


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """How a list of objects is printed. `empty` is the sentence that stands for an empty list.

    `shape` is the name of their shape in `dispatcher.shapes`, which takes 40 ms to import; `joined` are the members
    that the command adds to it.
    """

    shape: str
    columns: tuple[Column, ...]
    empty: str
    joined: tuple[str, ...] = ()


def limit_options(limit: int, most: int) -> Callable[[Command], Command]:
    """Add `--limit` and `--cursor`: how many rows are listed, and after which one."""

    def add(command: Command) -> Command:
        cursor = click.option("--cursor", help="Go on where another list ended; it names its cursor.")
        counted = click.option("--limit", type=click.IntRange(1, most), default=limit, show_default=True)
        return counted(cursor(command))

    return add


def take(fetch: Callable[..., Page[Row]], limit: int, cursor: str | None, **query: Any) -> Page[Row]:
    """The first `limit` objects after the cursor, as one page. Raises ForeignAnswer for pages that never end."""
    rows: list[Row] = []
    while True:
        page = fetch(**query, limit=min(limit - len(rows), PAGE), cursor=cursor)
        rows += page["data"]
        if not page["has_more"] or len(rows) >= limit:
            return {"data": rows, "has_more": page["has_more"], "next_cursor": page["next_cursor"]}
        cursor = next_cursor(page, cursor, where="a list of the API")


def whole(rows: Sequence[Row]) -> Page[Row]:
    """A page that holds everything."""
    return {"data": list(rows), "has_more": False, "next_cursor": None}


def print_page(table: Table[Row], page: Page[Row], output: Output, *, note: str = "") -> None:
    """Print a list, and whether there is more. `note` is one more sentence for people."""
    if output == "json":
        print_json(page)
        return
    print_rows(table, page["data"])
    if note:
        _remark(note)
    print_more(page)


def print_more(page: Page[Any]) -> None:
    """Say whether the list goes on, and how to get there."""
    if page["has_more"]:
        _remark(f"{len(page['data'])} shown, there are more: --cursor {page['next_cursor']}")


def _remark(text: str) -> None:
    """A sentence about the list: below it or, where it is piped, on stderr, since it is not a row."""
    if console().is_terminal:
        print_line(text)
    else:
        click.echo(one_line(text), err=True)


def print_rows(table: Table[Row], rows: Sequence[Row]) -> None:
    """Print the rows as people read them."""
    if not rows:
        print_line(table.empty)
        return
    out = console()
    if not out.is_terminal:
        _print_piped([column for column in table.columns if column.where != "terminal"], rows)
        return
    lines = fitted(table, rows, width=out.width, now=SYSTEM.now())
    if lines is None:
        _print_blocks([column for column in table.columns if column.where != "terminal"], rows)
        return
    for line in lines:
        out.print(line, no_wrap=True, overflow="ignore", crop=False)


def _print_piped(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    """Every column with whole values, side by side, so that grep and awk find them."""
    from rich.cells import cell_len

    texts = [[_piped(column, row) for column in columns] for row in rows]
    lines = [[column.head for column in columns], *texts]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    right = [_is_numeric([column.value(row) for row in rows]) for column in columns]
    for line in lines:
        cells = [
            _padded(text, width - cell_len(text), right=at) for text, width, at in zip(line, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.flush()


def _piped(column: Column, row: Any) -> str:
    value = column.value(row)
    return _shown_text(without_query(value) if column.kind == "url" and isinstance(value, str) else value)


def _print_blocks(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    """For a terminal that is too narrow for a line a row: a block of lines a row."""
    for row in rows:
        fields = [(column.head, _piped(column, row)) for column in columns]
        print_fields([(head, text) for head, text in fields if text])
        print_line("")


# One line a row, within a width


@dataclass(slots=True)
class _Strip:
    """A column as a terminal shows it: its head, its cells, and the width that it gets."""

    column: Column
    cells: list[Text]
    right: bool
    keep: Literal["start", "end"]
    natural: int
    """The width in which nothing is cut: measured once, since `_shrink` asks for it again and again."""
    width: int

    @property
    def least(self) -> int:
        """The width to which it may be cut."""
        return min(self.column.least or self.natural, self.natural)


def fitted(table: Table[Row], rows: Sequence[Row], *, width: int, now: datetime) -> list[Text] | None:
    """The head and a line for each row, none wider than `width`; None where not even the narrowest columns fit."""
    strips = [
        strip
        for column in table.columns
        if column.where != "pipe"
        for strip in [_strip(column, rows, width, now)]
        if any(cell.plain for cell in strip.cells[1:])
    ]
    chosen = [strip for strip in strips if strip.column.where != "room"]
    for strip in strips:
        if strip.column.where == "room":
            wider = [one for one in strips if one in chosen or one is strip]
            if sum(one.natural for one in wider) + _between(wider, _GAPS[0]) <= width:
                chosen = wider
    for gap in _GAPS:
        room = width - _between(chosen, gap)
        if sum(strip.natural for strip in chosen) <= room or (gap == _GAPS[-1] and _shrink(chosen, room)):
            break
    else:
        return None
    return [_line(chosen, number, gap) for number in range(len(rows) + 1)]


def _strip(column: Column, rows: Sequence[Any], width: int, now: datetime) -> _Strip:
    from rich.text import Text

    values = [column.shown(row) for row in rows]
    head, keep = column.head, column.keep
    right = _is_numeric(values)
    if column.kind == "time":
        head += " UTC"
        values = [*times([None if value is None else str(value) for value in values], now)]
    elif column.kind == "url":
        head = "host/path"
        values = [value and place(str(value)) for value in values]
        if len({str(value).partition("/")[0] for value in values if value}) == 1:
            keep = "end"  # of one host, its paths tell
    elif column.kind == "id":
        room = _LONGEST + max(0, width - NARROW) * 3 // 4
        values = [*short_ids([None if value is None else str(value) for value in values], room)]
    cells = [Text(_shown_text(value), style=value.style if isinstance(value, Text) else "") for value in values]
    cells.insert(0, Text(head, style="bold underline"))
    natural = max(cell.cell_len for cell in cells)
    return _Strip(column, cells, right, keep, natural, width=natural)


def _between(strips: Sequence[_Strip], gap: int) -> int:
    """The width of all gaps."""
    return sum(len(_gap(left, right, gap)) for left, right in pairwise(strips))


def _gap(left: _Strip, right: _Strip, gap: int) -> str:
    """What stands between two columns."""
    return _mark(ARROW) if right.column.after and right.column.after == left.column.field else " " * gap


def _shrink(strips: Sequence[_Strip], room: int) -> bool:
    """Cut columns until all fit into `room`; false where they cannot.

    The widest are cut first, none below its least width. Where these do not fit either, all go on to `_FLOOR`.
    """
    leasts = [strip.least for strip in strips]
    if sum(leasts) > room:
        leasts = [
            min(least, _FLOOR) if strip.column.least else least for strip, least in zip(strips, leasts, strict=True)
        ]
    if sum(leasts) > room:
        return False
    cap = 2 * max(strip.natural for strip in strips)
    while True:
        for strip, least in zip(strips, leasts, strict=True):
            strip.width = max(least, min(strip.natural, cap * strip.column.share // 2))
        spare = room - sum(strip.width for strip in strips)
        if spare >= 0:
            break
        cap -= 1
    for strip in strips:  # what the last step took too much
        added = min(spare, strip.natural - strip.width)
        strip.width += added
        spare -= added
    return True


def _line(strips: Sequence[_Strip], number: int, gap: int) -> Text:
    from rich.text import Text

    line = Text()
    for index, strip in enumerate(strips):
        if index:
            line.append(_gap(strips[index - 1], strip, gap))
        cell = strip.cells[number]
        text = cut(cell.plain, strip.width, keep="start" if not number else strip.keep)
        spaces = strip.width - Text(text).cell_len
        if strip.right:
            line.append(" " * spaces)
        line.append(text, style=cell.style)
        if not strip.right and strip is not strips[-1]:
            line.append(" " * spaces)
    line.rstrip()
    return line


def cut(text: str, width: int, *, keep: Literal["start", "end"] = "start") -> str:
    """`text` in at most `width` columns; an ellipsis stands for what is left out.

    >>> cut("payment.completed", 10), cut("payment.completed", 10, keep="end"), cut("short", 10)
    ('payment.c…', '…completed', 'short')
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    mark = _mark(ELLIPSIS)
    kept = text if keep == "start" else text[::-1]
    end = max(0, min(len(text), width))
    while end and cell_len(kept[:end]) > width - len(mark):
        end -= 1
    return kept[:end] + mark if keep == "start" else mark + kept[:end][::-1]


# What is shown of a value


def _shown_text(value: object) -> str:
    """A value as one line that the encoding of standard output has."""
    return plain.shown(one_line(value_text(value)), sys.stdout)


def _mark(mark: str) -> str:
    return plain.shown(mark, sys.stdout)


def _is_numeric(values: Sequence[object]) -> bool:
    return any(value is not None for value in values) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def _padded(text: str, spaces: int, *, right: bool) -> str:
    return " " * spaces + text if right else text + " " * spaces


def without_query(url: str) -> str:
    """A URL without what stands behind its `?`, which may be a secret.

    >>> without_query("https://a.example/hook?token=1")
    'https://a.example/hook?…'
    """
    location, mark, _ = url.partition("?")
    return location + ("?…" if mark else "")


def place(url: str) -> str:
    """Host and path of a URL.

    >>> place("https://shop.example.com/"), place("http://127.0.0.1:8080/hook?token=1")
    ('shop.example.com', '127.0.0.1:8080/hook?…')
    """
    _, mark, rest = without_query(url).partition("://")
    return (rest if mark else url).removesuffix("/")


def times(values: Sequence[str | None], now: datetime) -> list[str | None]:
    """Instants of one column in the shortest form that all of them have in common: times of today, dates, years.

    >>> at = datetime.fromisoformat("2026-03-02T09:30:00Z")
    >>> times(["2026-03-02T09:00:00.5Z", None], at), times(["2026-03-02T09:00:00Z", "2026-01-02T09:00:00Z"], at)
    (['09:00:00', None], ['03-02 09:00', '01-02 09:00'])
    >>> times(["2025-12-31T23:59:59Z"], at)
    ['2025-12-31 23:59']
    """
    instants = [None if value is None else datetime.fromisoformat(value).astimezone(UTC) for value in values]
    given = [at for at in instants if at is not None]
    if all(at.date() == now.date() for at in given):
        form = "%H:%M:%S"
    elif all(at.year == now.year for at in given):
        form = "%m-%d %H:%M"
    else:
        form = "%Y-%m-%d %H:%M"
    return [None if at is None else at.strftime(form) for at in instants]


def short_ids(values: Sequence[str | None], room: int) -> list[str | None]:
    """Ids of one column as prefixes, all of the shortest length at which they differ.

    Ids that were made in the same millisecond differ at their ends only. Where such a prefix has no room, the middle is
    left out instead, which an ellipsis shows; what stands before it is a prefix that few ids have. What is not an id of
    ours is whole.

    >>> short_ids(["evt_01890a5d-ac96-774b-bcce-b302099a8057", "evt_01890a5e-ac96-774b-bcce-b302099a8057"], 17)
    ['evt_01890a5d-ac96', 'evt_01890a5e-ac96']
    """
    ids = {value for value in values if value is not None and _ID.fullmatch(value)}
    if not ids:
        return [*values]
    length = next(n for n in range(_MILLISECOND, _UUID + 1) if len({_head(id_, n) for id_ in ids}) == len(ids))
    short = {id_: _head(id_, length) for id_ in ids}
    if max(map(len, short.values())) > room:
        head = _MILLISECOND
        tail = next(n for n in range(_TAIL, _UUID + 1) if len({_head(id_, head) + id_[-n:] for id_ in ids}) == len(ids))
        short = {id_: _head(id_, head) + ELLIPSIS + id_[-tail:] for id_ in ids}
    return [value if value is None else short.get(value, value) for value in values]


def _head(id_: str, length: int) -> str:
    """An id with so many characters of its UUID."""
    return id_[: id_.index("_") + 1 + length].rstrip("-")
