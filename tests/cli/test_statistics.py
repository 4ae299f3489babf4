"""`dispatcher stats`: what it shows to people and to programs."""

from __future__ import annotations

from sqlalchemy import Engine

from dispatcher.cli.statistics import bars, rate
from tests.cli.test_commands import ANSWER_503, FAILED, Run, end_all, line


def test_nothing_has_happened_yet(run: Run) -> None:
    told = run("stats").out
    assert "0 waiting  0 in flight" in told
    assert "Nothing was attempted" in told


def test_statistics_are_shown_with_their_graph_and_who_fails_most(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line() * 3)
    end_all(engine, FAILED, ANSWER_503)
    run("events", "send", stdin=line())
    told = run("stats", "--window", "1h").out
    assert "3  0 %  http_retryable 3" in told
    assert "0 delivered  0 %  exhausted 3" in told
    assert "█  3 at most" in told
    assert "1 waiting" in told
    assert next(row.split() for row in told.splitlines() if endpoint["id"] in row)[:5] == [
        endpoint["id"], "https://shop.example.com/hook", "3", "0", "%",
    ]  # fmt: skip
    by_type = run("stats", "--by", "event_type", "--endpoint", endpoint["id"]).out
    assert "payment.completed" in by_type
    assert endpoint["id"] not in run("stats", "--by", "none").out


def test_statistics_in_json_are_the_apis(run: Run, engine: Engine) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    found = run("stats", "--by", "tenant", "--window", "7d", "--output", "json").json
    assert found["step_s"] == 4 * 3600
    assert found["attempts"]["by_outcome"] == {"http_retryable": 1}
    (group,) = found["groups"]
    assert group["name"] == "default"
    assert found["from"] < found["to"]


def test_a_bar_is_never_missing_for_what_happened_and_a_rate_never_rounds_up() -> None:
    assert bars([0, 1, 1000]) == "·▁█"
    assert rate(0.99999).plain == "99.99 %"
    assert (rate(0.999).style, rate(0.97).style, rate(0.5).style) == ("green", "yellow", "red")
