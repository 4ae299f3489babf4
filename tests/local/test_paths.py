from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dispatcher.errors import Unavailable
from dispatcher.local import paths
from dispatcher.local.accounts import Account, server_account

ROOT = os.geteuid() == 0


@pytest.fixture
def ourselves() -> Account:
    return Account("ourselves", os.geteuid(), os.getegid(), differs=False)


def test_the_setting_wins_over_every_default():
    assert paths.default_data_dir({"DISPATCHER_DATA_DIR": "/x/y", "XDG_DATA_HOME": "/z"}) == Path("/x/y")


def test_the_default_is_below_the_users_data_directory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert paths.default_data_dir({"XDG_DATA_HOME": "/x", "HOME": "/h"}) == Path("/x/dispatcher")
    assert paths.default_data_dir({"XDG_DATA_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/share/dispatcher")
    monkeypatch.setattr("sys.platform", "darwin")
    assert paths.default_data_dir({"HOME": "/h"}) == Path("/h/Library/Application Support/dispatcher")


def test_a_user_without_a_home_is_told_the_setting(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(Unavailable, match="DISPATCHER_DATA_DIR"):
        paths.default_data_dir({})


def test_a_data_directory_that_cannot_be_written_is_told_the_setting(tmp_path: Path):
    # A file in the way stops root too, whom modes do not.
    (tmp_path / "home").write_text("")
    with pytest.raises(Unavailable, match="DISPATCHER_DATA_DIR"):
        paths.make_data_dir(tmp_path / "home" / "dispatcher")


def test_the_socket_folder_is_short_private_and_the_same_each_time(data_dir: Path):
    account = server_account()
    folder = paths.make_socket_dir(paths.make_data_dir(data_dir), account)
    found = folder.lstat()
    assert len(str(folder)) < 80
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, account.uid)
    assert paths.make_socket_dir(data_dir, account) == folder


@pytest.mark.parametrize("trap", ["link", "file", "open folder"])
def test_a_socket_folder_prepared_by_somebody_else_is_not_used(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ourselves: Account
):
    honest = paths.make_socket_dir(tmp_path, ourselves)
    honest.rmdir()
    match trap:
        case "link":
            honest.symlink_to(tmp_path)
        case "file":
            honest.write_text("")
        case "open folder":
            honest.mkdir()
            honest.chmod(0o777)
    try:
        other = paths.make_socket_dir(tmp_path, ourselves)
        assert other.parent != honest.parent
        other.rmdir()
    finally:
        if trap == "open folder":
            honest.rmdir()
        else:
            honest.unlink()


@pytest.mark.skipif(not ROOT, reason="needs root, who gives the servers to nobody")
def test_below_a_closed_folder_the_servers_files_lie_elsewhere_and_go_with_the_data_directory(tmp_path: Path):
    tmp_path.chmod(0o700)
    account = server_account()
    data_dir = paths.make_data_dir(tmp_path / "data")
    elsewhere = paths.make_servers_dir(data_dir, account)
    assert not elsewhere.is_relative_to(tmp_path)
    assert account.can_enter(elsewhere)
    assert paths.make_servers_dir(data_dir, account) == elsewhere
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    paths.remove_data_dir(data_dir, account)
    assert not elsewhere.exists()
    assert not data_dir.exists()
