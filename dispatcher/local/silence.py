"""How long a process has shown no sign of life, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence


class Silence:
    """Of one run of a process. Nothing is counted before its first sign of life, unless it has `started` already."""

    def __init__(self, pid: int, *, started: bool) -> None:
        self.pid = pid
        self._seconds: float | None = 0.0 if started else None
        self._total_s = 0.0
        self._sent = 0

    def count(self, elapsed_s: float | None, *, alive: bool) -> float:
        """Count so many seconds more, or from zero if it is alive or None; how long it has been silent in all."""
        if alive:
            self._sent = 0
        if alive or (elapsed_s is None and self._seconds is not None):
            self._seconds = self._total_s = 0.0
        elif elapsed_s is not None and self._seconds is not None:
            self._seconds += elapsed_s
            self._total_s += elapsed_s
        return self._total_s

    def due(self, limit_s: float, steps: Sequence[tuple[signal.Signals, float]]) -> signal.Signals | None:
        """Return what the process must be sent now: the first of the steps after `limit_s`, and the next ones in turn.

        Each step has its time. The last is repeated after `limit_s`.
        """
        patience_s = limit_s if self._sent in (0, len(steps)) else steps[self._sent - 1][1]
        if self._seconds is None or self._seconds < patience_s:
            return None
        self._seconds = 0.0
        self._sent = min(self._sent + 1, len(steps))
        return steps[self._sent - 1][0]
