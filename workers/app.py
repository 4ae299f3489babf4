"""The Celery application, and the bell that is rung through it: all that is peculiar to Celery is decided here.

A message is a bell: it has no argument and says only "claim what you have room for". Losing one costs a tick of the
scheduler, receiving one twice an empty claim, so nothing is acknowledged late, kept, retried or given a countdown.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from dispatcher import telemetry
from dispatcher.wakeup import BELL_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE: Final = BELL_QUEUE

DELIVER: Final = "dispatcher.deliver"
"""The name of the one task."""

SOCKET_TIMEOUT_S: Final = 5
"""For connecting to the broker, and for each answer of it."""

_log = logging.getLogger(__name__)


def make_app(broker_url: str) -> Celery:
    """The application on this broker."""
    # The transport's name comes from the URL, so this is how Celery learns of another class for it.
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "dispatcher.workers.transport:BellTransport"))
    app = Celery("dispatcher", broker=broker_url, include=["dispatcher.workers.tasks"])
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for as long as it likes
        broker_connection_timeout=SOCKET_TIMEOUT_S,
        broker_transport_options=_transport_options(broker_url),
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_publish_retry=False,  # a bell that cannot be rung is rung by the next tick
        task_acks_late=False,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # none is: it spares a warning of 6 lines
        worker_disable_rate_limits=True,
        worker_pool="solo",
        worker_concurrency=1,
        worker_consumer="dispatcher.workers.consumer:BellConsumer",
    )
    return app


def connect(connection: Any, callback: Callable[[], None] | None = None) -> Any:
    """Connects, after one try of each address; kombu would try for ever. `callback` is called between two tries."""
    connection.ensure_connection(max_retries=max(0, len(connection.alt) - 1), interval_start=0, callback=callback)
    return connection


class Bell:
    """Sends messages, over a connection of its own that it gives up after an error. For one thread at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None  # kombu's; mypy finds only some of its methods typed
        self._producer: Any = None

    def __call__(self, times: int) -> None:
        """Sends so many messages. Raises what Celery, kombu and their libraries raise while the broker is away."""
        try:
            if self._producer is None:
                self._connection = connect(self._app.connection_for_write())
                self._producer = self._app.amqp.Producer(self._connection)
            for _ in range(times):
                self._app.send_task(
                    DELIVER, queue=QUEUE, producer=self._producer, retry=False, confirm_timeout=SOCKET_TIMEOUT_S
                )
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _give_up(self) -> None:
        """Closes the connection without a word: a RabbitMQ that blocks publishers would not answer to a goodbye."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is None:
            return
        amqp: Any = getattr(connection, "_connection", None)
        with contextlib.suppress(Exception):  # it is broken already, and why is being raised
            if hasattr(amqp, "collect"):
                amqp.collect()
            else:
                connection.release()


def is_of_the_broker(error: Exception, errors: tuple[type[Exception], ...]) -> bool:
    """Whether the broker is in trouble, by kombu's `errors` of its transport. A message's missing field is not that.

    Kombu has KeyError among them, since a closed socket leaves its tables.
    """
    return isinstance(error, errors) and not isinstance(error, KeyError)


def log_dropped(why: str) -> None:
    """Logs that a message was no bell; `why` repeats nothing of its body."""
    telemetry.log(_log, logging.WARNING, "message.dropped", error=why[:300])


def _transport_options(broker_url: str) -> dict[str, object]:
    if not broker_url.startswith("redis"):
        # RabbitMQ takes what is published into a socket's buffer even while it hangs, or blocks publishers since its
        # disk is full. Only a confirmation says that a bell has arrived.
        return {"confirm_publish": True, "write_timeout": SOCKET_TIMEOUT_S}
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "retry_on_timeout": False,
        "health_check_interval": 10,
        # Acknowledge in memory only. Where Redis dies between a message and its acknowledgement, Celery logs that
        # and goes on, but kombu counts the message as unacknowledged ever after, and with a prefetch of one the
        # worker would never take another.
        "ack_emulation": False,
    }
