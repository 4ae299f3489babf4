from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dispatcher.profiles import as_document, load_catalog, shipped_profiles_dir
from tests.profiles.known import KNOWN
from tests.support.command import Command

UNSIGNED = """description = "d"
source = "s"
schedule = "brief"
[url]
schemes = ["http"]
ports = true
[signature]
schemes = []
secret = false
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/default.toml").write_text('description = "d"\nsource = "s"\n')
    (tmp_path / "profiles/house.toml").write_text(UNSIGNED)
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules/brief.toml").write_text('description = "d"\nsource = "s"\nwaits = ["0s", "5s"]\n')
    return tmp_path


@pytest.fixture
def here(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`dispatcher profiles …` on a machine on which nothing runs."""
    return Command(monkeypatch, capsys, ("profiles",))


def answer(run: Command, *args: object, code: int = 0) -> Any:
    ran = run(*args, "--output", "json")
    assert ran.code == code, ran.err
    return ran.json


def test_list_shows_what_tells_profiles_apart(run: Command, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_PROFILES_DIR", f"{mine}/profiles")
    monkeypatch.setenv("DISPATCHER_SCHEDULES_DIR", f"{mine}/schedules")
    lines = run("profiles", "list").out.splitlines()
    rows = [line.split() for line in lines]
    assert rows[0] == ["name", "default", "urls", "methods", "signature", "success", "schedule", "events", "limit"]
    assert [row[0] for row in rows[1:]] == sorted([*load_catalog(shipped_profiles_dir(), known=KNOWN), "house"])
    (musepay,) = [row for row in rows if row[0] == "musepay"]
    assert musepay[1:] == ["https", "POST", "rsa_sha1", "200", "exponential", "order.*", "card.*", "none"]
    (default,) = [row for row in rows if row[0] == "default"]
    assert default[1] == "yes"
    (house,) = [line for line in lines if line.startswith("house")]
    assert re.match(r"house +http with a port +POST GET +none +any 2xx +brief +open +none", house)


def test_list_and_show_tell_the_same_in_the_form_of_the_file(run: Command) -> None:
    (listed,) = [row for row in run("profiles", "list", "--output", "json").data if row["name"] == "terminal"]
    assert answer(run, "profiles", "show", "terminal") == listed
    profile = load_catalog(shipped_profiles_dir(), known=KNOWN)["terminal"]
    assert listed == {"name": "terminal", "default": False, **as_document(profile)}
    shown = run("profiles", "show", "musepay").out.splitlines()
    fields = dict(line.split(None, 1) for line in shown if " " in line.strip())
    assert fields["default"] == "false"
    assert fields["answers.success"] == "200"
    assert fields["deadline_s"] == "15"
    assert fields["registration.ping"] == "false"
    assert fields["events.catalogue"] == "order.* card.*"


def test_an_unknown_profile_fails_with_the_nearest_name(run: Command) -> None:
    ran = run("profiles", "show", "muse-pay")
    assert ran.code == 1
    assert ran.err == "dispatcher: no profile 'muse-pay'; did you mean musepay?\n"


def test_a_path_stands_for_a_name(here: Command, mine: Path) -> None:
    (mine / "renamed.toml").write_text('[signature]\nheaders = {webhook-id = "x-id"}\n')
    assert answer(here, "show", mine / "renamed.toml")["signature"]["headers"] == {"webhook-id": "x-id"}
    assert "webhook-id=x-id" in here("show", mine / "renamed.toml").out


def test_a_schedule_that_this_installation_does_not_have_is_an_error(here: Command, mine: Path) -> None:
    ran = here("show", mine / "profiles/house.toml")
    assert ran.code == 2
    assert f"{mine}/profiles/house.toml:3: schedule: found 'brief'; allowed: a schedule: exponential" in ran.err
    assert here("show", mine / "profiles/house.toml", "--schedules-dir", mine / "schedules").code == 0


def test_lint_of_what_is_shipped_finds_nothing(here: Command) -> None:
    assert here("lint").out == "7 files, 0 errors, 0 warnings\n"


def test_lint_tells_errors_and_warnings_and_fails_on_errors_only(here: Command, mine: Path) -> None:
    args = ("lint", mine / "profiles", "--schedules-dir", mine / "schedules")
    assert here(*args).out.splitlines()[-1] == "2 files, 0 errors, 1 warning"
    (mine / "profiles/bad.toml").write_text("\nmethods = []")
    ran = here(*args)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"error: {mine}/profiles/bad.toml:2: methods: found an empty array; allowed: an array")
    assert lines[1].startswith(f"warning: {mine}/profiles/house.toml:8: signature.schemes: none, so no receiver")
    assert lines[2] == "3 files, 1 error, 1 warning"


def test_lint_answers_in_json_too(here: Command, mine: Path) -> None:
    (mine / "bad.toml").write_text("\nmethods = []")
    told = answer(here, "lint", mine / "bad.toml", code=1)
    assert (told["files"], told["warnings"]) == (1, [])
    (error,) = told["errors"]
    assert (error["line"], error["field"], error["found"]) == (2, "methods", "an empty array")


@pytest.mark.parametrize("args", [(), ("nope",), ("list", "--output", "xml"), ("show",)])
def test_a_wrong_call_is_a_usage_error(here: Command, args: tuple[str, ...]) -> None:
    assert here(*args).code == 2
