"""What `up` refuses, `config check` finds: all of it at once, one line each."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import wiring
from dispatcher.errors import Unavailable
from dispatcher.local import binaries, processes
from dispatcher.local.files import write_secret
from dispatcher.local.lock import DataDirLock
from tests.support import walk
from tests.support.command import Command


@pytest.fixture
def run(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command on a machine on which nothing runs and nothing is set but the data directory and the port."""
    monkeypatch.setenv("DISPATCHER_PORT", "0")
    return Command(monkeypatch, capsys)


@pytest.fixture
def taken_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        monkeypatch.setenv("DISPATCHER_PORT", str(number))
        yield number


def refused(run: Command) -> list[str]:
    """The lines of `config check`, which are those of `up` too."""
    checked = run("config", "check")
    assert (checked.code, checked.out) == (2, "")
    up = run("up")
    assert up.err == checked.err
    assert up.code in (1, 2)
    return checked.err.removeprefix("dispatcher: ").splitlines()


def test_where_up_can_start_the_check_says_so_and_makes_nothing(run: Command, bare: Path) -> None:
    checked = run("config", "check")
    assert checked.code == 0, checked
    assert checked.out == "the settings and the data files are right, and `up` can start\n"
    assert list(bare.iterdir()) == []


def test_everything_is_found_at_once(
    run: Command, bare: Path, taken_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("schedules", "profiles"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"broken-{kind}.toml").write_text("nonsense = 1\n")
        monkeypatch.setenv(f"DISPATCHER_{kind.upper()}_DIR", str(tmp_path / kind))
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", "postgresql://u:secret-word@127.0.0.1:1/x")
    monkeypatch.setenv("DISPATCHER_BROKER_URL", "redis://:secret-word@127.0.0.1:1/0")
    monkeypatch.setenv("DISPATCHER_BOOTSTRAP_KEY", "secret-word")
    monkeypatch.setenv("DISPATCHER_COLOUR", "red")
    monkeypatch.setattr(wiring, "check_validator", unavailable)
    bare.chmod(0o755)
    lines = refused(run)
    assert not [line for line in lines if "secret-word" in line]
    for part in (
        "DISPATCHER_BOOTSTRAP_KEY: found a key of 11 characters",
        "DISPATCHER_COLOUR: found a setting that does not exist",
        "broken-schedules.toml",
        "broken-profiles.toml",
        "the validator is not installed",
        f"run `chmod go-rw {bare}`",
        "DISPATCHER_SECRET_KEYS: found nothing",
        f"cannot listen on 127.0.0.1 port {taken_port}: it is in use; --port 0 takes a free one",
        "the database cannot be used: ",
    ):
        assert [line for line in lines if part in line], (part, lines)
    (keys,) = [line for line in lines if "DISPATCHER_SECRET_KEYS" in line]
    assert keys.endswith("print('k1:' + base64.b64encode(os.urandom(32)).decode())\"")


def unavailable() -> None:
    raise Unavailable("the validator is not installed")


def test_a_data_directory_that_is_used_is_refused_and_its_own_port_is_not_told_too(
    run: Command, bare: Path, taken_port: int
) -> None:
    ourselves = processes.identify(os.getpid())
    assert ourselves is not None
    values = {"url": "", "database_url": "", "broker_url": ""}
    write_secret(bare / "running", json.dumps({"pid": ourselves.pid, "started": ourselves.started, **values}))
    with DataDirLock(bare):
        (line,) = refused(run)
    assert f"{bare} is in use by process {os.getpid()}" in line


def test_a_port_that_is_held_by_what_up_would_stop_first_is_not_refused(
    run: Command, bare: Path, taken_port: int
) -> None:
    ourselves = processes.identify(os.getpid())
    assert ourselves is not None
    listed = [[ourselves.pid, ourselves.started, ourselves.command]]
    write_secret(bare / "processes", json.dumps(listed))
    assert run("config", "check").code == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_of_this_machine_is_not_called_in_use(
    run: Command, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DISPATCHER_HOST", host)
    monkeypatch.setenv("DISPATCHER_PORT", "8420")
    (line,) = refused(run)
    assert line.startswith(f"cannot listen on {host} port 8420: ")
    assert "in use" not in line


def test_secrets_that_the_data_directory_keeps_are_checked(run: Command, bare: Path) -> None:
    write_secret(bare / "secret_keys", "k1:short")
    write_secret(bare / "api_key", "dsk_short")
    lines = refused(run)
    assert [line.partition(":")[0] for line in lines] == [str(bare / "secret_keys"), str(bare / "api_key")]
    for name in ("secret_keys", "api_key"):
        (bare / name).chmod(0o644)
    lines = refused(run)
    assert [line.rpartition("chmod 600 ")[2] for line in lines] == [
        f"{bare / 'secret_keys'}`.",
        f"{bare / 'api_key'}`.",
    ]


def test_a_cluster_that_cannot_be_opened_is_refused(run: Command, bare: Path) -> None:
    (bare / "postgres").mkdir()
    (bare / "postgres" / "PG_VERSION").write_text("9\n")
    (line,) = refused(run)
    assert "was made by PostgreSQL 9" in line


def test_a_data_directory_below_a_file_is_one_line(run: Command, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "file").touch()
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(bare / "file" / "below"))
    (line,) = refused(run)
    assert "cannot be written" in line
    assert "DISPATCHER_DATA_DIR" in line


def test_a_machine_without_the_servers_programs_is_told_the_settings(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_package_dir", lambda _: None)
    monkeypatch.setenv("PATH", "")
    lines = refused(run)
    assert ["embedded PostgreSQL" in line for line in lines] == [True, False]
    assert "embedded Redis" in lines[1]


def test_where_another_system_is_named_only_files_are_checked(
    run: Command, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_API_URL", "http://127.0.0.1:1")
    assert run("config", "check").out == "the settings and the data files are right\n"


@pytest.mark.parametrize(
    ("process", "missing"),
    [
        ("worker", ["DATABASE_URL", "BROKER_URL", "SECRET_KEYS"]),
        ("scheduler", ["DATABASE_URL", "BROKER_URL"]),
        ("api", ["DATABASE_URL", "SECRET_KEYS"]),
    ],
)
def test_a_process_names_every_setting_that_it_lacks(run: Command, process: str, missing: list[str]) -> None:
    ran = run(process)
    assert ran.code == 2
    lines = ran.err.removeprefix("dispatcher: ").splitlines()
    told = [line.partition(":")[0] for line in lines if line.startswith("DISPATCHER_")]
    assert told == [f"DISPATCHER_{name}" for name in missing]


def test_an_api_without_a_broker_says_what_that_costs(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/x")
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    ran = run("api")
    assert ran.code == 1
    assert "api.without_broker" in ran.err
