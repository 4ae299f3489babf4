"""Accepts events inside the caller's own transaction: the outbox.

What is emitted exists exactly if the caller's transaction commits. Nothing here waits for another producer, except
for one that holds the same idempotency key.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, overload

from sqlalchemy import event as orm_event
from sqlalchemy.ext.asyncio import AsyncSession

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import IdempotencyConflict, InvalidInput
from dispatcher.flow.fanout import fan_out
from dispatcher.ids import created_at, format_id, uuid7
from dispatcher.model.event import Event, body_hash, validate
from dispatcher.store import events as store
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

CHUNK: Final = 1000
"""Events in one statement of `emit_many`: larger ones gain nothing (measured) and hold more memory."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of an event: its id, whether it had been accepted before, and how many deliveries it has.

    `fanout` is None for a duplicate.
    """

    id: UUID
    duplicate: bool = False
    fanout: int | None = None

    def __str__(self) -> str:
        return format_id("evt", self.id)


@dataclass(frozen=True, slots=True)
class _Checked:
    event: Event
    payload: bytes
    id: UUID
    key: str | None


@overload
def emit(session: Session, event: Event, *, wakeup: Wakeup | None = None) -> Accepted: ...
@overload
def emit(session: AsyncSession, event: Event, *, wakeup: Wakeup | None = None) -> Awaitable[Accepted]: ...
def emit(
    session: Session | AsyncSession, event: Event, *, wakeup: Wakeup | None = None
) -> Accepted | Awaitable[Accepted]:
    """Emits one event in the session's current transaction; on an AsyncSession, await it.

    The scheduler hears of it after the commit, through `wakeup`, by default the broker that
    DISPATCHER_BROKER_URL names; without one it finds out by polling, within a quarter of a second.
    Raises InvalidInput for an event that cannot be accepted, IdempotencyConflict for a key that was used with
    another body; either leaves the transaction as it was.
    """
    if isinstance(session, AsyncSession):
        return session.run_sync(lambda inner: emit(inner, event, wakeup=wakeup))
    return emit_many(session, [event], wakeup=wakeup)[0]


@overload
def emit_many(session: Session, events: Iterable[Event], *, wakeup: Wakeup | None = None) -> list[Accepted]: ...
@overload
def emit_many(
    session: AsyncSession, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> Awaitable[list[Accepted]]: ...
def emit_many(
    session: Session | AsyncSession, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> list[Accepted] | Awaitable[list[Accepted]]:
    """Emits many events as `emit` does, in bulk: all of them or, on an error, none. Answers in their order."""
    if isinstance(session, AsyncSession):
        return session.run_sync(lambda inner: emit_many(inner, events, wakeup=wakeup))
    accepted = enqueue(session.connection(), list(events))
    _ring_after_commit(session, wakeup or _default_wakeup())
    return accepted


def enqueue(
    connection: Connection, events: Sequence[Event], *, clock: Clock = SYSTEM, now: datetime | None = None
) -> list[Accepted]:
    """Accepts the events on a connection, in its transaction. `now` stands in for the database's clock in tests.

    Raises as `emit` does, with a pointer that starts with the event's place (`/3/type`) where there are several.
    """
    at = now or clock.now()
    several = len(events) > 1
    checked = [_check(event, f"/{n}" if several else "", at) for n, event in enumerate(events)]
    if any(item.key is not None for item in checked):
        with connection.begin_nested():  # a conflict must not leave behind keys of events that do not exist
            return _accept_keyed(connection, checked, at=at, now=now, several=several)
    return _accept(connection, checked, at=at, now=now, several=several)


def _check(event: Event, pointer: str, at: datetime) -> _Checked:
    payload = validate(event, pointer=pointer)
    if event.id is None:
        return _Checked(event, payload, uuid7(at), event.idempotency_key)
    if event.idempotency_key is not None:
        raise InvalidInput(f"{pointer}/idempotency_key", "an id and an idempotency key", "one of the two")
    if event.id.version != 7 or abs(created_at(event.id) - at) > timedelta(days=1):
        raise InvalidInput(f"{pointer}/id", format_id("evt", event.id), "evt_ and a UUIDv7 within a day of now")
    return _Checked(event, payload, event.id, format_id("evt", event.id))


def _accept_keyed(
    connection: Connection, checked: Sequence[_Checked], *, at: datetime, now: datetime | None, several: bool
) -> list[Accepted]:
    """As `_accept`, of those whose key is new; the others answer with the event that has their key."""
    hashes = {item.id: body_hash(item.event, item.payload) for item in checked if item.key is not None}
    first: dict[tuple[UUID, str], _Checked] = {}
    for item in checked:
        if item.key is not None:
            first.setdefault((item.event.tenant_id, item.key), item)
    asked = [store.Remembered(*owner, item.id, hashes[item.id]) for owner, item in first.items()]
    taken = store.remember(connection, asked, now=now)
    known = {(r.tenant_id, r.key): r for r in asked if r.event_id in taken}
    lacking = [owner for owner in first if owner not in known]
    if lacking:
        known |= {(r.tenant_id, r.key): r for r in store.recall(connection, lacking)}
    fresh: dict[int, _Checked] = {}
    answers: dict[int, Accepted] = {}
    for n, item in enumerate(checked):
        if item.key is None:
            fresh[n] = item
            continue
        owner = (item.event.tenant_id, item.key)
        if hashes[item.id] != known[owner].body_sha256:
            pointer = f"event {n}: " if several else ""
            raise IdempotencyConflict(f"{pointer}the key {item.key!r} was used before with another body")
        if first[owner] is item and item.id in taken:
            fresh[n] = item
        else:
            answers[n] = Accepted(known[owner].event_id, duplicate=True)
    places = list(fresh)
    accepted = _accept(connection, list(fresh.values()), at=at, now=now, several=several, places=places)
    answers |= dict(zip(places, accepted, strict=True))
    return [answers[n] for n in range(len(checked))]


def _accept(
    connection: Connection,
    checked: Sequence[_Checked],
    *,
    at: datetime,
    now: datetime | None,
    several: bool,
    places: Sequence[int] | None = None,
) -> list[Accepted]:
    """Inserts the events and their deliveries, `CHUNK` events a statement."""
    kinds = list(dict.fromkeys((item.event.tenant_id, item.event.type) for item in checked))
    targets = dict(zip(kinds, store.targets(connection, kinds), strict=True)) if kinds else {}
    accepted: list[Accepted] = []
    for start in range(0, len(checked), CHUNK):
        events: list[store.NewEvent] = []
        deliveries: list[store.NewDelivery] = []
        for n, item in enumerate(checked[start : start + CHUNK], start):
            event = item.event
            found = targets[event.tenant_id, event.type]
            if found is None:
                pointer = f"/{places[n] if places else n}/tenant_id" if several else "/tenant_id"
                raise InvalidInput(pointer, format_id("ten", event.tenant_id), "a tenant that exists")
            stored = store.NewEvent(
                id=item.id,
                tenant_id=event.tenant_id,
                type=event.type,
                mode=event.mode,
                object_id=event.object_id,
                payload=b64encode(item.payload).decode(),
                fanout=len(found),
                created_at=at,
            )
            events.append(stored)
            deliveries += fan_out(event, stored, found, at=at)
            accepted.append(Accepted(item.id, fanout=len(found)))
        store.accept(connection, events, deliveries, now=now)
    return accepted


_wakeups: dict[str | None, Wakeup] = {}


def _default_wakeup() -> Wakeup:

    url = os.environ.get("DISPATCHER_BROKER_URL")
    return _wakeups.setdefault(url, Wakeup(url))


def _ring_after_commit(session: Session, wakeup: Wakeup) -> None:
    """Rings once the outermost transaction has committed; releasing a savepoint rings early at most, and again."""
    pending: dict[int, Wakeup] | None = session.info.get("dispatcher.wakeups")
    if pending is None:
        pending = session.info["dispatcher.wakeups"] = {}

        def after_commit(session: Session) -> None:
            nested = session.in_nested_transaction()
            for ring in list(pending.values()):
                ring.ring()
            if not nested:
                pending.clear()

        orm_event.listen(session, "after_commit", after_commit)
    pending[id(wakeup)] = wakeup
