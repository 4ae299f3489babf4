"""Accepts events inside the caller's own transaction: the outbox.

What is emitted exists exactly if the caller's transaction commits. Nothing here waits for another producer, except
for one that holds the same idempotency key, or is the first to use the same tenant's target at an origin: then until
it commits or rolls back. A batch takes its keys and its origins in one order, so batches never deadlock; who emits
several batches with the same keys in one transaction orders them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, overload

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import DispatcherError, IdempotencyConflict, InvalidInput
from dispatcher.flow import targets
from dispatcher.flow.fanout import fan_out
from dispatcher.flow.producer import connection_of, explained, ring_after_commit, unscoped
from dispatcher.ids import first_id, format_id, uuid7
from dispatcher.model.event import Event, body_hash, validate
from dispatcher.store import events as store
from dispatcher.store import profiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.flow.producer import AsyncSource, SyncSource
    from dispatcher.wakeup import Wakeup

CHUNK: Final = 1000
"""Events in one statement of `emit_many`: larger ones gain nothing (measured) and hold more memory."""

CHUNK_BYTES: Final = 16 * 1024 * 1024
"""Bytes of payload in one statement, or one event's: some drivers write them in hexadecimal, and copy that."""

PAUSE_STEPS: Final = 5_000_000
"""Steps of judging payloads by schemas after which others have a turn: some milliseconds."""

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


@dataclass(slots=True)
class _Checked:
    place: int
    event: Event
    payload: bytes
    id: UUID
    key: str | None = None
    body_sha256: bytes = b""  # where there is a key

    @property
    def owner(self) -> tuple[UUID, str] | None:
        """Whose key it is and which, if it has one."""
        return None if self.key is None else (self.event.tenant_id, self.key)


@overload
def emit(session: SyncSource, event: Event, *, wakeup: Wakeup | None = None) -> Accepted: ...
@overload
def emit(session: AsyncSource, event: Event, *, wakeup: Wakeup | None = None) -> Awaitable[Accepted]: ...
def emit(
    session: SyncSource | AsyncSource, event: Event, *, wakeup: Wakeup | None = None
) -> Accepted | Awaitable[Accepted]:
    """Emits one event in the current transaction of a session or connection; on an asynchronous one, await it.

    The scheduler hears of it after the commit, through `wakeup`, by default the broker that
    DISPATCHER_BROKER_URL names; without one it finds out by polling, within a quarter of a second. On a connection
    without a session, it hears when the connection is given back or begins its next transaction.

    A repeat under the same idempotency key (within 24 hours; or the event's own `id`) is not a second event: it answers
    with the first one's id and `duplicate`. Same means the same type, mode, object, instants and payload, byte for
    byte: the same values in another order of keys are another payload.

    Raises InvalidInput for an event that cannot be accepted, IdempotencyConflict for a key that was used with
    another body; either leaves the transaction as it was. Raises NoTransaction, before any statement, on a connection
    that is closed, in AUTOCOMMIT, or in a transaction that SQLAlchemy did not begin. Raises Unavailable where our
    tables or the grants for them are missing; PostgreSQL has then ended the transaction.
    """
    own = unscoped(session)
    if isinstance(own, AsyncSession | AsyncConnection):
        return own.run_sync(lambda inner: emit(inner, event, wakeup=wakeup))
    return emit_many(own, [event], wakeup=wakeup)[0]


@overload
def emit_many(session: SyncSource, events: Iterable[Event], *, wakeup: Wakeup | None = None) -> list[Accepted]: ...
@overload
def emit_many(
    session: AsyncSource, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> Awaitable[list[Accepted]]: ...
def emit_many(
    session: SyncSource | AsyncSource, events: Iterable[Event], *, wakeup: Wakeup | None = None
) -> list[Accepted] | Awaitable[list[Accepted]]:
    """Emits many events as `emit` does, in bulk: all of them or, on an error, none. Answers in their order."""
    own = unscoped(session)
    if isinstance(own, AsyncSession | AsyncConnection):
        return own.run_sync(lambda inner: emit_many(inner, events, wakeup=wakeup))
    connection = connection_of(own)
    with explained(connection):
        accepted = enqueue(connection, list(events))
    if any(one.fanout for one in accepted):
        ring_after_commit(own, wakeup)
    return accepted


def enqueue(
    connection: Connection, events: Sequence[Event], *, clock: Clock = SYSTEM, now: datetime | None = None
) -> list[Accepted]:
    """Accepts the events on a connection, in its transaction. `now` stands in for the database's clock in tests.

    Raises as `emit` does, with a pointer that starts with the event's place (`/3/type`) where there are several.
    """
    batch = _Batch(connection, at=now or clock.now(), now=now, several=len(events) > 1)
    checked = batch.check(events)
    if all(item.key is None for item in checked):
        batch.accept(checked)
        return batch.accepted()
    try:
        with connection.begin_nested():  # a conflict must not leave behind keys of events that do not exist
            batch.accept(checked)
    except IntegrityError as error:
        places = [place for place, event in enumerate(events) if event.id is not None]
        if not places:
            raise
        found = _own_id(events[places[0]])
        if len(places) > 1:
            raise _unusable("", f"{found} … {_own_id(events[places[-1]])}, one of which cannot be used") from error
        raise _unusable(batch.pointer(places[0]), found) from error
    return batch.accepted()


def enqueue_each(
    connection: Connection,
    events: Sequence[Event],
    *,
    clock: Clock = SYSTEM,
    now: datetime | None = None,
    pause: Callable[[], None] = lambda: None,
) -> list[Accepted | DispatcherError]:
    """Accepts the events as `enqueue` does, but each for itself: those that cannot be are told why, the others stay.

    `pause` is called between events whose payloads take long to judge: an event loop has others to serve meanwhile.
    Raises only what no event caused, such as a database that is away.
    """
    batch = _Batch(connection, at=now or clock.now(), now=now, each=True, pause=pause)
    _accept_each(batch, batch.check(events))
    return [batch.answers[place] for place in range(len(events))]


def _accept_each(batch: _Batch, checked: Sequence[_Checked]) -> None:
    """Accepts what can be. What only the database can refuse, an id that another event has, is looked for by halves."""
    if all(item.event.id is None for item in checked):
        batch.accept(checked)
        return
    try:
        with batch.connection.begin_nested():
            batch.accept(checked)
    except IntegrityError:
        if len(checked) == 1:
            (item,) = checked
            batch.answers[item.place] = _unusable(batch.pointer(item.place), _own_id(item.event))
            return
        middle = len(checked) // 2
        _accept_each(batch, checked[:middle])
        _accept_each(batch, checked[middle:])


class _Batch:
    """Events on their way into the database, each at its place; `answers` is what became of them.

    One that cannot be accepted is an error of all of them or, with `each`, its own answer.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        at: datetime,
        now: datetime | None,
        several: bool = False,
        each: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.connection = connection
        self.answers: dict[int, Accepted | DispatcherError] = {}
        self._at = at
        self._now = now
        self._several = several
        self._each = each
        self._pause = pause
        self._steps = 0

    def accepted(self) -> list[Accepted]:
        """What became of the events, in the order of their places, where none was refused."""
        found = (self.answers[place] for place in sorted(self.answers))
        return [one for one in found if isinstance(one, Accepted)]

    def _refuse(self, place: int, error: DispatcherError) -> None:
        if not self._each:
            raise error
        self.answers[place] = error

    def check(self, events: Iterable[Event]) -> list[_Checked]:
        """Those that can be accepted as far as they themselves tell."""
        checked: list[_Checked] = []
        for place, event in enumerate(events):
            try:
                checked.append(_check(event, place, self.pointer(place), self._at))
            except InvalidInput as error:
                self._refuse(place, error)
        return checked

    def accept(self, checked: Sequence[_Checked]) -> None:
        """Inserts the events and their deliveries, `CHUNK` events a statement; of repeats it finds the first ones.

        All that can be refused is refused before anything is written, but for keys that others take meanwhile.
        """
        if owners := {item.owner for item in checked if item.owner is not None}:
            known = store.recall(self.connection, owners, now=self._now)
            checked = self._without_repeats(
                checked, {(one.tenant_id, one.key): one for one in known if one.lifetime_s > 0}
            )
        if not checked:
            return
        kinds = list(dict.fromkeys((item.event.tenant_id, item.event.type) for item in checked))
        found, schemas = store.recipients(self.connection, kinds)
        recipients = dict(zip(kinds, found, strict=True))
        checked = [item for item in checked if self._is_possible(item, recipients, schemas)]
        routes = self._routes([item for item in checked if item.event.target is not None])
        checked = [item for item in checked if item.event.target is None or item.place in routes]
        if any(item.key is not None for item in checked):
            checked = self._take_keys(checked)
            routes = {item.place: routes[item.place] for item in checked if item.place in routes}
        implicit = targets.endpoints(self.connection, routes.values(), at=self._at) if routes else {}
        for chunk in _chunks(checked):
            events: list[store.NewEvent] = []
            deliveries: list[store.NewDelivery] = []
            payload_at = 1
            for item in chunk:
                event = item.event
                goes_to = recipients[event.tenant_id, event.type] or []
                if (route := routes.get(item.place)) is not None:
                    goes_to = [implicit[route.place], *(one for one in goes_to if not one.own)]
                stored = store.NewEvent(
                    id=item.id,
                    tenant_id=event.tenant_id,
                    type=event.type,
                    mode=event.mode,
                    object_id=event.object_id,
                    payload_at=payload_at,
                    payload_bytes=len(item.payload),
                    fanout=len(goes_to),
                    created_at=self._at,
                )
                payload_at += len(item.payload)
                events.append(stored)
                deliveries += fan_out(event, stored, goes_to, at=self._at, route=route)
                self.answers[item.place] = Accepted(item.id, fanout=len(goes_to))
            payloads = b"".join([item.payload for item in chunk])
            store.accept(self.connection, events, deliveries, payloads, now=self._now)

    def _without_repeats(
        self,
        checked: Sequence[_Checked],
        first: Mapping[tuple[UUID, str], store.Remembered],
        *,
        takers: Collection[int] = (),
    ) -> list[_Checked]:
        """Those whose key is not among these, or that took it; the others answer with the event that has it.

        With another body they are refused.
        """
        new: list[_Checked] = []
        for item in checked:
            known = None if item.owner is None else first.get(item.owner)
            if known is None or item.place in takers:
                new.append(item)
            elif item.body_sha256 == known.body_sha256:
                self.answers[item.place] = Accepted(known.event_id, duplicate=True)
            else:
                pointer = f"event {item.place}: " if self._several else ""
                error = IdempotencyConflict(f"{pointer}the key {item.key!r} was already used with a different body")
                self._refuse(item.place, error)
        return new

    def _is_possible(
        self,
        item: _Checked,
        recipients: Mapping[tuple[UUID, str], list[store.Recipient] | None],
        schemas: Mapping[str, str],
    ) -> bool:
        event, pointer = item.event, self.pointer(item.place)
        try:
            if recipients[event.tenant_id, event.type] is None:
                tenant = format_id("ten", event.tenant_id)
                raise InvalidInput(f"{pointer}/tenant_id", tenant, "a tenant that exists")
            if event.type in schemas:
                from dispatcher.flow import event_schemas  # noqa: PLC0415 - only types with a schema need the validator

                self._steps += event_schemas.check(schemas[event.type], item.payload, f"{pointer}/payload")
        except InvalidInput as error:
            self._steps += PAUSE_STEPS // 10  # it takes longer to say what is wrong
            self._refuse(item.place, error)
            return False
        finally:
            if self._steps >= PAUSE_STEPS:
                self._steps = 0
                self._pause()
        return True

    def _routes(self, checked: Sequence[_Checked]) -> dict[int, targets.Route]:
        """How each of these gets to its target; of those that may, by their places."""
        if not checked:
            return {}
        published = profiles.of_tenants(self.connection, {item.event.tenant_id for item in checked})
        found: dict[int, targets.Route] = {}
        for item in checked:
            assert item.event.target is not None
            tenant_id, pointer = item.event.tenant_id, f"{self.pointer(item.place)}/target"
            try:
                found[item.place] = targets.route(
                    item.event.target, tenant_id, published.get(tenant_id), pointer=pointer
                )
            except InvalidInput as error:
                self._refuse(item.place, error)
        return found

    def _take_keys(self, checked: Sequence[_Checked]) -> list[_Checked]:
        """Those whose key was free; the others repeat one of these, or one that was accepted a moment ago."""
        first: dict[tuple[UUID, str], store.Remembered] = {}
        places: dict[tuple[UUID, str], int] = {}
        for item in checked:
            if item.owner is not None and item.owner not in first:
                lifetime = ID_LIFETIME if item.event.id else KEY_LIFETIME
                first[item.owner] = store.Remembered(*item.owner, item.id, item.body_sha256, lifetime.total_seconds())
                places[item.owner] = item.place
        taken = store.remember(self.connection, list(first.values()), now=self._now)
        lost = [owner for owner, one in first.items() if one.event_id not in taken]
        if lost:
            first |= {(one.tenant_id, one.key): one for one in store.recall(self.connection, lost, now=self._now)}
        takers = {place for owner, place in places.items() if owner not in lost}
        return self._without_repeats(checked, first, takers=takers)

    def pointer(self, place: int) -> str:
        """Where an event stands among the others."""
        return f"/{place}" if self._several else ""


def _chunks(checked: Sequence[_Checked]) -> Iterator[list[_Checked]]:
    """What goes into one statement each."""
    chunk: list[_Checked] = []
    size = 0
    for item in checked:
        if chunk and (len(chunk) == CHUNK or size + len(item.payload) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.payload)
    yield chunk


def _unusable(pointer: str, found: str) -> InvalidInput:
    """How every id is refused that cannot be an event's, one that another event has too: nobody is told whose."""
    return InvalidInput(f"{pointer}/id", found, "evt_ and a UUIDv7 within a day of now, made for one event")


def _own_id(event: Event) -> str:
    assert event.id is not None
    return format_id("evt", event.id)


def _check(event: Event, place: int, pointer: str, at: datetime) -> _Checked:
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
            return _Checked(place, event, payload, uuid7(at))
        return _Checked(place, event, payload, uuid7(at), event.idempotency_key, body_hash(event, payload))
    if event.idempotency_key is not None:
        raise InvalidInput(f"{pointer}/idempotency_key", "an id and an idempotency key", "one of the two")
    day = timedelta(days=1)  # compared as ids: the years of a UUIDv7 go beyond a datetime's
    if event.id.version != 7 or not first_id(at - day) <= event.id < first_id(at + day):
        raise _unusable(pointer, _own_id(event))
    return _Checked(place, event, payload, event.id, format_id("evt", event.id), body_hash(event, payload))
