"""The API's process."""

from __future__ import annotations

import gc
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn

from dispatcher import config, telemetry, wiring
from dispatcher.api.app import make_app
from dispatcher.api.connections import EVERY_ANSWER, Connection, Lobby, Server
from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    import asyncio

    from fastapi import FastAPI

_log = logging.getLogger(__name__)


def main() -> None:
    """Serves until SIGTERM.

    Raises ConfigurationError where settings are missing, Unavailable where the database or the port cannot be used.
    """
    settings = config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    wiring.require(settings, "database_url", "secret_keys")
    if settings.broker_url is None:
        telemetry.log(_log, logging.WARNING, "api.without_broker", setting="DISPATCHER_BROKER_URL")
    app = make_app(settings, command_line_key=os.environ.get(config.COMMAND_LINE_KEY) or None)
    gc.collect()
    gc.freeze()  # the modules are walked through no more: that took 80 ms, and one call in a hundred waited (measured)
    wiring.check_database(settings)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        telemetry.log(_log, logging.INFO, "api.started", host=host, port=port)
        server(app, app.state.lobby, os.environ.pop(config.PULSE, None)).run(sockets=[listener])


def server(app: FastAPI, lobby: Lobby, pulse_pipe: str | None = None) -> Server:
    """The server of an application, its connections bounded by the lobby; `pulse_pipe` as in `dispatcher.pulse`."""
    lobby.fit_files()
    uvicorns = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, lobby=lobby)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=list(EVERY_ANSWER.items()),
        timeout_graceful_shutdown=10,
    )
    return Server(uvicorns, lobby, pulse_pipe)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Unavailable where the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
