"""Tells the scheduler that something was committed, so that it need not poll for it.

A wake-up is a hint: it may be lost or doubled and nothing changes but a few milliseconds. It is published by a
thread of its own, so a producer neither waits for Redis nor notices that Redis is away.

redis-py is imported only where a Redis is named. A producer that does not have it (the extra `wakeup`) sends no
wake-ups, and the scheduler polls.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from dispatcher import telemetry
from dispatcher.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNEL: Final = "dispatcher.wakeup"

BELL_QUEUE: Final = "dispatcher.bells"
"""The queue of the workers' bells; for Redis, the list that holds them."""

COALESCE_S: Final = 0.01
"""At most one wake-up in this time and process: having heard one, the scheduler looks no sooner again (its tick)."""

RETRY_S: Final = 1.0
"""How long a broker that did not take a wake-up is left alone."""

TIMEOUT_S: Final = 1.0
"""For connecting to the broker, and for each answer of it."""

EXIT_S: Final = 0.1
"""How long the interpreter's exit waits for the last wake-up, which it would otherwise cut off."""

_log = logging.getLogger(__name__)


def redis_url(broker_url: str | None) -> str | None:
    """The URL by which redis-py knows a Celery broker, the first one of several; None where it is not Redis.

    >>> redis_url("redis+socket:///run/redis.sock?virtual_host=2")
    'unix:///run/redis.sock?db=2'
    >>> redis_url("rediss://cache:6380/0?ssl_cert_reqs=CERT_REQUIRED;rediss://other:6380/0")
    'rediss://cache:6380/0?ssl_cert_reqs=required'
    >>> redis_url("amqp://rabbit")
    """
    scheme, separator, rest = (broker_url or "").partition(";")[0].partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix", "redis+socket"):
        return None
    place, _, query = rest.partition("?")
    options = [
        (
            "db" if name == "virtual_host" else name,
            value.removeprefix("CERT_").lower() if "cert_reqs" in name else value,
        )
        for name, value in parse_qsl(query)
    ]
    return f"{scheme.replace('redis+socket', 'unix')}://{place}" + (f"?{urlencode(options)}" if options else "")


def broker_name(broker_url: str) -> str:
    """The broker's addresses, without user, password and options, for a log or a person.

    >>> broker_name("rediss://user:p%40ss@cache:6380/0?ssl_cert_reqs=required")
    'rediss://cache:6380/0'
    >>> broker_name("amqp://a:b@mq1//;amqp://a:b@mq2//")
    'amqp://mq1//;amqp://mq2//'
    """
    return ";".join(re.sub(r"://[^/]*@", "://", url.partition("?")[0]) for url in broker_url.split(";"))


class Wakeup:
    """Publishes wake-ups to the Redis at `url`, in Celery's notation or redis-py's; does nothing for any other broker.

    Make one for a process: it keeps a thread and a connection. Safe to call from any thread and from a forked
    child; never blocks and never raises. `publish` stands in for the broker in tests.

    Without redis-py it logs so once and does nothing.
    """

    def __init__(self, url: str | None, *, publish: Callable[[], object] | None = None) -> None:
        self._url = redis_url(url)
        self._publish = publish
        if self._url is not None and publish is None and not _has_redis():
            self._url = None
        self._after_fork()
        _all.add(self)

    def _after_fork(self) -> None:
        """Threads do not follow into a forked child, and a lock that one of them held stays held there for ever."""
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._started = False
        self._publishing = False
        self._failing = False

    def ring(self) -> None:
        """Asks for a wake-up and returns at once."""
        if self._url is None and self._publish is None:
            return
        self._wanted.set()
        if not self._started:
            self._start()

    def flush(self, timeout_s: float) -> bool:
        """Waits until what was asked for is published; False where the time did not suffice or the broker is away."""
        until = time.monotonic() + timeout_s
        while self._started and (self._wanted.is_set() or self._publishing):
            if self._failing or time.monotonic() > until:
                return False
            time.sleep(0.001)
        return not self._failing

    def _start(self) -> None:
        with self._starting:
            if self._started:
                return
            try:
                threading.Thread(target=self._run, name="dispatcher-wakeup", daemon=True).start()
            except RuntimeError:  # no more threads, or the interpreter is leaving: the scheduler polls
                return
            self._started = True

    def _run(self) -> None:
        publish = self._publish
        while True:
            self._wanted.wait()
            self._publishing = True  # before `clear`: one of the two says so at any time
            self._wanted.clear()
            try:
                publish = publish or self._connect()
                publish()
            except Exception as error:  # noqa: BLE001 - the thread's edge: whatever it is, the next wake-up may pass
                if not self._failing:
                    shown = error if _is_of_redis(error) else type(error).__name__
                    telemetry.log(_log, logging.WARNING, "wakeup.failed", error=shown)
                self._failing = True
            else:
                self._failing = False
            self._publishing = False
            time.sleep(RETRY_S if self._failing else COALESCE_S)

    def _connect(self) -> Callable[[], object]:
        import redis  # noqa: PLC0415 - see the module's docstring
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        assert self._url is not None
        client = redis.Redis.from_url(
            self._url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # once: the server may have dropped a connection that was idle
        )
        return lambda: client.publish(CHANNEL, b"")


def _has_redis() -> bool:
    """Imports redis-py, or logs which extra has it.

    Not in the wake-up's thread: a process that forks during an import has a child in which that import never ends.
    """
    try:
        import redis  # noqa: F401, PLC0415 - see the module's docstring
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "the scheduler polls, since wake-ups need redis-py")
        if missing is None:
            raise
        telemetry.log(_log, logging.WARNING, "wakeup.unavailable", error=missing)
        return False
    return True


def _is_of_redis(error: Exception) -> bool:
    redis = sys.modules.get("redis")  # whatever it raises, it has been imported
    return redis is not None and isinstance(error, redis.RedisError)


_all: weakref.WeakSet[Wakeup] = weakref.WeakSet()


def _after_fork() -> None:
    for wakeup in list(_all):
        wakeup._after_fork()  # noqa: SLF001 - of this module


def _at_exit() -> None:
    until = time.monotonic() + EXIT_S
    for wakeup in list(_all):
        wakeup.flush(max(0.0, until - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
