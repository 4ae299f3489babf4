"""How long a start is waited for, and what is said meanwhile."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from dispatcher import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 300.0
"""Without progress: generous, since the API prints nothing while it loads its modules, however slow the machine is."""

SAY_EVERY_S: Final = 5.0


class StartLimit:
    """Ends a wait once nothing has moved for `limit_s`. `now_s` is a monotonic clock."""

    def __init__(self, limit_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._now_s = now_s
        self._progress: object = None
        self._moved_at_s = now_s()

    def exceeded(self, progress: object) -> bool:
        """Tell whether `progress`, whatever it is, has been the same for too long."""
        if progress != self._progress:
            self._progress = progress
            self._moved_at_s = self._now_s()
        return self._now_s() - self._moved_at_s > self._limit_s

    def __str__(self) -> str:
        return f"it has shown no progress for {self._limit_s:g} s (DISPATCHER_START_TIMEOUT_S)"


@contextlib.contextmanager
def announced(name: str, last_line: Callable[[], str] = str) -> Iterator[None]:
    """Log every few seconds, until the block ends, what is waited for and what it has printed last."""
    ended = threading.Event()
    began_s = time.monotonic()

    def announce() -> None:
        while not ended.wait(SAY_EVERY_S):
            waited_s = round(time.monotonic() - began_s)
            telemetry.log(
                _log, logging.WARNING, "process.awaited", process=name, waited_s=waited_s, last_line=last_line()
            )

    thread = threading.Thread(target=announce, name=f"{name}-awaited", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
