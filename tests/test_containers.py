"""The Compose file and the Dockerfile, as far as they can be judged where no engine runs."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dispatcher import config
from dispatcher.api import health
from dispatcher.cli import cli
from dispatcher.signing import Keyring

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}

ours = pytest.mark.parametrize("name", OURS)


def seconds(text: str) -> float:
    (number, unit) = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def interpolated(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


def environment(name: str) -> dict[str, str]:
    """What the service gets, with values such as `.env` may hold."""
    values = {"POSTGRES_PASSWORD": "p4ss", "DISPATCHER_SECRET_KEYS": Keyring.generate().reveal(),
              "DISPATCHER_BOOTSTRAP_KEY": "dsk_" + "0123456789" * 4}  # fmt: skip
    return {
        key: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: values[found[1]], str(value))
        for key, value in SERVICES[name].get("environment", {}).items()
    }


def test_the_compose_file_is_one_by_the_specification() -> None:
    schema = json.loads((ROOT / "tests/vectors/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    errors = [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(COMPOSE)]
    assert not errors


def test_there_is_one_of_each_process() -> None:
    assert set(SERVICES) == {"postgres", "redis", "migrate", "api", "scheduler", "worker"}
    assert set(OURS) == set(SERVICES) - {"postgres", "redis"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?[a-z0-9.-]*(@sha256:[0-9a-f]{64})?", image), image


@ours
def test_every_command_exists(name: str) -> None:
    (command,) = OURS[name]["command"]
    assert command in cli.commands


@ours
def test_the_environment_is_one_that_the_process_accepts(name: str) -> None:
    given = environment(name)
    assert set(given) <= {config.PREFIX + setting.name.upper() for setting in fields(config.Settings)}
    settings = config.load(given)
    assert settings.database_url == "postgresql+psycopg://dispatcher:p4ss@postgres:5432/dispatcher"
    assert settings.broker_url == "redis://redis:6379/0"
    if name in ("api", "worker"):
        assert Keyring.parse(settings.secret_keys or "")


@ours
def test_only_who_seals_or_opens_has_the_keyring_and_only_the_api_the_operators_key(name: str) -> None:
    assert ("DISPATCHER_SECRET_KEYS" in environment(name)) == (name in ("api", "worker"))
    assert ("DISPATCHER_BOOTSTRAP_KEY" in environment(name)) == (name == "api")


def test_every_secret_comes_from_the_env_file_and_the_example_names_each() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert interpolated(text) == named
    # An example is no secret: left empty, it stops `up` with a sentence.
    assert re.findall(r"^\w+=(.*)$", example, re.MULTILINE) == [""] * len(named)
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    # A variable without a value stops `up` instead of starting with an empty secret.
    assert len(re.findall(r"\$\{\w+:\?", text)) == len(re.findall(r"\$\{", text))
    secrets = {
        config.PREFIX + setting.name.upper() for setting in fields(config.Settings) if setting.metadata["secret"]
    }
    for name, service in OURS.items():
        for key, value in service.get("environment", {}).items():
            # Redis has no password: only the network between the services reaches it.
            assert key not in secrets - {"DISPATCHER_BROKER_URL"} or "${" in value, (name, key)


@ours
def test_a_process_runs_with_no_more_rights_than_it_needs(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "user" not in service, "the image's is not root"


def test_processes_wait_for_what_they_need_and_come_back() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["restart"].startswith("on-failure")
    for name in ("api", "scheduler", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["restart"] == "unless-stopped"
        for needed, how in SERVICES[name]["depends_on"].items():
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[needed]


def test_a_worker_may_finish_what_it_has_in_flight_and_is_scalable() -> None:
    grace_s = config.load(environment("worker")).shutdown_grace_s
    assert seconds(SERVICES["worker"]["stop_grace_period"]) >= grace_s + 5
    assert SERVICES["worker"]["deploy"]["replicas"] >= 2
    assert not {"container_name", "ports"} & set(SERVICES["worker"])


def test_the_api_is_asked_where_it_listens() -> None:
    settings = config.load(environment("api"))
    check = " ".join(SERVICES["api"]["healthcheck"]["test"])
    assert f":{settings.port}/readyz" in check
    assert "/readyz" in {route.path for route in health.router.routes}
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]


def test_servers_are_reached_from_inside_only_and_workers_reach_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("postgres", "redis", "migrate", "scheduler"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]
    for name in ("api", "worker"):
        assert SERVICES[name]["networks"] == ["inside", "outside"]


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def test_the_last_stage_is_not_root_and_starts_our_command() -> None:
    last: dict[str, str] = {}
    for name, value in instructions():
        if name == "FROM":
            last = {}
        last[name] = value
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert json.loads(last["ENTRYPOINT"]) == ["dispatcher"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["EXPOSE"] == SERVICES["api"]["ports"][0].rpartition(":")[2]


def test_every_base_has_a_version_that_we_support() -> None:
    bases = [value.split()[0] for name, value in instructions() if name == "FROM"]
    assert len(set(bases)) == 1
    found = re.fullmatch(r"python:3\.(\d+)[\d.]*-slim-\w+", bases[0])
    assert found is not None
    assert 11 <= int(found[1]) <= 14


def test_everything_that_is_copied_exists_and_is_let_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for name, value in instructions():
        assert name != "ADD"
        if name == "COPY" and not value.startswith("--from="):
            copied |= set(shlex.split(value)[:-1])
    for source in copied:
        assert (ROOT / source).exists(), source
    assert copied == let_in
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")


def test_what_is_installed_is_locked_and_nothing_is_a_secret() -> None:
    for name, value in instructions():
        for install in re.findall(r"pip install ([^&]+)", value) if name == "RUN" else []:
            assert "--no-deps" in install
            assert "--require-hashes" in install or "dist/*.whl" in install
        if name in ("ENV", "ARG", "RUN"):
            assert not re.search(r"(?i)(password|secret|token|api_key)", value)
