"""The API over HTTP, as commands reach it: one server for a test process, and the application of the test that runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import uvicorn
from anyio.from_thread import start_blocking_portal

from dispatcher.api.app import make_app
from dispatcher.config import Settings
from dispatcher.local import processes
from dispatcher.local.files import write_secret
from dispatcher.local.running import Running

KEY = "dcl_" + "test" * 10
"""The key of the command line."""


class ApiServer:
    """Serves, on a thread of its own, the application of the settings that are current; it is made when it is asked."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(
            self._serve,
            log_config=None,
            access_log=False,
            lifespan="off",
            interface="asgi3",
            timeout_graceful_shutdown=5,  # a client that a failed test left open is not waited for
        )
        self._server = uvicorn.Server(config)
        self._served = self._portal.start_task_soon(self._server.serve, [self._listener])
        self._settings: Callable[[], Settings] | None = None
        self._application: tuple[Any, Any] | None = None
        self._making = asyncio.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # uvicorn asks its clock ten times a second whether it shall stop; where a test stopped the time in between, it
        # never asks again.
        self._portal.call(self._hang_up)
        self._served.cancel()
        self._stack.close()

    @contextmanager
    def on(self, settings: Callable[[], Settings]) -> Iterator[str]:
        """Serves the application on these settings, read at the first request; its URL."""
        self._settings = settings
        try:
            yield self.url
        finally:
            self._settings = None
            self._portal.call(self._leave)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._making:
            if self._application is None:
                assert self._settings is not None, "a request after its test"
                app = make_app(self._settings(), command_line_key=KEY)
                life = app.router.lifespan_context(app)
                await life.__aenter__()
                self._application = app, life
        await self._application[0](scope, receive, send)

    async def _hang_up(self) -> None:
        for server in self._server.servers:
            server.close()
        for connection in tuple(self._server.server_state.connections):
            connection.transport.abort()

    async def _leave(self) -> None:
        if self._application is not None:
            await self._application[1].__aexit__(None, None, None)
            self._application = None


def note_running(data_dir: Path, url: str, *, database_url: str, key: str = KEY) -> None:
    """Has commands find an API, as `up` does: the process that runs on the data directory is this one."""
    ourselves = processes.identify(os.getpid())
    assert ourselves is not None
    running = Running(ourselves.pid, ourselves.started, url, database_url, "redis://127.0.0.1:1/0", key)
    write_secret(data_dir / "running", json.dumps(asdict(running)))
