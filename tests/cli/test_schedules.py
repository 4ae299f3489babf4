"""`dispatcher schedules simulate`. The other commands are in tests/retry/test_schedules_command.py."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from dispatcher.cli.schedules import schedules


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(schedules, ["simulate", "standard", *arguments])


def test_an_outage_is_shown_attempt_by_attempt() -> None:
    shown = simulate("--down", "0s..3h", "--start", "2026-01-31T12:00:00Z")
    assert shown.exit_code == 0
    assert "02:35:05" in shown.output
    assert "standard: delivered by 6 attempts, 07:35:05 after the event." in shown.output
    assert [line.split()[-1] for line in shown.output.splitlines() if line.lstrip()[:1].isdigit()] == [
        *["fails"] * 5,
        "ok",
    ]


def test_outages_add_up_to_exhaustion() -> None:
    found = json.loads(simulate("--down", "0s..1h", "--down", "1h..30h", "--output", "json").output)
    assert (found["ended"], found["reason"], len(found["attempts"])) == ("exhausted", "connect", 8)
    assert found["delay_s"] == 99305


def test_what_failing_takes_is_added() -> None:
    found = json.loads(simulate("--down", "0s..1m", "--takes", "15s", "--output", "json").output)
    assert [one["offset_s"] for one in found["attempts"]] == [0, 20, 335]


@pytest.mark.parametrize(
    "arguments",
    [("--down", "3h..1h"), ("--down", "3h"), ("--down", "now..later"), ("--takes", "long"), ("--start", "tomorrow")],
)
def test_what_is_no_span_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert simulate(*arguments).exit_code == 2
