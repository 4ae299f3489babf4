"""The Celery application: all that is peculiar to Celery is decided here.

A message is a bell: it has no argument and says only "claim what you have room for". Losing one costs a tick of the
scheduler, receiving one twice an empty claim, so nothing is acknowledged late, kept, retried or given a countdown.
"""

from __future__ import annotations

from typing import Final

import redis
from celery import Celery
from kombu.exceptions import KombuError

from dispatcher.errors import Unavailable

QUEUE: Final = "dispatcher.bells"

SOCKET_TIMEOUT_S: Final = 5


def make_app(broker_url: str) -> Celery:
    """The application on this broker."""
    app = Celery("dispatcher", broker=broker_url, include=["workers.tasks"])
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
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_disable_rate_limits=True,
        worker_pool="solo",
        worker_concurrency=1,
    )
    return app


def check_broker(app: Celery) -> None:
    """Looks once whether the broker answers, before a process starts to serve. Raises Unavailable.

    What happens to the broker later is survived, not refused.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=SOCKET_TIMEOUT_S)
    except (OSError, KombuError, redis.RedisError) as error:
        raise Unavailable(f"the broker cannot be used: {' '.join(str(error).split())}") from error


def _transport_options(broker_url: str) -> dict[str, object]:
    if not broker_url.startswith("redis"):
        return {}
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
