"""Every search has its time limit: whoever asks for too much is told what to narrow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.api.app import make_app
from dispatcher.config import Settings
from dispatcher.store import limits
from tests.api.operations import OPERATIONS, Operation
from tests.support import walk

NO_SEARCHES = {"GET /v1/schedules/{name}/preview"}
"""What has parameters and reads one object."""

BODIES: dict[str, Any] = {
    "POST /v1/replays/preview": {"event_type": "payment.completed"},
    "POST /v1/replays": {"event_type": "payment.completed"},
    "POST /v1/cancellations/preview": {"event_type": "payment.completed"},
    "POST /v1/cancellations": {"event_type": "payment.completed"},
    "POST /v1/endpoints/{endpoint_id}/recover": {"since": "2026-03-02T09:00:00Z"},
}
"""What counts all that a filter chooses."""


def is_search(operation: Operation) -> bool:
    """Whether it reads what a caller chooses by conditions, or page by page."""
    if operation.method != "GET":
        return str(operation) in BODIES
    has_conditions = bool(operation.parameters("query")) and str(operation) not in NO_SEARCHES
    return has_conditions or operation.path.endswith("/explain")


SEARCHES = [one for one in OPERATIONS if is_search(one)]


@pytest.fixture
async def local(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client on this machine: whose it is, no table has to tell."""
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal()))

    async def named(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "dispatcher.actor": "cli:test"}, receive, send)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(named), base_url="http://test") as client,
    ):
        yield client


def test_searches_are_found() -> None:
    assert {str(one) for one in SEARCHES} >= {*BODIES, "GET /v1/deliveries", "GET /v1/find", "GET /v1/audit_log"}
    assert len(SEARCHES) >= 15


async def test_every_search_ends_while_its_tables_are_locked(
    local: httpx.AsyncClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEARCH_S", 0.02)
    monkeypatch.setattr(limits, "COUNT_S", 0.02)
    with engine.begin() as connection:
        tables = walk.rows(
            connection,
            "SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace AND relkind IN ('r', 'p')",
        )
        names = ", ".join(f"dispatcher.{name}" for (name,) in tables)
        connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        for operation in SEARCHES:
            params = {"q": "pay_1"} if operation.path == "/v1/find" else {}
            body = BODIES.get(str(operation))
            answer = await local.request(operation.method, operation.url(), params=params, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "SEARCH_TOO_BROAD"), (operation, answer.text)
            (fault,) = answer.json()["errors"]
            assert fault["detail"].startswith("found a search that takes longer than 0.02 s; allowed: "), operation
            named = {one["name"] for one in [*operation.parameters("query"), *operation.parameters("path")]}
            assert fault["pointer"] in named or (body is not None and fault["pointer"][0] == "/"), operation
    monkeypatch.undo()
    answer = await local.get("/v1/pauses")
    assert answer.status_code == 200, "the connections are still good"


async def test_the_limit_ends_with_the_search(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '7s'"))
        with limits.limited(connection), limits.limited(connection, limit_s=0.5):
            assert walk.rows(connection, "SHOW statement_timeout") == [("500ms",)]
        assert walk.rows(connection, "SHOW statement_timeout") == [("7s",)]
