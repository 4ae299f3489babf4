"""emit() on Core connections, and where it refuses: no transaction, somebody else's, no tables, no grants.

The whole file also runs on SQLAlchemy 2.0: see test_emit_sqlalchemy20.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dispatcher import Event, emit, emit_many
from dispatcher.errors import InvalidInput, NoTransaction, Unavailable
from dispatcher.local.postgres import EmbeddedPostgres
from tests.support import walk
from tests.support.producers import ASYNC_DRIVERS, SYNC_DRIVERS, Bell, count, shared_database, wipe, with_driver
from tests.support.servers import drop_database, fresh_database

PAID = Event(type="payment.completed", payload={"amount": 1250})


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def url(shared: str) -> str:
    """A database with one endpoint that wants everything, and a producer's own table."""
    wipe(shared)
    engine = create_engine(shared)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        connection.execute(text("CREATE TABLE orders (id text PRIMARY KEY)"))
    engine.dispose()
    return shared


@pytest.fixture(params=SYNC_DRIVERS)
def producer(url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = create_engine(with_driver(url, request.param))
    yield engine
    engine.dispose()


def stored(url: str) -> tuple[int, int]:
    """How many orders and events there are."""
    with walk.connect(url) as connection:
        rows = connection.execute("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM dispatcher.events)")
        orders, events = rows.fetchone() or (-1, -1)
        return orders, events


def order(connection: Connection | Session) -> None:
    connection.execute(text("INSERT INTO orders VALUES ('o1')"))


def test_an_event_commits_with_what_the_connection_wrote_and_rings_then(url: str, producer: Engine) -> None:
    bell = Bell(lambda: stored(url))
    with producer.begin() as connection:
        order(connection)
        accepted = emit(connection, PAID, wakeup=bell)
        assert (accepted.fanout, stored(url), bell.rung) == (1, (0, 0), [])
    assert (stored(url), bell.rung) == ((1, 1), [(1, 1)])


def test_a_connection_that_goes_on_rings_when_it_begins_again(producer: Engine) -> None:
    bell = Bell()
    with producer.connect() as connection:
        emit_many(connection, [PAID, PAID], wakeup=bell)
        connection.commit()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert len(bell.rung) == 1
    assert len(bell.rung) == 1


def test_what_is_rolled_back_rings_nobody(url: str, producer: Engine) -> None:
    bell = Bell()
    with producer.connect() as connection:
        order(connection)
        emit(connection, PAID, wakeup=bell)
        connection.rollback()
        emit(connection, PAID, wakeup=bell)  # given back without a commit
    with producer.begin() as connection:
        connection.execute(text("SELECT 1"))
    assert (stored(url), bell.rung) == ((0, 0), [])


def test_a_savepoint_decides_about_its_own_events(url: str, producer: Engine) -> None:
    with producer.begin() as connection:
        savepoint = connection.begin_nested()
        emit(connection, PAID)
        savepoint.rollback()
        with connection.begin_nested():
            emit(connection, PAID)
        with pytest.raises(InvalidInput):
            emit(connection, Event(type="", payload=1))
        order(connection)
    assert stored(url) == (1, 1)


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
async def test_an_async_connection_is_awaited(url: str, driver: str) -> None:
    bell = Bell(lambda: stored(url))
    engine = create_async_engine(with_driver(url, driver))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO orders VALUES ('o1')"))
        accepted = await emit(connection, PAID, wakeup=bell)
        many = await emit_many(connection, [PAID, PAID], wakeup=bell)
        assert bell.rung == []
    await engine.dispose()
    assert (accepted.fanout, len(many), stored(url), bell.rung) == (1, 2, (1, 3), [(1, 3)])


def executed_by(connection: Connection, call: Callable[[], Any]) -> list[str]:
    """What is executed meanwhile."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(connection, "before_cursor_execute", note)
    call()
    event.remove(connection, "before_cursor_execute", note)
    return statements


def test_it_takes_as_many_statements_on_a_connection_as_on_a_session(producer: Engine) -> None:
    with producer.connect() as connection:
        on_connection = executed_by(connection, lambda: emit(connection, PAID))
        connection.rollback()
        with Session(connection) as session:
            on_session = executed_by(connection, lambda: emit(session, PAID))
    assert on_connection == on_session
    assert len(on_session) <= 3


def test_anything_else_is_refused_by_its_name(producer: Engine) -> None:
    with pytest.raises(TypeError, match="found Engine; allowed: a Session, an AsyncSession, a scoped session, a Conn"):
        emit(producer, PAID)  # type: ignore[call-overload]


def refused(source: Any, message: str) -> None:
    """Asserts that it is refused, before any statement, by one sentence."""
    with pytest.raises(NoTransaction, match=message) as error:
        emit(source, PAID)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("engine_wide", [True, False])
def test_autocommit_is_refused(url: str, producer: Engine, engine_wide: bool) -> None:
    if engine_wide:
        engine = producer.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            refused(connection, "in AUTOCOMMIT")
        with Session(engine) as session:
            refused(session, "in AUTOCOMMIT")
    else:
        with producer.connect() as connection:
            refused(connection.execution_options(isolation_level="AUTOCOMMIT"), "in AUTOCOMMIT")
    with producer.begin() as connection:
        emit(connection, PAID)
    assert stored(url) == (0, 1)


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
async def test_autocommit_of_an_async_driver_is_refused(url: str, driver: str) -> None:
    engine = create_async_engine(with_driver(url, driver), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        with pytest.raises(NoTransaction, match="in AUTOCOMMIT"):
            await emit(connection, PAID)
    async with AsyncSession(engine) as session:
        with pytest.raises(NoTransaction, match="in AUTOCOMMIT"):
            await emit(session, PAID)
    await engine.dispose()
    assert stored(url) == (0, 0)


def test_what_is_closed_is_refused(producer: Engine) -> None:
    with producer.connect() as connection:
        pass
    refused(connection, "a connection that is closed")
    with Session(producer, close_resets_only=False) as session:
        pass
    refused(session, "permanently closed")
    with Session(producer, autobegin=False) as session:
        refused(session, "Autobegin is disabled")
        with session.begin():
            emit(session, PAID)


@pytest.mark.parametrize("statement_first", [False, True])
@pytest.mark.parametrize("used_before", [True, False])
@pytest.mark.parametrize("on_session", [True, False])
def test_a_transaction_of_somebody_else_is_refused(
    url: str, used_before: bool, statement_first: bool, on_session: bool
) -> None:
    with closing(psycopg.connect(url.replace("+psycopg", ""))) as theirs:
        engine = create_engine("postgresql+psycopg://", creator=lambda: theirs, poolclass=StaticPool)
        if used_before:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        theirs.execute("INSERT INTO orders VALUES ('o1')")
        with Session(engine) if on_session else engine.connect() as source:
            if statement_first:
                source.execute(text("SELECT 1"))
            refused(source, "inside a transaction that SQLAlchemy did not begin: another library's, such as Django's")
    assert stored(url) == (0, 0)


@pytest.mark.parametrize("hook", ["connect", "checkout"])
@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_what_a_listener_of_the_pool_began_is_the_producers_own(url: str, driver: str, hook: str) -> None:
    engine = create_engine(with_driver(url, driver))

    @event.listens_for(engine, hook)
    def set_up(connection: Any, *_: Any) -> None:
        connection.cursor().execute("SET TIME ZONE 'Europe/Amsterdam'")

    for _ in range(2):
        with engine.begin() as first, engine.connect() as second:
            for connection in (first, second):
                emit(connection, PAID)
                emit(connection, PAID)
            second.commit()
            emit(second, PAID)
            second.commit()
    engine.dispose()
    assert stored(url) == (0, 10)


def test_a_transaction_that_somebody_began_between_two_of_ours_is_refused(url: str) -> None:
    with closing(psycopg.connect(url.replace("+psycopg", ""))) as theirs:
        engine = create_engine("postgresql+psycopg://", creator=lambda: theirs, poolclass=StaticPool)
        with engine.connect() as connection:
            emit(connection, PAID)
            connection.commit()
            theirs.execute("INSERT INTO orders VALUES ('o1')")
            refused(connection, "inside a transaction that SQLAlchemy did not begin")
    assert stored(url) == (0, 1)


@pytest.fixture
def other_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database without our tables."""
    url = fresh_database(postgres)
    yield url
    drop_database(postgres, url)


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_missing_tables_name_the_command_that_makes_them(other_database: str, driver: str) -> None:
    engine = create_engine(with_driver(other_database, driver))
    with Session(engine) as session, pytest.raises(Unavailable) as error:
        emit(session, PAID)
    engine.dispose()
    assert str(error.value) == (
        f"the database {make_url(other_database).database} has no tables of this version of Dispatcher;"
        " `dispatcher migrate` makes them."
        " PostgreSQL has ended the transaction: roll it back"
    )


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
async def test_missing_tables_are_told_by_async_drivers_too(other_database: str, driver: str) -> None:
    engine = create_async_engine(with_driver(other_database, driver))
    async with engine.connect() as connection:
        with pytest.raises(Unavailable, match="`dispatcher migrate` makes them"):
            await emit(connection, PAID)
    await engine.dispose()


def test_missing_grants_name_the_command_that_gives_them(url: str, producer: Engine) -> None:
    with producer.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS shop_without_grants"))
        connection.execute(text("CREATE ROLE shop_without_grants"))
    with producer.connect() as connection:
        connection.execute(text("SET LOCAL ROLE shop_without_grants"))
        with pytest.raises(
            Unavailable, match=r"the role \w+ may not emit events; `dispatcher migrate --grant-producer"
        ):
            emit(connection, PAID)
        connection.rollback()
        emit(connection, PAID)
        connection.commit()
        assert count(connection, "events") == 1


@pytest.mark.parametrize("on_session", [True, False])
def test_a_connection_that_was_cut_fails_as_it_does_without_us_and_the_next_one_works(
    url: str, producer: Engine, on_session: bool
) -> None:
    def transaction() -> None:
        with Session(producer) if on_session else producer.connect() as source, source.begin():
            emit(source, PAID)
            pid = source.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with walk.connect(url) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
            emit(source, PAID)

    with pytest.raises(DBAPIError) as error:
        transaction()
    assert error.value.connection_invalidated
    with producer.begin() as connection:
        emit(connection, PAID)
    assert stored(url) == (0, 1)
