"""`dispatcher deliveries` and `dispatcher find`: what they choose, follow and change."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from dispatcher.flow import replay_turn
from dispatcher.ids import format_id, uuid7
from tests.cli.test_commands import ANSWER_503, FAILED, Run, end_all, line


def test_several_deliveries_are_cancelled_by_their_ids(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line() * 2)
    ids = [one["id"] for one in run("deliveries", "list", "--output", "json").data]
    told = run("deliveries", "cancel", *ids, "--dry-run")
    assert told.out.count("is waiting") == 2
    assert run("deliveries", "cancel", *ids, "--reason", "void").out.count("is cancelled") == 2
    cancelled = run("deliveries", "list", "--status", "cancelled", "--output", "json").data
    assert {one["status_reason"] for one in cancelled} == {"void"}


def test_what_cannot_be_retried_says_why(run: Run, engine: Engine) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line())
    (one,) = run("deliveries", "list", "--output", "json").data
    end_all(engine, FAILED, ANSWER_503)
    cancelled = run("deliveries", "cancel", one["id"])
    assert cancelled.code == 1
    assert "has ended as exhausted" in cancelled.err


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_ids_and_options_exclude_each_other(run: Run, verb: str) -> None:
    for arguments in ((), (format_id("dlv", uuid7()), "--status", "failed")):
        ran = run("deliveries", verb, *arguments)
        assert ran.code == 2
        assert "ids of deliveries, or options" in ran.err


def test_more_than_a_page_is_listed(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line() * 1100)
    assert len(run("deliveries", "list", "--limit", "1050", "--output", "json").data) == 1050
    assert run("deliveries", "list", "--undelivered", "--status", "delivered", "--output", "json").data == []


def test_the_log_is_searched_by_what_a_merchant_can_name(run: Run, engine: Engine) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    run("events", "send", stdin=line())

    def found(*options: str) -> list[str]:
        return [one["status"] for one in run("deliveries", "list", *options, "--output", "json").data]

    assert found("--host", "shop.example.com") == ["waiting", "exhausted"]
    assert found("--sort", "oldest") == ["exhausted", "waiting"]
    assert found("--http-status", "503", "--attempts-min", "1", "--attempts-max", "1") == ["exhausted"]
    assert found("--host", "other.example.com") == found("--error", "gremlins") == []
    assert "1 delivery would be replayed" in run("replay", "start", "--http-status", "503", "--dry-run").out


def test_anything_is_found(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/hook", "--event-type", "refund.*")
    (sent,) = run("events", "send", "--output", "json", stdin=line(object_id="pay_1")).data
    table = run("find", "pay_1").out
    assert sent["id"] in table
    assert "matched no endpoint" in table
    (found,) = run("find", "shop.example.com", "--output", "json").data
    assert found["kind"] == "endpoint"
    assert "Nothing is called so" in run("find", "pay_2").out


def test_an_endpoint_tells_how_it_is_doing(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    found = run("endpoints", "stats", endpoint["id"], "--window", "1h", "--output", "json").json
    assert (found["window"], found["exhausted"], found["last_failure"]["status_code"]) == ("1h", 1, 503)
    assert "503" in run("endpoints", "stats", endpoint["id"]).out


def test_deliveries_are_cancelled_and_retried_by_options_after_a_preview(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line() * 2)
    end_all(engine, FAILED, ANSWER_503)
    assert run("deliveries", "retry", "--undelivered", "--dry-run").out == "2 deliveries would be replayed\n"
    assert "over 2 deliveries" in run("deliveries", "retry", "--endpoint", endpoint["id"], "--yes").out
    with engine.begin() as connection:
        while replay_turn.step(connection):
            pass
    assert run("deliveries", "cancel", "--undelivered", "--dry-run").out == "2 deliveries would be cancelled\n"
    assert "over 2 deliveries" in run("deliveries", "cancel", "--endpoint", endpoint["id"], "--yes").out
    with engine.begin() as connection:
        while replay_turn.step(connection):
            pass
    assert len(run("deliveries", "list", "--status", "cancelled", "--output", "json").data) == 2


def test_what_an_endpoint_missed_is_sent_again(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    made = run("endpoints", "recover", endpoint["id"], "--since", "1h", "--yes", "--output", "json").json
    assert (made["status"], made["total"]) == ("running", 1)
    assert run("endpoints", "recover", endpoint["id"]).code == 2


def test_deliveries_are_listed_exported_and_found_by_mode(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(object_id="pay_1") + line(object_id="pay_1", mode="test"))
    assert [one["mode"] for one in run("deliveries", "list", "--mode", "test", "--output", "json").data] == ["test"]
    assert '"mode":"live"' not in run("deliveries", "export", "--mode", "test", "--format", "jsonl").out.replace(
        " ", ""
    )
    found = run("find", "pay_1", "--mode", "test", "--output", "json").data
    assert {one["object"]["mode"] for one in found} == {"test"}
    assert "1 delivery would be cancelled" in run("deliveries", "cancel", "--mode", "test", "--dry-run").out
    assert "1 delivery would be cancelled" in run("deliveries", "cancel", "--mode", "live", "--dry-run").out


def test_statistics_are_of_one_mode(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("events", "send", stdin=line(mode="test"))
    end_all(engine, FAILED, ANSWER_503)
    assert run("stats", "--output", "json").json["attempts"]["total"] == 0
    assert run("stats", "--mode", "test", "--output", "json").json["attempts"]["total"] == 1
    assert "UTC, test mode" in run("stats", "--mode", "test").out
    assert "test mode" not in run("stats").out
    assert run("endpoints", "stats", endpoint["id"], "--mode", "test", "--output", "json").json["exhausted"] == 1


def test_a_pause_is_of_one_mode(run: Run) -> None:
    assert "test" in run("pause", "--mode", "test", "--reason", "a load test").out
    (paused,) = run("pause", "--list", "--output", "json").data
    assert (paused["mode"], paused["event_type"]) == ("test", None)
    assert run("unpause", "--mode", "live").code == 1
    assert run("unpause", "--mode", "test").out == "unpaused\n"
    assert run("pause", "--mode", "live").code == 1, "it asks, and nobody answers"


def test_a_replay_of_what_an_endpoint_missed_asks_first_and_can_be_counted_alone(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json["id"]
    run("events", "send", stdin=line())
    end_all(engine, FAILED, ANSWER_503)
    recover = ("endpoints", "recover", endpoint, "--since", "1h")
    assert run(*recover, "--dry-run").out == "1 delivery would be replayed\n"
    assert run("endpoints", "recover", endpoint, "--since", "0s", "--dry-run").out == "0 deliveries would be replayed\n"
    refused = run(*recover, stdin="n\n")
    assert (refused.code, "Replay 1 delivery?" in refused.out) == (1, True)
    assert run("replay", "list", "--output", "json").data == []
    assert run(*recover, stdin="y\n").out.endswith(" is running\n")


def test_a_retry_of_what_is_held_names_the_pause_or_says_that_the_endpoint_is_disabled(run: Run) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json["id"]
    run("events", "send", stdin=line())
    (delivery,) = (one["id"] for one in run("deliveries", "list", "--output", "json").data)
    run("pause", "--event-type", "refund.*")
    assert run("deliveries", "retry", delivery).out == f"{delivery} is due now\n"
    pause = run("pause", "--event-type", "payment.*", "--reason", "audit", "--output", "json").json["id"]
    waits = run("deliveries", "retry", delivery).out
    assert waits == f"{delivery} waits for the end of {pause}: paused (payment.*): audit\n"
    assert run("unpause", pause[:-4]).out == "unpaused\n"
    assert run("deliveries", "retry", delivery).out == f"{delivery} is due now\n"
    run("endpoints", "disable", endpoint, "--reason", "moved")
    assert run("deliveries", "retry", delivery).out == f"{delivery} waits: the endpoint is disabled: moved\n"
