"""Servers for every test. Each pytest-xdist worker is a process of its own and so has its own servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from tests.support.servers import drop_database, fresh_database, start_postgres


@pytest.fixture(scope="session")
def servers_data_dir() -> Iterator[Path]:
    """A data directory that the servers' account reaches: pytest's own temporary folders are closed to it."""
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-test-"))
    yield data_dir
    remove_data_dir(data_dir, server_account())


@pytest.fixture(scope="session")
def postgres(servers_data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = start_postgres(servers_data_dir)
    yield server
    server.stop("immediate")


@pytest.fixture(scope="session")
def redis_server(servers_data_dir: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(servers_data_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of an empty database."""
    url = fresh_database(postgres)
    yield url
    drop_database(postgres, url)
