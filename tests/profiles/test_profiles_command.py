from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dispatcher.profiles import as_document, load_catalog, shipped_profiles_dir
from tests.profiles.known import KNOWN

# By its name, since the package's attribute of that name is the group.
command = importlib.import_module("dispatcher.cli.profiles")

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


def run(*args: object, exit_code: int = 0, env: dict[str, str] | None = None) -> Result:
    clean = {"DISPATCHER_PROFILES_DIR": None, "DISPATCHER_SCHEDULES_DIR": None, "FORCE_COLOR": None}
    result = CliRunner(env={**clean, **(env or {})}).invoke(command.profiles, [str(arg) for arg in args])
    assert result.exit_code == exit_code, result.output
    return result


def answer(*args: object, **kwargs: Any) -> Any:
    return json.loads(run(*args, "--output", "json", **kwargs).stdout)


def dirs(mine: Path) -> tuple[object, ...]:
    return ("--profiles-dir", mine / "profiles", "--schedules-dir", mine / "schedules")


def test_list_shows_what_tells_profiles_apart() -> None:
    rows = [line.split() for line in run("list").stdout.splitlines()]
    assert rows[0] == ["name", "urls", "methods", "signature", "success", "schedule", "events", "limit", "from"]
    assert [row[0] for row in rows[1:]] == list(load_catalog(shipped_profiles_dir(), known=KNOWN))
    (musepay,) = [row for row in rows if row[0] == "musepay"]
    assert musepay[1:] == [
        "https", "POST", "rsa_sha1", "200", "exponential", "order.*", "card.*", "none", "shipped",
    ]  # fmt: skip


def test_list_says_where_each_profile_comes_from(mine: Path) -> None:
    lines = run("list", *dirs(mine)).stdout.splitlines()
    assert lines[2].endswith(f"{mine}/profiles/default.toml, replacing the shipped one")
    assert re.match(r"house +http with a port +POST GET +none +any 2xx +brief +open +none ", lines[4])
    assert lines[4].endswith(f"{mine}/profiles/house.toml")


def test_the_directories_may_come_from_the_environment(mine: Path) -> None:
    env = {"DISPATCHER_PROFILES_DIR": f"{mine}/profiles", "DISPATCHER_SCHEDULES_DIR": f"{mine}/schedules"}
    assert "house" in [row["name"] for row in answer("list", env=env)["data"]]


def test_list_and_show_tell_the_same_in_the_form_of_the_file() -> None:
    (listed,) = [row for row in answer("list")["data"] if row["name"] == "terminal"]
    assert answer("show", "terminal") == listed
    assert (listed["shipped"], listed["replaces"]) == (True, None)
    assert listed["registration"]["limit"] == 16
    assert listed["answers"]["success"] == "any_2xx"
    profile = load_catalog(shipped_profiles_dir(), known=KNOWN)["terminal"]
    assert listed == {
        "name": "terminal", **as_document(profile), "shipped": True, "replaces": None, "file": listed["file"],
    }  # fmt: skip


def test_show_names_every_field() -> None:
    shown = dict(line.split(None, 1) for line in run("show", "musepay").stdout.splitlines() if " " in line.strip())
    assert shown["answers.success"] == "200"
    assert shown["deadline_s"] == "15"
    assert shown["registration.ping"] == "false"
    assert shown["events.catalogue"] == "order.* card.*"
    assert shown["from"] == "shipped"


def test_a_path_stands_for_a_name(mine: Path) -> None:
    (mine / "renamed.toml").write_text('[signature]\nheaders = {webhook-id = "x-id"}\n')
    assert answer("show", mine / "renamed.toml")["signature"]["headers"] == {"webhook-id": "x-id"}
    assert "webhook-id=x-id" in run("show", mine / "renamed.toml").stdout


def test_an_unknown_profile_fails_with_the_nearest_name() -> None:
    result = run("show", "muse-pay", exit_code=1)
    assert result.stderr == "Error: no profile 'muse-pay'; did you mean musepay?\n"


def test_a_schedule_that_this_installation_does_not_have_is_an_error(mine: Path) -> None:
    told = run("list", "--profiles-dir", mine / "profiles", exit_code=1).stderr
    assert f"{mine}/profiles/house.toml:3: schedule: found 'brief'; allowed: a schedule: exponential, standard" in told


def test_lint_of_what_is_shipped_finds_nothing() -> None:
    assert run("lint").stdout == "7 files, 0 errors, 0 warnings\n"


def test_lint_tells_errors_and_warnings_and_fails_on_errors_only(mine: Path) -> None:
    args = ("lint", mine / "profiles", "--schedules-dir", mine / "schedules")
    assert run(*args).stdout.splitlines()[-1] == "2 files, 0 errors, 1 warning"
    (mine / "profiles/bad.toml").write_text("\nmethods = []")
    lines = run(*args, exit_code=1).stdout.splitlines()
    assert lines[0].startswith(f"error: {mine}/profiles/bad.toml:2: methods: found an empty array; allowed: an array")
    assert lines[1].startswith(f"warning: {mine}/profiles/house.toml:8: signature.schemes: none, so no receiver")
    assert lines[2] == "3 files, 1 error, 1 warning"


def test_lint_answers_in_json_too(mine: Path) -> None:
    (mine / "bad.toml").write_text("\nmethods = []")
    told = answer("lint", mine / "bad.toml", exit_code=1)
    assert (told["files"], told["warnings"]) == (1, [])
    (error,) = told["errors"]
    assert (error["line"], error["field"], error["found"]) == (2, "methods", "an empty array")


@pytest.mark.parametrize("args", [(), ("nope",), ("list", "--output", "xml"), ("show",)])
def test_a_wrong_call_is_a_usage_error(args: tuple[str, ...]) -> None:
    run(*args, exit_code=2)
