"""Tells the scheduler that something was committed, so that it need not poll for it.

A wake-up is a hint: it may be lost or doubled and nothing changes but a few milliseconds. It is published by a
thread of its own, so a producer neither waits for Redis nor notices that Redis is away.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    """The URL by which redis-py knows a Celery broker, the first one of several; None where it is no Redis.

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
    """

    def __init__(self, url: str | None, *, publish: Callable[[], object] | None = None) -> None:
        self._url = redis_url(url)
        self._publish = publish
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
                    said = " ".join(str(error).split()) if isinstance(error, redis.RedisError) else type(error).__name__
                    _log.warning("wakeup.failed error=%s", said)
                self._failing = True
            else:
                self._failing = False
            self._publishing = False
            time.sleep(RETRY_S if self._failing else COALESCE_S)

    def _connect(self) -> Callable[[], object]:
        assert self._url is not None
        client = redis.Redis.from_url(
            self._url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # once: the server may have dropped a connection that was idle
        )
        return lambda: client.publish(CHANNEL, b"")


class BrokerRefuses(Unavailable):
    """The broker answers, and takes no message. `advice` says what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


def try_write(broker_url: str | None) -> float:
    """How many seconds the Redis takes for a message, which no worker sees.

    Raises BrokerRefuses where it takes none, Unavailable where it does not answer.
    """
    with _looked_at(broker_url) as client:
        asked_s = time.monotonic()
        try:
            # A transaction: who waits for a message is served when it has ended, and by then there is none.
            pipeline = client.pipeline(transaction=True)
            pipeline.lpush(BELL_QUEUE, b"")
            pipeline.lpop(BELL_QUEUE)
            pipeline.execute()
        except redis.ResponseError as error:
            raise _refusal(error, client, broker_name(broker_url or "")) from error
        return time.monotonic() - asked_s


def _refusal(error: redis.ResponseError, client: redis.Redis, name: str) -> BrokerRefuses:
    said = " ".join(str(error).split()).partition(" of pipeline caused error: ")
    why = said[2] or said[0]
    match error:
        case redis.OutOfMemoryError():
            return BrokerRefuses(
                f"the broker {name} is full (OOM): {why}", "Raise its maxmemory, or remove what fills it."
            )
        case redis.ReadOnlyError():
            try:
                found = client.info("replication")
            except redis.RedisError:  # not every user may ask
                found = {}
            replica = found.get("role") == "slave"
            what = f"a replica of {found['master_host']}:{found['master_port']}" if replica else "read-only"
            return BrokerRefuses(f"the broker {name} is {what} (READONLY): {why}", "Name the primary instead.")
        case _:
            return BrokerRefuses(f"the broker {name} takes no message: {why}", "Look at its configuration and users.")


def listeners(broker_url: str | None) -> int:
    """How many schedulers hear wake-ups now. Raises Unavailable."""
    with _looked_at(broker_url) as client:
        ((_, count),) = client.pubsub_numsub(CHANNEL)
        return int(count)


@contextmanager
def _looked_at(broker_url: str | None) -> Iterator[redis.Redis]:
    url = redis_url(broker_url)
    if url is None:
        raise Unavailable("the broker is no Redis")
    try:
        with redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        ) as client:
            yield client
    except redis.RedisError as error:
        said = " ".join(str(error).split())
        raise Unavailable(f"the broker {broker_name(broker_url or '')} does not answer: {said}") from error


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
