"""An application behind the API's own server, on a loopback port, in a thread; and callers that write raw bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from fastapi import FastAPI

from dispatcher.api.connections import Limits, Lobby
from dispatcher.api.serve import listen, server
from dispatcher.config import Settings
from tests.support.patience import PATIENCE_S, until


class Served:
    """What is served, and where."""

    def __init__(self, app: FastAPI, lobby: Lobby) -> None:
        self.app = app
        self.lobby = lobby
        self._listener = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.url = "http://{}:{}".format(*self.address)
        self._server = server(app, lobby)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive(), "the server has started")
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def connect(self) -> Caller:
        return Caller(self.address)


@contextmanager
def served(app: FastAPI, lobby: Lobby | None = None, **limits: Any) -> Iterator[Served]:
    """Serves until the context ends; `limits` are settings, of an application that is not the API."""
    lobby = lobby or getattr(app.state, "lobby", None) or Lobby(Limits.of(Settings(**limits)), time.monotonic)
    found = Served(app, lobby)
    try:
        yield found
    finally:
        found.stop()


class Caller:
    """One connection of a caller who writes what they like."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE_S)

    def send(self, *parts: bytes) -> Caller:
        """Sends until the other side has had enough."""
        try:
            for part in parts:
                self.socket.sendall(part)
        except OSError:
            pass  # what the other side has said, `answer` tells
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer: its status, headers and body. A status of 0: the connection was closed without a word."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            try:
                byte = self.socket.recv(1)
            except ConnectionError:
                byte = b""
            if not byte:
                return 0, {}, head
            head += byte
        status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        while len(body) < int(headers.get("content-length", 0)):
            part = self.socket.recv(int(headers["content-length"]) - len(body))
            assert part, "the connection was closed within a body"
            body += part
        return int(status_line.split()[1]), headers, body

    def is_closed(self) -> bool:
        """Waits until the other side closes; False where it sends something."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
