"""Brings a database's schema up to date."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from dispatcher import telemetry
from dispatcher.errors import Unavailable
from dispatcher.store import partitions, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.config import Config
    from alembic.script import Script
    from sqlalchemy import Connection, Engine

_log = logging.getLogger(__name__)

SCHEMA: Final = "dispatcher"

_LOCK: Final = 0x64697370  # "disp": two processes that migrate at once take turns

_TAKE_TURN = text("SELECT pg_try_advisory_lock(:key), pg_backend_pid()")

_TURN_EVERY_S: Final = 0.2

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


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that `migrate` would run. `locks` maps tables that exist to the strongest lock on each."""

    revision: str
    name: str
    locks: Mapping[str, str]


def pending(connection: Connection) -> list[PlannedStep]:
    """The steps that the database lacks, in order; the partitions to make come last, as revision "". Changes nothing.

    Raises Unavailable for a server older than 15.
    """
    _check_server(connection)
    revision = current(connection)
    if not serves(revision):
        steps_ = [
            PlannedStep(script.revision, step.name, step.locks)
            for script in _scripts(after=revision)
            for step in script.module.STEPS
            if step.name not in steps.finished(connection, script.revision)
        ]
    else:
        steps_ = []
    if revision is None:
        return steps_
    return steps_ + [
        PlannedStep("", f"partition {partition.name}", partition.locks) for partition in partitions.missing(connection)
    ]


def migrate(engine: Engine) -> None:
    """Runs every step that the database lacks, then makes the partitions of next week.

    Steps are short transactions, so the processes of the version before go on: see `dispatcher.store.steps`. An empty
    database is filled in one transaction. Several at once take turns. Raises Unavailable for a server older than 15, or
    for a lock that cannot be had; running it again continues there.
    """
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # closed at the end, with the advisory lock and the settings of its session
        _check_server(connection)
        server_process = _wait_for_turn(connection)
        if current(connection) is None:
            with engine.begin() as transaction:
                transaction.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
                _upgrade(transaction, steps.AtOnce(transaction))
                partitions.ensure(transaction)
            return
        runner = steps.InSteps(connection, server_process)
        if not serves(current(connection)):
            _upgrade(connection, runner)
        runner.finish()
        for partition in partitions.missing(connection):
            runner.make_partition(partition)


def _check_server(connection: Connection) -> None:
    version = int((connection.dialect.server_version_info or (0,))[0])
    if version < OLDEST_SERVER:
        raise Unavailable(f"PostgreSQL {version} is too old; {OLDEST_SERVER} or later is needed")


def _wait_for_turn(connection: Connection) -> int:
    """Takes the advisory lock of migrations for this session; returns the number of its server process.

    It asks again and again rather than wait in the server: a waiting statement has a snapshot, and an index that is
    built concurrently waits for the end of every older one.
    """
    waits = False
    while True:
        taken, server_process = connection.execute(_TAKE_TURN, {"key": _LOCK}).one()
        if taken:
            return int(server_process)
        if not waits:
            telemetry.log(_log, logging.WARNING, "migration.awaited", reason="another process migrates this database")
            waits = True
        time.sleep(_TURN_EVERY_S)


def _upgrade(connection: Connection, runner: steps.Runner, *, to: str = "head") -> None:
    from alembic import command  # noqa: PLC0415 - see `_known`

    config = alembic_config()
    config.attributes["connection"] = connection
    config.attributes[steps.RUNNER] = runner
    command.upgrade(config, to)


def _scripts(after: str | None) -> list[Script]:
    """The migrations that come after a revision, the oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see `_known`

    directory = ScriptDirectory.from_config(alembic_config())
    return list(directory.iterate_revisions("head", after or "base"))[::-1]


def alembic_config() -> Config:
    """What Alembic needs to find the migrations."""
    from alembic.config import Config  # noqa: PLC0415 - see `_known`

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS.parent).replace("%", "%%"))
    return config
