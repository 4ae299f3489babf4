"""Whether the Redis that carries bells and wake-ups takes messages, and who listens."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.errors import Unavailable
from dispatcher.wakeup import BELL_QUEUE, CHANNEL, TIMEOUT_S, broker_name, redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        raise Unavailable("the broker is not Redis")
    try:
        with redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        ) as client:
            yield client
    except redis.RedisError as error:
        said = " ".join(str(error).split())
        raise Unavailable(f"the broker {broker_name(broker_url or '')} does not answer: {said}") from error
