"""Waiting for what must come, by a condition and never by a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 300.0
"""How long a test waits before it fails. Nothing takes so long: only a machine that is very busy comes near it."""


def until(holds: Callable[[], object], what: str = "it holds") -> float:
    """Waits until it holds; returns how many seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"waited {PATIENCE_S:g} s in vain until {what}"
        time.sleep(0.02)
    return time.monotonic() - began


async def eventually(holds: Callable[[], object], what: str = "it holds") -> None:
    """The same beside an event loop, which runs meanwhile."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"waited {PATIENCE_S:g} s in vain until {what}"
        await asyncio.sleep(0.005)
