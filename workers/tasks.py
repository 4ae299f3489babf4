"""The one task."""

from __future__ import annotations

from celery import shared_task

from dispatcher.workers import process
from dispatcher.workers.app import DELIVER


@shared_task(name=DELIVER)  # type: ignore[untyped-decorator]  # Celery has no types
def deliver(*_: object, **__: object) -> None:
    """Has this process claim what it has room for; returns when it has claimed.

    A bell with arguments, which we never send, is still a bell.
    """
    process.current().ring()
