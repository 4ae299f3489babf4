"""`dispatcher endpoints`, `pause` and `unpause`: the API's endpoints, from a terminal."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.ids import format_id, uuid7
from tests.support import walk
from tests.support.command import Command

URL = "https://shop.example.com/hook"
SECRET = "whsec_" + base64.b64encode(b"planted-secret-of-24-byte").decode()


def create(run: Command, *options: str, stdin: bytes = b"") -> Any:
    ran = run("endpoints", "create", URL, *options, "--output", "json", stdin=stdin)
    assert ran.code == 0, ran.err
    return ran.json


ALL = (
    *("--name", "orders", "--description", "till 4", "--event-type", "payment.*", "--event-type", "refund.created"),
    *("--metadata", '{"store": "Utrecht"}', "--schedule", "exponential", "--signature", "rsa_sha256"),
    *("--header", "x-shop: 8127", "--basic-auth", "gate", "--password-file", "-", "--method", "GET"),
    *("--max-in-flight", "3", "--rate-limit", "0.5", "--ordered", "--profile", "default", "--disabled"),
)


def test_every_option_is_registered_and_what_is_secret_is_not_shown(run: Command) -> None:
    made = create(run, *ALL, stdin=b"pa55\n")
    expected = {
        "name": "orders",
        "description": "till 4",
        "event_types": ["payment.*", "refund.created"],
        "metadata": {"store": "Utrecht"},
        "schedule": "exponential",
        "signature": ["rsa_sha256"],
        "headers": ["x-shop"],
        "auth": {"type": "basic", "username": "gate"},
        "method": "GET",
        "max_in_flight": 3,
        "rate_limit": 0.5,
        "ordered": True,
        "status": "disabled",
    }
    assert {name: made[name] for name in expected} == expected
    shown = run("endpoints", "show", made["id"]).out
    assert "basic, gate" in shown
    assert "pa55" not in shown
    assert "8127" not in shown
    assert made["secret"] not in shown


def test_a_password_is_asked_for_and_not_echoed(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.prompt", lambda *_, **options: "pa55" if options["hide_input"] else None)
    assert create(run, "--basic-auth", "gate")["auth"] == {"type": "basic", "username": "gate"}


def test_a_change_changes_what_is_given_and_clears_what_is_named(run: Command) -> None:
    made = create(run, *ALL, stdin=b"pa55\n")
    options = (
        "--description",
        "new",
        "--unordered",
        "--clear",
        "headers",
        "--clear",
        "event_types",
        "--url",
        URL + "2",
    )
    changed = run("endpoints", "update", made["id"], *options, "--output", "json").json
    same = {"description", "ordered", "headers", "event_types", "url", "version", "updated_at"}
    assert {name: changed[name] for name in changed.keys() - same} == {
        name: made[name] for name in changed.keys() - same
    }
    assert (changed["description"], changed["ordered"], changed["headers"]) == ("new", False, [])
    assert (changed["event_types"], changed["url"]) == (None, URL + "2")
    for bad, said in (
        ((), "nothing to change"),
        (("--clear", "name", "--name", "a"), "one of the two"),
        (("--metadata", "{"), "JSON"),
        (("--header", "x-shop"), "colon"),
        (("--password-file", "-"), "--basic-auth"),
        (("--schedule", "nightly"), "exponential, standard"),
    ):
        ran = run("endpoints", "update", made["id"], *bad)
        assert ran.code == 2, bad
        assert said in ran.err


def test_endpoints_are_listed_by_what_they_are(run: Command) -> None:
    create(run)
    create(run, "--profile", "gateway", "--disabled")
    for options, count in (
        ((), 2),
        (("--status", "disabled"), 1),
        (("--profile", "gateway"), 1),
        (("--limit", "1"), 1),
        (("--tenant", format_id("ten", uuid7())), 0),
    ):
        assert len(run("endpoints", "list", *options, "--output", "json").json["data"]) == count, options
    assert "created disabled" in run("endpoints", "list").out


def test_a_warning_is_printed(run: Command) -> None:
    tenant = run("tenants", "create", "account", "--profile", "checkout", "--output", "json").json["id"]
    for n in range(2):
        said = run("endpoints", "create", URL, "--tenant", tenant, "--name", "one").out
        assert ("warning: this account has 2 endpoints" in said) == (n == 1)


def test_a_ping_that_fails_is_exit_code_1(run: Command) -> None:
    made = run("endpoints", "create", "https://nobody.invalid/", "--output", "json").json
    ran = run("endpoints", "ping", made["id"], "--output", "json")
    assert (ran.code, ran.json["ok"]) == (1, False)
    assert "outcome" in run("endpoints", "ping", made["id"]).out


def test_a_deletion_says_what_became_of_what_waited(run: Command) -> None:
    made = create(run)
    assert run("endpoints", "delete", made["id"], "--yes", "--output", "json").json == {
        "id": made["id"],
        "status": "deleted",
        "cancelled_deliveries": 0,
    }
    ran = run("endpoints", "delete", made["id"], "--yes")
    assert ran.code == 1
    assert "there is no endpoint" in ran.err


# Import


def written(form: str, items: list[Any]) -> bytes:
    match form:
        case "lines":
            return b"\n".join(json.dumps(one).encode() for one in items) + b"\n\n"
        case "array":
            return json.dumps(items).encode()
    return json.dumps({"endpoints": items}, indent=1).encode()


@pytest.mark.parametrize("form", ["lines", "array", "object"])
def test_endpoints_are_imported_from_a_file_with_a_result_for_each(run: Command, tmp_path: Path, form: str) -> None:
    items = [{"url": f"{URL}/{n}", "secret": SECRET} for n in range(60)]
    items[55] = {"url": "http://shop.example.com/", "secret": SECRET}
    source = tmp_path / "endpoints"
    source.write_bytes(written(form, items))
    ran = run("endpoints", "import", str(source))
    assert ran.code == 1, "one failed"
    assert "59 endpoints registered, 1 failed" in ran.out
    (failed,) = [line for line in ran.out.splitlines() if "failed  " in line]
    assert failed.split()[0] == "56"
    assert "/url" in failed
    assert SECRET.removeprefix("whsec_") not in ran.out + ran.err
    assert len(run("endpoints", "list", "--output", "json").json["data"]) == 59


def test_the_results_of_an_import_are_json_too(run: Command) -> None:
    ran = run("endpoints", "import", "--output", "json", stdin=written("lines", [{"url": URL, "secret": SECRET}]))
    assert ran.code == 0
    (one,) = ran.json["data"]
    assert (one["index"], one["status"], one["error"]) == (0, "created", None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b'{"url": 1}\n{"secret": "%b"' % SECRET.encode(), "line 2: found invalid JSON"),
        (b'[{"url": "a"}, "%b"]' % SECRET.encode(), "endpoint 2: found no object"),
    ],
)
def test_a_file_that_cannot_be_read_imports_nothing_and_tells_no_secret(run: Command, source: bytes, said: str) -> None:
    ran = run("endpoints", "import", stdin=source)
    assert ran.code == 2
    assert said in ran.err
    assert SECRET.removeprefix("whsec_") not in ran.err + ran.out
    assert run("endpoints", "list", "--output", "json").json["data"] == []


# Pauses


def paused(run: Command) -> list[tuple[Any, Any, Any]]:
    found = run("pause", "--list", "--output", "json").json["data"]
    return [(one["tenant_id"], one["endpoint_id"], one["event_type"]) for one in found]


def test_what_is_paused_is_shown_and_unpaused_by_the_same_words(run: Command, engine: Engine) -> None:
    endpoint = create(run)
    tenant = endpoint["tenant_id"]
    for scope, expected in (
        (("--tenant", tenant), (tenant, None, None)),
        (("--endpoint", endpoint["id"]), (None, endpoint["id"], None)),
        (("--event-type", "payment.*"), (None, None, "payment.*")),
        (("--tenant", tenant, "--event-type", "payment.completed"), (tenant, None, "payment.completed")),
        (("all",), (None, None, None)),
    ):
        sure = ("--yes",) if scope == ("all",) else ()
        made = run("pause", *scope, *sure, "--reason", "audit")
        assert made.code == 0, made.err
        assert "audit" in made.out
        assert paused(run) == [expected]
        assert "audit" in run("pause", "--list").out
        again = run("pause", *scope, *sure)
        assert (again.code, "already paused" in again.err) == (1, True)
        assert run("unpause", *scope).out == "unpaused\n"
        assert paused(run) == []
        assert run("unpause", *scope).code == 1
    with engine.connect() as connection:
        actors = walk.rows(connection, "SELECT DISTINCT actor FROM dispatcher.audit_log WHERE action LIKE 'pause.%'")
    assert [one.actor.partition(":")[0] for one in actors] == ["cli"]


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_nothing_is_paused_by_saying_nothing(run: Command, verb: str) -> None:
    for words in ((), ("all", "--event-type", "a.b"), ("everything",), ("--event-type", "*")):
        ran = run(verb, *words)
        assert ran.code == 2, words
    assert paused(run) == []


def test_everything_is_paused_only_by_who_is_sure(run: Command) -> None:
    assert run("pause", "all").code == 1
    assert paused(run) == []


def test_the_commands_ask_the_api_that_is_named(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []

    def answer(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    monkeypatch.setenv("DISPATCHER_API_URL", "http://api.example.com")
    monkeypatch.setenv("DISPATCHER_API_KEY", "dsk_1")
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    assert run("unpause", "--event-type", "payment.*").code == 0
    (request,) = asked
    assert (request.method, str(request.url)) == ("DELETE", "http://api.example.com/v1/pauses?event_type=payment.%2A")


def test_a_pause_is_ended_by_its_id_too(run: Command) -> None:
    made = run("pause", "--event-type", "payment.*", "--output", "json").json["id"]
    both = run("unpause", made, "--event-type", "payment.*")
    assert (both.code, "found the id of a pause and an option" in both.err) == (2, True)
    assert "allowed: all, or the id of a pause" in run("unpause", "everything").err
    assert run("unpause", made).out == "unpaused\n"
    assert paused(run) == []
    assert run("unpause", made).code == 1


def test_a_pause_is_seen_in_the_list_of_endpoints_and_at_the_endpoint(run: Command) -> None:
    first, second = create(run)["id"], create(run)["id"]
    assert "paused" not in run("endpoints", "show", first).out
    whole = run("pause", "--endpoint", first, "--reason", "moves", "--output", "json").json["id"]
    run("pause", "--event-type", "payment.*")
    rows = run("endpoints", "list").out.splitlines()
    shown = {row.split()[0]: row for row in rows[1:]}
    assert " all " in shown[first]
    assert " payment.* " in shown[second]
    told = run("endpoints", "show", first).out
    assert f"paused: {whole} holds all deliveries since " in told
    assert "holds deliveries of payment.* since " in told
    assert f"{whole}" not in run("endpoints", "show", second).out


def test_who_registers_is_told_on_stderr_that_the_secret_is_shown_once(run: Command) -> None:
    said = "dispatcher: the secret is shown only now; store it before you go on\n"
    made = run("endpoints", "create", URL)
    assert made.err == said
    assert "whsec_" in made.out
    endpoint = create(run)["id"]
    assert run("endpoints", "rotate-secret", endpoint, "--output", "json").err == said
    assert run("endpoints", "show", endpoint).err == ""
