"""How every command prints: a table for people, JSON for programs.

rich is imported by the functions that print with it: a command that fails, or prints JSON, does without.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TextIO, TypeVar, cast
from uuid import UUID

import click

from dispatcher.cli import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table
    from rich.text import Text

Output = Literal["table", "json"]

Command = TypeVar("Command", bound="Callable[..., Any]")

# C0 but tab and newline, DEL, C1, the other line breaks, and what turns the direction of text: a receiver's answer must
# not steer a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BREAKING: Final = re.compile(r"[\t\n]")
_WHOLE: Final = re.compile(r"[a-z]{2,3}_[0-9a-f-]{36}|\d{4}-\d\d-\d\dT[\d:.]+Z")  # an id, an instant
_PIPE_WIDTH: Final = 1_000_000
_SHORT: Final = 12
_WORDS: Final = 14
_GAP: Final = 2


def output_option(command: Command) -> Command:
    """Add `--output table|json`, passed as `output`."""
    return output_choice("table", "json")(command)


def output_choice(*forms: str) -> Callable[[Command], Command]:
    """Add `--output` with these choices, the first by default, passed as `output`."""
    return click.option(
        "--output", type=click.Choice(forms), default=forms[0], show_default=True, help="What to print."
    )


def console() -> Console:
    """Standard output. Into a pipe: no colour, and lines are never folded, so that grep and awk find whole rows."""
    from rich.console import Console

    found = Console(highlight=False, emoji=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, emoji=False, markup=False, width=_PIPE_WIDTH)


def styled(text: str, style: str = "") -> Text:
    """A cell, or a part of a line, in a style of rich."""
    from rich.text import Text

    return Text(text, style=style)


class NoProgress:
    """What a progress bar is where its stream is not a terminal: it shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_task(self, description: str, total: float | None = None) -> TaskID:  # noqa: ARG002 - as of Progress
        """There is no task."""
        return cast("TaskID", 0)

    def update(self, task: TaskID, **changes: object) -> None:
        """Nothing is shown."""

    def advance(self, task: TaskID) -> None:
        """Nothing is shown."""


def progress_bar(stream: TextIO) -> Progress | NoProgress:
    """How many of how many, and for how long; nothing where the stream is not a terminal."""
    if not stream.isatty():
        return NoProgress()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=stream, highlight=False, emoji=False, markup=False),
        transient=True,
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> None:
    """Print `rows` under `columns`; a column of which every cell is a number is right-aligned.

    Cells are shown as text whatever they hold: no markup is interpreted, control characters and line breaks are shown
    escaped.
    A `rich.text.Text` keeps its style. `caption` is a sentence under the table.
    """
    values = [list(row) for row in rows]
    if caption and not values:
        print_line(caption)
        return
    from rich.table import Table

    cells = [[_cell(value, text=one_line) for value in row] for row in values]
    out = console()
    widths = [_least_width(column, [row[index] for row in cells]) for index, column in enumerate(columns)]
    if out.is_terminal and cells and sum(widths) + _GAP * (len(widths) - 1) > out.width:
        # Columns cut in two are unreadable: on a narrow terminal each row becomes a block of lines instead.
        for row in cells:
            print_fields([(column, cell) for column, cell in zip(columns, row, strict=True) if cell.plain])
            print_line("")
        if caption:
            print_line(caption)
        return
    style = "bold underline" if out.is_terminal else "bold"
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style=style)
    for index, column in enumerate(columns):
        numeric = bool(values) and all(_is_number(row[index]) for row in values)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", min_width=widths[index])
    for row in cells:
        table.add_row(*row)
    _print(out, table)
    if caption:
        out.print(styled(("\n" if out.is_terminal else "") + visible(caption)))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one object: a name and a value a line."""
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(value))
    _print(out, table)


def print_line(text: str, *, style: str = "") -> None:
    """Print one line."""
    if style:
        console().print(styled(visible(text), style), soft_wrap=True)
    else:
        sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()


def note_secret(what: str = "secret") -> None:
    """Say on stderr that a secret was printed that cannot be shown again."""
    click.echo(f"dispatcher: the {what} is shown only now; store it before you go on", err=True)


def print_json(value: object) -> None:
    """Print `value` as JSON: instants as RFC 3339 in UTC, durations in seconds, ids and paths as text."""
    text = json.dumps(value, indent=2, ensure_ascii=not plain.has_every_character(sys.stdout), default=_plain)
    # json escapes C0 only. Outside strings these characters cannot stand, so the text stays the same JSON.
    sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "delivery", "deliveries"), counted(2, "event")
    ('1 delivery', '2 events')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def instant(at: datetime) -> str:
    """An aware instant as RFC 3339 in UTC, with the digits of a second that it needs: none, three or six.

    >>> instant(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    digits = "auto" if at.microsecond % 1_000 or not at.microsecond else "milliseconds"
    return at.astimezone(UTC).isoformat(timespec=digits).removesuffix("+00:00") + "Z"


def visible(text: str) -> str:
    r"""`text` with control characters escaped.

    >>> visible("\x1b[2J")
    '\\x1b[2J'
    """
    return _CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    r"""`text` as one line, with tabs and line breaks escaped too.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return _BREAKING.sub(_escape, visible(text))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _least_width(column: str, cells: Sequence[Text]) -> int:
    """What a column must have: an id, a number or an instant in one piece, long texts a word or two."""
    widest = max((cell.cell_len for cell in cells), default=0)
    whole = widest <= _SHORT or any(_WHOLE.fullmatch(cell.plain) for cell in cells)
    return max(len(column), widest if whole else _WORDS)


def _print(out: Console, table: Table) -> None:
    """Print `table`; into a pipe without the spaces that rich fills rows with."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_text(value: object) -> str:
    """A value as people read it, without control characters."""
    match value:
        case None:
            return ""
        case datetime():
            return instant(value)
        case bool():
            return "yes" if value else "no"
        case _:
            return visible(str(value))


def _cell(value: object, *, text: Callable[[str], str] = visible) -> Text:
    from rich.text import Text

    return value if isinstance(value, Text) else Text(text(value_text(value)))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return instant(value)
        case timedelta():
            return value.total_seconds()
        case UUID() | Path():
            return str(value)
        case _:
            # Anything else would be guessed at; a Secret among it.
            raise TypeError(f"{type(value).__name__} has no JSON form here")
