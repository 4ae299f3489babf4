"""`dispatcher deliveries show`: the story of one delivery, and what of it is had by itself."""

from __future__ import annotations

import doctest
import hashlib
import re

import pytest
from sqlalchemy import Engine, text

from dispatcher.cli import story
from dispatcher.clock import SYSTEM
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from tests.cli.test_commands import Run, line
from tests.support import walk

ANSWER = Outcome(
    OutcomeClass.HTTP_RETRYABLE,
    Phase.BODY,
    status_code=503,
    response_headers=(("x-why", "\x9b2J"),),
    response_body=b"\x1b[2Jdown \xe2\x80\xae",
    peer_ip="192.0.2.1",
    duration_ms=70.0,
    timings_ms=(2.0, 8.0, 18.0, 40.0),
)


@pytest.fixture
def failed(run: Run, engine: Engine) -> str:
    """A delivery whose first attempt has failed, and another one is planned."""
    run("endpoints", "create", "https://shop.example.com/hook")
    run("events", "send", stdin=line(object_id="pay_1"))
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=None)
        (claim,) = walk.claim(connection, worker, now=None)
        result = walk.result(claim, walk.retry(300), ANSWER, worker_id=worker, started_at=SYSTEM.now())
        walk.record(connection, [result], now=None)
    (one,) = run("deliveries", "list", "--output", "json").data
    return str(one["id"])


def test_the_verdict_comes_first_and_everything_after(run: Run, failed: str) -> None:
    shown = run("deliveries", "show", failed)
    first, *rest = shown.out.splitlines()
    assert first.startswith("Not delivered yet: the receiver answered 503 Service Unavailable; attempt 2 of ")
    told = "\n".join(rest)
    for part in (failed, "pay_1", "https://shop.example.com/hook", "cttt=======", "tell the merchant", "x-why"):
        assert part in told, part
    assert re.search(r"^2 of 8 .* UTC  in [45] m", told, re.MULTILINE)


def test_a_receivers_answer_does_not_steer_the_terminal(run: Run, failed: str) -> None:
    out = run("deliveries", "show", failed).out
    assert not {"\x1b", "\x9b", "\u202e"} & set(out)
    assert "\\x1b[2Jdown" in out
    assert "\\x9b2J" in out


def test_as_json_it_is_the_apis_object(run: Run, failed: str) -> None:
    told = run("deliveries", "show", failed, "--output", "json").json
    assert told["delivery"]["id"] == failed
    assert told.keys() >= {"verdict", "event", "endpoint", "attempts", "schedule", "replays", "audit", "curl"}
    assert told["attempts"][0]["timings"]["tls_ms"] == 18.0


def test_the_body_and_the_curl_are_had_by_themselves(run: Run, failed: str) -> None:
    told = run("deliveries", "show", failed, "--output", "json").json
    assert run("deliveries", "show", failed, "--curl").out == told["curl"] + "\n"
    body = run("deliveries", "show", failed, "--body").out
    assert hashlib.sha256(body.encode()).hexdigest() == told["event"]["body"]["sha256"]
    both = run("deliveries", "show", failed, "--body", "--output", "json")
    assert both.code == 2


def test_what_there_is_not_is_said(run: Run, failed: str, engine: Engine) -> None:
    unsigned = run("deliveries", "show", failed, "--verify")
    assert unsigned.code == 1
    assert "no attempt was sent with a signature" in unsigned.err
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.events SET payload = NULL"))
    for part in ("--body", "--curl"):
        gone = run("deliveries", "show", failed, part)
        assert gone.code == 1
        assert "the body is gone" in gone.err
    assert "gone: retention" in run("deliveries", "show", failed).out


def test_a_held_delivery_says_why_nothing_comes_next(run: Run) -> None:
    endpoint = run("endpoints", "create", "https://shop.example.com/hook", "--output", "json").json
    run("endpoints", "disable", endpoint["id"], "--reason", "merchant asked")
    run("events", "send", stdin=line())
    (one,) = run("deliveries", "list", "--output", "json").data
    out = run("deliveries", "show", one["id"]).out
    assert out.startswith("Held before its first attempt: the endpoint is disabled: merchant asked.\n")
    assert "nothing. It is held" in out
    assert "No attempt has been made." in out


def test_replays_and_what_people_did_are_shown(run: Run, failed: str) -> None:
    run("deliveries", "cancel", failed, "--reason", "void")
    run("deliveries", "retry", failed)
    out = run("deliveries", "show", failed).out
    assert "replayed by" in out
    assert "delivery.cancelled" in out
    assert "delivery.retried" in out
    (replay,) = run("deliveries", "list", "--status", "waiting", "--output", "json").data
    shown = run("deliveries", "show", replay["id"]).out.splitlines()
    assert any(one.startswith(f"replays  {failed}  cancelled") for one in shown)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(story).failed == 0
