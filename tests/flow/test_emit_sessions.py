"""emit() inside the caller's own transaction: every driver, sync and async, and every way to make a session.

The whole file also runs on SQLAlchemy 2.0: see test_emit_sqlalchemy20.py.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dispatcher import Accepted, Event, emit, emit_many
from dispatcher.errors import IdempotencyConflict, InvalidInput
from dispatcher.local.postgres import EmbeddedPostgres
from tests.support import walk
from tests.support.producers import (
    ASYNC_DRIVERS,
    SYNC_DRIVERS,
    Bell,
    count,
    producer_engine,
    run,
    shared_database,
    wipe,
    with_driver,
)

PAID = Event(type="payment.completed", payload={"amount": 1250, "note": 'é "\n'}, object_id="pay_1")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


@pytest.fixture
def url(migrated_database_url: str) -> str:
    """A database with one endpoint that wants everything, and a producer's own table."""
    engine = producer_engine(migrated_database_url)
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        connection.execute(text("CREATE TABLE orders (id text PRIMARY KEY)"))
    engine.dispose()
    return migrated_database_url


@pytest.fixture
def producer(url: str) -> Iterator[Engine]:
    engine = producer_engine(url)
    yield engine
    engine.dispose()


def order(session: Session, id_: str) -> None:
    session.execute(text("INSERT INTO orders VALUES (:id)"), {"id": id_})


def committed(engine: Engine) -> dict[str, int]:
    """What others see."""
    with engine.connect() as connection:
        orders = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
        tables = {table: count(connection, table) for table in ("events", "deliveries", "wakes", "idempotency")}
    return {"orders": orders} | tables


NOTHING = {"orders": 0, "events": 0, "deliveries": 0, "wakes": 0, "idempotency": 0}


@pytest.mark.parametrize("driver", [*SYNC_DRIVERS, *ASYNC_DRIVERS])
class TestEveryDriver:
    def test_an_event_commits_with_the_callers_row(self, url: str, producer: Engine, driver: str) -> None:
        bell = Bell(lambda: committed(producer))
        seen: list[Any] = []

        def scenario(session: Session) -> Accepted:
            order(session, "o1")
            accepted = emit(session, PAID, wakeup=bell)
            seen.append(committed(producer))
            session.commit()
            return accepted

        accepted = run(url, driver, scenario)
        all_of_it = {"orders": 1, "events": 1, "deliveries": 1, "wakes": 1, "idempotency": 0}
        assert seen == [NOTHING]
        assert bell.rung == [all_of_it]  # rung once, when it was there to be seen
        with producer.connect() as connection:
            (event,) = walk.rows(connection, "SELECT * FROM dispatcher.events")
            (delivery,) = walk.live(connection)
        assert (event.id, event.type, event.mode, event.object_id) == (accepted.id, PAID.type, "live", "pay_1")
        assert orjson.loads(bytes(event.payload)) == PAID.payload
        assert (event.fanout, accepted.fanout, accepted.duplicate) == (1, 1, False)
        assert str(accepted) == f"evt_{event.id}"
        assert (delivery.event_id, delivery.state, delivery.object_id) == (event.id, "waiting", "pay_1")

    def test_it_rolls_back_with_the_callers_row_and_rings_nobody(self, url: str, producer: Engine, driver: str) -> None:
        bell = Bell()

        def scenario(session: Session) -> None:
            order(session, "o1")
            emit(session, PAID, wakeup=bell)
            emit(session, Event(type="a", payload=1, idempotency_key="k"), wakeup=bell)
            session.rollback()
            order(session, "o2")
            session.commit()  # the same session again: nothing of the first transaction rings

        run(url, driver, scenario)
        assert committed(producer) == NOTHING | {"orders": 1}
        assert bell.rung == []

    def test_a_savepoint_that_rolls_back_takes_its_own_events_only(
        self, url: str, producer: Engine, driver: str
    ) -> None:
        bell = Bell()

        def scenario(session: Session) -> list[Accepted]:
            kept = [emit(session, PAID, wakeup=bell)]
            savepoint = session.begin_nested()
            emit(session, Event(type="a", payload=1, idempotency_key="k"), wakeup=bell)
            savepoint.rollback()
            with session.begin_nested():
                kept += emit_many(session, [PAID, Event(type="a", payload=2, idempotency_key="k")], wakeup=bell)
            assert bell.rung == []
            session.commit()
            return kept

        kept = run(url, driver, scenario)
        assert committed(producer) == {"orders": 0, "events": 3, "deliveries": 3, "wakes": 2, "idempotency": 1}
        with producer.connect() as connection:
            ids = {row.id for row in walk.rows(connection, "SELECT id FROM dispatcher.events")}
        assert ids == {one.id for one in kept}
        assert len(bell.rung) == 1

    def test_a_refused_event_leaves_the_transaction_usable(self, url: str, producer: Engine, driver: str) -> None:
        def scenario(session: Session) -> None:
            order(session, "o1")
            first = emit(session, Event(type="a", payload=1, idempotency_key="k"))
            with pytest.raises(IdempotencyConflict, match="'k'"):
                emit_many(session, [PAID, Event(type="a", payload=2, idempotency_key="k")])
            with pytest.raises(InvalidInput):
                emit(session, Event(type="a", payload={"a": float("nan")}))
            again = emit(session, Event(type="a", payload=1, idempotency_key="k"))
            assert (again.id, again.duplicate, again.fanout) == (first.id, True, None)
            session.commit()
            assert emit(session, Event(type="a", payload=1, idempotency_key="k")).duplicate

        run(url, driver, scenario)
        assert committed(producer) == {"orders": 1, "events": 1, "deliveries": 1, "wakes": 1, "idempotency": 1}

    def test_many_at_once(self, url: str, producer: Engine, driver: str) -> None:
        bell = Bell()

        def scenario(session: Session) -> list[Accepted]:
            events = [
                Event(type="a", payload=n, idempotency_key=f"k{n % 1100}" if n % 2 else None) for n in range(2200)
            ]
            with pytest.raises(IdempotencyConflict, match=r"event 1101: the key 'k1'"):
                emit_many(session, events, wakeup=bell)
            events = [Event(type="a", payload=n, idempotency_key=f"k{n}" if n % 2 else None) for n in range(1100)]
            accepted = emit_many(session, events * 2, wakeup=bell)
            session.commit()
            return accepted

        accepted = run(url, driver, scenario)
        assert committed(producer)["events"] == 1650
        assert [one.duplicate for one in accepted] == [False] * 1100 + [n % 2 == 1 for n in range(1100)]
        assert all(accepted[n].id == accepted[n + 1100].id for n in range(1, 1100, 2))
        assert len(bell.rung) == 1


def test_the_bell_follows_the_savepoints_that_hold_the_event(producer: Engine) -> None:
    bell = Bell()
    with Session(producer) as session:
        outer = session.begin_nested()
        with session.begin_nested():
            emit(session, PAID, wakeup=bell)
        outer.rollback()
        session.commit()
        assert bell.rung == []

        outer = session.begin_nested()
        with session.begin_nested():
            emit(session, PAID, wakeup=bell)
        outer.commit()
        inner = session.begin_nested()
        emit(session, PAID, wakeup=bell)
        inner.rollback()
        assert bell.rung == []
        session.commit()
        assert len(bell.rung) == 1
        session.commit()
        assert len(bell.rung) == 1


def test_several_events_in_a_transaction_ring_once_and_each_wakeup_for_itself(producer: Engine) -> None:
    one, other = Bell(), Bell()
    with Session(producer) as session:
        for _ in range(5):
            emit(session, PAID, wakeup=one)
        emit_many(session, [PAID] * 3, wakeup=other)
        session.commit()
        emit(session, PAID, wakeup=one)
        session.commit()
    assert (len(one.rung), len(other.rung)) == (2, 1)


def test_what_makes_no_delivery_rings_nobody(producer: Engine) -> None:
    bell = Bell()
    event = Event(type="a", payload=1, idempotency_key="k")
    with Session(producer) as session:
        emit(session, event)
        session.commit()
        assert emit_many(session, [], wakeup=bell) == []
        assert emit(session, event, wakeup=bell).duplicate
        session.execute(text("UPDATE dispatcher.endpoints SET status = 'deleted'"))
        assert emit(session, PAID, wakeup=bell).fanout == 0
        session.commit()
    assert bell.rung == []


def test_a_failed_commit_rings_nobody(producer: Engine) -> None:
    bell = Bell()
    with Session(producer) as session:
        session.execute(text("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        emit(session, PAID, wakeup=bell)
        session.execute(text("INSERT INTO late VALUES (1), (1)"))
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
        session.commit()
    assert bell.rung == []
    assert committed(producer) == NOTHING


def test_a_session_factory_in_each_of_its_ways(producer: Engine) -> None:
    bell = Bell()
    factory = sessionmaker(producer)
    with factory.begin() as session:
        emit(session, PAID, wakeup=bell)
    with factory() as session, session.begin():
        emit_many(session, [PAID, PAID], wakeup=bell)
    with producer.connect() as connection, connection.begin(), Session(connection) as session:
        emit(session, PAID, wakeup=bell)
        session.commit()
    assert len(bell.rung) == 3
    assert committed(producer)["events"] == 4


def test_a_scoped_session_rings_for_its_own_commits_only(producer: Engine) -> None:
    bell = Bell()
    factory = sessionmaker(producer)
    scoped = scoped_session(factory)
    emit(scoped, PAID, wakeup=bell)
    with factory() as another:  # of the same factory
        order(another, "o1")
        another.commit()
    assert bell.rung == []
    scoped.commit()
    assert len(bell.rung) == 1
    scoped.remove()
    order(scoped(), "o2")
    scoped.commit()
    scoped.remove()
    assert len(bell.rung) == 1
    assert committed(producer) == {"orders": 2, "events": 1, "deliveries": 1, "wakes": 1, "idempotency": 0}


def test_a_session_that_emitted_is_freed(producer: Engine) -> None:
    session = Session(producer)
    emit(session, PAID, wakeup=Bell())
    session.rollback()
    session.close()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
async def test_an_async_session_is_awaited(url: str, producer: Engine, driver: str) -> None:
    bell = Bell()
    engine = create_async_engine(with_driver(url, driver))
    factory = async_sessionmaker(engine)
    async with factory() as session:
        await session.execute(text("INSERT INTO orders VALUES ('o1')"))
        accepted = await emit(session, PAID, wakeup=bell)
        async with session.begin_nested() as savepoint:
            await emit_many(session, [PAID, PAID], wakeup=bell)
            await savepoint.rollback()
        many = await emit_many(session, (event for event in [PAID, PAID]), wakeup=bell)
        with pytest.raises(InvalidInput):
            await emit(session, Event(type="", payload=1), wakeup=bell)
        assert bell.rung == []
        await session.commit()
    assert (accepted.fanout, len(many), len(bell.rung)) == (1, 2, 1)
    scoped = async_scoped_session(factory, scopefunc=asyncio.current_task)
    await emit(scoped, PAID, wakeup=bell)
    await emit_many(scoped, [PAID], wakeup=bell)
    await scoped.commit()
    await scoped.remove()
    assert len(bell.rung) == 2
    async with AsyncSession(engine) as session:
        await emit(session, PAID, wakeup=bell)
        await session.rollback()
    await engine.dispose()
    assert len(bell.rung) == 2
    assert committed(producer) == {"orders": 1, "events": 5, "deliveries": 5, "wakes": 4, "idempotency": 0}
