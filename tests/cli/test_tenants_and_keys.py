"""`dispatcher tenants` and `dispatcher keys`, on a real database."""

from __future__ import annotations

from sqlalchemy import Engine

from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.store import tenants
from tests.support import walk
from tests.support.command import Command


def test_a_tenant_is_made_shown_listed_and_given_a_new_secret(run: Command) -> None:
    made = run("tenants", "create", "shop", "--profile", "terminal", "--output", "json").json
    assert made["secret"].startswith("whsec_")
    child = run("tenants", "create", "till", "--parent", made["id"], "--output", "json").json
    assert child["parent_id"] == made["id"]
    shown = run("tenants", "show", made["id"])
    assert made["id"] in shown.out
    assert "whsec_" not in shown.out
    listed = run("tenants", "list")
    assert listed.out.splitlines()[0].split() == ["tenant", "name", "profile", "parent", "created"]
    assert [one["name"] for one in run("tenants", "list", "--output", "json").json["data"]][:2] == ["till", "shop"]
    rotated = run("tenants", "rotate-secret", made["id"], "--overlap", "1h", "--output", "json").json
    assert rotated["secret"] not in (made["secret"], "")


def test_what_the_api_refuses_is_said_in_a_sentence(run: Command) -> None:
    run("tenants", "create", "shop")
    taken = run("tenants", "create", "shop")
    assert (taken.code, taken.out) == (1, "")
    assert "there is a tenant 'shop' already" in taken.err
    unknown = run("tenants", "show", format_id("ten", uuid7()))
    assert unknown.code == 1
    assert run("tenants", "show", "ten_x").code == 2
    assert run("tenants", "rotate-secret", format_id("ten", uuid7()), "--overlap", "soon").code == 2
    assert run("tenants", "create", "two", "--profile", "nonsense").code in (1, 2)


def test_a_key_is_made_listed_and_revoked(run: Command, engine: Engine) -> None:
    tenant = run("tenants", "create", "shop", "--output", "json").json
    made = run(
        *("keys", "create", "till", "--tenant", tenant["id"], "--scope", "events:write"),
        *("--scope", "deliveries:read", "--rate-limit", "50", "--output", "json"),
    ).json
    assert (made["tenant_id"], made["rate_limit"]) == (tenant["id"], 50)
    assert made["scopes"] == ["deliveries:read", "events:write"]
    operators = run("keys", "create", "ops")
    assert "dsk_" in operators.out
    assert "hmsec_" in operators.out
    listed = run("keys", "list")
    assert "dsk_" not in listed.out
    assert "operator" in listed.out
    (only,) = run("keys", "list", "--tenant", tenant["id"], "--output", "json").json["data"]
    assert only["id"] == made["id"]
    assert run("keys", "revoke", made["id"]).code == 1, "it asks, and nobody answers"
    assert run("keys", "revoke", made["id"], "--yes").out == f"revoked {made['id']}\n"
    with engine.connect() as connection:
        found = tenants.find_key_by_id(connection, parse_id("key", made["id"]))
        actors = walk.rows(connection, "SELECT DISTINCT actor FROM dispatcher.audit_log WHERE action LIKE 'key.%'")
    assert found is not None
    assert found.revoked_at is not None
    assert all(actor.startswith("cli:") for (actor,) in actors)
