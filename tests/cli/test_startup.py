"""What a command imports: the help and completion none of the commands, a command that goes to the API no server."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dispatcher.cli import EXIT_CODES, cli, commands
from dispatcher.cli.commands import COMMANDS, MAX_SUMMARY, SECTIONS, VERBS, Reach
from tests.support.typed import TYPED

OF_THE_SERVER = {
    *("aiohttp", "alembic", "asyncpg", "celery", "cryptography", "fastapi", "httptools", "jsonschema_rs", "kombu"),
    *("psycopg", "pydantic", "redis", "sqlalchemy", "starlette", "uvicorn", "uvloop", "valkey", "dispatcher.workers"),
    *("dispatcher.api", "dispatcher.egress", "dispatcher.flow", "dispatcher.signing", "dispatcher.store"),
    *("dispatcher.wakeup", "dispatcher.wiring", "dispatcher.cli.in_process", "dispatcher.cli.machine"),
    *("dispatcher.local.postgres", "dispatcher.local.redis", "dispatcher.local.stack", "dispatcher.local.supervisor"),
}
"""What no command imports that goes through the API. Nor does it import rich before it has something to print."""

WITHOUT_HELP = OF_THE_SERVER | {"httpx", "orjson", "rich", "dispatcher.client", "dispatcher.config"}
WITHOUT_API = OF_THE_SERVER | {"rich", "pygments", "dispatcher.local.secret_keys"}

# Runs all that is asked in one process, and tells after each what is imported.
SCRIPT = """
import contextlib, io, json, os, sys

def run(words, stdin="", environ=()):
    os.environ.update(environ)
    sys.argv = ["dispatcher", *words]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code
    out.flush()
    texts = {"out": out.buffer.getvalue().decode(), "err": err.getvalue()}
    return {"code": code, "modules": [name for name, module in sys.modules.items() if module], **texts}

from dispatcher.cli import main

asked, typed = map(json.loads, sys.argv[1:])
shown = [run(words, environ=environ) for words, environ in asked]
if typed:
    from dispatcher.client.exchange import Exchange

    Exchange._backoff = lambda *_: 0.0
    shown += [run(words, stdin) for words, stdin in typed]
print(json.dumps(shown))
"""


def imported(shown: list[Any], typed: list[Any], **environ: str) -> list[dict[str, Any]]:
    """What each run printed, and what was imported by then; in an environment where no system answers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "COVERAGE_"))}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(shown), json.dumps(typed)],
        env=clean | {"DISPATCHER_API_URL": "http://127.0.0.1:1"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def among(modules: list[str], names: set[str]) -> set[str]:
    return {name for name in names if any(one == name or one.startswith(f"{name}.") for one in modules)}


def test_help_and_completion_import_none_of_the_commands() -> None:
    complete = {"_DISPATCHER_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    shown = [
        (["--version"], {}),
        (["--help"], {}),
        (["evnts"], {}),
        ([], complete | {"COMP_WORDS": "dispatcher e"}),
        ([], complete | {"COMP_WORDS": "dispatcher --he"}),
    ]
    version, help_, misspelt, names, options = imported(shown, [])
    assert [one["code"] for one in (version, help_, misspelt, names, options)] == [0, 0, 2, 0, 0]
    assert all(row.summary in help_["out"] for row in COMMANDS.values())
    assert "Did you mean" in misspelt["err"]
    assert names["out"].split() == [
        "plain,endpoints",
        "plain,erase",
        "plain,erasures",
        "plain,event-types",
        "plain,events",
    ]
    assert options["out"].split() == ["plain,--help"]
    modules = options["modules"]
    assert {one for one in modules if one.startswith("dispatcher.cli.")} == {
        "dispatcher.cli.commands",
        "dispatcher.cli.plain",
    }
    assert among(modules, WITHOUT_HELP) == set()


def test_completion_of_a_command_imports_that_command_alone() -> None:
    complete = {"_DISPATCHER_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    shown = [([], complete | {"COMP_WORDS": "dispatcher deliveries e"})]
    (names,) = imported(shown, [])
    assert names["out"].split() == ["plain,export"]
    assert among(names["modules"], WITHOUT_API) == set()
    defining = {f"dispatcher.cli.{row.module}" for row in COMMANDS.values()} | {"dispatcher.cli.export"}
    assert defining & set(names["modules"]) == {"dispatcher.cli.deliveries"}


def test_a_command_that_goes_to_the_api_imports_nothing_of_the_server() -> None:
    verbs = [words for words, verb in VERBS.items() if verb.reach in {Reach.API, Reach.DIRECT}]
    typed = [([*verb.split(), *TYPED[verb].words.split()], TYPED[verb].stdin) for verb in verbs]
    found: dict[str, set[str]] = {}
    before: set[str] = set()
    for verb, ran in zip(verbs, imported([], typed), strict=True):
        assert ran["code"] == 1, (verb, ran["err"])
        assert "no answer from http://127.0.0.1:1/" in ran["err"], verb
        if new := among(ran["modules"], WITHOUT_API) - before:
            found[verb] = new
        before |= new
    assert found == {}


OF_OTHER_PROCESSES = {
    *("alembic", "dispatcher.cli.machine", "dispatcher.cli.processes", "dispatcher.cli.target", "dispatcher.client"),
    *("dispatcher.local", "pydantic.v1", "pygments", "rich"),
}
"""What no process of the system imports; by itself it takes a third of the CPU of their start."""


@pytest.mark.parametrize(
    ("commands_", "module", "but"),
    [
        (
            ("worker", "scheduler"),
            "dispatcher.workers",
            {"dispatcher.api", "fastapi", "pydantic", "starlette", "uvicorn"},
        ),
        (("api",), "dispatcher.api.serve", {"celery", "kombu", "dispatcher.workers"}),
    ],
    ids=["workers", "api"],
)
def test_a_process_imports_what_it_consists_of(commands_: tuple[str, ...], module: str, but: set[str]) -> None:
    script = """
import json, sys
from dispatcher.cli import cli
from dispatcher.errors import ConfigurationError

for command in sys.argv[1:]:
    try:
        cli([command], standalone_mode=False)
    except ConfigurationError:  # it has no database; all that it consists of is imported by then
        pass
    else:
        raise SystemExit(f"{command} did not look at its settings")
print(json.dumps([name for name, module in sys.modules.items() if module]))
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "COVERAGE_"))}
    ran = subprocess.run(
        [sys.executable, "-c", script, *commands_], env=clean, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    modules = json.loads(ran.stdout)
    assert among(modules, {module}), "the process did not begin"
    assert among(modules, OF_OTHER_PROCESSES | but) == set()


# The help


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    below = command.commands if isinstance(command, click.Group) else {}
    return [(words, command)] + [pair for name, other in below.items() for pair in leaves(other, (*words, name))]


TREE = dict(leaves(cli))


def test_the_table_says_what_the_commands_say_themselves() -> None:
    rows = {(name,): row for name, row in COMMANDS.items()}
    rows |= {(group, name): row for group, below in commands.BELOW.items() for name, row in below.items()}
    assert {words: row.summary for words, row in rows.items()} == {
        words: TREE[words].get_short_help_str(1000) for words in rows
    }
    assert {row.section for row in COMMANDS.values()} == set(SECTIONS)


@pytest.mark.parametrize("words", [words for words in TREE if words], ids=" ".join)
def test_a_summary_is_short_and_tells_what_the_command_does(words: tuple[str, ...]) -> None:
    summary = TREE[words].get_short_help_str(1000)
    assert len(summary) <= MAX_SUMMARY, summary
    assert summary.endswith("."), summary
    first, *others = summary.split()
    assert first[0].isupper(), summary
    assert not first.endswith("s"), f"{summary!r} does not begin with an imperative"
    assert others, f"{summary!r} has no noun"
    assert "it" not in others, f"{summary!r} names no noun"


@pytest.mark.parametrize("words", [words for words, one in TREE.items() if isinstance(one, click.Group)], ids=" ".join)
def test_no_summary_is_cut_off(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    lists = shown.output.partition("\nOptions:")[2]
    assert "..." not in lists
    group = TREE[words]
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        (line,) = [line for line in lists.splitlines() if line.startswith(f"  {name} ")]
        assert line.split(maxsplit=1)[1] == command.get_short_help_str(1000)


def test_the_root_shows_its_sections_and_every_exit_code() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    titles = [line.removesuffix(":").lower() for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["options", *SECTIONS, "exit codes"]
    document = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    for code, meaning in EXIT_CODES:
        assert f"  {code}  {meaning}\n" in shown
        assert f"\n| {code} | {meaning}" in document


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_ends_with_an_example_that_can_be_typed(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(cli, [*verb.split(), "--help"], terminal_width=200).output
    *_, head, line = shown.splitlines()
    assert head.strip() == "Example:"
    assert line.strip() == f"dispatcher {verb} {VERBS[verb].example}".strip()
    for kind in (click.File, click.Path):  # the files of an example need not exist
        monkeypatch.setattr(kind, "convert", lambda _, value, *__: value)
    TREE[tuple(verb.split())].make_context(verb, shlex.split(VERBS[verb].example))


# Errors


@pytest.mark.parametrize(
    ("words", "said", "page"),
    [
        (("evnts",), "No such command 'evnts'.", "dispatcher"),
        (("deliveries", "lst"), "No such command 'lst'.", "dispatcher deliveries"),
        (("events", "list", "--limt", "3"), "No such option '--limt'.", "dispatcher events list"),
        (("events", "list", "--limit", "x"), "Invalid value for '--limit':", "dispatcher events list"),
        (("events", "show"), "Missing argument 'EVENT_ID'.", "dispatcher events show"),
        (("deliveries", "retry"), "found nothing; allowed:", "dispatcher deliveries retry"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_form(words: tuple[str, ...], said: str, page: str) -> None:
    environ = {"DISPATCHER_API_URL": "http://127.0.0.1:1"}
    ran = CliRunner().invoke(cli, words, env=environ)
    first, *_, last = ran.stderr.splitlines()
    assert first.startswith(f"dispatcher: {said}")
    assert last == f"See `{page} --help`."
    assert (ran.exit_code, ran.stdout) == (2, "")


def test_a_file_that_cannot_be_read_is_told_in_the_same_form(tmp_path: Path) -> None:
    ran = CliRunner().invoke(cli, ["verify", "-", "--secret-file", str(tmp_path / "none")])
    assert ran.stderr.startswith("dispatcher: Invalid value for '--secret-file':")


def test_a_question_that_is_denied_ends_with_1() -> None:
    ran = CliRunner().invoke(cli, ["keys", "revoke", VERBS["keys revoke"].example], input="n\n")
    assert (ran.exit_code, ran.stderr) == (1, "dispatcher: aborted\n")


def test_the_command_line_without_a_command_shows_its_help() -> None:
    ran = CliRunner().invoke(cli, [])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("Usage: dispatcher")
