"""Behind PgBouncer in transaction mode: the API and `emit()` work; whatever cannot work there says what it needs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dispatcher import Event, config, emit, emit_many, wiring
from dispatcher.cli import doctor
from dispatcher.cli.doctor import Finding, Patient
from dispatcher.config import Settings
from dispatcher.errors import ConfigurationError
from dispatcher.flow import audit
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.store import sessions
from dispatcher.workers import process, scheduler
from tests.api.callers import bearer, make_key, serving
from tests.support import walk
from tests.support.pooler import PROGRAM, Pooler
from tests.support.producers import Bell
from tests.support.servers import drop_database, fresh_database

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer")

HOSTILE = (
    "TimeZone = 'Pacific/Auckland'",
    "DateStyle = 'SQL, DMY'",
    "search_path = 'nowhere'",
    "client_encoding = LATIN1",
)


@pytest.fixture(scope="module")
def direct_url(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A database that has settings of its own."""
    url = fresh_database(postgres, migrated_template)
    name = url.partition("@/")[2].partition("?")[0]
    with walk.connect(url) as connection:
        for setting in HOSTILE:
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    yield url
    drop_database(postgres, url)


@pytest.fixture(scope="module")
def pooler(direct_url: str) -> Iterator[Pooler]:
    with Pooler(direct_url) as pooler:
        yield pooler


@pytest.fixture
def settings(pooler: Pooler, redis_server: EmbeddedRedis) -> Settings:
    """Without an address past the pooler."""
    return Settings(
        database_url=config.database_url(pooler.url), broker_url=redis_server.url, secret_keys=walk.KEYS.reveal()
    )


@pytest.fixture
def direct(settings: Settings, direct_url: str) -> Settings:
    """With one."""
    return replace(settings, direct_database_url=config.database_url(direct_url))


@pytest.fixture
async def api(pooler: Pooler) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(pooler.url) as client:
        client.headers.update(bearer())
        yield client


async def test_the_api_works_behind_a_pooler(api: httpx.AsyncClient) -> None:
    endpoint = await api.post("/v1/endpoints", json={"url": "https://shop.example.com/hook"})
    assert endpoint.status_code == 201, endpoint.text
    again = {"idempotency-key": "once"}
    event = {"type": "payment.completed", "payload": {"note": "€"}, "object_id": "заказ-1"}
    for round_ in range(7):  # more often than psycopg waits before it prepares
        single = await api.post("/v1/events", json=event, headers=again)
        assert single.status_code in {200, 202}, single.text
        assert single.json()["duplicate"] is (round_ > 0)
        batch = await api.post("/v1/events/batch", json={"events": [event, event, {"type": "no type"}]})
        assert batch.status_code == 202, batch.text
        pages = [await api.get(path) for path in ("/v1/events", "/v1/deliveries", "/v1/endpoints", "/v1/audit_log")]
        assert [page.status_code for page in pages] == [200] * 4
        assert all(instant["created_at"].endswith("Z") for instant in pages[0].json()["data"])
        made = await api.post("/v1/tenants", json={"name": f"shop {round_}"}, headers={"idempotency-key": f"{round_}"})
        same = await api.post("/v1/tenants", json={"name": f"shop {round_}"}, headers={"idempotency-key": f"{round_}"})
        assert (made.status_code, same.status_code, same.json()["id"]) == (201, 201, made.json()["id"])
    key = await make_key(api, scopes=["events:write"])
    mine = await api.post("/v1/events", json=event, headers=bearer(key["key"]))
    assert mine.status_code == 202, mine.text
    found = await api.get("/v1/deliveries", params={"object_id": "заказ-1", "limit": 100})
    assert len(found.json()["data"]) == 1 + 7 * 2 + 1


async def test_requests_at_once_leave_nothing_on_the_servers_of_the_pool(
    api: httpx.AsyncClient, pooler: Pooler
) -> None:
    answers = await asyncio.gather(
        *(api.post("/v1/events", json={"type": "payment.completed", "payload": n}) for n in range(30)),
        *(api.get("/v1/deliveries") for _ in range(30)),
    )
    assert {answer.status_code for answer in answers} == {200, 202}
    names = ("statement_timeout", "lock_timeout", "TimeZone", "search_path", "DateStyle")
    found = set()
    for _ in range(12):  # by turns, each server of the pool
        with psycopg.connect(walk.hot_url(pooler.url), autocommit=True, prepare_threshold=None) as connection:
            columns = ", ".join(f"current_setting('{name}')" for name in names)
            found.add(connection.execute(f"SELECT {columns}".encode()).fetchone())
            prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            assert prepared == (0,)
    assert found == {("0", "0", "Pacific/Auckland", "nowhere", "SQL, DMY")}


async def test_a_request_behind_a_pooler_waits_no_longer_for_a_lock_or_a_statement(settings: Settings) -> None:
    engine = wiring.api_engine(settings, connections=1)
    async with engine.connect() as connection:
        shown = await connection.execute(
            text("SELECT current_setting('lock_timeout'), current_setting('statement_timeout') <> '0'")
        )
        assert shown.one() == ("5s", True)
        assert await connection.run_sync(sessions.is_pooled)
    await engine.dispose()


async def test_the_api_goes_on_after_the_pooler_was_restarted(api: httpx.AsyncClient, pooler: Pooler) -> None:
    event = {"type": "payment.completed", "payload": {}}
    assert (await api.post("/v1/events", json=event)).status_code == 202
    pooler.stop()
    away = await api.post("/v1/events", json=event)
    assert away.status_code == 503, away.text
    pooler.start()

    async def works() -> bool:
        posted = await api.post("/v1/events", json=event)
        listed = await api.get("/v1/events")
        return (posted.status_code, listed.status_code) == (202, 200)

    for _ in range(100):
        if await works():
            break
    assert await works()


def test_a_command_of_this_machine_works_behind_a_pooler(settings: Settings) -> None:
    engine = wiring.engine(settings)
    with engine.begin() as connection:
        assert audit.verify(connection) == []
    for _ in range(8):
        with engine.begin() as connection:
            rows = connection.execute(
                text("SELECT id, created_at FROM dispatcher.tenants"), execution_options={"yield_per": 1}
            )
            assert {row.created_at.utcoffset().total_seconds() for row in rows} == {0}
    engine.dispose()


PAID = Event(type="payment.completed", payload={"amount": 1250}, object_id="pay_pooled")


def test_emit_works_behind_a_pooler_in_the_producers_transaction(pooler: Pooler, direct_url: str) -> None:
    before = emitted(direct_url)
    engines = {
        "psycopg": create_engine(pooler.url, connect_args={"prepare_threshold": None}),
        "psycopg2": create_engine(pooler.url.replace("+psycopg", "+psycopg2", 1)),
    }
    for engine in engines.values():
        for n in range(8):
            with Session(engine) as session:
                emit_many(session, [replace(PAID, idempotency_key=f"{engine.driver} {n}"), PAID], wakeup=Bell())
                session.rollback() if n % 2 else session.commit()
        engine.dispose()
    assert emitted(direct_url) == before + 2 * 4 * 2


async def test_emit_works_behind_a_pooler_on_asyncio_too(pooler: Pooler, direct_url: str) -> None:
    before = emitted(direct_url)
    engines = [
        create_async_engine(pooler.url, connect_args={"prepare_threshold": None}),
        create_async_engine(
            pooler.url.replace("+psycopg", "+asyncpg", 1),
            connect_args={
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: "",
            },
        ),
    ]
    for engine in engines:
        for _ in range(8):
            async with AsyncSession(engine) as session:
                await emit(session, PAID, wakeup=Bell())
                await session.commit()
        await engine.dispose()
    assert emitted(direct_url) == before + 2 * 8


def emitted(url: str) -> int:
    with walk.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM dispatcher.events WHERE object_id = 'pay_pooled'").fetchone()
    assert row is not None
    return int(row[0])


# What does not go through a pooler


def refused(settings: Settings) -> str:
    """What `migrate` says, and a worker's and a scheduler's start, all the same."""
    said = set()
    for start in (wiring.prepare_database, lambda settings: wiring.check_database(settings, direct=True)):
        with pytest.raises(ConfigurationError) as error:
            start(settings)
        said.add(str(error.value))
    assert len(said) == 1
    return said.pop()


def test_what_needs_postgresql_itself_refuses_a_pooler_and_names_the_setting(settings: Settings) -> None:
    said = refused(settings)
    assert said.startswith("DISPATCHER_DATABASE_URL: found a connection pooler")
    assert "DISPATCHER_DIRECT_DATABASE_URL" in said
    assert "\n" not in said
    wiring.check_database(settings)  # as the API does


def test_a_direct_address_that_is_a_poolers_is_refused(settings: Settings) -> None:
    said = refused(replace(settings, direct_database_url=settings.database_url))
    assert said.startswith("DISPATCHER_DIRECT_DATABASE_URL: found a connection pooler")


def test_a_pooler_that_ignores_start_up_options_is_found_out_too(direct_url: str) -> None:
    with Pooler(direct_url, connections=1, more="ignore_startup_parameters = options") as pooler:
        said = refused(Settings(database_url=pooler.url + "?options=-cjit%3Doff"))
        assert "DISPATCHER_DIRECT_DATABASE_URL" in said


def test_past_the_pooler_they_work(direct: Settings) -> None:
    wiring.prepare_database(direct)
    wiring.check_database(direct, direct=True)

    async def works() -> None:
        engine = wiring.hot_engine(direct, connections=1)
        async with engine.begin() as connection:
            assert not await connection.run_sync(sessions.is_pooled)
            await connection.run_sync(walk.add_worker, now=None)
        await engine.dispose()

    asyncio.run(works())


@pytest.mark.parametrize("main", [process.main, scheduler.main], ids=["worker", "scheduler"])
def test_a_worker_and_a_scheduler_do_not_start_behind_a_pooler(
    main: Callable[[Settings], None], settings: Settings
) -> None:
    with pytest.raises(ConfigurationError, match="name PostgreSQL itself in DISPATCHER_DIRECT_DATABASE_URL"):
        main(settings)


def test_up_on_a_database_behind_a_pooler_ends_with_the_same_sentence(settings: Settings, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    ended = subprocess.run(
        [sys.executable, "-m", "dispatcher", "up"],
        env={
            **kept,
            "DISPATCHER_DATABASE_URL": settings.database_url or "",
            "DISPATCHER_BROKER_URL": settings.broker_url or "",
            "DISPATCHER_SECRET_KEYS": walk.KEYS.reveal(),
            "DISPATCHER_DATA_DIR": str(tmp_path / "data"),
            "DISPATCHER_PORT": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "name PostgreSQL itself in DISPATCHER_DIRECT_DATABASE_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_direct_address_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="only beside DISPATCHER_DATABASE_URL"):
        config.load({"DISPATCHER_DIRECT_DATABASE_URL": "postgresql://u:secret@h/db"})


def test_the_doctor_looks_for_a_pooler(
    settings: Settings, direct: Settings, direct_url: str, migrated_database_url: str
) -> None:
    def examined(settings: Settings) -> Finding:
        patient = Patient(lambda: settings, data_dir=lambda: None)
        checks = [check for check in doctor.CHECKS if check.name in {"database", "pooler", "schema", "claims"}]
        found = dict(doctor.examine(patient, checks))
        assert {found[name].verdict for name in ("database", "schema", "claims")} == {"ok"}
        return found["pooler"]

    assert examined(direct).verdict == "ok"
    assert "through a pooler" in examined(direct).found
    assert examined(replace(settings, database_url=config.database_url(direct_url))).verdict == "ok"
    missing = examined(settings)
    assert missing.verdict == "failed"
    assert "DISPATCHER_DIRECT_DATABASE_URL is not set" in missing.found
    pooled = examined(replace(direct, direct_database_url=settings.database_url))
    assert (pooled.verdict, pooled.found) == (
        "failed",
        "DISPATCHER_DIRECT_DATABASE_URL leads through a connection pooler",
    )
    other = examined(replace(direct, direct_database_url=config.database_url(migrated_database_url)))
    assert other.verdict == "failed"
    assert "two databases" in other.found
