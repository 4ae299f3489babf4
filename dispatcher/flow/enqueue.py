"""Accepts events inside the caller's own transaction: the outbox.

What is emitted exists exactly if the caller's transaction commits. Nothing here waits for another producer, except
for one that holds the same idempotency key: then until it commits or rolls back. A batch takes its keys in one order,
so batches never deadlock; who emits several batches with the same keys in one transaction orders them.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Final, overload

from sqlalchemy import event as orm_event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import IdempotencyConflict, InvalidInput
from dispatcher.flow.fanout import fan_out
from dispatcher.ids import first_id, format_id, uuid7
from dispatcher.model.event import Event, body_hash, validate
from dispatcher.store import events as store
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction

    SyncSession = Session | scoped_session[Any]
    AnyAsyncSession = AsyncSession | async_scoped_session[Any]

CHUNK: Final = 1000
"""Events in one statement of `emit_many`: larger ones gain nothing (measured) and hold more memory."""

KEY_LIFETIME: Final = timedelta(hours=24)
"""How long an idempotency key is remembered."""

ID_LIFETIME: Final = timedelta(days=3)
"""How long a producer's own id is remembered as a key: longer than an id is accepted, a day before and after its time,
with a day to spare for clocks that differ."""


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
    key: str | None = None
    body_sha256: bytes = b""  # where there is a key


@overload
def emit(session: SyncSession, event: Event, *, wakeup: Wakeup | None = None) -> Accepted: ...
@overload
def emit(session: AnyAsyncSession, event: Event, *, wakeup: Wakeup | None = None) -> Awaitable[Accepted]: ...
def emit(
    session: SyncSession | AnyAsyncSession, event: Event, *, wakeup: Wakeup | None = None
) -> Accepted | Awaitable[Accepted]:
    """Emits one event in the session's current transaction; on an AsyncSession, await it.

    The scheduler hears of it after the commit, through `wakeup`, by default the broker that
    DISPATCHER_BROKER_URL names; without one it finds out by polling, within a quarter of a second.

    A repeat under the same idempotency key (within 24 hours; or the event's own `id`) is no second event: it answers
    with the first one's id and `duplicate`. Same means the same type, mode, object, instants and payload, byte for
    byte: the same values in another order of keys are another payload.

    Raises InvalidInput for an event that cannot be accepted, IdempotencyConflict for a key that was used with
    another body; either leaves the transaction as it was.
    """
    own = _own(session)
    if isinstance(own, AsyncSession):
        return own.run_sync(lambda inner: emit(inner, event, wakeup=wakeup))
    return emit_many(own, [event], wakeup=wakeup)[0]


@overload
def emit_many(session: SyncSession, events: Iterable[Event], *, wakeup: Wakeup | None = None) -> list[Accepted]: ...
@overload
def emit_many(
    session: AnyAsyncSession, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> Awaitable[list[Accepted]]: ...
def emit_many(
    session: SyncSession | AnyAsyncSession, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> list[Accepted] | Awaitable[list[Accepted]]:
    """Emits many events as `emit` does, in bulk: all of them or, on an error, none. Answers in their order."""
    own = _own(session)
    if isinstance(own, AsyncSession):
        return own.run_sync(lambda inner: emit_many(inner, events, wakeup=wakeup))
    accepted = enqueue(own.connection(), list(events))
    if any(one.fanout for one in accepted):
        _ring_after_commit(own, wakeup or _default_wakeup())
    return accepted


def _own(session: SyncSession | AnyAsyncSession) -> Session | AsyncSession:
    """The session that a scoped one stands for here and now."""
    if isinstance(session, scoped_session | async_scoped_session):
        scoped: Session | AsyncSession = session()
        return scoped
    return session


def enqueue(
    connection: Connection, events: Sequence[Event], *, clock: Clock = SYSTEM, now: datetime | None = None
) -> list[Accepted]:
    """Accepts the events on a connection, in its transaction. `now` stands in for the database's clock in tests.

    Raises as `emit` does, with a pointer that starts with the event's place (`/3/type`) where there are several.
    """
    at = now or clock.now()
    several = len(events) > 1
    checked = [_check(event, f"/{n}" if several else "", at) for n, event in enumerate(events)]
    if all(item.key is None for item in checked):
        return _accept(connection, checked, at=at, now=now, several=several)
    try:
        with connection.begin_nested():  # a conflict must not leave behind keys of events that do not exist
            return _accept_keyed(connection, checked, at=at, now=now, several=several)
    except IntegrityError as error:
        own = [format_id("evt", event.id) for event in events if event.id is not None]
        if not own:
            raise
        named = own[0] if len(own) == 1 else f"one of {own[0]} … {own[-1]}"
        raise IdempotencyConflict(f"{named} is the id of another event") from error


def _check(event: Event, pointer: str, at: datetime) -> _Checked:
    payload = validate(event, pointer=pointer)
    if event.not_before is not None or event.expires_at is not None:
        not_before, expires_at = event.not_before, event.expires_at
        event = replace(
            event,
            not_before=None if not_before is None else not_before.astimezone(UTC),
            expires_at=None if expires_at is None else expires_at.astimezone(UTC),
        )
    if event.id is None:
        if event.idempotency_key is None:
            return _Checked(event, payload, uuid7(at))
        return _Checked(event, payload, uuid7(at), event.idempotency_key, body_hash(event, payload))
    if event.idempotency_key is not None:
        raise InvalidInput(f"{pointer}/idempotency_key", "an id and an idempotency key", "one of the two")
    day = timedelta(days=1)  # compared as ids: the years of a UUIDv7 go beyond a datetime's
    if event.id.version != 7 or not first_id(at - day) <= event.id < first_id(at + day):
        raise InvalidInput(f"{pointer}/id", format_id("evt", event.id), "evt_ and a UUIDv7 within a day of now")
    return _Checked(event, payload, event.id, format_id("evt", event.id), body_hash(event, payload))


def _accept_keyed(
    connection: Connection, checked: Sequence[_Checked], *, at: datetime, now: datetime | None, several: bool
) -> list[Accepted]:
    """As `_accept`, of those whose key is new; the others answer with the event that has their key."""
    first: dict[tuple[UUID, str], _Checked] = {}
    for item in checked:
        if item.key is not None:
            first.setdefault((item.event.tenant_id, item.key), item)
    asked = [
        store.Remembered(
            *owner, item.id, item.body_sha256, (ID_LIFETIME if item.event.id else KEY_LIFETIME).total_seconds()
        )
        for owner, item in first.items()
    ]
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
        if item.body_sha256 != known[owner].body_sha256:
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
    for n, item in enumerate(checked):
        if targets[item.event.tenant_id, item.event.type] is None:  # found out before anything is inserted
            pointer = f"/{places[n] if places else n}/tenant_id" if several else "/tenant_id"
            raise InvalidInput(pointer, format_id("ten", item.event.tenant_id), "a tenant that exists")
    accepted: list[Accepted] = []
    for start in range(0, len(checked), CHUNK):
        events: list[store.NewEvent] = []
        deliveries: list[store.NewDelivery] = []
        for item in checked[start : start + CHUNK]:
            event = item.event
            found = targets[event.tenant_id, event.type] or ()
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
    return _wakeups.get(url) or _wakeups.setdefault(url, Wakeup(url))


_PENDING: Final = "dispatcher.wakeups"
"""Where a session keeps the wake-ups of its open transactions and savepoints: {transaction: {wake-up, …}}."""


def _ring_after_commit(session: Session, wakeup: Wakeup) -> None:
    """Rings once the outermost transaction has committed, if what was emitted is in it."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_PENDING, {}).setdefault(transaction, set()).add(wakeup)


@orm_event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    pending: dict[SessionTransaction | None, set[Wakeup]] | None = session.info.get(_PENDING)
    if not pending:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        for wakeup in pending.pop(session.get_transaction(), ()):
            wakeup.ring()
    elif savepoint in pending:
        outer = savepoint.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent
        pending.setdefault(outer, set()).update(pending.pop(savepoint))


@orm_event.listens_for(Session, "after_transaction_end")
def _ended(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(_PENDING)
    if pending:
        pending.pop(transaction, None)
