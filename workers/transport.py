"""Kombu's Redis transport, which survives an entry of the queue's list that is not a message."""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import redis

from dispatcher import telemetry
from dispatcher.workers.app import is_of_the_broker, log_dropped


class BellChannel(redis.Channel):
    """Drops what it cannot decode."""

    def _brpop_read(self, **options: Any) -> Any:
        """Takes one entry off the list. What comes after this handles its own errors: see `BellConsumer`."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except Empty:
            raise
        except Exception as error:  # bytes, JSON or base64 that are invalid, a field that is missing
            if is_of_the_broker(error, self.connection.connection_errors + self.connection.channel_errors):
                raise
            log_dropped(f"{type(error).__name__}: {telemetry.one_line(error)}")
            return True


class BellTransport(redis.Transport):
    """The same, with these channels."""

    Channel = BellChannel
