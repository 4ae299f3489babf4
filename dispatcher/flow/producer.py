"""What a producer emits on: a session or a connection, the transaction on it, and the wake-up after its commit."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, Pool, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from dispatcher.errors import NoTransaction, Unavailable
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry

SyncSource = Session | scoped_session[Any] | Connection
AsyncSource = AsyncSession | async_scoped_session[Any] | AsyncConnection

_FOREIGN: Final = "dispatcher.foreign_transaction"
"""Where a connection notes that SQLAlchemy began on it inside a transaction of somebody else."""

_LENT: Final = "dispatcher.lent_in_transaction"
"""Where a connection notes, until SQLAlchemy begins on it, whether it was in a transaction when the pool lent it. What
listeners of the pool begin afterwards is the producer's own.
"""

_NEW: Final = "dispatcher.new_connection"
"""Where a connection notes that the pool has just made it; its own listeners may have begun a transaction since."""

_SHARED: Final = "dispatcher.shared_connection"
"""Where a connection notes that it was in a transaction when the pool got it: the pool has not made it."""

_PENDING: Final = "dispatcher.wakeups"
"""Where a session keeps the wake-ups of its open transactions and savepoints: {transaction: {wake-up, …}}, and a
connection those of its transaction: {wake-up, …}.
"""

_COMMITTING: Final = "dispatcher.wakeups_of_commit"
"""Where a connection keeps the wake-ups of the transaction that is being committed."""

_NOT_MIGRATED: Final = frozenset({"3F000", "42P01", "42703", "42883"})
"""Of a schema, table, column or function that is not there."""

_NOT_GRANTED: Final = "42501"


def unscoped(source: object) -> Session | Connection | AsyncSession | AsyncConnection:
    """The session that a scoped one stands for here and now; anything else is itself. Raises TypeError."""
    if isinstance(source, scoped_session | async_scoped_session):
        session: Session | AsyncSession = source()
        return session
    if not isinstance(source, Session | Connection | AsyncSession | AsyncConnection):
        allowed = "a Session, an AsyncSession, a scoped session, a Connection or an AsyncConnection of SQLAlchemy"
        raise TypeError(f"found {type(source).__name__}; allowed: {allowed}")
    return source


def connection_of(source: Session | Connection) -> Connection:
    """The connection of the transaction that decides about what is emitted. Executes no statement.

    Raises NoTransaction for what is closed, for a connection in AUTOCOMMIT, and for one that SQLAlchemy found inside a
    transaction: whoever began that one decides about it, and a rollback of theirs, or of SQLAlchemy's pool, would
    take the producer's rows and the event alike.
    """
    if isinstance(source, Connection) and source.closed:
        raise NoTransaction("found a connection that is closed; allowed: one in the transaction of what you emit about")
    try:
        connection = source.connection() if isinstance(source, Session) else source
    except InvalidRequestError as error:  # closed for good, or without a begin() where that is not automatic
        raise NoTransaction(f"found a session that can have no transaction now; SQLAlchemy says: {error}") from error
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise NoTransaction(
            "found a connection in AUTOCOMMIT, where each statement commits by itself;"
            " allowed: one whose transaction commits the event with what it tells of"
        )
    foreign = connection.info.get(_FOREIGN) if connection.in_transaction() else _is_foreign(connection)
    if foreign or connection.info.get(_SHARED):
        raise NoTransaction(
            "found a connection inside a transaction that SQLAlchemy did not begin: another library's, such as"
            " Django's, which shares the connection;"
            " allowed: a session or connection whose transaction SQLAlchemy began"
        )
    return connection


@contextmanager
def explained(connection: Connection) -> Iterator[None]:
    """Raises Unavailable, which names the command that helps, where our tables or the grants for them are missing."""
    try:
        yield
    except DBAPIError as error:
        found = _sqlstate(error)
        rolled_back = "PostgreSQL has ended the transaction: roll it back"
        if found == _NOT_GRANTED:
            role = connection.engine.url.username or "ROLE"
            raise Unavailable(
                f"the role {role} may not emit events; `dispatcher migrate --grant-producer {role}` lets it."
                f" {rolled_back}"
            ) from error
        if found in _NOT_MIGRATED:
            raise Unavailable(
                f"the database {connection.engine.url.database} has no tables of this version of Dispatcher;"
                f" `dispatcher migrate` makes them. {rolled_back}"
            ) from error
        raise


def ring_after_commit(source: Session | Connection, wakeup: Wakeup | None) -> None:
    """Rings once the outermost transaction has committed, if what was emitted is in it.

    On a connection of its own, without a session, it rings when the connection is given back or begins again:
    SQLAlchemy tells of a commit there only before it happens. There a savepoint that was rolled back rings too, which
    costs the scheduler one look.
    """
    wakeup = wakeup or _default_wakeup()
    if isinstance(source, Connection):
        source.info.setdefault(_PENDING, set()).add(wakeup)
        return
    transaction = source.get_nested_transaction() or source.get_transaction()
    source.info.setdefault(_PENDING, {}).setdefault(transaction, set()).add(wakeup)


_wakeups: dict[str | None, Wakeup] = {}


def _default_wakeup() -> Wakeup:
    url = os.environ.get("DISPATCHER_BROKER_URL")
    return _wakeups.get(url) or _wakeups.setdefault(url, Wakeup(url))


def _sqlstate(error: DBAPIError) -> str | None:
    original: Any = error.orig
    if original is not None and original.args and isinstance(original.args[0], dict):  # pg8000
        return original.args[0].get("C")
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)


def _is_in_transaction(driver: Any) -> bool:
    """Whether the driver's connection is in a transaction; False where the driver does not tell."""
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return bool(driver.is_in_transaction())
    status = getattr(getattr(driver, "info", None), "transaction_status", None)  # psycopg and psycopg2
    return isinstance(status, int) and status != 0


def _is_foreign(connection: Connection) -> bool:
    """Whether a transaction that begins now begins inside one of somebody else."""
    lent: bool | None = connection.info.get(_LENT)
    return _is_in_transaction(connection.connection.driver_connection) if lent is None else lent


@event.listens_for(Pool, "connect")
def _connected(_dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Notes what the pool got, before SQLAlchemy's first use of it rolls back what it finds there."""
    record.info[_NEW] = True
    if _is_in_transaction(record.driver_connection):
        record.info[_SHARED] = True


@event.listens_for(Pool, "checkout")
def _checked_out(_dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    is_new = record.info.pop(_NEW, False)
    record.info[_LENT] = not is_new and _is_in_transaction(record.driver_connection)


# These are heard on every engine of the process, our own included: on a connection that was cut, `info` would raise.


@event.listens_for(Engine, "begin")
def _began(connection: Connection) -> None:
    if connection.invalidated:
        return
    connection.info[_FOREIGN] = _is_foreign(connection)
    connection.info.pop(_LENT, None)
    _ring_committed(connection.info)


@event.listens_for(Engine, "rollback")
def _rolled_back(connection: Connection) -> None:
    if not connection.invalidated:
        connection.info.pop(_PENDING, None)


@event.listens_for(Engine, "commit")
def _committing(connection: Connection) -> None:
    if connection.invalidated:
        return
    if pending := connection.info.pop(_PENDING, None):
        connection.info.setdefault(_COMMITTING, set()).update(pending)


@event.listens_for(Engine, "commit_twophase")
def _committing_twophase(connection: Connection, _xid: Any, _is_prepared: bool) -> None:
    _committing(connection)


@event.listens_for(Pool, "checkin")
def _checked_in(_dbapi_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info.pop(_PENDING, None)
    _ring_committed(record.info)


def _ring_committed(info: dict[Any, Any]) -> None:
    for wakeup in info.pop(_COMMITTING, ()):
        wakeup.ring()


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    pending: dict[SessionTransaction | None, set[Wakeup]] | None = session.info.get(_PENDING)
    if not pending:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        for wakeup in pending.pop(session.get_transaction(), ()):
            wakeup.ring()
    elif savepoint in pending:
        outer = savepoint.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent
        pending.setdefault(outer, set()).update(pending.pop(savepoint))


@event.listens_for(Session, "after_transaction_end")
def _ended(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(_PENDING)
    if pending:
        pending.pop(transaction, None)
