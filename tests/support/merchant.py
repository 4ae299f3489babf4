"""A merchant's web server on loopback, by TLS or plain: it keeps what it was sent and answers as a path was told to."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.patience import PATIENCE_S


@dataclass(frozen=True)
class Received:
    """One request. Header names are lower case; `target` is path and query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Merchant:
    """`url` ends without a slash. Unless `answers` has a status for it, a path answers 200."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def at(self, path: str) -> list[Received]:
        """What came to a path, pings included."""
        return [one for one in self.requests if urlsplit(one.target).path == path]

    def wait(self, path: str, count: int = 1, timeout_s: float = PATIENCE_S) -> list[Received]:
        """What came to a path, once it is so many."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while len(found := self.at(path)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {count} requests at {path}: {self.requests}"
                self.changed.wait(left)
        return found

    def _answer(self, request: Received) -> int:
        path = urlsplit(request.target).path
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
            return self.answers[path].pop(0) if self.answers[path] else self.always.get(path, 200)


@contextlib.contextmanager
def merchant(context: ssl.SSLContext | None = None) -> Iterator[Merchant]:
    """Serves on a free port of 127.0.0.1, by TLS with this context."""
    served = Merchant()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = served._answer(Received(self.command, self.path, headers, body))
            self.send_response(status)
            self.send_header("content-length", "0" if status == 204 else "2")
            self.end_headers()
            if status != 204:
                self.wfile.write(b"ok")

        do_POST = do_GET = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
