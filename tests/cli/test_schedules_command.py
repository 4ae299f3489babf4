from __future__ import annotations

import doctest
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from dispatcher.cli import output
from dispatcher.cli import schedules as command
from dispatcher.retry import format_duration, preview, shipped_schedules_dir
from dispatcher.signing import Secret
from tests.retry.strategies import schedules
from tests.support.command import Command

JITTERED = 'description = "d"\nsource = "s"\nwaits = ["0s", "10s", "1h"]\njitter = 0.5\n'
OFFSETS = 'description = "d"\nsource = "s"\nwaits = ["0s", "10s", "1h"]\nrelative_to = "first_attempt"\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "standard.toml").write_text(JITTERED)
    (tmp_path / "offsets.toml").write_text(OFFSETS)
    return tmp_path


STANDARD = str(shipped_schedules_dir() / "standard.toml")


@pytest.fixture
def here(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`dispatcher schedules …` on a machine on which nothing runs."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return Command(monkeypatch, capsys, ("schedules",))


def answer(run: Command, *args: object, code: int = 0) -> Any:
    ran = run(*args, "--output", "json")
    assert ran.code == code, ran.err
    return ran.json


def test_preview_lays_out_the_ladder(here: Command) -> None:
    assert here("preview", STANDARD, "--start", "2026-01-31T12:00:00+01:00").out == (
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


def test_preview_shows_the_range_of_the_jitter(here: Command, mine: Path) -> None:
    args = ("preview", mine / "standard.toml", "--start", "2026-01-31T00:00:00Z")
    lines = here(*args).out.splitlines()
    assert lines[0].split() == ["attempt", "wait", "after", "start", "latest", "at"]
    assert lines[3].split() == ["3", "1h", "01:00:10", "01:30:15", "2026-01-31T01:00:10Z"]
    assert "over 01:00:10, with the most jitter (0.5) 01:30:15" in lines[4]
    last = answer(here, *args)["attempts"][-1]
    assert last == {
        "number": 3,
        "wait_s": 3600.0,
        "offset_s": 3610.0,
        "latest_offset_s": 5415.0,
        "at": "2026-01-31T01:00:10Z",
        "latest_at": "2026-01-31T01:30:15Z",
    }


def test_preview_draws_alike_from_the_same_seed(here: Command, mine: Path) -> None:
    args = ("preview", mine / "standard.toml", "--start", "2026-01-31T00:00:00Z", "--seed", "7")
    first, second = here(*args).out, here(*args).out
    assert first == second
    assert first.splitlines()[0].endswith("drawn")
    attempts = answer(here, *args)["attempts"]
    assert all(attempt["offset_s"] <= attempt["drawn_offset_s"] <= attempt["latest_offset_s"] for attempt in attempts)
    assert answer(here, *args[:-1], "8")["attempts"] != attempts


@given(schedules(), st.integers())
def test_a_drawn_time_is_never_early(schedule: Any, seed: int) -> None:
    drawn = command._draw(schedule, seed)
    offsets = [wait.earliest for wait in preview(schedule)]
    assert all(offset <= at for offset, at in zip(offsets, drawn, strict=True))


def test_preview_of_offsets_says_what_they_count_from(here: Command, mine: Path) -> None:
    shown = here("preview", mine / "offsets.toml", "--seed", "1", "--start", "2026-01-31T00:00:00Z").out
    assert "3  1h    01:00:00     2026-01-31T01:00:00Z  01:00:00\n" in shown
    assert "waits count from the start of attempt 1" in shown


def test_preview_starts_now_unless_told(here: Command) -> None:
    start = datetime.fromisoformat(answer(here, "preview", STANDARD)["start"])
    assert start.tzinfo is not None
    assert start.microsecond == 0


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("yesterday", "is not a time like"),
        ("2026-01-31T00:00:00", "names no zone"),
        ("9999-12-31T23:59:00Z", "past the year 9999"),
        ("0001-01-01T00:00:00+10:00", "is out of range"),
    ],
)
def test_a_start_that_cannot_be_is_a_usage_error(here: Command, start: str, told: str) -> None:
    ran = here("preview", STANDARD, "--start", start)
    assert ran.code == 2
    assert told in ran.err


def test_a_path_stands_for_a_name(here: Command, mine: Path) -> None:
    assert answer(here, "show", mine / "offsets.toml")["relative_to"] == "first_attempt"
    assert answer(here, "preview", mine / "offsets.toml")["name"] == "offsets"


def test_the_systems_schedules_are_listed_and_shown(
    run: Command, mine: Path, monkeypatch: pytest.MonkeyPatch, migrated_database_url: str
) -> None:
    monkeypatch.setenv("DISPATCHER_SCHEDULES_DIR", str(mine))
    assert run("migrate").code == 0, "which publishes the files' versions"
    rows = [line.split(None, 3) for line in run("schedules", "list").out.splitlines()]
    assert rows == [
        ["name", "attempts", "over", "waits"],
        ["exponential", "7", "02:06:00", "0s 2m 4m 8m 16m 32m 1h4m"],
        ["offsets", "3", "01:00:00", "at 0s 10s 1h"],
        ["standard", "3", "01:00:10", "0s 10s 1h"],
    ]
    listed = run("schedules", "list", "--output", "json").data
    for one in listed:
        assert answer(run, "schedules", "show", one["name"]) == one
    assert listed[-1] == answer(run, "schedules", "show", mine / "standard.toml"), "the file says the same"
    previewed = answer(run, "schedules", "preview", "standard", "--seed", 7, "--start", "2026-01-31T00:00:00Z")
    assert previewed == answer(
        run, "schedules", "preview", mine / "standard.toml", "--seed", 7, "--start", "2026-01-31T00:00:00Z"
    )
    assert answer(run, "schedules", "simulate", "offsets", "--down", "0s..1m")["delay_s"] == 3600


def test_an_unknown_schedule_fails_with_the_nearest_name(run: Command) -> None:
    ran = run("schedules", "show", "standrad")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "dispatcher: no schedule 'standrad'; did you mean standard?\n"


def test_a_broken_file_fails_with_every_problem(here: Command, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("waits = []\njitter = 2\n")
    ran = here("show", str(tmp_path / "a.toml"))
    assert ran.code == 2
    assert f"{tmp_path}/a.toml:1: waits: found 0 waits" in ran.err
    assert f"{tmp_path}/a.toml:2: jitter: found 2" in ran.err


def test_show_names_every_property(here: Command) -> None:
    shown = here("show", STANDARD).out
    for part in ("previous_failure", "0s 5s 5m 30m 2h 5h 10h 10h", "27:35:05 (1d3h35m5s)", "60417363"):
        assert part in shown


def test_lint_of_what_is_shipped_finds_nothing(here: Command) -> None:
    assert here("lint").out == "2 files, 0 errors, 0 warnings\n"


def test_lint_tells_errors_and_warnings_and_fails_on_errors_only(here: Command, mine: Path) -> None:
    (mine / "offsets.toml").write_text('waits = ["0s", "5s"]')
    assert "2 warnings" in here("lint", mine).out
    (mine / "bad.toml").write_text("waits = []")
    ran = here("lint", mine)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"error: {mine}/bad.toml:1: waits: found 0 waits; allowed: 1 to 100 durations")
    assert lines[1].startswith(f"warning: {mine}/offsets.toml: description: missing")
    assert lines[-1] == "3 files, 1 error, 2 warnings"


def test_lint_answers_in_json_too(here: Command, mine: Path) -> None:
    (mine / "bad.toml").write_text("\nwaits = []")
    told = answer(here, "lint", mine / "bad.toml", code=1)
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
def test_a_wrong_call_is_a_usage_error(here: Command, args: tuple[str, ...]) -> None:
    assert here(*args).code == 2


def test_on_a_terminal_the_head_of_a_table_is_bold_and_underlined(
    here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    shown = here("preview", STANDARD).out
    assert "\x1b[1;4mattempt" in shown
    assert "\n\nstandard: 8 attempts" in shown
    assert "\x1b[" in here("show", STANDARD).out


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
