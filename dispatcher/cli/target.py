"""Which system a command works on: the one that the settings name, or else the one that `up` runs here."""

from __future__ import annotations

import getpass
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dispatcher import config, wiring
from dispatcher.client import Client
from dispatcher.client.client import API_URL
from dispatcher.errors import Unavailable
from dispatcher.local import default_data_dir, find_running
from dispatcher.local.secret_keys import secret_keys
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from dispatcher.config import Settings


def settings() -> Settings:
    """The settings, completed from the running `up` where no database is named.

    Raises ConfigurationError for wrong settings, Unavailable where nothing is named and nothing runs.
    """
    found = config.load()
    if found.database_url is not None:
        return found
    data_dir = found.data_dir or default_data_dir()
    running = find_running(data_dir)
    if running is None:
        raise Unavailable(
            f"DISPATCHER_DATABASE_URL is not set, and no `dispatcher up` runs on {data_dir}: "
            "start one, or name a database"
        )
    return replace(
        found,
        database_url=config.database_url(running.database_url),
        broker_url=found.broker_url or running.broker_url,
        secret_keys=found.secret_keys or secret_keys(data_dir),
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


def ring(settings: Settings) -> None:
    """Has the scheduler look now rather than at its next tick."""
    Wakeup(settings.broker_url).ring()


@contextmanager
def client() -> Iterator[Client]:
    """A client of the API that DISPATCHER_API_URL names; without it, of one that runs in this process.

    That one works on the database of `settings`, for the operator who typed the command. Raises ConfigurationError,
    and without a URL what `settings` raises.
    """
    if os.environ.get(API_URL):
        with Client.from_environment() as remote:
            yield remote
        return
    from dispatcher.cli import in_process  # noqa: PLC0415 - FastAPI takes longer to import than most commands to run

    with in_process.client(settings(), actor=actor()) as local:
        yield local


def actor() -> str:
    """Who types the command, as the audit log has it.

    >>> actor().partition(":")[0]
    'cli'
    """
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # an account without a name, as in a container
        return f"cli:{os.getuid()}"
