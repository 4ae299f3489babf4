"""Tells systemd that a service of Type=notify is ready: see sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from dispatcher import telemetry

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_log = logging.getLogger(__name__)

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"


class Notifier:
    """Takes the socket's address out of the environment, so that no child speaks for us. Without one it is mute."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = environ.pop(NOTIFY_SOCKET, "")

    def ready(self) -> None:
        """Say that we serve. A socket that does not take it is logged: the system runs all the same."""
        if not self._address:
            return
        # An address that starts with @ is an abstract one, which starts with a zero byte.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"READY=1", address)
        except OSError as error:
            telemetry.log(_log, logging.WARNING, "process.notify_failed", socket=self._address, error=error)
