"""Producers' own sessions, over each driver that they may have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from redis.client import PubSub
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dispatcher import Wakeup
from dispatcher.local.postgres import EmbeddedPostgres
from tests.support import walk
from tests.support.servers import drop_database, fresh_database

SYNC_DRIVERS = ("psycopg", "psycopg2")
ASYNC_DRIVERS = ("psycopg_async", "asyncpg")


class Bell(Wakeup):
    """Notes each time that it is rung, and what `seen` finds at that moment."""

    def __init__(self, seen: Callable[[], object] = lambda: None) -> None:
        super().__init__(None)
        self._seen = seen
        self.rung: list[object] = []

    def ring(self) -> None:
        self.rung.append(self._seen())


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql+psycopg://", f"postgresql+{driver}://", 1)


def run(url: str, driver: str, scenario: Callable[[Session], Any]) -> Any:
    """Runs the scenario on a session of this driver; under asyncio it runs inside `AsyncSession.run_sync`."""
    if driver in SYNC_DRIVERS:
        engine = create_engine(with_driver(url, driver), poolclass=NullPool)
        with Session(engine) as session:
            return scenario(session)

    async def main() -> Any:
        engine = create_async_engine(with_driver(url, driver), poolclass=NullPool)
        async with AsyncSession(engine) as session:
            return await session.run_sync(scenario)

    return asyncio.run(main())


def producer_engine(url: str, **values: Any) -> Engine:
    """An engine as a producer has it: none of our settings."""
    return create_engine(url, **values)


def count(connection: Connection, table: str) -> int:
    found: int = connection.execute(text(f"SELECT count(*) FROM dispatcher.{table}")).scalar_one()
    return found


def hears(subscription: PubSub, timeout_s: float = 10.0) -> bool:
    """Whether a wake-up arrives."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        message = subscription.get_message(timeout=0.1)
        if message is not None and message["type"] == "message":
            return True
    return False


_WRITTEN = """deliveries ended_deliveries attempts events idempotency wakes lanes endpoint_history endpoints workers"""


def shared_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The URL of a database for a whole module of tests; call `wipe` before each of them."""
    url = fresh_database(server, template)
    yield url
    drop_database(server, url)


def wipe(url: str) -> str:
    """Deletes what tests have written: a tenth of the time that another copy of the template takes."""
    with walk.connect(url) as connection:
        for table in _WRITTEN.split():
            connection.execute(f"DELETE FROM dispatcher.{table}")
        connection.execute("DELETE FROM dispatcher.tenants WHERE name <> 'default'")
        connection.execute("DROP TABLE IF EXISTS orders")
    return url
