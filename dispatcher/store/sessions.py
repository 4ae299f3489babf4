"""What is set on our connections, whatever the role or the database was given by ALTER ROLE or ALTER DATABASE.

A connection to PostgreSQL itself is set up once, after it was made. Nothing is passed as a start-up parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

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


def as_options(values: Mapping[str, str]) -> str:
    r"""The values as libpq's `options`, for a connection that surely leads to PostgreSQL itself.

    >>> as_options({"default_transaction_isolation": "read committed"})
    '-c default_transaction_isolation=read\\ committed'
    """
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in values.items())


def set_up(engine: Engine, **values: str) -> None:
    """Has each connection of the engine start with `NEUTRAL` and these values; what its `options` set is left alone."""

    def prepare(connection: Any, record: Any) -> None:
        info = record.driver_connection.info
        wanted = NEUTRAL | (_SINCE_17 if info.server_version >= 170_000 else {}) | values
        statement = _set_configs({name: wanted[name] for name in wanted if f"{name}=" not in info.options})
        if not statement:
            return
        connection.autocommit = True
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()
        connection.autocommit = False

    # Before SQLAlchemy's own statements, which read the isolation level and may be cancelled by a time-out.
    event.listen(engine, "connect", prepare, insert=True)


def _set_configs(values: Mapping[str, str]) -> str:
    """A statement that sets the values, or nothing; names and values are ours, none comes from outside."""
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in values.items())
    return calls and f"SELECT {calls}"
