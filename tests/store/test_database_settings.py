"""What ALTER ROLE and ALTER DATABASE set does not matter, on our own connections and on a producer's."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from dispatcher import Event, emit_many, wiring
from dispatcher.cli.doctor import Patient
from dispatcher.clock import SYSTEM
from dispatcher.config import Settings
from dispatcher.flow import audit
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.store import migrate, partitions
from tests.api.callers import bearer, serving
from tests.support import walk
from tests.support.producers import ASYNC_DRIVERS, SYNC_DRIVERS, Bell, run
from tests.support.servers import drop_database, fresh_database

HOSTILE: Mapping[str, str] = {
    "TimeZone": "Pacific/Auckland",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "row_security": "off",
    "client_encoding": "LATIN1",
    "search_path": "elsewhere, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "77s",
    "lock_timeout": "77s",
    "idle_in_transaction_session_timeout": "77s",
    "idle_session_timeout": "77s",
    "work_mem": "64kB",
    "quote_all_identifiers": "on",
}

# Functions and operators of these names would be taken instead of PostgreSQL's by whoever trusts the search path.
ELSEWHERE = """
CREATE SCHEMA elsewhere;
CREATE FUNCTION elsewhere.statement_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
CREATE FUNCTION elsewhere.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'none' $$;
CREATE TABLE elsewhere.pg_class (oid oid, relname name, relnamespace oid, relispartition bool, relkind "char");
CREATE TABLE elsewhere.events (id uuid);
CREATE TABLE elsewhere.deliveries (id uuid)
"""


def set_of(what: LiteralString, name: sql.Identifier, setting: str) -> sql.Composed:
    """The statement that has a role or a database give a setting its hostile value."""
    values = sql.SQL(", ").join(map(sql.Literal, HOSTILE[setting].split(", ")))
    return sql.SQL("ALTER {} {} SET {} = {}").format(sql.SQL(what), name, sql.Identifier(setting), values)


@contextmanager
def changed(server: EmbeddedPostgres, names: Iterable[str], template: str = "template0") -> Iterator[str]:
    """The URL of a database that has hostile values of these settings, and so has the role that opens it."""
    url = fresh_database(server, template)
    database, role = make_url(url).database, f"role_{secrets.token_hex(6)}"
    assert database is not None
    with walk.connect(url) as connection:
        connection.execute(ELSEWHERE.encode())
        connection.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD 'p'").format(sql.Identifier(role)))
        ways: tuple[tuple[LiteralString, str], ...] = (("DATABASE", database), ("ROLE", role))
        for what, name in ways:
            for setting in names:
                connection.execute(set_of(what, sql.Identifier(name), setting))
    try:
        yield make_url(url).set(username=role, password="p").render_as_string(hide_password=False)
    finally:
        drop_database(server, url)
        with server.connect("postgres") as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture(scope="module")
def hostile(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    with changed(postgres, HOSTILE, migrated_template) as url:
        yield url


def settings_of(url: str) -> Settings:
    return Settings(database_url=url, secret_keys=walk.KEYS.reveal())


def test_the_hostile_settings_hold_where_nothing_is_done_against_them(hostile: str) -> None:
    with psycopg.connect(walk.hot_url(hostile)) as connection:
        for name, value in HOSTILE.items():
            assert connection.execute("SELECT pg_catalog.current_setting(%s)", [name]).fetchone() == (value,)


def shown(connection: Connection) -> dict[str, str]:
    names = [*HOSTILE, "plan_cache_mode", "transaction_timeout"]
    rows = connection.execute(
        text("SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY (:names)"), {"names": names}
    )
    return dict(iter(rows))


async def shown_by(engine: AsyncEngine) -> dict[str, str]:
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(shown)
    finally:
        await engine.dispose()


OPENED: dict[str, Callable[[Settings], dict[str, str]]] = {}
"""What holds on the first connection of each engine of ours."""


def opens(function: Callable[[Settings], dict[str, str]]) -> Callable[[Settings], dict[str, str]]:
    OPENED[function.__name__] = function
    return function


@opens
def command_line(settings: Settings) -> dict[str, str]:
    engine = wiring.engine(settings)
    try:
        with engine.connect() as connection:
            return shown(connection)
    finally:
        engine.dispose()


@opens
def api(settings: Settings) -> dict[str, str]:
    return asyncio.run(shown_by(wiring.api_engine(settings, connections=1)))


@opens
def workers(settings: Settings) -> dict[str, str]:
    return asyncio.run(shown_by(wiring.hot_engine(settings, connections=1)))


@opens
def diagnosis(settings: Settings) -> dict[str, str]:
    with Patient(lambda: settings).connect() as connection:
        return shown(connection)


@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED)
def test_every_connection_of_ours_has_the_settings_that_it_needs(
    opened: Callable[[Settings], dict[str, str]], hostile: str, migrated_database_url: str
) -> None:
    found, plain = opened(settings_of(hostile)), opened(settings_of(migrated_database_url))
    for held in (found, plain):
        for name in ("work_mem", "quote_all_identifiers"):  # which matter to nothing but how a list is shown
            del held[name]
        held["search_path"] = held["search_path"].replace('"', "")
    assert found == plain
    assert (found["TimeZone"], found["DateStyle"], found["search_path"]) == ("UTC", "ISO, MDY", "pg_catalog, pg_temp")


# The same life of some events, on a plain database and on one with hostile settings.

WAIT_S = 12345.678
"""A first wait that a few digits cannot write."""

NAMES = ("ordre-é", "заказ-€-𝄞")
"""Of objects: in LATIN1, and beyond it."""


def emitted(url: str, driver: str) -> None:
    """Emits events on a producer's own session, and again."""
    key = secrets.token_hex(4)
    events = [
        Event(type="payment.completed", payload={"name": name}, object_id=name, idempotency_key=f"{key} {name}")
        for name in NAMES
    ]

    def scenario(session: Session) -> list[bool]:
        first = emit_many(session, events, wakeup=Bell())
        session.commit()
        again = emit_many(session, events, wakeup=Bell())
        session.commit()
        return [accepted.duplicate for accepted in (*first, *again)]

    assert run(url, driver, scenario) == [False, False, True, True]


async def worked(settings: Settings) -> list[Any]:
    """Claims and records what is due, as a worker does; what it has claimed."""
    engine = wiring.hot_engine(settings, connections=1)
    try:
        async with engine.begin() as connection:
            worker_id = await connection.run_sync(partial(walk.add_worker, now=None))
        async with engine.begin() as connection:
            claims = await connection.run_sync(partial(walk.claim, worker_id=worker_id, now=None))
        results = [walk.result(claim, worker_id=worker_id, started_at=SYSTEM.now()) for claim in claims]
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(partial(walk.record, results=results, now=None))
        async with engine.connect() as connection:
            level = await connection.run_sync(lambda inner: inner.execute(text("SHOW transaction_isolation")).scalar())
        assert level == "read committed"
    finally:
        await engine.dispose()
    return sorted((claim.event.object_id, claim.event.payload) for claim in claims)


INSTANT = re.compile(r'"(\d{4}-\d\d-\d\dT[^"]*)"')


UTC = ("Z", "+00:00")
"""How an instant ends; the second in the audit log, which notes what was changed as text."""

LISTS = ("/v1/endpoints", "/v1/events", "/v1/deliveries", "/v1/audit_log", "/v1/statistics?by=endpoint", "/v1/keys")


async def served(url: str) -> dict[str, int]:
    """What the API answers, each instant in UTC; how many objects each list has."""
    found: dict[str, int] = {}
    async with serving(url) as client:
        client.headers.update(bearer())
        made = await client.post("/v1/endpoints", json={"url": "https://new.example.com/hook", "name": NAMES[1]})
        assert made.status_code == 201, made.text
        event = {"type": "refund.completed", "payload": {"n": 1}, "object_id": NAMES[1]}
        batch = await client.post("/v1/events/batch", json={"events": [event, event]})
        assert batch.status_code == 202, batch.text
        for path in LISTS:
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text
            assert [instant for instant in INSTANT.findall(answer.text) if not instant.endswith(UTC)] == [], path
            found[path] = len(answer.json().get("data", ()))
    return found


def lived(url: str) -> dict[str, Any]:
    """What comes of some events, but for what differs by the clock."""
    settings = settings_of(url)
    commands = wiring.engine(settings)
    try:
        with commands.begin() as connection:
            walk.add_schedule(connection, WAIT_S)
            walk.add_endpoint(connection)
            late = walk.add_endpoint(connection, schedule="test")
        for driver in (*SYNC_DRIVERS, *ASYNC_DRIVERS):
            emitted(url, driver)
        claimed = asyncio.run(worked(settings))
        answered = asyncio.run(served(url))
        with commands.begin() as connection:
            violations = audit.verify(connection)
        waited = waits(url, late.id)
    finally:
        commands.dispose()
    return {"claimed": claimed, "answered": answered, "violations": violations, "waited": waited}


def waits(url: str, endpoint_id: UUID) -> set[bool]:
    """Whether deliveries to the endpoint were due after its schedule's first wait."""
    with walk.connect(url) as connection:
        rows = connection.execute(
            """SELECT pg_catalog.date_part('epoch', due_at - created_at)::pg_catalog.int4
            FROM dispatcher.deliveries WHERE endpoint_id = %s""",
            [endpoint_id],
        )
        return {abs(wait - WAIT_S) < 600 for (wait,) in rows}


def test_an_event_lives_the_same_life_whatever_the_database_has_set(hostile: str, migrated_database_url: str) -> None:
    life = lived(migrated_database_url)
    assert life["violations"] == []
    assert life["waited"] == {True}
    assert lived(hostile) == life


def test_a_database_with_any_settings_can_be_migrated(postgres: EmbeddedPostgres) -> None:
    with changed(postgres, HOSTILE) as url:
        wiring.prepare_database(settings_of(url))
        wiring.check_database(settings_of(url))
        engine = wiring.engine(settings_of(url))
        with engine.begin() as connection:
            assert migrate.current(connection) == migrate.head()
            assert partitions.ensure(connection) == []
        engine.dispose()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_producer_may_have_any_setting_on_its_session(
    postgres: EmbeddedPostgres, producers_database: tuple[str, UUID], name: str
) -> None:
    url, endpoint_id = producers_database
    role = sql.Identifier(make_url(url).username or "")
    with postgres.connect("postgres") as connection:
        connection.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(role))
        connection.execute(set_of("ROLE", role, name))
    with walk.connect(url) as connection:
        connection.execute("DELETE FROM dispatcher.deliveries")
    for driver in (*SYNC_DRIVERS, *ASYNC_DRIVERS):
        emitted(url, driver)
    assert waits(url, endpoint_id) == {True}


@pytest.fixture(scope="module")
def producers_database(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[str, UUID]]:
    """A database that a producer opens with a role of its own, and an endpoint there."""
    with changed(postgres, {}, migrated_template) as url:
        engine = wiring.engine(settings_of(url))
        with engine.begin() as connection:
            walk.add_schedule(connection, WAIT_S)
            late = walk.add_endpoint(connection, schedule="test")
        engine.dispose()
        yield url, late.id
