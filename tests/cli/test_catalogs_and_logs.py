"""`event-types`, `audit-log`, `erasures` and `sender-addresses`, against the API on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Command

SCHEMA = {"type": "object", "required": ["amount"]}


def test_an_event_type_is_put_shown_and_deleted(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    put = run("event-types", "put", "a.b", "--description", "Any.", "--schema", file, "--output", "json").json
    assert (put["name"], put["description"], put["schema"]) == ("a.b", "Any.", SCHEMA)
    assert run("event-types", "show", "a.b", "--output", "json").json == put
    assert put in run("event-types", "list", "--output", "json").data
    shown = run("event-types", "show", "a.b").out
    assert "Any." in shown
    assert '{"type":"object","required":["amount"]}' in shown
    (row,) = (line.split() for line in run("event-types", "list").out.splitlines() if line.startswith("a.b "))
    assert row[:3] == ["a.b", "Any.", "yes"]
    refused = run("events", "send", stdin='{"type": "a.b", "payload": {}}')
    assert refused.code == 1
    assert "amount" in refused.err + refused.out
    kept = run("event-types", "put", "a.b", "--output", "json").json
    assert (kept["description"], kept["schema"]) == ("Any.", SCHEMA)
    described = run("event-types", "put", "a.b", "--description", "Some.", "--output", "json").json
    assert (described["description"], described["schema"]) == ("Some.", SCHEMA)
    both = run("event-types", "put", "a.b", "--schema", file, "--no-schema")
    assert (both.code, "allowed: one of the two" in both.err) == (2, True)
    bare = run("event-types", "put", "a.b", "--no-schema", "--output", "json").json
    assert (bare["description"], bare["schema"]) == ("Some.", None)
    assert run("event-types", "put", "a.b", "--description", "", "--output", "json").json["description"] is None
    assert run("event-types", "delete", "a.b", "--yes").out == "deleted a.b\n"
    gone = run("event-types", "show", "a.b")
    assert gone.code == 1
    assert "there is no event type a.b" in gone.err


def test_a_schema_that_cannot_be_is_refused(run: Command) -> None:
    for text, said in (("{", "--schema: found "), ('{"items": {"$ref": "#"}}', "a recursive reference")):
        ran = run("event-types", "put", "a.b", "--schema", "-", stdin=text)
        assert ran.code == 2, ran
        assert said in ran.err
    assert run("event-types", "show", "a.b").code == 1


def test_an_event_type_is_deleted_only_after_a_yes(run: Command) -> None:
    run("event-types", "put", "a.b")
    assert run("event-types", "delete", "a.b", stdin="n\n").code == 1
    assert run("event-types", "show", "a.b").code == 0


def test_the_log_of_changes_says_who_changed_what(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    made = run("endpoints", "create", "https://shop.example.com/", "--output", "json").json
    run("endpoints", "update", made["id"], "--name", "shop")
    run("endpoints", "create", "https://other.example.com/")
    listed = run("audit-log", "list", "--object", made["id"], "--output", "json").data
    assert [one["action"] for one in listed] == ["endpoint.updated", "endpoint.created"]
    assert {one["actor"] for one in listed} == {"cli:ada"}
    short = next(made["id"][:n] for n in range(4, 40) if run("endpoints", "show", made["id"][:n]).code == 0)
    assert run("audit-log", "list", "--object", short, "--output", "json").data == listed
    first, *_ = run("audit-log", "list", "--object", made["id"]).out.splitlines()[1:]
    assert first.split()[1:4] == ["cli:ada", "endpoint.updated", made["id"]]
    assert "name" in first.split()[4:]
    assert len(run("audit-log", "list", "--limit", 1, "--output", "json").data) == 1
    assert run("audit-log", "list", "--object", "a.b").out == "No change is in the log.\n"


def test_an_erasure_is_listed_and_shown(run: Command) -> None:
    assert run("erasures", "list").out == "Nothing was erased.\n"
    run("events", "send", stdin='{"type": "a.b", "payload": 1, "object_id": "pay_1"}')
    made = run("erase", "pay_1", "--yes", "--reason", "asked for", "--output", "json").json
    assert run("erasures", "list", "--output", "json").data == [made]
    assert run("erasures", "show", made["id"], "--output", "json").json == made
    assert run("erasures", "show", made["id"][:12], "--output", "json").json == made
    shown = run("erasures", "show", made["id"]).out
    for said in ("pay_1", "asked for", "done"):
        assert said in shown
        assert said in run("erasures", "list").out
    tenant = made["tenant_id"]
    assert run("erasures", "list", "--tenant", tenant, "--output", "json").data == [made]


def test_the_addresses_that_deliveries_come_from_are_listed(run: Command) -> None:
    assert run("sender-addresses", "list", "--output", "json").data == []
    assert run("sender-addresses", "list").out == "No address is stated: see DISPATCHER_EGRESS_ADDRESSES.\n"
