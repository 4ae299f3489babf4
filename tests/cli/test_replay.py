"""`dispatcher replay`: previewed, started, followed, paused and ended."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine

from dispatcher.cli import replay as command
from dispatcher.flow import replay_turn
from dispatcher.ids import format_id, uuid7
from tests.cli.test_commands import ANSWER_503, FAILED, Run, end_all, line


@pytest.fixture
def failed(run: Run, engine: Engine) -> str:
    """An endpoint with three exhausted deliveries: its id."""
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line() * 3)
    end_all(engine, FAILED, ANSWER_503)
    return str(endpoint["id"])


def step(engine: Engine) -> int | None:
    with engine.begin() as connection:
        return replay_turn.step(connection)


def test_exactly_what_was_previewed_is_replayed(run: Run, engine: Engine, failed: str) -> None:
    shown = run("replay", "preview", "--endpoint", failed, "--rate", "1.5")
    assert "2s at least" in shown.out
    preview = run("replay", "preview", "--endpoint", failed, "--rate", "50", "--output", "json").json
    assert preview["count"] == 3
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    started = run("replay", "start", "--token", preview["preview_token"], "--no-wait")
    status = run("replay", "status", started.out.strip(), "--output", "json").json
    assert (status["total"], status["rate_per_second"], status["status"]) == (3, 50, "running")


def test_a_token_stands_alone(run: Run, failed: str) -> None:
    token = run("replay", "preview", "--output", "json").json["preview_token"]
    for more in (("--endpoint", failed), ("--dry-run",), ("--undelivered",), ("--include-delivered",), ("--rate", "5")):
        ran = run("replay", "start", "--token", token, *more)
        assert ran.code == 2
        assert "--token alone" in ran.err
    assert "prv_ and a UUID" in run("replay", "start", "--token", "k1.a.b").err


def test_it_asks_before_it_starts_and_shows_what_it_is_about(run: Run, engine: Engine, failed: str) -> None:
    refused = run("replay", "start", "--status", "failed", stdin="n\n")
    assert refused.code == 1
    assert "Replay 3 deliveries?" in refused.out
    assert "oldest" in refused.out
    assert step(engine) is None
    assert run("replay", "start", "--status", "failed", "--no-wait", stdin="y\n").code == 0
    assert step(engine) == 3


def test_what_is_chosen_is_counted(run: Run, failed: str) -> None:
    for options, count in (
        (("--undelivered",), 3),
        (("--status", "exhausted", "--status", "expired"), 3),
        (("--status", "rejected"), 0),
        (("--include-delivered",), 3),
        (("--endpoint", format_id("ep", uuid7())), 0),
        (("--since", "1h", "--event-type", "payment.completed"), 3),
    ):
        assert run("replay", "preview", *options, "--output", "json").json["count"] == count, options


def test_a_preview_shows_the_endpoints_that_it_touches_also_a_single_one(run: Run, failed: str) -> None:
    for words in (("preview",), ("start", "--dry-run")):
        shown = run("replay", *words).out
        assert failed in shown
        assert "shop.example.com/hook" in shown


def test_everything_that_failed_is_replayed_unasked_only_by_all(run: Run, failed: str) -> None:
    refused = run("replay", "start", "--yes", "--no-wait")
    assert refused.code == 2
    assert "allowed: at least one condition, or --all" in refused.err
    assert run("replay", "list", "--output", "json").json["data"] == []
    refused = run("replay", "start", "--all", "--since", "1h", "--yes")
    assert refused.code == 2
    assert "found --all and a choice" in refused.err
    assert run("replay", "start", "--all", "--yes", "--no-wait").out.startswith("rpl_")


def test_a_replay_is_paused_resumed_and_ended(run: Run, engine: Engine, failed: str) -> None:
    one = run("replay", "start", "--all", "--yes", "--no-wait").out.strip()
    assert "paused" in run("replay", "pause", one).out
    assert step(engine) is None
    assert run("replay", "resume", one, "--output", "json").json["status"] == "running"
    shown = run("replay", "cancel", one).out
    assert "cancelled" in shown
    assert "0 of 3" in shown
    again = run("replay", "cancel", one)
    assert again.code == 1
    assert "has ended" in again.err


def test_it_waits_until_all_are_made(run: Run, engine: Engine, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda _: step(engine)))
    done = run("replay", "start", "--all", "--yes", "--output", "json").json
    assert (done["status"], done["processed"]) == ("done", 3)


def test_it_says_so_where_nothing_moves(run: Run, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter(range(0, 1000, 4))
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(now_s), sleep=lambda _: None))
    ran = run("replay", "start", "--all", "--yes")
    assert ran.code == 0
    assert "is a scheduler running?" in ran.out
    assert "running" in ran.out


def test_what_it_is_about_how_far_it_is_and_which_there_are_is_printed(run: Run, engine: Engine, failed: str) -> None:
    shown = run("replay", "preview", "--canary", "2", "--rate", "5", "--rate-per-endpoint", "2").out
    assert "2 of each endpoint" in shown
    assert "5 a second, 2 a second to each endpoint" in shown
    one = run("replay", "start", "--all", "--yes", "--no-wait", "--canary", "2").out.strip()
    assert step(engine) == 2
    by_endpoint = run("replay", "status", one, "--endpoints").out
    assert "2 of 3" in by_endpoint
    assert "those that go first have not all been attempted yet" in by_endpoint
    assert one in run("replay", "list").out
    assert run("replay", "list", "--output", "json").data[0]["canary"] == 2
    assert "3 left" in command._told(run("replay", "status", one, "--output", "json").json)


def test_who_follows_may_leave_and_it_goes_on(
    run: Run, engine: Engine, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=monotonic, sleep=leave))
    ran = run("replay", "start", "--all", "--yes", "--follow")
    assert ran.code == 0
    assert "it goes on without you: dispatcher replay status rpl_" in ran.out
    assert step(engine) == 3
