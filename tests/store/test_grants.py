"""A producer's SQL role may emit, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from dispatcher import Event, emit, emit_many
from dispatcher.errors import IdempotencyConflict, InvalidInput, NotFound
from dispatcher.flow.enqueue import enqueue
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.event import Target
from dispatcher.store.grants import grant_producer
from tests.support import walk
from tests.support.producers import count, shared_database, wipe

ROLE = 'we"ird %s :x Ünïque'
TABLES = {"events", "deliveries", "ended_deliveries", "attempts", "endpoints", "api_keys", "wakes", "lanes"}


@dataclass
class Producer:
    """Connections that act as the role: the session's own user is a superuser, who may take any."""

    engine: Engine
    role: str

    def session(self) -> Session:
        session = Session(self.engine)
        quoted = self.engine.dialect.identifier_preparer.quote_identifier(self.role)
        session.connection().exec_driver_sql(f"SET LOCAL ROLE {quoted}")
        return session


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


@pytest.fixture
def owner(migrated_database_url: str) -> Iterator[Engine]:
    engine = create_engine(migrated_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def producer(owner: Engine) -> Iterator[Producer]:
    quoted = owner.dialect.identifier_preparer.quote_identifier(ROLE)
    with owner.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {quoted}")
        walk.add_endpoint(connection, event_types=("payment.*",))
        grant_producer(connection, ROLE)
        grant_producer(connection, ROLE)  # again changes nothing
    yield Producer(owner, ROLE)
    with owner.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {quoted}")
        connection.exec_driver_sql(f"DROP ROLE {quoted}")


def test_it_may_emit_in_every_way(producer: Producer, owner: Engine) -> None:
    own_id = uuid7()
    paid = Event(type="payment.completed", payload={"amount": 1}, object_id="pay_1")
    keyed = Event(type="payment.completed", payload=1, idempotency_key="k")
    with producer.session() as session:
        assert emit(session, paid).fanout == 1
        first = emit(session, keyed)
        assert emit(session, keyed).id == first.id
        assert emit(session, Event(type="payment.a", payload=1, id=own_id)).id == own_id
        with pytest.raises(IdempotencyConflict):
            emit(session, Event(type="payment.a", payload=2, id=own_id))
        with pytest.raises(InvalidInput, match="made for one event"):
            emit(session, Event(type="payment.a", payload=2, id=first.id))
        with pytest.raises(InvalidInput):
            emit(session, Event(type="payment.a", payload=2, tenant_id=uuid7()))
        at = walk.NOW + timedelta(days=400)  # beyond every partition
        enqueue(session.connection(), [Event(type="payment.a", payload=1, not_before=at, expires_at=at)], now=at)
        enqueue(session.connection(), [keyed], now=at)  # the key is free again
        emit_many(session, [paid] * 1200)
        session.commit()
    with owner.connect() as connection:
        assert count(connection, "events") == count(connection, "deliveries") == 1205


def test_it_may_do_nothing_else(producer: Producer, owner: Engine) -> None:
    readable = {
        "tenants": {"id", "parent_id", "profile"},
        "endpoints": {"id", "tenant_id", "schedule", "status", "type_patterns", "origin", "ordered"},
        "profiles": {"name", "is_default", "body"},
        "event_types": {"name", "schema"},
        "schedules": {"name", "version_id"},
        "schedule_versions": {"id", "first_wait_s"},
        "idempotency": {"tenant_id", "key", "event_id", "body_sha256", "expires_at"},
        "clock": {"correction"},  # everybody may: a role that was granted by an earlier version, too
    }
    with owner.connect() as connection:
        columns = walk.rows(
            connection,
            """SELECT c.relname, a.attname, has_column_privilege(:role, c.oid, a.attnum, 'SELECT') AS reads,
                      has_column_privilege(:role, c.oid, a.attnum, 'UPDATE') AS updates,
                      has_column_privilege(:role, c.oid, a.attnum, 'INSERT') AS inserts,
                      has_table_privilege(:role, c.oid, 'DELETE, TRUNCATE, TRIGGER, REFERENCES') AS deletes
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
               WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p')""",
            role=ROLE,
        )
    assert {row.relname for row in columns} >= TABLES
    for row in columns:
        assert row.reads == (row.attname in readable.get(row.relname, ())), row
        assert row.updates == (
            row.relname == "idempotency" and row.attname in ("event_id", "body_sha256", "expires_at")
        ), row
        assert not row.deletes, row
    written = {row.relname for row in columns if row.inserts}
    assert written == {"events", "deliveries", "wakes", "idempotency"}
    decided_later = {"state", "claimed_by", "claim_seq", "attempts", "refunds", "reason", "last_outcome"}
    assert not decided_later & {row.attname for row in columns if row.relname == "deliveries" and row.inserts}


def test_it_may_emit_to_a_target_and_make_no_other_endpoint(producer: Producer, owner: Engine) -> None:
    for _ in range(2):
        with producer.session() as session:
            target = Target("https://shop.example.com/orders/1")
            assert emit(session, Event(type="payment.paid", payload=1, target=target)).fanout == 1
            session.commit()
    with owner.connect() as connection:
        (made,) = walk.rows(connection, "SELECT * FROM dispatcher.endpoints WHERE origin IS NOT NULL")
        assert {row.endpoint_id for row in walk.live(connection)} == {made.id}
        assert walk.lane(connection, made.id).asleep
    with producer.session() as session, pytest.raises(ProgrammingError, match="only the endpoint of a target"):
        session.execute(
            text("SELECT dispatcher.register_implicit_endpoint(:id, :t, 'https://a.example.com', 'gateway', 'x', 1)"),
            {"id": uuid7(), "t": DEFAULT_TENANT},
        )


def test_nobody_else_may_register_by_the_function(owner: Engine) -> None:
    with owner.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE bystander")  # rolled back
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA dispatcher TO bystander")
        connection.exec_driver_sql("SET LOCAL ROLE bystander")
        with pytest.raises(ProgrammingError, match="permission denied for function"):
            connection.execute(
                text("SELECT dispatcher.register_implicit_endpoint(:id, :t, 'https://a.example.com', 'x', 'x', 1)"),
                {"id": uuid7(), "t": DEFAULT_TENANT},
            )


REFUSED = [
    "SELECT headers FROM dispatcher.endpoints",
    "SELECT description FROM dispatcher.event_types",
    "UPDATE dispatcher.profiles SET is_default = true",
    "INSERT INTO dispatcher.endpoints (id) VALUES (gen_random_uuid())",
    "SELECT * FROM dispatcher.audit_log",
    "SELECT payload FROM dispatcher.events",
    "SELECT secrets FROM dispatcher.endpoints",
    "SELECT url FROM dispatcher.endpoints",
    "SELECT * FROM dispatcher.deliveries",
    "SELECT body FROM dispatcher.schedule_versions",
    "SELECT key_sha256 FROM dispatcher.api_keys",
    "UPDATE dispatcher.endpoints SET url = 'https://elsewhere.example.com/'",
    "UPDATE dispatcher.idempotency SET key = 'x'",
    "DELETE FROM dispatcher.idempotency",
    "DELETE FROM dispatcher.wakes",
    "INSERT INTO dispatcher.deliveries (id, state) VALUES (gen_random_uuid(), 'in_flight')",
    "INSERT INTO dispatcher.events_default (id) VALUES (gen_random_uuid())",
    "CREATE TABLE dispatcher.mine (id int)",
    "TRUNCATE dispatcher.events",
]


def test_the_server_refuses_it_the_rest(producer: Producer) -> None:
    with producer.session() as session:
        for statement in REFUSED:
            with pytest.raises(ProgrammingError, match="permission denied"), session.begin_nested():
                session.execute(text(statement))


def test_a_role_that_does_not_exist_is_named(owner: Engine) -> None:
    with owner.begin() as connection:
        for role in ("nobody there", "PUBLIC", "", 'x"; DROP SCHEMA dispatcher CASCADE; --', "a\0b"):
            with pytest.raises(NotFound, match="there is no role"):
                grant_producer(connection, role)


def test_the_owner_keeps_what_it_has(owner: Engine) -> None:
    with owner.begin() as connection:
        grant_producer(connection, connection.execute(text("SELECT current_user")).scalar_one())
        walk.add_endpoint(connection)
        assert walk.emit(connection)[0].fanout == 1
        assert len(walk.live(connection)) == 1
