"""Ids that are shortened on the command line, against the API on a real database."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine, text

from dispatcher.ids import DEFAULT_TENANT, format_id
from tests.support.command import Command

LINE = '{"type": "payment.completed", "payload": 1}'


def make(run: Command, count: int) -> list[str]:
    """Endpoints; their ids, the newest first."""
    return [
        run("endpoints", "create", f"https://{n}.example.com/", "--output", "json").json["id"] for n in range(count)
    ][::-1]


def unique(id_: str, others: list[str]) -> str:
    """The shortest beginning of an id that no other one has."""
    return next(id_[:n] for n in range(4, len(id_)) if not any(other.startswith(id_[:n]) for other in others))


def test_a_unique_beginning_is_as_good_as_the_id(run: Command) -> None:
    first, second = make(run, 2)
    shown = run("endpoints", "show", unique(first, [second]), "--output", "json")
    assert (shown.code, shown.json["id"]) == (0, first)
    run("events", "send", stdin=LINE)
    listed = run("deliveries", "list", "--endpoint", unique(second, [first]), "--output", "json").data
    assert [one["endpoint_id"] for one in listed] == [second]


def test_several_ids_with_the_same_beginning_are_listed(run: Command) -> None:
    first, second = made = make(run, 2)
    ran = run("endpoints", "disable", "ep_0")
    assert (ran.code, ran.out) == (2, "")
    head, *lines, tail = ran.err.splitlines()
    assert head == (
        "dispatcher: Invalid value for 'ENDPOINT_ID': found ep_0, the beginning of 2 ids; allowed: more characters of "
        "one id; all are"
    )
    told = [line.split(maxsplit=2) for line in lines]
    assert [(id_, what) for id_, _, what in told] == [
        (first, "https://1.example.com/: active"),
        (second, "https://0.example.com/: active"),
    ]
    assert all(re.fullmatch(r"[0-9-]+T[0-9:.]+Z", created_at) for _, created_at, _ in told)
    assert tail == "See `dispatcher endpoints disable --help`."
    assert {one["status"] for one in run("endpoints", "list", "--output", "json").data} == {"active"}
    make(run, 10)
    ran = run("deliveries", "list", "--endpoint", "ep_0")
    assert ran.code == 2
    assert "'--endpoint': found ep_0, the beginning of more than 10 ids" in ran.err
    assert "the newest are" in ran.err
    assert ran.err.count("\n  ep_") == 10
    assert not any(id_ in ran.err for id_ in made)


def test_each_of_several_ids_is_told_with_what_tells_it_apart(run: Command) -> None:
    make(run, 1)
    run("events", "send", stdin=f"{LINE}\n{LINE}")
    for type_ in ("payment.*", "refund.*"):
        run("pause", "--event-type", type_, "--reason", "audit")
    run("tenants", "create", "shop")
    for words, said in (
        ("deliveries show dlv_0", "payment.completed to https://0.example.com/: waiting (paused (payment.*): audit)"),
        ("events show evt_0", "payment.completed: went to 1 endpoint"),
        ("unpause pau_0", "refund.*: audit"),
        ("tenants show ten_0", "shop"),
    ):
        ran = run(*words.split())
        assert ran.code == 2
        assert any(line.endswith(f"Z  {said}") for line in ran.err.splitlines()), ran.err


def test_a_key_that_may_not_look_for_ids_is_told_which_scope_that_takes(
    run: Command, local_system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run, 1)
    run("events", "send", stdin=LINE)
    (delivery,) = (one["id"] for one in run("deliveries", "list", "--output", "json").data)
    key = run("keys", "create", "replayer", "--scope", "deliveries:replay", "--output", "json").json["key"]
    monkeypatch.setenv("DISPATCHER_API_KEY", key)
    refused = run("deliveries", "retry", delivery[:20])
    assert refused.code == 1
    assert "allowed: deliveries:read or admin" in refused.err
    assert f"that is to find the id that begins with {delivery[:20]}: a whole id works" in refused.err
    assert run("deliveries", "retry", delivery).out == f"{delivery} is due now\n"


def test_an_id_without_its_middle_is_accepted_as_a_list_shows_it(run: Command) -> None:
    first, second = make(run, 2)
    start = next(first[:n] for n in range(40, 4, -1) if second.startswith(first[:n]))
    for mark in ("…", "..."):
        shown = run("endpoints", "show", f"{start}{mark}{first[-6:]}", "--output", "json")
        assert (shown.code, shown.json["id"]) == (0, first)
    unknown = run("endpoints", "show", f"{start}…zz")
    assert unknown.code == 1
    assert f"there is no id that begins with {start} and ends with zz" in unknown.err


def test_an_id_without_its_middle_is_found_among_many_of_one_beginning(run: Command) -> None:
    made = make(run, 12)
    assert len({id_[-12:] for id_ in made}) == len(made)
    for wanted in (made[0], made[-1]):
        shown = run("endpoints", "show", f"ep_0…{wanted[-12:]}", "--output", "json")
        assert (shown.code, shown.json["id"]) == (0, wanted)


def test_one_ambiguous_id_among_others_stops_the_command_before_it_changes_anything(run: Command) -> None:
    make(run, 1)
    run("events", "send", stdin=f"{LINE}\n{LINE}")
    first, _ = (one["id"] for one in run("deliveries", "list", "--output", "json").data)
    assert run("deliveries", "cancel", first, "dlv_0").code == 2
    assert {one["status"] for one in run("deliveries", "list", "--output", "json").data} == {"waiting"}


def test_an_unknown_beginning_is_not_found(run: Command) -> None:
    (made,) = make(run, 1)
    ran = run("endpoints", "show", "ep_f")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("dispatcher: there is no id that begins with ep_f (404 NOT_FOUND")
    assert run("events", "show", f"evt_{made[3:20]}").code == 1, "an endpoint's beginning is none of an event"


@pytest.mark.parametrize(
    "typed", ["ep_", "ep_X", "dlv_0189", "ep_0189-", "shop", "ep_01890a5dac96774bbcceb302099a8057"]
)
def test_what_is_no_beginning_of_such_an_id_is_refused(run: Command, typed: str) -> None:
    ran = run("endpoints", "show", typed)
    assert ran.code == 2
    assert f"found {typed!r}; allowed: ep_ and a UUID, or its first characters" in ran.err


def test_past_the_api_an_id_is_shortened_too(run: Command) -> None:
    first, second = make(run, 2)
    ran = run("endpoints", "show", unique(first, [second]), "--direct", "--output", "json")
    assert (ran.code, ran.json["id"]) == (0, first)
    assert ran.err.count("--direct: on the database") == 1, "one API runs in this process, for both requests"
    assert run("endpoints", "show", "ep_0", "--direct").code == 2


def test_a_command_of_this_machine_takes_a_shortened_id(run: Command, engine: Engine) -> None:
    def kept() -> int:
        with engine.connect() as connection:
            return connection.execute(text("SELECT payloads_days FROM dispatcher.tenants")).scalar_one()

    ran = run("tenants", "retention", format_id("ten", DEFAULT_TENANT)[:12], "--payloads", "9")
    assert (ran.code, ran.err) == (0, "")
    assert kept() == 9
    assert run("tenants", "retention", "ten_f").code == 1


def test_a_deleted_endpoint_is_found_by_its_beginning_in_the_audit_log(run: Command) -> None:
    (endpoint,) = make(run, 1)
    run("endpoints", "delete", endpoint, "--yes")
    entries = run("audit-log", "list", "--object", endpoint[:20], "--output", "json")
    assert (entries.code, [one["object"] for one in entries.data]) == (0, [endpoint, endpoint])
    (alive,) = make(run, 1)
    shown = run("endpoints", "show", "ep_0", "--output", "json")
    assert shown.json["id"] == alive, "a deleted endpoint makes no beginning ambiguous"


def test_an_ended_pause_says_that_its_whole_id_is_needed(run: Command) -> None:
    pause = run("pause", "--event-type", "payment.*", "--output", "json").json["id"]
    run("unpause", pause)
    ran = run("audit-log", "list", "--object", pause[:20])
    assert (ran.code, "an ended pause is found by its whole id only" in ran.err) == (1, True)
    assert len(run("audit-log", "list", "--object", pause, "--output", "json").data) == 2


def test_a_tenants_name_is_as_good_as_its_id(run: Command) -> None:
    tenant = run("tenants", "create", "acme", "--output", "json").json["id"]
    make(run, 1)
    endpoint = run("endpoints", "create", "https://acme.example.com/", "--tenant", "acme", "--output", "json").json
    assert endpoint["tenant_id"] == tenant
    listed = run("endpoints", "list", "--tenant", "acme", "--output", "json").data
    assert [one["id"] for one in listed] == [endpoint["id"]]
    assert run("tenants", "show", "acme", "--output", "json").json["id"] == tenant
    assert run("tenants", "retention", "acme", "--payloads", "9").code == 0
    assert run("tenants", "create", "till", "--parent", "acme", "--output", "json").json["parent_id"] == tenant
    for unknown in ("acm", "ACME"):
        ran = run("endpoints", "list", "--tenant", unknown)
        assert ran.code == 2
        assert (
            f"Invalid value for '--tenant': found {unknown!r}, which no tenant is called; allowed: the id of a tenant, "
            "its first characters, or the name of a tenant"
        ) in ran.err
    assert "allowed: ten_ and a UUID, or its first characters" in run("endpoints", "list", "--tenant", "ten_x").err
