"""Which system a command works on, and how it gets there. `dispatcher.cli.verbs` says which commands go where."""

from __future__ import annotations

import getpass
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click
import httpx
from psycopg.pq import Conninfo
from sqlalchemy.engine import make_url

from dispatcher import config, wiring
from dispatcher.client import Client, Unauthorized, Unreachable
from dispatcher.errors import ConfigurationError, DispatcherError, Problem
from dispatcher.local.paths import default_data_dir
from dispatcher.local.running import find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.model.access import ACTOR_HEADER, API_KEY, API_URL
from dispatcher.signing import Keyring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from dispatcher.config import Settings
    from dispatcher.local.running import Running

VERB: Final = "dispatcher.verb"
"""In a click context's `meta`: the words of the command."""

DIRECT: Final = "dispatcher.direct"
"""The same: whether --direct was given."""

DATABASE_URL: Final = f"{config.PREFIX}DATABASE_URL"

_MAX_NAME: Final = 96
_SEALING: Final = frozenset({"keys create"})
"""Verbs with --direct that seal a secret, and so need the system's own keyring."""


class WrongSystem(DispatcherError):
    """The command has no system to work on, or two of them; nothing was done."""

    code = "CONFIGURATION"


class KeyRefused(DispatcherError):
    """The API does not know the key that the command has."""

    code = "UNAUTHORIZED"


# Through the API


@contextmanager
def client() -> Iterator[Client]:
    """A client of the system that the command works on.

    The API that DISPATCHER_API_URL names; without it the API of the `up` that runs on the data directory; with
    --direct one that runs in this process, on the database. Raises WrongSystem where there is none, ConfigurationError
    for settings that cannot be.
    """
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    if meta.get(DIRECT):
        with _direct(str(meta.get(VERB))) as local:
            yield local
        return
    if problems := config.unknown():  # DISPATCHER_API_ULR would have the command work on this machine's system
        raise ConfigurationError(problems)
    with _remote() if os.environ.get(API_URL) else _beside() as found:
        try:
            yield found
        except Unauthorized as error:
            named = "is refused" if os.environ.get(API_KEY) else "is not set"
            where = os.environ.get(API_URL) or "the `dispatcher up` of this machine"
            raise KeyRefused(f"{error}: {API_KEY} {named}; set it to a key of {where}") from error
        except Unreachable as error:
            if DIRECT in meta and not os.environ.get(API_URL):
                raise Unreachable(f"{error}; --direct goes past the API to the database") from error
            raise


def _remote() -> Client:
    """A client of the API that DISPATCHER_API_URL names."""
    return Client.from_environment()


def _beside() -> Client:
    """A client of the API of the `up` that runs on the data directory, with its key unless another one is named."""
    running = _running_beside()
    key = os.environ.get(API_KEY) or running.command_line_key or None
    return Client(running.url, api_key=key, transport=_Named(actor()))


class _Named(httpx.HTTPTransport):
    """Sends requests in the name of a person, which the API believes of the command line's own key only.

    As it is given to the client, no proxy of the environment is used: the key stays on this machine.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        kind, _, person = name.partition(":")
        self._actor = f"{kind}:{quote(person, safe='')}"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Adds the header."""
        request.headers[ACTOR_HEADER] = self._actor
        return super().handle_request(request)


def _running_beside() -> Running:
    """The `up` that runs on the data directory.

    Raises WrongSystem where none does, or where DISPATCHER_DATABASE_URL names another database than it has.
    """
    data_dir = default_data_dir()
    named = os.environ.get(DATABASE_URL)
    place = None if not named else Place.of(_checked(named))
    running = find_running(data_dir)
    if running is None:
        raise WrongSystem(
            f"no `dispatcher up` runs on {data_dir}, and {API_URL} is not set: start `dispatcher up`, or name an API "
            f"by {API_URL}; commands that take --direct go past the API to the database of {DATABASE_URL}"
        )
    if place is not None and place != Place.of(running.database_url):
        raise WrongSystem(
            f"{DATABASE_URL} names {place}, and the `dispatcher up` that runs on {data_dir} has another database: name "
            f"the API by {API_URL}, unset {DATABASE_URL}, or go past the API to the database by --direct"
        )
    return running


# Past the API


@contextmanager
def _direct(verb: str) -> Iterator[Client]:
    """A client of an API that runs in this process, on the database; says on stderr which one that is."""
    from dispatcher.cli import in_process  # noqa: PLC0415 - FastAPI takes longer to import than most commands to run

    found = settings()
    assert found.database_url is not None
    click.echo(f"dispatcher: --direct: on {Place.of(found.database_url)}, past the API", err=True)
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


def _checked(database_url: str) -> str:
    """The URL as the settings have it. Raises ConfigurationError."""
    try:
        return config.database_url(database_url)
    except ValueError as error:
        raise ConfigurationError([Problem(DATABASE_URL, "", "***", str(error))]) from error


# On this machine


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


def actor() -> str:
    """Who types the command, as the audit log has it.

    >>> actor().partition(":")[0]
    'cli'
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in a container
        name = str(os.getuid())
    return "cli:" + "".join(one if one.isprintable() else "?" for one in name[:_MAX_NAME])
