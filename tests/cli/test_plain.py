"""Every command prints in every encoding: what it lacks becomes a plain mark or an escape, never a traceback."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Self

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from dispatcher.cli import cli, output, plain, sheet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

encodings = pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])

SPOKEN = "café — 10 €, ✓ … \U0001f600"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "SECRET_KEYS", "API_URL", "SCHEDULES_DIR", "PROFILES_DIR"):
        monkeypatch.delenv(f"DISPATCHER_{name}", raising=False)
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(tmp_path))


def every_command(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from every_command(below, (*words, name))


def run(encoding: str, *words: str) -> Result:
    ran = CliRunner(charset=encoding).invoke(cli, words)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), (words, ran.exception)
    for printed in (ran.stdout_bytes, ran.stderr_bytes):
        printed.decode(encoding)
        assert encoding != "ascii" or printed.isascii(), words
    return ran


@encodings
def test_every_command_explains_itself(encoding: str) -> None:
    for words in every_command(cli):
        assert run(encoding, *words, "--help").exit_code == 0


@encodings
def test_commands_print_plain_marks(encoding: str) -> None:
    found = run(encoding, "doctor")
    assert "x" in found.stdout.split()
    run(encoding, "config", "show")
    run(encoding, "schedules", "lint")
    run(encoding, "profiles", "lint", "--output", "json")
    assert "No such command" in run(encoding, "\u2713 caf\u00e9").stderr


class Printed:
    """Standard output and error in an encoding, while it is entered."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.bytes = io.BytesIO()

    def __enter__(self) -> Self:
        stream = io.TextIOWrapper(self.bytes, encoding=self.encoding, write_through=True)
        self._streams = ExitStack()
        self._streams.enter_context(redirect_stdout(stream))
        self._streams.enter_context(redirect_stderr(stream))
        plain.set_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.text = self.bytes.getvalue().decode(self.encoding)
        self._streams.close()


@pytest.fixture(params=["ascii", "latin-1", "cp1252", "utf-8"])
def printed(request: pytest.FixtureRequest) -> Printed:
    return Printed(request.param)


def test_json_says_the_same_in_every_encoding(printed: Printed) -> None:
    with printed:
        output.print_json({"said": SPOKEN})
    assert json.loads(printed.text) == {"said": SPOKEN}


def test_a_sheet_escapes_what_is_missing_and_begins_no_formula(printed: Printed) -> None:
    delivery: Any = dict.fromkeys(sheet.COLUMNS, "x") | {"url": "https://a.example/", "schedule": {"name": "s"}}
    with printed:
        sheet.write([delivery | {"object_id": "–1+1 €"}], "csv", sys.stdout)
    (row,) = csv.DictReader(io.StringIO(printed.text))
    expected = {"ascii": "\\u20131+1 \\u20ac", "latin-1": "\\u20131+1 \\u20ac"}
    assert row["object_id"] == expected.get(printed.encoding, "–1+1 €")


def test_tables_lines_and_progress_bars_are_printed(printed: Printed) -> None:
    with printed:
        output.print_table(["a"], [[SPOKEN]], caption=SPOKEN)
        output.print_fields([("a", SPOKEN)])
        output.print_line(SPOKEN)
        console = Console(file=sys.stderr, force_terminal=True)
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), console=console) as progress:
            progress.update(progress.add_task(SPOKEN, total=2), completed=1)
    lines = {
        "ascii": "caf\\xe9 - 10 \\u20ac, + ... \\U0001f600",
        "latin-1": "café - 10 \\u20ac, + ... \\U0001f600",
        "cp1252": "café — 10 €, + … \\U0001f600",
        "utf-8": SPOKEN,
    }
    assert printed.text.count(lines[printed.encoding]) >= 4


def test_what_no_encoding_has_is_escaped(printed: Printed) -> None:
    with printed:
        output.print_line("a name of bytes: \udcff")
    assert printed.text == "a name of bytes: \\udcff\n"


def test_the_locale_c_is_an_encoding_like_others() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape", write_through=True)
    with redirect_stdout(stream):
        plain.set_up()
        output.print_line("✓")
        click.echo("✓")
        written = stream.buffer.getvalue()  # type: ignore[attr-defined]  # of BytesIO
    assert written == b"+\n+\n"


def test_an_error_handler_of_the_users_stays() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="replace")
    with redirect_stdout(stream):
        plain.set_up()
    assert stream.errors == "replace"


def test_every_mark_is_ascii() -> None:
    assert all(mark.isascii() and not one.isascii() for one, mark in plain.MARKS.items())
