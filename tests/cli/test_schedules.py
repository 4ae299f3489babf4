"""`dispatcher schedules simulate`. The other commands are in tests/retry/test_schedules_command.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.retry import shipped_schedules_dir
from tests.support.command import Command


@pytest.fixture
def simulate(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """On a machine on which nothing runs: the schedule is named by the path of its file."""
    path = str(shipped_schedules_dir() / "standard.toml")
    return Command(monkeypatch, capsys, ("schedules", "simulate", path))


def test_an_outage_is_shown_attempt_by_attempt(simulate: Command) -> None:
    shown = simulate("--down", "0s..3h", "--start", "2026-01-31T12:00:00Z")
    assert shown.code == 0
    assert "02:35:05" in shown.out
    assert "standard: delivered by 6 attempts, 07:35:05 after the event." in shown.out
    assert [line.split()[-1] for line in shown.out.splitlines() if line.lstrip()[:1].isdigit()] == [
        *["fails"] * 5,
        "ok",
    ]


def test_outages_add_up_to_exhaustion(simulate: Command) -> None:
    found = simulate("--down", "0s..1h", "--down", "1h..30h", "--output", "json").json
    assert (found["ended"], found["reason"], len(found["attempts"])) == ("exhausted", "connect", 8)
    assert found["delay_s"] == 99305


def test_what_failing_takes_is_added(simulate: Command) -> None:
    found = simulate("--down", "0s..1m", "--attempt-duration", "15s", "--output", "json").json
    assert [one["offset_s"] for one in found["attempts"]] == [0, 20, 335]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--down", "3h..1h"),
        ("--down", "3h"),
        ("--down", "now..later"),
        ("--attempt-duration", "long"),
        ("--start", "tomorrow"),
    ],
)
def test_what_is_no_span_is_a_usage_error(simulate: Command, arguments: tuple[str, ...]) -> None:
    assert simulate(*arguments).code == 2
