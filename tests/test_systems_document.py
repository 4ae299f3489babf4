"""`docs/systems.md`: its requirements name lines of the shipped profiles, operations, settings and tests that exist."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dispatcher import config
from dispatcher.profiles import as_document, load_catalog, shipped_profiles_dir
from tests.api.operations import OPERATIONS
from tests.profiles.known import KNOWN
from tests.test_docs import ROOT

DOCUMENT = ROOT / "docs/systems.md"
SCENARIOS = "tests/scenarios/test_systems.py"
SYSTEMS = {
    "multisafepay": "MultiSafepay",
    "checkout": "Checkout",
    "gateway": "Gateway",
    "terminal": "Terminal",
    "musepay": "MusePay",
}
CATALOG = load_catalog(shipped_profiles_dir(), known=KNOWN)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))

each_system = pytest.mark.parametrize("name", SYSTEMS)


def rows(name: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each requirement of a system, what meets it, and the tests that show it."""
    title = SYSTEMS[name]
    lines = SECTIONS[title].splitlines()
    start = lines.index(f"| {title} requires | met by | shown by |")
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        requirement, met, shown = line.strip("| ").split(" | ")
        yield requirement, re.findall(r"`([^`]+)`", met) or [met], re.findall(r"`([^`]+)`", shown)


def commands(name: str) -> list[list[str]]:
    """The words of the commands by which one becomes the system."""
    (block,) = re.findall(r"^```console\n(.*?)^```", SECTIONS[SYSTEMS[name]], re.MULTILINE | re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for line in block.splitlines()]


@cache
def functions(path: Path) -> frozenset[str]:
    """The tests that a file has."""
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def fields(span: str) -> dict[str, Any]:
    """The dotted fields that a line of a profile's file sets."""
    read = tomllib.loads(span)
    found: dict[str, Any] = {}
    for name, value in read.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def profile_value(name: str, field: str) -> Any:
    table, _, key = field.rpartition(".")
    document = as_document(CATALOG[name])
    return document[table][key] if table else document[key]


def test_every_system_has_a_section() -> None:
    assert list(SECTIONS) == list(SYSTEMS.values())
    assert set(CATALOG) - set(SYSTEMS) == {"default", "standard-webhooks"}


@each_system
def test_what_meets_a_requirement_is_what_the_profile_and_the_program_have(name: str) -> None:
    operations = {f"{one.method} {one.path}" for one in OPERATIONS}
    settings = {config.PREFIX + setting.name.upper() for setting in dataclasses.fields(config.Settings)}
    for requirement, met, _ in rows(name):
        for span in met:
            if " = " in span:
                for field, value in fields(span).items():
                    assert profile_value(name, field) == value, (requirement, span)
            elif span.startswith(config.PREFIX):
                assert span in settings, (requirement, span)
            elif re.match(r"[A-Z]+ /", span):
                assert span in operations, (requirement, span)
            else:
                assert span == "the producer, which emits the event then", (requirement, span)


@each_system
def test_every_requirement_names_tests_that_exist(name: str) -> None:
    for requirement, _, shown in rows(name):
        assert shown, requirement
        for test in shown:
            path, _, function = test.rpartition("::")
            file = ROOT / (path or SCENARIOS)
            assert file.exists(), (requirement, test)
            assert function in functions(file), (requirement, test)


@each_system
def test_every_end_to_end_test_of_the_system_is_named(name: str) -> None:
    named = {test for _, _, shown in rows(name) for test in shown}
    ours = {function for function in functions(ROOT / SCENARIOS) if function.startswith(f"test_{name}_")}
    assert ours
    assert ours <= named


@each_system
def test_what_is_said_beside_the_table_is_what_the_profile_has(name: str) -> None:
    text = re.sub(r"^(\||```).*?$", "", SECTIONS[SYSTEMS[name]], flags=re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", text):
        line = " ".join(span.split())
        if " = " in line:
            for field, value in fields(line).items():
                assert profile_value(name, field) == value, span


@each_system
def test_three_commands_make_the_system_and_the_first_names_its_profile(name: str) -> None:
    start, register, send = commands(name)
    assert start == [f"DISPATCHER_DEFAULT_PROFILE={name}", "dispatcher", "up"]
    assert register[:2] == ["dispatcher", "endpoints"]
    assert send[:2] == ["dispatcher", "trigger"]
