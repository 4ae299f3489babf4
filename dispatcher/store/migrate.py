"""Brings a database's schema up to date."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from dispatcher.errors import Unavailable
from dispatcher.store import partitions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

SCHEMA: Final = "dispatcher"

_LOCK: Final = 0x64697370  # "disp": two processes that migrate at once take turns

OLDEST_SERVER: Final = 15

_READ_ONLY = text("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


@cache
def head() -> str:
    """The newest revision that this version of the code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def serves(revision: str | None) -> bool:
    """Whether this version of the code can run on that schema: its own, or a newer one that it does not know.

    Migrations stay compatible with the version that is running, so an upgrade may migrate first and restart later.
    """
    return revision == head() or (revision is not None and revision not in _known())


@cache
def _known() -> frozenset[str]:
    """The revisions of this version's files. Reading them took 20 ms, and anybody may ask `/readyz`."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def current(connection: Connection) -> str | None:
    """The revision that the database has, None before the first migration."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()


def why_read_only(connection: Connection) -> str | None:
    """Why nothing can be written to the database, in a few words; None where it can."""
    is_standby, read_only = connection.execute(_READ_ONLY).one()
    if is_standby:
        return "the database is a standby"
    return "the database is read-only" if read_only == "on" else None


def migrate(engine: Engine) -> None:
    """Runs every migration that the database lacks, in one transaction, then makes the partitions of next week.

    Waits at most 10 s for any lock. Raises Unavailable for a server older than 15.
    """
    with engine.begin() as connection:
        version = int((connection.dialect.server_version_info or (0,))[0])
        if version < OLDEST_SERVER:
            raise Unavailable(f"PostgreSQL {version} is too old; {OLDEST_SERVER} or later is needed")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        partitions.ensure(connection)
