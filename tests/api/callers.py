"""Whoever calls the API: with keys of any scope, or signing by HMAC, on an application whose time a test moves."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx

from dispatcher.api.app import make_app
from dispatcher.clock import Clock
from dispatcher.config import Settings
from tests.api.conftest import OPERATOR
from tests.support import walk

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass
class Time:
    """The application's clocks, which stand still until they are moved."""

    now: datetime = AT
    monotonic_s: float = 1000.0

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic_s += seconds


@asynccontextmanager
async def serving(url: str, time: Time | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """An application of its own, and a client of it without a key."""
    app = make_app(Settings(database_url=url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR))
    if time is not None:
        app.user_middleware[0].kwargs["monotonic"] = lambda: time.monotonic_s
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        if time is not None:
            app.state.context = replace(app.state.context, clock=Clock(now=lambda: time.now))
        yield client


def bearer(key: str = OPERATOR) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def make_key(client: httpx.AsyncClient, *, by: str = OPERATOR, **asked: Any) -> Any:
    """A new key, as the answer has it."""
    answer = await client.post("/v1/keys", json={"name": "test"} | asked, headers=bearer(by))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def make_tenant(client: httpx.AsyncClient, name: str, **asked: Any) -> Any:
    """A new tenant, as the answer has it."""
    answer = await client.post("/v1/tenants", json={"name": name} | asked, headers=bearer())
    assert answer.status_code == 201, answer.text
    return answer.json()


def signature_headers(
    key: Any, method: str, target: str, body: bytes = b"", *, timestamp: str | None = None
) -> dict[str, str]:
    """As docs/authentication.md says, and not by the application's own functions."""
    timestamp = timestamp or AT.isoformat()
    secret = b64decode(key["signing_secret"].removeprefix("hmsec_"))
    text = "\n".join([timestamp, method, target, sha256(body).hexdigest()])
    signature = hmac.new(secret, text.encode(), sha256).digest()
    return {"x-api-key": key["id"], "x-timestamp": timestamp, "x-signature": b64encode(signature).decode()}
