"""The unit that is shipped for systemd, and what `up` tells systemd."""

from __future__ import annotations

import inspect
import secrets
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import pytest

from dispatcher import config
from dispatcher.local.notify import Notifier
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis

UNIT = Path(__file__).parents[2] / "deploy" / "dispatcher.service"


def values() -> dict[str, list[str]]:
    """The unit's assignments; a name may have several."""
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze, which Debian's systemd has")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # Whether the program is installed is the machine's affair; only its place is changed.
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/opt/dispatcher/bin/dispatcher", sys.executable))
    ran = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def test_stopping_gives_every_step_its_time() -> None:
    unit = values()
    assert unit["KillMode"] == ["mixed"]
    grace_s = config.load({}).shutdown_grace_s + 3
    postgres_s = 3 * default(EmbeddedPostgres.stop, "timeout_s")  # fast, immediate, kill
    redis_s = default(EmbeddedRedis.stop, "timeout_s")
    (stop_s,) = map(float, unit["TimeoutStopSec"])
    assert stop_s > grace_s + postgres_s + redis_s


def default(function: object, parameter: str) -> float:
    return float(inspect.signature(function).parameters[parameter].default)  # type: ignore[arg-type]


def test_it_sets_only_settings_that_exist() -> None:
    known = {config.PREFIX + setting.name.upper() for setting in fields(config.Settings)}
    assert {value.partition("=")[0] for value in values()["Environment"]} <= known


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets, which only Linux has")
@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_is_told_once_it_serves_and_no_child_is(tmp_path: Path, abstract: bool) -> None:
    name = f"dispatcher-{secrets.token_hex(8)}"
    shown, address = (f"@{name}", f"\0{name}") if abstract else (str(tmp_path / name), str(tmp_path / name))
    environ = {"NOTIFY_SOCKET": shown, "HOME": "/"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        notifier = Notifier(environ)
        assert environ == {"HOME": "/"}
        notifier.ready()
        assert systemd.recv(64) == b"READY=1"


def test_without_systemd_nothing_is_told_and_a_dead_socket_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({}).ready()
    assert caplog.text == ""
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "process.notify_failed" in caplog.text
