"""Commands beside a system that runs on this machine: its API serves the test's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import config
from tests.support import walk
from tests.support.api_server import ApiServer, note_running
from tests.support.command import Command


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a machine on which nothing runs, in an environment that names nothing else."""
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    data_dir = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(data_dir))
    return data_dir


@pytest.fixture
def local_system(
    bare: Path, api_server: ApiServer, migrated_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of the API of an `up` that runs on the data directory; the environment names its database too."""
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", migrated_database_url)
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    with api_server.on(config.load) as url:
        note_running(bare, url, database_url=config.database_url(migrated_database_url))
        yield url


@pytest.fixture
def run(local_system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command beside that system."""
    return Command(monkeypatch, capsys)
