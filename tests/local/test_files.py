"""Secrets are read from files and folders that nobody but their owner can get at."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.errors import Unavailable
from dispatcher.local import files
from dispatcher.local.bootstrap import bootstrap_key
from dispatcher.local.paths import make_data_dir
from dispatcher.local.running import find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.local.supervisor import stop_leftovers

ROOT = os.geteuid() == 0
OTHER = 65534 if ROOT else os.geteuid() + 1


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = make_data_dir(tmp_path / "it's data")
    for name in ("api_key", "secret_keys", "running", "processes"):
        files.write_secret(folder / name, "[]")
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    "api_key": bootstrap_key,
    "secret_keys": secret_keys,
    "running": find_running,
    "processes": lambda folder: stop_leftovers(folder / "processes"),
}
readers = pytest.mark.parametrize("name", READERS)


def refused(name: str, data_dir: Path) -> str:
    with pytest.raises(Unavailable) as caught:
        READERS[name](data_dir)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def mend(said: str) -> None:
    """Runs the command that the sentence names."""
    (command,) = re.findall(r"`(.+)`", said)
    subprocess.run(shlex.split(command), check=True)


@readers
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_secret_that_others_can_get_at_is_refused_with_the_command_that_mends_it(
    name: str, mode: int, data_dir: Path
) -> None:
    (data_dir / name).chmod(mode)
    said = refused(name, data_dir)
    assert f"{data_dir / name}, which is open to other users (mode {mode:04o})" in said
    mend(said)
    assert files.read_secret(data_dir / name) == "[]"


@readers
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o722, 0o777])
def test_a_data_directory_that_others_can_get_at_is_refused_with_the_command_that_mends_it(
    name: str, mode: int, data_dir: Path
) -> None:
    data_dir.chmod(mode)
    said = refused(name, data_dir)
    assert f"{data_dir}, which is open to other users (mode {mode:04o})" in said
    with pytest.raises(Unavailable, match="open to other users"):
        make_data_dir(data_dir)
    with pytest.raises(Unavailable, match="open to other users"):
        files.write_secret(data_dir / name, "other")
    mend(said)
    assert files.read_secret(data_dir / name) == "[]"


def test_others_may_pass_through_to_the_servers_own_files(data_dir: Path) -> None:
    data_dir.chmod(0o711)
    assert files.read_secret(data_dir / "api_key") == "[]"


@readers
@pytest.mark.parametrize("place", ["", "file"])
def test_what_belongs_to_somebody_else_is_refused(
    name: str, place: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = data_dir / name if place else data_dir
    if ROOT:
        os.chown(target, OTHER, -1)
        ours, owner = 0, OTHER
    else:  # who cannot give files away becomes another user instead, for whom the folder comes first
        target = data_dir
        ours, owner = OTHER, os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    said = refused(name, data_dir)
    assert f"{target}, which belongs to user {owner}, and this is user {ours}" in said
    assert f"`chown {ours} {shlex.quote(str(target))}`" in said


@readers
def test_a_symbolic_link_in_place_of_a_secret_is_not_followed(name: str, data_dir: Path, tmp_path: Path) -> None:
    (data_dir / name).rename(tmp_path / "elsewhere")
    (data_dir / name).symlink_to(tmp_path / "elsewhere")
    assert "it is a symbolic link" in refused(name, data_dir)


@readers
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(name: str, kind: str, data_dir: Path) -> None:
    (data_dir / name).unlink()
    if kind == "pipe":
        os.mkfifo(data_dir / name, 0o600)
    else:
        (data_dir / name).mkdir(0o700)
    assert "is not a file" in refused(name, data_dir)


def test_a_data_directory_may_be_a_link_to_a_private_one(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data_dir)
    assert files.read_secret(tmp_path / "link" / "api_key") == "[]"
    assert make_data_dir(tmp_path / "link") == tmp_path / "link"
    data_dir.chmod(0o755)
    with pytest.raises(Unavailable, match="open to other users"):
        files.read_secret(tmp_path / "link" / "api_key")


def test_a_secret_is_written_over_what_stands_in_the_way_and_not_through_it(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for name in ("api_key", "api_key.new"):
        (data_dir / name).unlink(missing_ok=True)
        (data_dir / name).symlink_to(tmp_path / "mine")
    files.write_secret(data_dir / "api_key", "new")
    assert files.read_secret(data_dir / "api_key") == "new"
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert files.read_secret(tmp_path / "missing") is None
    assert files.read_secret(tmp_path / "missing" / "missing") is None
    assert find_running(tmp_path / "missing") is None
