"""Accepts events from many requests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.api.context import Context


class Ingest:
    """Accepts events on the application's parts."""

    def __init__(self, context: Context) -> None:
        self._context = context
