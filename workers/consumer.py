"""Celery's consumer, which neither a broker in trouble nor a message that is not a bell can end.

Celery itself ends the process where Redis is full, read-only or a replica, and at a message that it cannot decode.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from dispatcher import telemetry
from dispatcher.clock import SYSTEM
from dispatcher.workers import process
from dispatcher.workers.app import connect, is_of_the_broker, log_dropped

if TYPE_CHECKING:
    from collections.abc import Callable

BACK_OFF_S: Final = (0.25, 5.0)
"""The first and the longest pause between two tries to consume."""

_log = logging.getLogger(__name__)


class BellConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Tries again, with pauses, whatever ended it, and says to the process whether it is attached to the broker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Those after which `start` begins anew. Celery's own list lacks, for example, that Redis is out of memory.
        self.connection_errors = (Exception,)
        self._pause_s = BACK_OFF_S[0]
        self._ready_at_s: float | None = None

    def ensure_connected(self, conn: Any) -> Any:
        """Tries each address once; `start` does the rest."""
        connect(conn, maybe_shutdown)
        self.first_connection_attempt = False
        return conn

    def on_ready(self) -> None:
        """The consumer waits for messages."""
        super().on_ready()
        self._ready_at_s = SYSTEM.monotonic()
        process.current().attached()

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Instead of one line of Celery's log for each try."""
        self._lost(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Closes what is left of the connection."""
        super().on_connection_error_after_connected(exc)
        self._lost(exc)

    def _lost(self, error: Exception) -> None:
        process.current().lost(error)
        if self.hub is not None:
            self.hub.on_tick.clear()  # each connection to Redis adds a callback that would stay for ever
            with contextlib.suppress(Exception):  # such as an acknowledgement, over the connection that is lost
                self.hub.reset()  # Celery does that, too, and leaves it half done after such an error
        now_s = SYSTEM.monotonic()
        if self._ready_at_s is not None and now_s - self._ready_at_s > BACK_OFF_S[1]:
            self._pause_s = BACK_OFF_S[0]
        self._ready_at_s = None
        until_s, self._pause_s = now_s + self._pause_s, min(2 * self._pause_s, BACK_OFF_S[1])
        while SYSTEM.monotonic() < until_s:
            maybe_shutdown()
            time.sleep(0.05)

    # --- messages that are not bells

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Handles a message, and drops one at which Celery raises."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except Exception as error:  # whatever headers and body may hold
                if is_of_the_broker(error, self.conninfo.connection_errors + self.conninfo.channel_errors):
                    raise
                self._drop(message, f"{type(error).__name__}: {telemetry.one_line(error)}")

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that is invalid, or of a content type that is not allowed."""
        self._drop(message, telemetry.one_line(exc))

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 - Celery's signature
        """A message that names no task."""
        self._drop(message, "the message names no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A message for another program's task."""
        self._drop(message, f"unknown task {telemetry.one_line(exc)}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Headers that Celery refuses, or a content type that is not allowed."""
        self._drop(message, telemetry.one_line(exc))

    def _drop(self, message: Any, why: str) -> None:
        log_dropped(why)
        if not message.acknowledged:
            message.reject_log_error(_log, self.connection_errors)
