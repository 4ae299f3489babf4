"""The application over ASGI, on a real database, for an operator and for tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import Engine, text

from dispatcher.api.app import make_app
from dispatcher.config import Settings
from dispatcher.ids import format_id, uuid7
from dispatcher.store import tenants
from tests.support import walk
from tests.support.answers import Checked

OPERATOR = "operator-key"


@pytest.fixture
async def api(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=Checked(httpx.ASGITransport(app)),
            base_url="http://test",
            headers={"authorization": f"Bearer {OPERATOR}"},
        ) as client,
    ):
        yield client


def other_tenant(engine: Engine) -> tuple[str, str]:
    """A second tenant: its id and its key."""
    tenant_id, key = uuid7(), "tenant-key"
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dispatcher.tenants (id, name) VALUES (:id, 'other')"), {"id": tenant_id})
        tenants.add_key(connection, uuid7(), key, name="theirs", tenant_id=tenant_id)
    return format_id("ten", tenant_id), key
