"""A client whose API runs in this process, on a database that is named: what a command uses where no server is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx
from anyio.from_thread import start_blocking_portal

from dispatcher.api.app import make_app
from dispatcher.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.from_thread import BlockingPortal
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dispatcher.config import Settings

_URL: Final = "http://in-process"


@contextmanager
def client(settings: Settings, *, actor: str) -> Iterator[Client]:
    """A client of the API on these settings, as the operator `actor`. The API's life is that of the context.

    The API runs on an event loop in a thread of its own, so the client is like any other.
    """
    app = make_app(settings, prepare=False)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        Client(_URL, transport=Bridge(app, portal, actor)) as found,
    ):
        yield found


class Bridge(httpx.BaseTransport):
    """Passes requests to an application on the portal's event loop, in the name of `actor`.

    The name is put into the scope, where nothing that came over a network can put it.
    """

    def __init__(self, app: ASGIApp, portal: BlockingPortal, actor: str) -> None:
        async def named(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "dispatcher.actor": actor}, receive, send)

        self._asgi = httpx.ASGITransport(named)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The application's answer, whole. A defect of the application is raised, not answered."""
        return self._portal.call(self._ask, request.method, request.url, request.headers, request.read())

    async def _ask(self, method: str, url: httpx.URL, headers: httpx.Headers, body: bytes) -> httpx.Response:
        answer = await self._asgi.handle_async_request(httpx.Request(method, url, headers=headers, content=body))
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)
