"""The statements by which an operator sees whether the database and the processes on it are well. They only read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from dispatcher.store.partitions import TABLES

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SERVER = text("""
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
       current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('autovacuum') AS autovacuum, current_setting('track_counts') AS track_counts
""")

_CLOCK = text("SELECT clock_timestamp()")

_IDENTITY = text("""
SELECT d.datname, d.oid, pg_postmaster_start_time() FROM pg_database d WHERE d.datname = current_database()
""")

_NOT_VACUUMED = text("""
SELECT relname FROM pg_class
WHERE relnamespace = 'dispatcher'::regnamespace AND 'autovacuum_enabled=false' = ANY (reloptions)
ORDER BY relname
""")

_PARTITIONS = text("""
SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace AND relispartition
""")

_PROCESSES = text("""
SELECT count(*) FILTER (WHERE heartbeat_until > dispatcher.due_time()) AS alive,
       count(*) FILTER (WHERE heartbeat_until <= dispatcher.due_time()) AS dead,
       coalesce(sum(room) FILTER (WHERE heartbeat_until > dispatcher.due_time()), 0) AS room
FROM dispatcher.workers
""")

_LEADER = text("""
SELECT extract(epoch FROM expires_at - dispatcher.due_time())::float8 FROM dispatcher.leader WHERE name = 'scheduler'
""")

_OLDEST_TALLY = text("""
SELECT extract(epoch FROM statement_timestamp() - at)::float8 FROM dispatcher.tallies ORDER BY id LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself: `version` as 160004, the settings as SHOW prints them."""

    version: int
    version_text: str
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    autovacuum: str
    track_counts: str


@dataclass(frozen=True, slots=True)
class Workers:
    """How many live and are dead by their heartbeats, and how many more deliveries the living would take."""

    alive: int
    dead: int
    room: int


def server(connection: Connection) -> Server:
    """The server's version and settings, as they hold for this role and database."""
    return Server(*connection.execute(_SERVER).one())


def clock(connection: Connection) -> datetime:
    """The server's time at this moment."""
    at: datetime = connection.execute(_CLOCK).scalar_one()
    return at


def identity(connection: Connection) -> tuple[object, ...]:
    """What tells this database from any other, until its server starts anew."""
    return tuple(connection.execute(_IDENTITY).one())


def not_vacuumed(connection: Connection) -> list[str]:
    """The tables for which autovacuum is turned off."""
    return list(connection.execute(_NOT_VACUUMED).scalars())


def missing_partitions(connection: Connection, now: datetime, *, days: int) -> list[str]:
    """Which daily partitions are not there, from today's to those of so many days ahead."""
    present = set(connection.execute(_PARTITIONS).scalars())
    today = now.astimezone(UTC)
    wanted = [f"{table}_{today + timedelta(days=n):%Y%m%d}" for n in range(days + 1) for table in TABLES]
    return [name for name in wanted if name not in present]


def filled_defaults(connection: Connection) -> list[str]:
    """The default partitions that hold any row."""
    return [
        f"{table}_default"
        for table in TABLES
        if connection.execute(text(f"SELECT EXISTS (SELECT FROM dispatcher.{table}_default)")).scalar_one()
    ]


def workers(connection: Connection) -> Workers:
    """The workers that have a row."""
    return Workers(*connection.execute(_PROCESSES).one())


def leads_for_s(connection: Connection) -> float | None:
    """How many seconds the leading scheduler still leads without a word of it; below 0: none does. None: never one."""
    return connection.execute(_LEADER).scalar_one_or_none()


def oldest_tally_s(connection: Connection) -> float | None:
    """How old the oldest tally is that the statistics do not have yet, in seconds; None where there is none."""
    return connection.execute(_OLDEST_TALLY).scalar_one_or_none()
