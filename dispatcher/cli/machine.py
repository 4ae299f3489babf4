"""The system of this machine: its settings, its database, and with --direct an API in this process.

This imports what the server consists of, so commands that go through the API do without this module.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import click
from psycopg.pq import Conninfo
from sqlalchemy.engine import make_url

from dispatcher import config, wiring
from dispatcher.cli.target import DATABASE_URL, actor
from dispatcher.cli.verbs import WrongSystem
from dispatcher.errors import ConfigurationError, Problem
from dispatcher.local.paths import default_data_dir
from dispatcher.local.running import find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.signing import Keyring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from dispatcher.client import Client
    from dispatcher.config import Settings

_SEALING: Final = frozenset({"keys create"})
"""Verbs with --direct that seal a secret, and so need the system's own keyring."""


@contextmanager
def client(verb: str) -> Iterator[Client]:
    """What `local_client` gives; says on stderr which database it is."""
    database_url = settings().database_url
    assert database_url is not None
    click.echo(f"dispatcher: --direct: on {Place.of(database_url)}, past the API", err=True)
    with local_client(verb) as local:
        yield local


@contextmanager
def local_client(verb: str) -> Iterator[Client]:
    """A client of an API that runs in this process, on the database of this machine's system."""
    from dispatcher.cli import in_process  # commands of this machine do without FastAPI

    found = settings()
    if found.secret_keys is None and verb not in _SEALING:
        # It opens nothing, so what is sealed is shown as such; with --direct nothing is sealed by it either.
        found = replace(found, secret_keys=Keyring.generate().reveal())
    wiring.check_database(found)
    with in_process.client(found, actor=actor()) as local:
        yield local


@dataclass(frozen=True, slots=True)
class Place:
    """Which database: never who opens it, nor by which password."""

    host: str
    port: str
    database: str

    @classmethod
    def of(cls, database_url: str) -> Place:
        """The place that a URL names, completed as the driver does: from PG* variables and its own defaults."""
        _, named = make_url(database_url).get_dialect()().create_connect_args(make_url(database_url))
        defaults = {
            option.keyword.decode(): (option.val or b"").decode()
            for option in Conninfo.get_defaults()
            if option.keyword
        }
        host, port, database = (str(named.get(name) or defaults.get(name) or "") for name in ("host", "port", "dbname"))
        return cls(host or "the local socket", port or "5432", database or str(named.get("user") or ""))

    def __str__(self) -> str:
        return f"the database {self.database} on {self.host}, port {self.port}"


def checked(database_url: str) -> str:
    """The URL as the settings have it. Raises ConfigurationError."""
    try:
        return config.database_url(database_url)
    except ValueError as error:
        raise ConfigurationError([Problem(DATABASE_URL, "", "***", str(error))]) from error


def settings() -> Settings:
    """The settings, completed from the running `up` where no database is named.

    Raises ConfigurationError for wrong settings, WrongSystem where nothing is named and nothing runs.
    """
    found = config.load()
    if found.database_url is not None:
        return found
    data_dir = found.data_dir or default_data_dir()
    running = find_running(data_dir)
    if running is None:
        raise WrongSystem(
            f"{DATABASE_URL} is not set, and no `dispatcher up` runs on {data_dir}: start one, or name a database"
        )
    return replace(
        found,
        database_url=config.database_url(running.database_url),
        direct_database_url=running.direct_database_url,
        broker_url=found.broker_url or running.broker_url,
        secret_keys=found.secret_keys or (secret_keys(data_dir) if running.keeps_keyring else None),
    )


@contextmanager
def opened() -> Iterator[tuple[Settings, Engine]]:
    """The settings, and an engine for several transactions."""
    found = settings()
    engine = wiring.engine(found)
    try:
        yield found, engine
    finally:
        engine.dispose()


@contextmanager
def database() -> Iterator[tuple[Settings, Connection]]:
    """The settings and one transaction, committed at the end unless an error passes through."""
    with opened() as (found, engine), engine.begin() as connection:
        yield found, connection
