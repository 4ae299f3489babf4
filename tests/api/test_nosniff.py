"""Every answer tells browsers to take its media type as it is stated, whoever writes the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dispatcher.api.app import make_app
from dispatcher.config import Settings
from tests.support import walk
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server without a database, with two routes that fail."""
    app = make_app(
        Settings(database_url="postgresql+psycopg://x@127.0.0.1:1/x", secret_keys=walk.KEYS.reveal()), prepare=False
    )

    @app.get("/defect", include_in_schema=False)
    async def defect() -> None:
        raise RuntimeError("a defect")

    @app.get("/cancelled", include_in_schema=False)
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with served(app) as found:
        yield found


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "host: x", *headers, "", ""]).encode()


ANSWERS = {
    "an answer": (get("/healthz"), 200),
    "the document": (get("/openapi.json"), 200),
    "the page": (get("/docs"), 200),
    "a file of the page": (get("/docs/docs.js"), 200),
    "no key": (get("/v1/events"), 401),
    "no such path": (get("/none"), 404),
    "no such method": (get("/healthz", method="DELETE"), 405),
    "no database": (get("/readyz"), 503),
    "a defect": (get("/defect"), 500),
    "a defect that only uvicorn answers": (get("/cancelled"), 500),
    "too many headers, by the connection": (get("/healthz", *[f"x-{n}: 1" for n in range(200)]), 431),
    "no HTTP, by the connection": (b"nonsense\r\n\r\n", 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_says_nosniff(server: Served, request_bytes: bytes, status: int) -> None:
    with server.connect() as caller:
        answered, headers, _ = caller.send(request_bytes).answer()
    assert answered == status
    assert headers.get("x-content-type-options") == "nosniff"
