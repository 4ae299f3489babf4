"""What is set on our connections, whatever the role or the database was given by ALTER ROLE or ALTER DATABASE.

A connection to PostgreSQL itself is set up once, after it was made. Nothing is passed as a start-up parameter, which a
pooler such as PgBouncer refuses. Behind a pooler that hands out servers for a transaction, whatever is set for longer
would be set for somebody else: there each transaction sets its own values, in the same round trip as its BEGIN, and
nothing is prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine

NEUTRAL: Final = {
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "row_security": "on",
    "search_path": "pg_catalog, pg_temp",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""PostgreSQL's own defaults, but for the names, all of which are qualified.

`default_transaction_read_only` is not among them: by it an operator has us read only. Nor is `synchronous_commit`, by
which an operator says how durable a commit is.
"""

_SINCE_17: Final = {"transaction_timeout": "0"}

_OF_SESSIONS: Final = {
    "default_transaction_isolation",
    "default_transaction_deferrable",
    "default_transaction_read_only",
    "idle_session_timeout",
}
"""What means nothing within a transaction, or what its BEGIN says."""

_POOLED: Final = "dispatcher.pooled"
_BEGIN: Final = "dispatcher.begin"


def as_options(values: Mapping[str, str]) -> str:
    r"""The values as libpq's `options`, for a connection that surely leads to PostgreSQL itself.

    >>> as_options({"default_transaction_isolation": "read committed"})
    '-c default_transaction_isolation=read\\ committed'
    """
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in values.items())


def set_up(engine: Engine, **values: str) -> None:
    """Has each connection of the engine start with `NEUTRAL` and these values; what its `options` set is left alone.

    Behind a pooler each transaction starts so. There the driver is in autocommit mode and the BEGIN is ours, since the
    driver's own BEGIN cannot carry anything.
    """

    def prepare(connection: Any, record: Any) -> None:
        driver = record.driver_connection
        wanted = NEUTRAL | (_SINCE_17 if driver.info.server_version >= 170_000 else {}) | values
        wanted = {name: wanted[name] for name in wanted if f"{name}=" not in driver.info.options}
        connection.autocommit = True
        cursor = connection.cursor()
        try:
            # A pooler makes up the number of the server process that it tells its clients.
            cursor.execute("SELECT pg_catalog.pg_backend_pid()")
            is_pooled = record.info[_POOLED] = cursor.fetchone()[0] != driver.info.backend_pid
            if is_pooled:
                driver.prepare_threshold = None
                record.info[_BEGIN] = _begin(wanted)
                if not event.contains(engine, "begin", begin):  # an engine with a listener takes longer for everything
                    event.listen(engine, "begin", begin)
                return
            if wanted:
                cursor.execute(_set("SET", wanted))
        finally:
            cursor.close()
        connection.autocommit = False

    def begin(connection: Connection) -> None:
        if (statement := connection.info.get(_BEGIN)) is not None:
            connection.exec_driver_sql(statement)

    # Before SQLAlchemy's own statements, which read the isolation level and may be cancelled by a time-out.
    event.listen(engine, "connect", prepare, insert=True)


def replace_unfinished(engine: Engine) -> None:
    """Has the engine's pool replace a connection whose last transaction is still open, when somebody wants it.

    Needed where the pool does not roll back what is returned. A ROLLBACK can be cancelled as any statement: the next
    user, which wants no transaction, would get the driver's own error, at which a worker's recording ended.
    """

    def check(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        if record.driver_connection.pgconn.transaction_status != TransactionStatus.IDLE:
            raise DisconnectionError("the last transaction of this connection has not ended")

    event.listen(engine, "checkout", check)


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler is between this connection, of an engine that `set_up` knows, and PostgreSQL."""
    return bool(connection.info[_POOLED])


def _begin(values: Mapping[str, str]) -> str:
    access = " READ ONLY" if values.get("default_transaction_read_only") == "on" else ""
    kept = {name: value for name, value in values.items() if name not in _OF_SESSIONS}
    return f"BEGIN ISOLATION LEVEL READ COMMITTED{access} NOT DEFERRABLE; {_set('SET LOCAL', kept)}"


def _set(verb: str, values: Mapping[str, str]) -> str:
    """Statements that set the values. No name and no value comes from outside.

    They take no snapshot, as calls of set_config() would: a transaction may still change its isolation level.

    >>> _set("SET LOCAL", {"TimeZone": "UTC", "search_path": "pg_catalog, pg_temp"})
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL search_path = 'pg_catalog', 'pg_temp'"
    """
    lists = {name: ", ".join(f"'{part}'" for part in value.split(", ")) for name, value in values.items()}
    return "; ".join(f"{verb} {name} = {parts}" for name, parts in lists.items())
