"""Dispatcher: a durable webhook sender for payment platforms.

A producer needs three names: `emit(session, Event(type=…, payload=…))` inside its own SQLAlchemy transaction, and
`emit_many` for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dispatcher.flow.enqueue import Accepted, emit, emit_many
    from dispatcher.model.event import Event, Mode, Target
    from dispatcher.wakeup import Wakeup

_HOMES = {
    "Accepted": "dispatcher.flow.enqueue",
    "Event": "dispatcher.model.event",
    "Mode": "dispatcher.model.event",
    "Target": "dispatcher.model.event",
    "Wakeup": "dispatcher.wakeup",
    "emit": "dispatcher.flow.enqueue",
    "emit_many": "dispatcher.flow.enqueue",
}

__all__ = ["Accepted", "Event", "Mode", "Target", "Wakeup", "__version__", "emit", "emit_many"]


def __getattr__(name: str) -> Any:
    """Imports a public name on its first use: the package's own modules must not import one another through here."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dispatcher' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)
