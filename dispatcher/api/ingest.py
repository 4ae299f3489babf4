"""Accepts events from many requests at once: those that come while one transaction runs share the next.

Nothing waits for company: where no transaction runs, an event is written at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from dispatcher.errors import Unauthorized
from dispatcher.flow.enqueue import Accepted, enqueue_each
from dispatcher.store import tenants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.api.caller import Caller
    from dispatcher.api.context import Context
    from dispatcher.errors import DispatcherError
    from dispatcher.model.event import Event

GROUP: Final = 500
"""Events in one transaction: larger groups gain nothing, and hold up those that come after."""

HELD_UP_S: Final = 0.05
"""After so long the next group does not wait any more for the transaction that runs: it waits for a lock, such as an
idempotency key that a producer has used in a transaction which is still open. Two transactions at a time, always, would
be slower than one: the groups are half as large, and their number is what costs (measured)."""

MOST: Final = 8
"""Transactions at a time, those that are held up among them; as many connections are theirs alone."""

_RUN_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock time-out: one of the group is the cause, the others have done nothing."""


@dataclass(frozen=True, slots=True)
class _Asked:
    event: Event
    key_id: UUID | None
    answer: asyncio.Future[Accepted]


class Ingest:
    """Accepts events on the application's parts. For one event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def accept(self, event: Event, caller: Caller) -> Accepted:
        """Accepts one event: it is committed when this returns.

        Raises what `enqueue` raises, Unauthorized for a key that was revoked meanwhile, and DBAPIError. A caller that
        is cancelled takes nothing from the others; its own event may be accepted all the same.
        """
        answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(event, caller.key_id, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        """Writes one group after the other, until nobody waits any more."""
        try:
            while self._waiting:
                group = [asked for asked in self._waiting[:GROUP] if not asked.answer.done()]
                self._waiting = self._waiting[GROUP:]
                if not group:
                    continue
                writing = asyncio.create_task(self._write(group))
                self._writing.add(writing)
                writing.add_done_callback(self._writing.discard)
                await asyncio.wait({writing}, timeout=HELD_UP_S)
                while len(self._writing) >= MOST:
                    await asyncio.wait(self._writing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._running = None  # nobody can have come since the last look: nothing was awaited

    async def _write(self, group: Sequence[_Asked]) -> None:
        """Writes a group in one transaction and answers each of it; where one holds up the others, by halves."""
        answers: Sequence[Accepted | Exception]
        try:
            answers = await self._context.transaction(partial(_accept, group), engine=self._context.ingest_engine)
        except Exception as error:  # noqa: BLE001 - whatever it is, everybody is told, and the next group has its turn
            if len(group) > 1 and isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _RUN_AGAIN:
                middle = len(group) // 2
                await asyncio.gather(self._write(group[:middle]), self._write(group[middle:]))
                return
            answers = [error] * len(group)
        if any(isinstance(answer, Accepted) and answer.fanout for answer in answers):
            self._context.wakeup.ring()
        for asked, answer in zip(group, answers, strict=True):
            if asked.answer.done():  # its request is gone
                continue
            if isinstance(answer, Accepted):
                asked.answer.set_result(answer)
            else:
                asked.answer.set_exception(answer)


def _accept(group: Sequence[_Asked], connection: Connection) -> list[Accepted | DispatcherError]:
    """What becomes of each, in one transaction that also finds out whose keys still hold."""
    valid = tenants.valid_keys(connection, {asked.key_id for asked in group if asked.key_id is not None})
    allowed = [n for n, asked in enumerate(group) if asked.key_id is None or asked.key_id in valid]
    answers: list[Accepted | DispatcherError] = [revoked() for _ in group]
    accepted = enqueue_each(connection, [group[n].event for n in allowed], pause=pause)
    for n, answer in zip(allowed, accepted, strict=True):
        answers[n] = answer
    return answers


def pause() -> None:
    """Lets the event loop serve others, from within a transaction's work."""
    await_only(asyncio.sleep(0))


def check_key(connection: Connection, caller: Caller) -> None:
    """Raises Unauthorized for a key that was revoked since the gate has seen it."""
    if caller.key_id is not None and not tenants.valid_keys(connection, {caller.key_id}):
        raise revoked()


def revoked() -> Unauthorized:
    """The same words as of a key that never was."""
    return Unauthorized("found a key that is not valid; allowed: Authorization: Bearer <key>")
