"""Tells the scheduler that something was committed, so that it need not poll for it.

A wake-up is a hint: it may be lost or doubled and nothing changes but a few milliseconds. It is published by a
thread of its own, so a producer neither waits for Redis nor notices that Redis is away.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

import redis

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNEL: Final = "dispatcher.wakeup"

COALESCE_S: Final = 0.005
"""At most one wake-up in this time and process: under load the scheduler has one to hear anyway."""

_log = logging.getLogger(__name__)


class Wakeup:
    """Publishes wake-ups to the broker at `url`; without one, or with one that is no Redis, does nothing.

    Safe to call from any thread and from a forked child.
    """

    def __init__(self, url: str | None, *, publish: Callable[[], object] | None = None) -> None:
        self._url = url if url is not None and url.startswith(("redis", "unix")) else None
        self._publish = publish
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._pid: int | None = None

    def ring(self) -> None:
        """Asks for a wake-up and returns at once."""
        if self._url is None and self._publish is None:
            return
        if self._pid != os.getpid():
            self._start()
        self._wanted.set()

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._wanted = threading.Event()
            threading.Thread(target=self._run, args=(self._wanted,), name="dispatcher-wakeup", daemon=True).start()
            self._pid = os.getpid()

    def _run(self, wanted: threading.Event) -> None:
        publish = self._publish or self._publisher()
        while True:
            wanted.wait()
            wanted.clear()
            try:
                publish()
            except redis.RedisError as error:
                _log.warning("wakeup.failed error=%s", error)
            threading.Event().wait(COALESCE_S)

    def _publisher(self) -> Callable[[], object]:
        assert self._url is not None
        client = redis.Redis.from_url(self._url, socket_timeout=1, socket_connect_timeout=1)
        return lambda: client.publish(CHANNEL, b"")
