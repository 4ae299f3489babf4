"""Brings a database's schema up to date."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from dispatcher.errors import Unavailable
from dispatcher.store import partitions

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

SCHEMA: Final = "dispatcher"

_LOCK: Final = 0x64697370  # "disp": two processes that migrate at once take turns

OLDEST_SERVER: Final = 15

_VERSION_TABLE: Final = "alembic_version"

_CURRENT = text(f"SELECT version_num FROM {SCHEMA}.{_VERSION_TABLE}")

_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"

_READ_ONLY = text("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")


@cache
def _known() -> tuple[str, ...]:
    """The revisions of this version's files, in their order: the numbers that the files' names begin with.

    Alembic says the same, and a test compares them. Importing it took 0.13 s of the 0.8 s of a worker's start, and only
    a migration needs it.
    """
    return tuple(sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py")))


def head() -> str:
    """The newest revision that this version of the code knows."""
    return _known()[-1]


def serves(revision: str | None) -> bool:
    """Whether this version of the code can run on that schema: its own, or a newer one that it does not know.

    Migrations stay compatible with the version that is running, so an upgrade may migrate first and restart later.
    """
    return revision == head() or (revision is not None and revision not in _known())


def current(connection: Connection) -> str | None:
    """The revision that the database has, None before the first migration."""
    if not inspect(connection).has_table(_VERSION_TABLE, schema=SCHEMA):
        return None
    return connection.execute(_CURRENT).scalar_one_or_none()


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
        _upgrade(connection)
        partitions.ensure(connection)


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - see `_known`

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """What Alembic needs to find the migrations."""
    from alembic.config import Config  # noqa: PLC0415 - see `_known`

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS.parent).replace("%", "%%"))
    return config
