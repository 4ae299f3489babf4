"""What the documents say is true of the code: settings, logs, states, commands, paths, names, examples."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dispatcher import config, renamed, telemetry
from dispatcher.cli import cli
from dispatcher.cli.deliveries import DELIVERIES
from dispatcher.client.client import API_KEY, API_URL
from dispatcher.model.delivery import DeliveryState, RetryAt
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import RetrySchedule, decide, format_duration, load_catalog, shipped_schedules_dir

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "profiles/README.md"])
SOURCES = sorted([*(ROOT / "dispatcher").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, lines = (line[3:].strip(), number), []
            else:
                found.append(Block(opened[0], "\n".join(lines), opened[1]))
                opened = None
        elif opened is not None:
            lines.append(line)
    assert opened is None, f"{path} ends inside a block"
    return found


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(path: Path) -> list[str]:
    """What stands in backquotes, outside of blocks."""
    return re.findall(r"`([^`]+)`", prose(path))


def table(path: Path, head: str) -> list[list[str]]:
    """The rows of the table whose head starts with `| head |`; backquotes are taken off whole cells."""
    lines = path.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip("|").split("|")])
    return rows


# Settings


def test_every_setting_is_documented_as_the_code_has_it() -> None:
    documented = {row[0]: row[1:] for row in table(ROOT / "docs/configuration.md", "variable")}
    assert list(documented) == [config.PREFIX + setting.name.upper() for setting in fields(config.Settings)]
    for setting in fields(config.Settings):
        about, _, default, why = documented[config.PREFIX + setting.name.upper()]
        assert about == setting.metadata["about"]
        assert why, f"{setting.name}: why this default?"
        expected = "none" if setting.default in (None, ()) else config.shown(setting.default)
        assert default == ("the number of cores" if setting.name == "workers" else expected), setting.name


@documents
def test_every_variable_that_is_named_exists(path: Path) -> None:
    known = {config.PREFIX + setting.name.upper() for setting in fields(config.Settings)}
    known |= {API_URL, API_KEY, config.COMMAND_LINE_KEY, config.PULSE, *renamed.SETTINGS}
    named = set(re.findall(r"\bDISPATCHER_[A-Z_]*[A-Z]", path.read_text()))
    assert named <= known


# Logs


RESERVED = {"time", "level", "logger", "event", "message", "traceback"}
"""What every line has in JSON, so no field may be named so."""

LOGGERS = {"_log", "log", "logger"}
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


@dataclass(frozen=True)
class Logged:
    """A call in the sources that logs."""

    where: str
    call: ast.Call

    @property
    def event(self) -> str:
        constants = [argument.value for argument in self.call.args if isinstance(argument, ast.Constant)]
        assert constants, f"{self.where}: the event's name is no literal"
        return str(constants[0])

    @property
    def fields(self) -> set[str]:
        names = {keyword.arg for keyword in self.call.keywords}
        assert None not in names, f"{self.where}: names of fields that are not written out"
        return {name for name in names if name} - {"exc_info"}


def calls(*owners: str, methods: set[str]) -> Iterator[Logged]:
    """Every call in the sources of one of these methods of one of these names."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id.lower() in owners
                and node.func.attr in methods
            ):
                yield Logged(f"{path.relative_to(ROOT)}:{node.lineno}", node)


def test_the_sources_log_by_events_and_fields_alone() -> None:
    allowed = "dispatcher/telemetry.py:"  # the function that all others call
    direct = [call.where for call in calls(*LOGGERS, methods=METHODS) if not call.where.startswith(allowed)]
    assert not direct, "use telemetry.log, so that the line has fields"


def test_every_log_line_has_a_declared_name_and_every_name_a_line() -> None:
    logged = list(calls("telemetry", methods={"log", "info_many"}))
    undeclared = [f"{call.where}: {call.event}" for call in logged if call.event not in telemetry.EVENTS]
    assert not undeclared
    assert {call.event for call in logged} == set(telemetry.EVENTS)
    for event in telemetry.EVENTS:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", event)


def test_every_field_of_a_log_line_is_declared_and_every_declared_field_is_logged() -> None:
    logged: dict[str, set[str]] = {}
    for call in calls("telemetry", methods={"log"}):
        undeclared = call.fields - set(telemetry.EVENTS[call.event].fields)
        assert not undeclared, f"{call.where}: {call.event} has undeclared fields {undeclared}"
        logged.setdefault(call.event, set()).update(call.fields)
    for event, names in logged.items():
        assert names == set(telemetry.EVENTS[event].fields), event
    # `info_many` takes rows, which tests/workers/test_loop.py compares.
    assert set(telemetry.EVENTS) - set(logged) == {"delivery.attempted"}


def test_a_field_has_one_meaning_and_no_reserved_name() -> None:
    assert {field for declared in telemetry.EVENTS.values() for field in declared.fields} == set(telemetry.FIELDS)
    assert not RESERVED & set(telemetry.FIELDS)


def test_every_event_and_field_of_the_log_is_documented_as_the_code_has_it() -> None:
    path = ROOT / "docs/logs.md"
    assert [tuple(row) for row in table(path, "event")] == [
        (event, ", ".join(declared.fields), declared.meaning) for event, declared in sorted(telemetry.EVENTS.items())
    ]
    assert [tuple(row) for row in table(path, "field")] == sorted(telemetry.FIELDS.items())


# States and outcomes


def test_every_state_and_check_is_in_the_document_of_states() -> None:
    path = ROOT / "docs/states.md"
    text = path.read_text()
    for state in DeliveryState:
        assert f"`{state}`" in text
    # Of the three tables that a delivery and its attempts stand in.
    declared: set[str] = set()
    for migration in sorted((ROOT / "dispatcher/store/migrations/versions").glob("*.py")):
        for body in re.findall(
            r"CREATE TABLE dispatcher\.(?:deliveries|ended_deliveries|attempts) \((.*?)\n\)",
            migration.read_text(),
            re.DOTALL,
        ):
            declared |= set(re.findall(r"CONSTRAINT (\w+) CHECK", body))
        declared -= set(re.findall(r"DROP CONSTRAINT (\w+)", migration.read_text()))
    documented = {row[0] for row in table(path, "CHECK") if not row[0].startswith("the ")}
    assert documented == declared


def test_transitions_start_and_end_in_states() -> None:
    states = {str(state) for state in DeliveryState}
    rows = table(ROOT / "docs/states.md", "from")
    assert {row[1] for row in rows} == states
    assert {row[0] for row in rows} <= states | {"–"}


def test_what_follows_from_each_outcome_is_what_the_document_says() -> None:
    rows = {row[0]: (row[1], row[2]) for row in table(ROOT / "docs/outcomes.md", "outcome")}
    assert list(rows) == [str(kind) for kind in OutcomeClass]
    schedule = RetrySchedule("two", (timedelta(0), timedelta(seconds=5)))
    for kind in OutcomeClass:
        change = decide(Outcome(kind), schedule=schedule, attempt=1, refunds=0, uniform=lambda low, _: low)
        if isinstance(change, RetryAt):
            assert rows[kind] == ("retry", "yes" if change.charged else "no")
        else:
            assert rows[kind] == (change.state, "yes")


def test_every_outcome_has_a_row_in_the_table_of_behaviours() -> None:
    named = " ".join(" ".join(row) for row in table(ROOT / "docs/outcomes.md", "the receiver"))
    for kind in OutcomeClass:
        assert re.search(rf"\b{kind}\b", named), kind


def test_the_shipped_schedules_are_documented_as_they_are() -> None:
    documented = {row[0]: row[1:] for row in table(ROOT / "docs/retries.md", "schedule")}
    catalog = load_catalog(shipped_schedules_dir())
    assert set(documented) == set(catalog)
    for name, (attempts, over, waits) in documented.items():
        schedule = catalog[name]
        hours, rest = divmod(int(schedule.total.total_seconds()), 3600)
        assert attempts == str(schedule.attempts)
        assert over == f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
        assert [format_duration(wait) for wait in schedule.waits] == waits.replace("64m", "1h4m").split()


def test_invariants_are_numbered_and_the_audit_checks_only_numbered_ones() -> None:
    from dispatcher.store import audit

    rows = table(ROOT / "docs/invariants.md", "#")
    assert [int(row[0]) for row in rows] == list(range(1, 11))
    by_audit = {int(row[0]) for row in rows if "dispatcher.flow.audit.verify" in row[3]}
    assert by_audit == {check.invariant for check in audit.CHECKS}


# Names


@documents
def test_every_path_that_is_named_exists(path: Path) -> None:
    named = [
        span
        for span in spans(path)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span)
        and ("/" in span or span.endswith((".md", ".toml", ".py", ".yml", ".lock")))
        and not span.startswith(("/", "bench/results/", "my_schedules/"))
        and "0.0" not in span
        and span.partition("/")[0] in {p.name for p in ROOT.iterdir()}
    ]
    assert [one for one in named if not (ROOT / one).exists()] == []
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@documents
def test_every_name_of_the_code_that_is_named_exists(path: Path) -> None:
    named = {one for span in spans(path) for one in re.findall(r"\b(?:dispatcher|workers|tests)(?:\.\w+)+", span)}
    files = (".py", ".md", ".service")
    assert [name for name in sorted(named) if not name.endswith(files) and not resolves(name)] == []


def resolves(name: str) -> bool:
    if name.startswith("tests."):  # not imported: pytest rewrites what it imports first
        module, _, function = name.rpartition(".")
        file = ROOT / (module.replace(".", "/") + ".py")
        return file.exists() and any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == function
            for node in ast.parse(file.read_text()).body
        )
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


# Commands


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `dispatcher …` of the document's consoles and, where it is a command, of its text."""
    lines = [line[2:] for block in blocks(path) if block.language == "console" for line in block.text.splitlines()
             if line.startswith("$ ")]  # fmt: skip
    lines += [span for span in spans(path) if re.match(r"dispatcher [a-z]", span)]
    for line in lines:
        tokens = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        tokens.whitespace_split = True
        found: list[list[str]] = [[]]
        for token in tokens:
            if set(token) <= set("|&;"):
                found.append([])
            else:
                found[-1].append(token)
        for words in found:
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0] == "dispatcher":
                yield line, words[1:]


@documents
def test_every_command_that_is_shown_can_be_typed(path: Path) -> None:
    for line, words in commands(path):
        command: click.Command = cli
        context = click.Context(cli, info_name="dispatcher")
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
            context = click.Context(command, parent=context, info_name=command.name)
        assert not isinstance(command, click.Group) or not words, f"{line}: no command {words[0]}"
        command.make_parser(context).parse_args(list(words))


@documents
def test_every_target_of_make_that_is_shown_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [line for block in blocks(path) if block.language == "console" for line in block.text.splitlines()]
    named = set(re.findall(r"^\$ make ([a-z]+)", "\n".join(shown), re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z]+)", path.read_text()))
    assert named <= targets


def every_command(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from every_command(below, (*words, name))


@pytest.mark.parametrize("words", list(every_command(cli)), ids=lambda words: " ".join(words) or "dispatcher")
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(cli, [*words, "--help"])
    assert answer.exit_code == 0
    explained = answer.output.partition("\n\n")[2].partition("\n\n")[0].strip()
    assert explained, "no sentence says what it does"
    assert not explained.startswith("Options:"), "no sentence says what it does"


def test_the_readmes_session_has_the_columns_that_the_command_prints() -> None:
    source = ast.parse((ROOT / "dispatcher/cli/story.py").read_text())
    printed = [
        [one.value for one in node.elts if isinstance(one, ast.Constant)]
        for node in ast.walk(source)
        if isinstance(node, ast.List)
    ]
    text = "\n".join(block.text for block in blocks(ROOT / "README.md"))
    (head,) = re.findall(r"^#  when .*", text, re.MULTILINE)
    assert re.split(r" {2,}", head.strip()) in printed
    lists = re.findall(r"^delivery +time .*", text, re.MULTILINE)
    assert len(lists) == 2
    for head in lists:
        assert {*head.split()} <= {column.head for column in DELIVERIES.columns} | {"UTC", "→", "host/path"}


# Examples


@documents
def test_every_example_is_valid(path: Path) -> None:
    import tomllib

    for block in blocks(path):
        if block.language == "python":
            compile(block.text, f"{path.name}:{block.line}", "exec")
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and node.module == "dispatcher":
                    import dispatcher

                    assert all(hasattr(dispatcher, name.name) for name in node.names)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language in {"", "console", "javascript", "sh"}, f"{path.name}:{block.line}: {block.language}"


def test_the_example_of_a_schedule_file_is_one(tmp_path: Path) -> None:
    from dispatcher.retry import lint

    (example,) = [block.text for block in blocks(ROOT / "docs/retries.md") if block.language == "toml"]
    (tmp_path / "example.toml").write_text(example)
    report = lint(tmp_path / "example.toml")
    assert not report.problems
    assert not report.warnings


@documents
def test_no_document_names_a_place_of_somebodys_machine(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"(?<![\w.~-])/(?:work|root|home|Users|tmp|private)/", text)
    assert not re.search(r"\b(?:TODO|FIXME|XXX|TBD)\b", text)


def test_figures_stand_between_their_marks() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- figures -->") == text.count("<!-- /figures -->") == 1
    for row in table(ROOT / "README.md", "what"):
        assert len(row) == 4
