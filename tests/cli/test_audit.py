"""`dispatcher audit verify`: what it looks at, prints, and how it exits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from dispatcher.clock import SYSTEM
from tests.cli.test_commands import Run, line


@pytest.fixture
def two(run: Run) -> None:
    """An endpoint, and two events of now."""
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line() * 2)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("span", [(), ("--all",), ("--since", "1h")])
def test_a_sound_log_exits_with_0(run: Run, span: tuple[str, ...]) -> None:
    ran = run("audit", "verify", *span)
    assert ran.code == 0, ran.out
    assert "2 waiting" in ran.out
    assert "✓ no violation" in ran.out
    assert "✗" not in ran.out


@pytest.mark.usefixtures("two")
def test_a_violation_is_named_and_exits_with_1(run: Run, engine: Engine) -> None:
    with engine.begin() as connection:
        lost = connection.execute(
            text(
                "DELETE FROM dispatcher.deliveries WHERE id IN (SELECT id FROM dispatcher.deliveries LIMIT 1) "
                "RETURNING event_id"
            )
        ).scalar_one()
    ran = run("audit", "verify")
    assert ran.code == 1
    assert f"evt_{lost}: 0 of 1 deliveries" in ran.out
    told = run("audit", "verify", "--all", "--output", "json")
    assert told.code == 1
    assert told.json["violations"] == 1, "whether it wanted the event is not told: it was registered a moment before"
    (broken,) = (one for one in told.json["checks"] if not one["ok"])
    assert (broken["invariant"], broken["check"], broken["count"]) == (1, "fanout", 1)
    (day,) = told.json["days"]
    assert (day["events"], day["expected"], day["live"]) == (2, 2, {"waiting": 1})
    assert day["checks"] == [broken]


@pytest.mark.usefixtures("two")
def test_one_day_is_looked_at(run: Run) -> None:
    today = SYSTEM.now().date()
    for day, events in ((today, 2), (today - timedelta(days=3), 0)):
        told = run("audit", "verify", "--day", str(day), "--output", "json")
        assert told.code == 0
        assert sum(one["events"] for one in told.json["days"]) == events
    assert "Nothing was created then" in run("audit", "verify", "--day", "2020-02-29").out


def test_one_span_is_asked_for(run: Run) -> None:
    assert run("audit", "verify", "--all", "--since", "1h").code == 2
    assert run("audit", "verify", "--day", "2026-02-30").code == 2
