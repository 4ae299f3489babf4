"""The command line on a real database: what it prints, what it changes, how it exits."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from dispatcher.flow import replay_turn
from dispatcher.ids import format_id, uuid7
from dispatcher.model.delivery import Stop
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from tests.support import walk
from tests.support.command import Command

KEYS = walk.KEYS.reveal()

Run = Command


def line(**values: object) -> str:
    return json.dumps({"type": "payment.completed", "payload": {"amount": 1}} | values) + "\n"


def end_all(engine: Engine, change: Stop, outcome: Outcome) -> None:
    """Has a worker claim everything that is due and record this of it."""
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        claims = walk.claim(connection, worker, now=None)
        walk.record(connection, [walk.result(one, change, outcome, worker_id=worker) for one in claims], now=None)


FAILED = Stop("exhausted", "http_retryable 503")
ANSWER_503 = Outcome(
    OutcomeClass.HTTP_RETRYABLE,
    Phase.BODY,
    status_code=503,
    response_body=b"\x1b[2Jdown",
    error=None,
    peer_ip="192.0.2.1",
)


def test_an_event_is_sent_inspected_and_replayed(run: Run, engine: Engine) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    assert endpoint["secret"].startswith("whsec_")
    sent = run("events", "send", "--output", "json", stdin=line(object_id="pay_1") + "\n" + line(object_id="pay_2"))
    assert [one["deliveries"] for one in sent.data] == [1, 1]
    (waiting,) = run("deliveries", "list", "--object-id", "pay_1", "--output", "json").data
    assert waiting["status"] == "waiting"
    end_all(engine, FAILED, ANSWER_503)
    failed = run("deliveries", "list", "--status", "failed", "--output", "json").data
    assert {one["object_id"] for one in failed} == {"pay_1", "pay_2"}
    shown = run("deliveries", "show", waiting["id"])
    assert "exhausted" in shown.out
    assert "503" in shown.out
    assert "\x1b" not in shown.out, "a receiver's answer must not steer the terminal"
    assert "2 deliveries would be replayed" in run("replay", "start", "--dry-run").out
    replay_id = run("replay", "start", "--all", "--yes", "--no-wait").out.strip()
    with engine.begin() as connection:
        assert replay_turn.step(connection) == 2
    status = run("replay", "status", replay_id, "--output", "json").json
    assert (status["status"], status["processed"]) == ("done", 2)
    again = run("deliveries", "list", "--status", "waiting", "--output", "json").data
    assert {one["replay_of"] for one in again} == {one["id"] for one in failed}
    assert {one["event_id"] for one in again} == {one["event_id"] for one in failed}


def test_one_delivery_is_retried_and_cancelled(run: Run, engine: Engine) -> None:
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(not_before="2999-01-01T00:00:00Z"))
    (one,) = run("deliveries", "list", "--output", "json").data
    assert run("deliveries", "retry", one["id"]).code == 0
    end_all(engine, FAILED, ANSWER_503)
    ended = run("deliveries", "show", one["id"], "--output", "json").json
    assert ended["delivery"]["status"] == "exhausted"
    assert len(ended["attempts"]) == 1
    assert run("deliveries", "retry", one["id"]).out.endswith("a replay\n")
    second = run("deliveries", "retry", one["id"])
    assert second.code == 1
    assert "replayed before" in second.err
    (replayed,) = run("deliveries", "list", "--status", "waiting", "--output", "json").data
    assert run("deliveries", "cancel", replayed["id"]).code == 0
    assert run("deliveries", "cancel", replayed["id"]).code == 1
    assert run("deliveries", "show", replayed["id"], "--output", "json").json["delivery"]["status"] == "cancelled"


def test_an_endpoint_is_disabled_enabled_rotated_and_deleted(run: Run) -> None:
    made = run("endpoints", "create", "https://shop.example.com/", "--event-type", "payment.*", "--output", "json").json
    disabled = run("endpoints", "disable", made["id"], "--reason", "merchant asked", "--output", "json").json
    assert (disabled["status"], disabled["status_reason"]) == ("disabled", "merchant asked")
    run("events", "send", stdin=line())
    (held,) = run("deliveries", "list", "--output", "json").data
    assert held["status"] == "waiting"
    assert "merchant asked" in held["status_reason"]
    assert held["next_attempt_at"] is None
    assert run("endpoints", "enable", made["id"], "--output", "json").json["status"] == "active"
    rotated = run("endpoints", "rotate-secret", made["id"], "--output", "json").json
    assert rotated["secret"] != made["secret"]
    listed = run("endpoints", "list")
    assert made["secret"] not in listed.out
    assert rotated["secret"] not in listed.out
    assert "1 waiting delivery cancelled" in run("endpoints", "delete", made["id"], "--yes").out
    assert run("endpoints", "show", made["id"]).code == 1
    assert run("endpoints", "list", "--output", "json").data == []


def test_an_event_that_nobody_wants_is_shown_as_such(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/", "--event-type", "refund.*")
    (sent,) = run("events", "send", "--output", "json", stdin=line()).data
    shown = run("events", "show", sent["id"])
    assert "no endpoint wanted it" in shown.out
    assert "1 that no endpoint wants" in run("events", "send", stdin=line()).out


def test_a_payload_is_sent_with_its_type_and_key(run: Run) -> None:
    arguments = ("events", "send", "--event-type", "refund.created", "--object-id", "ref_1", "--idempotency-key", "k")
    (first,) = run(*arguments, "--output", "json", stdin='{"amount": 5}').data
    (again,) = run(*arguments, "--output", "json", stdin='{"amount": 5}').data
    assert again == {"id": first["id"], "duplicate": True, "deliveries": None}
    other = run(*arguments, stdin='{"amount": 6}')
    assert other.code == 1
    assert "already used with a different body" in other.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("events", "send"), "{\n", 2, "line 1"),
        (("events", "send"), line() + line(type="a b"), 2, "line 2"),
        (("events", "send"), line(colour="red"), 2, "colour"),
        (("events", "send", "--event-type", "a"), "{", 2, "JSON"),
        (("events", "send", "--object-id", "a"), "", 2, "--event-type"),
        (("events", "send", "/does/not/exist"), "", 2, "No such file"),
        (("events", "show", "evt_x"), "", 2, "evt_ and a UUID"),
        (("deliveries", "show", format_id("dlv", uuid7())), "", 1, "there is no delivery"),
        (("deliveries", "retry", format_id("dlv", uuid7())), "", 1, "there is no delivery"),
        (("deliveries", "list", "--since", "yesterday"), "", 2, "24h"),
        (("deliveries", "list", "--status", "lost"), "", 2, "waiting"),
        (("replay", "start", "--status", "waiting", "--yes"), "", 2, "final states"),
        (("replay", "status", format_id("rpl", uuid7())), "", 1, "there is no replay"),
        (("endpoints", "create", "http://shop.example.com/"), "", 2, "/url"),
        (("endpoints", "create", "https://shop.example.com/", "--schedule", "nightly"), "", 2, "exponential, standard"),
        (("endpoints", "show", format_id("ep", uuid7())), "", 1, "there is no endpoint"),
        (("endpoints", "rotate-secret", format_id("ep", uuid7()), "--overlap", "soon"), "", 2, "duration"),
        (("nonsense",), "", 2, "No such command"),
    ],
)
def test_bad_input_gets_one_clear_error(run: Run, arguments: tuple[str, ...], stdin: str, code: int, said: str) -> None:
    ran = run(*arguments, stdin=stdin)
    assert ran.code == code, ran
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert run("events", "send", "--output", "json", stdin="").data == [], "nothing half-done stays behind"


def test_a_file_with_one_bad_line_sends_nothing_of_its_batch(run: Run) -> None:
    assert run("events", "send", stdin=line() * 5 + "{\n").code == 2
    run("endpoints", "create", "https://shop.example.com/")
    assert run("deliveries", "list", "--output", "json").data == []


def test_what_was_committed_before_a_bad_line_is_printed_as_accepted(run: Run) -> None:
    ran = run("events", "send", stdin=line() * 1200 + "{\n")
    assert ran.code == 2
    assert "1000 events accepted" in ran.out
    assert "line 1201" in ran.err


def test_a_dry_run_checks_and_sends_nothing(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/")
    assert "checked 5 events" in run("events", "send", "--dry-run", stdin=line() * 5).out
    assert run("deliveries", "list", "--output", "json").data == []


def test_deliveries_are_chosen_by_every_option(run: Run) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/", "--output", "json").json
    (sent,) = run("events", "send", "--output", "json", stdin=line(object_id="pay_1")).data
    for options, count in (
        (("--endpoint", endpoint["id"]), 1),
        (("--endpoint", format_id("ep", uuid7())), 0),
        (("--event", sent["id"]), 1),
        (("--event-type", "payment.completed"), 1),
        (("--event-type", "payment"), 0),
        (("--since", "1h"), 1),
        (("--until", "1h"), 0),
        (("--undelivered",), 1),
        (("--status", "waiting", "--status", "failed"), 1),
        (("--tenant", endpoint["tenant_id"]), 1),
        (("--outcome", "dns"), 0),
    ):
        assert len(run("deliveries", "list", *options, "--output", "json").data) == count, options


def test_a_table_names_the_delivery_and_its_state(run: Run) -> None:
    run("endpoints", "create", "https://shop.example.com/")
    run("events", "send", stdin=line(object_id="pay_1"))
    table = run("deliveries", "list").out
    assert "pay_1" in table
    assert "waiting" in table
    assert "No delivery matches" in run("deliveries", "list", "--object-id", "pay_2").out


def test_config_shows_no_secret_and_check_reports_all_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("config", "show")
    assert KEYS not in shown.out
    assert "***" in shown.out
    monkeypatch.setenv("DISPATCHER_PORT", "0")
    assert run("config", "check").code == 0
    monkeypatch.setenv("DISPATCHER_PORT", "many")
    monkeypatch.setenv("DISPATCHER_WORKERS", "0")
    monkeypatch.setenv("DISPATCHER_COLOUR", "red")
    checked = run("config", "check")
    assert checked.code == 2
    assert all(name in checked.err for name in ("DISPATCHER_PORT", "DISPATCHER_WORKERS", "DISPATCHER_COLOUR"))


def test_migrate_says_where_the_schema_is(run: Run) -> None:
    assert "schema dispatcher is at" in run("migrate").out


@pytest.mark.parametrize(
    ("url", "said", "code"),
    [
        ("postgresql://nobody@127.0.0.1:1/x", "Connection refused", 1),
        ("mysql://somewhere/x", "DISPATCHER_DATABASE_URL", 2),
        ("nonsense", "DISPATCHER_DATABASE_URL", 2),
    ],
)
@pytest.mark.parametrize("words", [("migrate",), ("deliveries", "list", "--direct")], ids=" ".join)
def test_a_database_that_cannot_be_used_is_said_in_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, said: str, code: int, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", url)
    ran = run(*words)
    assert ran.code == code
    *told, sentence = ran.err.splitlines()
    assert said in sentence
    assert len(told) == ("--direct" in words and code == 1), "which database it is"


def test_ages_are_given_in_two_units() -> None:
    from dispatcher.cli.deliveries import ago

    assert ago(timedelta(days=2, hours=3, minutes=4).total_seconds()) == "2d 3h"
