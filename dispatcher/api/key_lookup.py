"""Finds callers by their keys. Keys that are asked for while one statement runs share the next one.

A flood of wrong keys therefore costs one statement for hundreds of them, on separate database connections. A look-up
only reads: the time of a key's last use is written later, in bulk, and is left out on a read-only database.
"""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from dispatcher import telemetry
from dispatcher.errors import Unavailable
from dispatcher.store import tenants

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.api.context import Context
    from dispatcher.store.tenants import ApiKey

_log = logging.getLogger(__name__)

GROUP: Final = 500
"""Keys in one statement."""

ANSWERS_WITHIN_S: Final = 5.0
"""A database that finds no key within this is answered for: 503."""


class KeyLookup:
    """Looks up keys on the application's parts. For one event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked: dict[bytes, asyncio.Future[ApiKey | None]] = {}
        self._running: asyncio.Task[None] | None = None
        self._used: set[UUID] = set()
        self._noting: asyncio.Task[None] | None = None

    async def find(self, key: str) -> ApiKey | None:
        """Whose key this is; None for an unknown or revoked one.

        A look-up by the hash of 256 random bits gives its time away to nobody. Raises DBAPIError and Unavailable.
        """
        if not key:
            return None
        digest = sha256(key.encode()).digest()
        future = self._asked.get(digest)
        if future is None:
            future = self._asked[digest] = asyncio.get_running_loop().create_future()
            if self._running is None:
                self._running = asyncio.create_task(self._run())
        found = await asyncio.shield(future)
        if found is not None:
            self.note(found)
        return found

    def note(self, key: ApiKey) -> None:
        """Notes that the key is used now, unless that was noted within the last minute."""
        if not key.use_is_noted:
            self._used.add(key.id)
            if self._noting is None:
                self._noting = asyncio.create_task(self._note())

    async def aclose(self) -> None:
        """Writes what is to be noted, and ends."""
        while (task := self._running or self._noting) is not None:
            await task

    async def _run(self) -> None:
        try:
            while self._asked:
                group = dict(list(self._asked.items())[:GROUP])
                for digest in group:
                    del self._asked[digest]
                await self._answer(group)
        finally:
            self._running = None  # nobody can have come since the last look: nothing was awaited

    async def _answer(self, group: dict[bytes, asyncio.Future[ApiKey | None]]) -> None:
        try:
            keys = await self._context.transaction(
                lambda connection: tenants.find_keys(connection, list(group)),
                engine=self._context.lookups,
                within_s=ANSWERS_WITHIN_S,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, everybody who asked is told
            for future in group.values():
                future.set_exception(error)
                future.exception()  # whoever asked may be gone
            return
        for digest, future in group.items():
            future.set_result(keys.get(digest))

    async def _note(self) -> None:
        used, self._used = self._used, set()
        try:
            await self._context.transaction(
                lambda connection: tenants.note_uses(connection, used), engine=self._context.lookups
            )
        except (SQLAlchemyError, Unavailable) as error:
            telemetry.log(_log, logging.WARNING, "key.use_not_noted", keys=len(used), error=error)
        finally:
            self._noting = asyncio.create_task(self._note()) if self._used else None
