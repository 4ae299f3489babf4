"""What a producer, the client and the server need: declared, imported, documented, and said where it is missing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from sqlalchemy import create_engine, text

from dispatcher.errors import Unavailable
from dispatcher.extras import MODULES, missing_extra
from tests.support import walk
from tests.support.environments import OURS, Environment, canonical, make_environment, needs

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

VARYING = {"async-timeout", "colorama", "exceptiongroup", "typing-extensions", "tzdata"}
"""Needed with some versions of Python, of SQLAlchemy or on some platforms only."""


def documented() -> dict[str, set[str]]:
    """The distributions of each row of the table in docs/installation.md, by the row's first cell."""
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\| ([^|]*) \|", (ROOT / "docs/installation.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`([^`]+)`", cell)) for name, cell in rows}


# Declared


def test_a_producer_and_the_client_need_few_distributions() -> None:
    assert needs(OURS) - VARYING == {
        OURS, "anyio", "certifi", "click", "greenlet", "h11", "httpcore", "httpx", "idna", "orjson",
        "psycopg", "psycopg-binary", "sqlalchemy",
    }  # fmt: skip


@pytest.mark.parametrize("extra", ["cli", "schemas", "wakeup", "server", "embedded"])
def test_the_document_lists_the_distributions_of_each_extra(extra: str) -> None:
    table = documented()
    base = needs(OURS)
    assert table[OURS] - VARYING == base - VARYING - {OURS}
    added = needs(OURS, [extra]) - base
    if extra == "server":
        for included in ("cli", "schemas", "wakeup"):
            added -= needs(OURS, [included])
    if extra == "embedded":
        added -= needs(OURS, ["server"])
    assert table[f"{OURS}[{extra}]"] - VARYING == added - VARYING


def test_every_module_of_an_extra_is_known_by_the_extra_that_declares_it() -> None:
    modules: dict[str, str] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        modules |= {canonical(distribution): module for distribution in distributions if not module.startswith("_")}
    base = {canonical(Requirement(requirement).name) for requirement in PROJECT["dependencies"]}
    declared = {
        canonical(requirement.name): extra
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra != "dev"
        for requirement in map(Requirement, requirements)
        if canonical(requirement.name) not in {OURS, *base}
    }
    expected = {modules[distribution]: extra for distribution, extra in declared.items()}
    assert expected | {"pydantic": "server", "starlette": "server"} == MODULES  # those two come with FastAPI


# Imported


PULLED_IN = """
import importlib.metadata, json, sys
before = set(sys.modules)
exec(sys.argv[1])
modules = {name.partition(".")[0] for name in set(sys.modules) - before}
distributions = importlib.metadata.packages_distributions()
print(json.dumps(sorted({found.lower() for module in modules for found in distributions.get(module, ())})))
"""

EMIT = "import dispatcher; dispatcher.emit, dispatcher.Event"
CLIENT = "import dispatcher.client as client; client.Client, client.AsyncClient"
SERVER = "import dispatcher.api.app, dispatcher.api.serve, dispatcher.workers.process, dispatcher.workers.scheduler"


def pulled_in(code: str, environment: Environment | None = None) -> set[str]:
    """The distributions whose modules the code imports, here or in an environment."""
    if environment is None:
        run = subprocess.run([sys.executable, "-c", PULLED_IN, code], capture_output=True, text=True, check=False)
    else:
        run = environment.run("-c", PULLED_IN, code)
    assert run.returncode == 0, run.stderr
    return {canonical(name) for name in json.loads(run.stdout)} - {OURS}


def test_emit_imports_no_server_and_not_even_the_client() -> None:
    assert pulled_in(EMIT) - VARYING == {"greenlet", "idna", "orjson", "sqlalchemy"}


def test_the_client_imports_no_database() -> None:
    # httpx imports click and rich for its own command line, where they are installed.
    assert pulled_in(CLIENT) - VARYING - {"click", "rich", "pygments"} <= {
        "anyio", "certifi", "h11", "httpcore", "httpx", "idna", "orjson",
    }  # fmt: skip


def test_the_server_imports_only_what_its_extra_declares() -> None:
    # Other libraries import these where they find them.
    optional = {"opentelemetry-api", "packaging", "pygments", "pyyaml", "setuptools"}
    assert pulled_in(SERVER) - optional - VARYING <= needs(OURS, ["server"])


# Where only the dependencies are installed


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the package and its dependencies, and no extra."""
    return make_environment(tmp_path_factory.mktemp("light") / "environment", needs(OURS))


PRODUCE = """
import logging, sys
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from dispatcher import Event, Target, emit, emit_many
from dispatcher.errors import Unavailable

logging.basicConfig(format="%(message)s")
engine = create_engine(sys.argv[1])
with Session(engine) as session, session.begin():
    emit(session, Event(type="payment.paid", payload={"amount": 1}))
    emit_many(session, [Event(type="payment.paid", payload={}), Event(type="payment.paid", payload={})])
with Session(engine) as session, session.begin():
    try:
        emit(session, Event(type="payment.checked", payload={}))
    except Unavailable as error:
        print(error)
"""


def test_a_producer_emits_and_is_told_what_it_could_install(
    light: Environment, migrated_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(migrated_database_url)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        connection.execute(text("INSERT INTO dispatcher.event_types (name, schema) VALUES ('payment.checked', '{}')"))
    monkeypatch.setenv("DISPATCHER_BROKER_URL", "redis://127.0.0.1:1/0")
    run = light.run("-c", PRODUCE, migrated_database_url)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ("event types with a schema need the validator: pip install 'dispatcher-webhooks[schemas]'\n")
    assert run.stderr == (
        'wakeup.unavailable error="the scheduler polls, since wake-ups need redis-py: '
        "pip install 'dispatcher-webhooks[wakeup]'\"\n"
    )
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM dispatcher.events")).scalar_one() == 3
    engine.dispose()


CALL = """
from dispatcher.client import Client, Unreachable
with Client("http://127.0.0.1:1", api_key="dsk_test") as client:
    try:
        client.tenants.list()
    except Unreachable:
        print("unreachable")
"""


def test_the_client_calls(light: Environment) -> None:
    run = light.run("-c", CALL)
    assert (run.returncode, run.stdout) == (0, "unreachable\n"), run.stderr


@pytest.mark.parametrize("command", ["up", "api", "worker", "scheduler", "migrate", "doctor"])
def test_a_command_of_the_server_names_the_extra_that_is_missing(
    command: str, light: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(tmp_path))
    run = light.run("-m", "dispatcher", command)
    assert (run.returncode, run.stdout) == (1, "")
    # The first module that is missing may be rich, of the smaller extra.
    expected = r"dispatcher: \w+ is not installed: pip install 'dispatcher-webhooks\[(server|cli)\]'\n"
    assert re.fullmatch(expected, run.stderr), run.stderr


def test_a_module_that_belongs_to_no_extra_is_not_explained_away() -> None:
    assert missing_extra(ModuleNotFoundError("No module named 'dispatcher.nowhere'", name="dispatcher.nowhere")) is None
    assert missing_extra(ModuleNotFoundError("No module named 'celery.nowhere'", name="celery.nowhere")) is None


@pytest.mark.parametrize(("module", "extra"), MODULES.items())
def test_each_missing_module_is_one_sentence_with_its_extra(module: str, extra: str) -> None:
    error = missing_extra(ModuleNotFoundError(name=module), "this needs that")
    assert isinstance(error, Unavailable)
    assert str(error) == f"this needs that: pip install 'dispatcher-webhooks[{extra}]'"
