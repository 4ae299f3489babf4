from __future__ import annotations

import doctest
import importlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from dispatcher.cli import output
from dispatcher.retry import format_duration, preview
from dispatcher.signing import Secret
from tests.retry.strategies import schedules

# By its name, since the package's attribute of that name is the group.
command = importlib.import_module("dispatcher.cli.schedules")

JITTERED = 'description = "d"\nsource = "s"\nwaits = ["0s", "10s", "1h"]\njitter = 0.5\n'
OFFSETS = 'description = "d"\nsource = "s"\nwaits = ["0s", "10s", "1h"]\nrelative_to = "first_attempt"\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "standard.toml").write_text(JITTERED)
    (tmp_path / "offsets.toml").write_text(OFFSETS)
    return tmp_path


def run(*args: object, exit_code: int = 0, env: dict[str, str] | None = None) -> Result:
    result = CliRunner(env={"DISPATCHER_SCHEDULES_DIR": None, "FORCE_COLOR": None, **(env or {})}).invoke(
        command.schedules, [str(arg) for arg in args]
    )
    assert result.exit_code == exit_code, result.output
    return result


def answer(*args: object, **kwargs: Any) -> Any:
    return json.loads(run(*args, "--output", "json", **kwargs).stdout)


def test_preview_lays_out_the_ladder() -> None:
    assert run("preview", "standard", "--start", "2026-01-31T12:00:00+01:00").stdout == (
        "attempt  wait  after start  at\n"
        "      1  0s    00:00:00     2026-01-31T11:00:00Z\n"
        "      2  5s    00:00:05     2026-01-31T11:00:05Z\n"
        "      3  5m    00:05:05     2026-01-31T11:05:05Z\n"
        "      4  30m   00:35:05     2026-01-31T11:35:05Z\n"
        "      5  2h    02:35:05     2026-01-31T13:35:05Z\n"
        "      6  5h    07:35:05     2026-01-31T18:35:05Z\n"
        "      7  10h   17:35:05     2026-02-01T04:35:05Z\n"
        "      8  10h   27:35:05     2026-02-01T14:35:05Z\n"
        "standard: 8 attempts over 27:35:05, from 2026-01-31T11:00:00Z.\n"
        "Failures are taken to need no time; waits count from the previous failure, so an attempt really starts later "
        "by what all attempts before it took.\n"
    )


def test_preview_shows_the_range_of_the_jitter(mine: Path) -> None:
    args = ("preview", "standard", "--schedules-dir", mine, "--start", "2026-01-31T00:00:00Z")
    lines = run(*args).stdout.splitlines()
    assert lines[0].split() == ["attempt", "wait", "after", "start", "latest", "at"]
    assert lines[3].split() == ["3", "1h", "01:00:10", "01:30:15", "2026-01-31T01:00:10Z"]
    assert "over 01:00:10, with the most jitter (0.5) 01:30:15" in lines[4]
    last = answer(*args)["attempts"][-1]
    assert last == {
        "number": 3,
        "wait_s": 3600.0,
        "offset_s": 3610.0,
        "latest_offset_s": 5415.0,
        "at": "2026-01-31T01:00:10Z",
        "latest_at": "2026-01-31T01:30:15Z",
    }


def test_preview_draws_alike_from_the_same_seed(mine: Path) -> None:
    args = ("preview", "standard", "--schedules-dir", mine, "--start", "2026-01-31T00:00:00Z", "--seed", "7")
    first, second = run(*args).stdout, run(*args).stdout
    assert first == second
    assert first.splitlines()[0].endswith("drawn")
    attempts = answer(*args)["attempts"]
    assert all(attempt["offset_s"] <= attempt["drawn_offset_s"] <= attempt["latest_offset_s"] for attempt in attempts)
    assert answer(*args[:-1], "8")["attempts"] != attempts


@given(schedules(), st.integers())
def test_a_drawn_time_is_never_early(schedule: Any, seed: int) -> None:
    drawn = command._draw(schedule, seed)
    offsets = [wait.earliest for wait in preview(schedule)]
    assert all(offset <= at for offset, at in zip(offsets, drawn, strict=True))


def test_preview_of_offsets_says_what_they_count_from(mine: Path) -> None:
    shown = run("preview", "offsets", "--schedules-dir", mine, "--seed", "1", "--start", "2026-01-31T00:00:00Z").stdout
    assert "3  1h    01:00:00     2026-01-31T01:00:00Z  01:00:00\n" in shown
    assert "waits count from the start of attempt 1" in shown


def test_preview_starts_now_unless_told() -> None:
    start = datetime.fromisoformat(answer("preview", "standard")["start"])
    assert start.tzinfo is not None
    assert start.microsecond == 0


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("yesterday", "is no time like"),
        ("2026-01-31T00:00:00", "names no zone"),
        ("9999-12-31T23:59:00Z", "past the year 9999"),
        ("0001-01-01T00:00:00+10:00", "is out of range"),
    ],
)
def test_a_start_that_cannot_be_is_a_usage_error(start: str, told: str) -> None:
    assert told in run("preview", "standard", "--start", start, exit_code=2).stderr


def test_a_path_stands_for_a_name(mine: Path) -> None:
    assert answer("show", mine / "offsets.toml")["relative_to"] == "first_attempt"
    assert answer("preview", mine / "offsets.toml")["name"] == "offsets"


def test_list_says_where_each_schedule_comes_from(mine: Path) -> None:
    rows = [line.split(None, 3) for line in run("list", "--schedules-dir", mine).stdout.splitlines()]
    assert rows[1] == ["exponential", "7", "02:06:00", "0s 2m 4m 8m 16m 32m 1h4m  shipped"]
    assert rows[2] == ["offsets", "3", "01:00:00", f"at 0s 10s 1h              {mine}/offsets.toml"]
    assert rows[3][3].endswith(f"{mine}/standard.toml, replacing the shipped one")


def test_the_directory_may_come_from_the_environment(mine: Path) -> None:
    names = [row["name"] for row in answer("list", env={"DISPATCHER_SCHEDULES_DIR": str(mine)})["data"]]
    assert names == ["exponential", "offsets", "standard"]


def test_an_empty_variable_is_none_at_all() -> None:
    assert len(answer("list", env={"DISPATCHER_SCHEDULES_DIR": ""})["data"]) == 2


def test_list_and_show_tell_the_same() -> None:
    (listed,) = [row for row in answer("list")["data"] if row["name"] == "standard"]
    assert answer("show", "standard") == listed
    assert listed["shipped"] is True
    assert listed["waits"] == ["0s", "5s", "5m", "30m", "2h", "5h", "10h", "10h"]
    assert listed["total_s"] == 99_305


def test_show_names_every_property() -> None:
    shown = run("show", "standard").stdout
    for part in ("previous_failure", "0s 5s 5m 30m 2h 5h 10h 10h", "27:35:05 (1d3h35m5s)", "60417363", "shipped"):
        assert part in shown


def test_an_unknown_schedule_fails_with_the_nearest_name() -> None:
    result = run("show", "standrad", exit_code=1)
    assert result.stderr == "Error: no schedule 'standrad'; did you mean standard?\n"
    assert result.stdout == ""


def test_a_broken_directory_fails_with_every_problem(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("waits = []\njitter = 2\n")
    told = run("list", "--schedules-dir", tmp_path, exit_code=1).stderr
    assert f"{tmp_path}/a.toml:1: waits: found 0 waits" in told
    assert f"{tmp_path}/a.toml:2: jitter: found 2" in told


def test_lint_of_what_is_shipped_finds_nothing() -> None:
    assert run("lint").stdout == "2 files, 0 errors, 0 warnings\n"


def test_lint_tells_errors_and_warnings_and_fails_on_errors_only(mine: Path) -> None:
    (mine / "offsets.toml").write_text('waits = ["0s", "5s"]')
    assert "2 warnings" in run("lint", mine).stdout
    (mine / "bad.toml").write_text("waits = []")
    lines = run("lint", mine, exit_code=1).stdout.splitlines()
    assert lines[0].startswith(f"error: {mine}/bad.toml:1: waits: found 0 waits; allowed: 1 to 100 durations")
    assert lines[1].startswith(f"warning: {mine}/offsets.toml: description: missing")
    assert lines[-1] == "3 files, 1 error, 2 warnings"


def test_lint_answers_in_json_too(mine: Path) -> None:
    (mine / "bad.toml").write_text("\nwaits = []")
    told = answer("lint", mine / "bad.toml", exit_code=1)
    assert told["files"] == 1
    assert told["warnings"] == []
    (error,) = told["errors"]
    assert (error["where"], error["line"], error["field"], error["found"]) == (
        f"{mine}/bad.toml",
        2,
        "waits",
        "0 waits",
    )


@pytest.mark.parametrize(
    "args", [(), ("nope",), ("list", "--output", "xml"), ("show",), ("preview", "x", "--seed", "y")]
)
def test_a_wrong_call_is_a_usage_error(args: tuple[str, ...]) -> None:
    run(*args, exit_code=2)


def test_on_a_terminal_the_head_of_a_table_is_bold_and_underlined() -> None:
    shown = run("list", env={"FORCE_COLOR": "1", "COLUMNS": "100"}).stdout
    assert "\x1b[1;4mname" in shown
    assert "\x1b[" in run("show", "standard", env={"FORCE_COLOR": "1"}).stdout
    assert "\n\nstandard: 8 attempts" in run("preview", "standard", env={"FORCE_COLOR": "1"}).stdout


def printed(print_: Any, *args: Any, **kwargs: Any) -> str:
    @click.command()
    def cli() -> None:
        print_(*args, **kwargs)

    result = CliRunner().invoke(cli, catch_exceptions=False)
    return result.stdout


def test_nothing_that_a_receiver_sent_steers_the_terminal() -> None:
    hostile = "\x1b[2J\x9b31m\u202e[bold]x\r"
    table = printed(output.print_table, ["head"], [[hostile], [Text("styled")]], caption=hostile)
    assert table == (
        "head\n\\x1b[2J\\x9b31m\\u202e[bold]x\\r\nstyled\n\\x1b[2J\\x9b31m\\u202e[bold]x\\r\n"
    )  # fmt: skip
    assert printed(output.print_line, hostile) == "\\x1b[2J\\x9b31m\\u202e[bold]x\\r\n"
    in_json = printed(output.print_json, {"x": hostile})
    assert json.loads(in_json) == {"x": hostile}
    assert all(character.isprintable() or character == "\n" for character in in_json)


def test_a_table_shows_each_kind_of_value() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    lines = printed(
        output.print_table, ["a", "b", "c", "d"], [[1, None, at, True], [22.5, "x", at, False]]
    ).splitlines()
    assert lines == [
        "   a  b  c                         d",
        "   1     2026-01-02T03:04:05.678Z  yes",
        "22.5  x  2026-01-02T03:04:05.678Z  no",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert printed(output.print_table, ["a", "b"], []) == "a  b\n"


def test_json_writes_instants_durations_ids_and_paths() -> None:
    value = {"at": datetime(2026, 1, 2, tzinfo=UTC), "for": timedelta(seconds=1.5), "id": UUID(int=1), "p": Path("x")}
    assert json.loads(printed(output.print_json, value)) == {
        "at": "2026-01-02T00:00:00Z",
        "for": 1.5,
        "id": str(UUID(int=1)),
        "p": "x",
    }


def test_json_guesses_at_nothing() -> None:
    with pytest.raises(TypeError, match="Secret has no JSON form"):
        printed(output.print_json, Secret(b"planted"))


@given(st.integers(0, 10**12))
def test_a_clock_time_and_a_duration_agree(ms: int) -> None:
    duration = timedelta(milliseconds=ms)
    hours, minutes, seconds = command.clock_time(duration).split(":")
    assert timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds)) == duration
    assert format_duration(duration)


@pytest.mark.parametrize("module", [output, command])
def test_the_examples_in_the_docstrings_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
