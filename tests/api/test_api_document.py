"""docs/api.md: its tables are the code's, and its examples are run."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from dispatcher.api import gate, once, problems
from dispatcher.api.app import make_app
from dispatcher.config import Settings
from dispatcher.errors import DispatcherError
from dispatcher.model.event import MAX_PAYLOAD_BYTES
from dispatcher.model.parse import MAX_BATCH
from tests.api.conftest import OPERATOR
from tests.api.operations import OPERATIONS
from tests.support import walk

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/api.md"
TEXT = DOCUMENT.read_text()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Codes


def raised_codes() -> set[str]:
    """Every code that an answer can have: of an error's class, of a single error, of what the gate refuses."""
    found = {kind.code for kind in kinds() if issubclass(kind, tuple(problems._STATUSES))}
    found |= set(problems._CODES.values())
    for file in sorted((ROOT / "dispatcher").rglob("*.py")):
        tree = ast.parse(file.read_text())
        constants = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            match node:
                case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                    found.add(code)
                case ast.keyword(arg="code", value=ast.Name(id=name)) if name in constants:
                    found.add(constants[name])
                case ast.Call(func=ast.Name(id="problem"), args=[_, _, ast.Constant(value=str(code)), *_]):
                    found.add(code)
    return found


def kinds(kind: type[DispatcherError] = DispatcherError) -> Iterator[type[DispatcherError]]:
    """The errors of the server's side: those of the client are what it has been answered."""
    for below in kind.__subclasses__():
        if not below.__module__.startswith("dispatcher.client"):
            yield below
            yield from kinds(below)


def test_the_codes_are_those_that_can_be_raised() -> None:
    documented = [code.strip("`") for code, *_ in rows("Problems")]
    assert len(set(documented)) == len(documented)
    assert set(documented) == raised_codes()


def test_each_code_has_the_status_of_its_class() -> None:
    documented = {code.strip("`"): int(status) for code, status, *_ in rows("Problems")}
    for kind, status in problems._STATUSES.items():
        assert documented[kind.code] == status
    for status, code in problems._CODES.items():
        assert documented[code] == status


# Operations


def test_the_operations_are_those_of_the_openapi_document() -> None:
    expected = [
        f"| `{one.method} {one.path}` | {min(one.statuses)} | {one.described['summary']} |" for one in OPERATIONS
    ]
    there = [line for line in section("Operations").splitlines() if line.startswith("| `")]
    assert sorted(there) == sorted(expected), "it should have\n" + "\n".join(expected)


def test_the_limits_are_those_of_the_code() -> None:
    said = " ".join(section("Limits").split())
    assert f"{MAX_PAYLOAD_BYTES // 1024} KiB" in said
    assert f"{gate.MAX_BODY_BYTES // 1024} KiB" in said
    assert f"{gate.MAX_BULK_BYTES // 1024**2} MiB" in said
    assert f"{MAX_BATCH:,}" in said
    assert f"{once.KEY_LIFETIME_S / 3600:.0f} hours" in " ".join(section("Repeats").split())
    assert f"the first {problems.MAX_FAULTS}" in " ".join(section("Problems").split())


# Examples


@pytest.fixture
async def url(migrated_database_url: str) -> AsyncIterator[str]:
    """Of a server of this application."""
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # it queues connections even before the server is up
        server.should_exit = True
        await serving


def examples() -> list[tuple[str, Any]]:
    """Each command with the answer that is shown below it."""
    found = re.findall(r"```sh\n(curl .*?)\n```\n+```json\n(.*?)\n```", TEXT, re.DOTALL)
    return [(command, json.loads(answer)) for command, answer in found]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are of curl, which is not here")
async def test_the_examples_are_answered_as_shown(url: str) -> None:
    assert len(examples()) >= 3
    for command, shown in examples():
        process = await asyncio.create_subprocess_shell(
            command,
            env=os.environ | {"DISPATCHER_API_URL": url, "DISPATCHER_API_KEY": OPERATOR},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, command
        assert steady(json.loads(output)) == steady(shown), command


VOLATILE = {"id", "event_id", "endpoint_id", "secret", "request_id", "version"}


def steady(value: Any, name: str = "") -> Any:
    """What is the same in every run: ids and times by their form only."""
    match value:
        case dict():
            return {key: steady(one, key) for key, one in value.items()}
        case list():
            return [steady(one) for one in value]
        case str() if name in VOLATILE:
            return value.partition("_")[0] if "_" in value else "…"
        case str() if name.endswith("_at"):
            return "…"
    return value
