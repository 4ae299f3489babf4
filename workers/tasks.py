"""The one task."""

from __future__ import annotations

from typing import Final

from celery import shared_task

from workers import process

DELIVER: Final = "dispatcher.deliver"


@shared_task(name=DELIVER)  # type: ignore[untyped-decorator]  # Celery has no types
def deliver() -> None:
    """Has this process claim what it has room for; returns when it has claimed."""
    process.current().ring()
