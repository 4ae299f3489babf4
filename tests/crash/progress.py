"""What a run shows: a line that is rewritten on a terminal, plain lines elsewhere, and lines that stay on both."""

from __future__ import annotations

import sys
import time
from typing import TextIO

PLAIN_EVERY_S = 30.0


class Progress:
    """Shows how far a run is: often on a terminal, seldom in a log."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        self._began_s = time.monotonic()
        self._shown_s = float("-inf")
        self._width = 0

    def show(self, text: str) -> None:
        """Says how far it is; the next such line takes its place on a terminal."""
        now_s = time.monotonic()
        if not self._is_terminal and now_s - self._shown_s < PLAIN_EVERY_S:
            return
        self._shown_s = now_s
        minutes, seconds = divmod(int(now_s - self._began_s), 60)
        line = f"{minutes:3}:{seconds:02}  {text}"
        if self._is_terminal:
            self._out.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if self._is_terminal and self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._width = 0
        self._out.write(text + "\n")
        self._out.flush()
