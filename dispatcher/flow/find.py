"""Finds anything by what people have of it: an id, the payment it is about, a URL or a host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from dispatcher.egress.url import searched_host, searched_url
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.flow import register
from dispatcher.ids import format_id, is_short, parse_id, parse_short_id
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.filter import Filter
from dispatcher.store import endpoints, event_log, log, replays, short_ids, tenants
from dispatcher.store import find as store
from dispatcher.store.event_log import EventFilter
from dispatcher.store.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.ids import Prefix
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.event import Mode
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery, LoggedEvent
    from dispatcher.store.replays import Replay
    from dispatcher.store.tenants import ApiKey, Tenant

Kind = Literal["event", "endpoint", "delivery", "attempt", "replay", "tenant", "key"]

MOST: Final = 50
"""Of each kind, the newest."""

TARGETS: Final = timedelta(days=30)
"""How far back deliveries are looked for by the URL of a target: no index has it."""

_SHORTENED: Final[tuple[Prefix, ...]] = ("evt", "ep", "dlv", "rpl", "ten", "key")
"""Kinds of ids that are found by their first characters."""

_OBJECT_ID: Final = 200

_HOST: Final = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\])|([\w-]+(?:[.。．｡][\w-]+)+\.?|localhost))(?::(\d{1,5}))?")
_ORIGIN: Final = re.compile(r"[A-Za-z]+://([^/?#]+)/?")


@dataclass(frozen=True, slots=True)
class AttemptOf:
    """An attempt, and the delivery that it was of."""

    attempt: LoggedAttempt
    delivery_id: UUID


Thing: TypeAlias = "LoggedEvent | Endpoint | LoggedDelivery | AttemptOf | Replay | Tenant | ApiKey"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing, and what is to be said of it in a line."""

    kind: Kind
    summary: str
    thing: Thing


@dataclass(frozen=True, slots=True)
class Finder:
    """Who looks: `own` is the tenant whose things are to be found, None for all; `keys` whether API keys may be.

    With a `mode`, only events, deliveries and attempts of that mode are found; other things have no mode.
    """

    connection: Connection
    now: datetime
    own: UUID | None = None
    keys: bool = False
    mode: Mode | None = None

    def __call__(self, asked: str) -> list[Found]:
        """All that `asked` names: one thing by its id, and with an event its deliveries; else everything that has an id
        that begins so, is about an object, or is at a URL or a host. At most `MOST` of each kind.
        """
        asked = asked.strip()
        if (named := _id(asked)) is not None:
            return list(self._by_id(*named))
        return [*self._beginning_with(asked), *self._about(asked), *self._at(asked)]

    def _by_id(self, prefix: Prefix, id_: UUID) -> Iterator[Found]:
        match prefix:
            case "evt":
                yield from self._event(id_)
            case "ep":
                try:
                    yield _of_endpoint(register.find(self.connection, id_, tenant_id=self.own))
                except NotFound:
                    return
            case "dlv":
                if (delivery := self._delivery(id_)) is not None:
                    yield _of_delivery(delivery)
            case "att":
                yield from self._attempt(id_)
            case "rpl":
                replay = replays.find(self.connection, id_)
                if replay is not None and self.own in (None, replay.tenant_id):
                    yield _of_replay(replay)
            case "ten":
                tenant = tenants.find(self.connection, id_) if self.own in (None, id_) else None
                if tenant is not None:
                    yield Found("tenant", tenant.name, tenant)
            case "key":
                key = tenants.find_key_by_id(self.connection, id_) if self.keys else None
                if key is not None and self.own in (None, key.tenant_id):
                    yield _of_key(key)

    def _beginning_with(self, short_id: str) -> Iterator[Found]:
        """What has an id with this beginning; of a single event the deliveries too. Attempts have no index for it."""
        if not is_short(short_id) or not short_id.startswith(tuple(f"{prefix}_" for prefix in _SHORTENED)):
            return
        ids = parse_short_id(_SHORTENED, short_id)
        if ids.prefix == "key" and not self.keys:
            return
        found = short_ids.find(self.connection, ids, tenant_id=self.own, limit=MOST)
        for id_ in found:
            yield from islice(self._by_id(ids.prefix, id_), None if len(found) == 1 else 1)

    def _event(self, id_: UUID) -> Iterator[Found]:
        event = log.find_event(self.connection, id_)
        if event is None or self.own not in (None, event.tenant_id) or self.mode not in (None, event.mode):
            return
        yield _of_event(event)
        for one in search(self.connection, Filter(event_id=id_, tenant_id=self.own), limit=MOST):
            yield _of_delivery(one)

    def _delivery(self, id_: UUID) -> LoggedDelivery | None:
        found = log.find(self.connection, id_)
        if found is None or self.own not in (None, found.tenant_id) or self.mode not in (None, found.mode):
            return None
        return found

    def _attempt(self, id_: UUID) -> Iterator[Found]:
        found = log.find_attempt(self.connection, id_)
        if found is None or self._delivery(found[0]) is None:
            return
        delivery_id, attempt = found
        status = "" if attempt.status_code is None else f" {attempt.status_code}"
        said = f"attempt {attempt.number} of {format_id('dlv', delivery_id)}: {attempt.outcome}{status}"
        yield Found("attempt", said, AttemptOf(attempt, delivery_id))

    def _about(self, object_id: str) -> Iterator[Found]:
        if len(object_id) > _OBJECT_ID:
            return
        chosen = EventFilter(object_id=object_id, tenant_id=self.own, mode=self.mode)
        for event in event_log.search(self.connection, chosen, limit=MOST):
            yield _of_event(event)
        deliveries = Filter(object_id=object_id, tenant_id=self.own, mode=self.mode)
        for one in search(self.connection, deliveries, limit=MOST):
            yield _of_delivery(one)

    def _at(self, asked: str) -> Iterator[Found]:
        is_url, at = "://" in asked, host_and_port(asked)
        if not is_url and at is None:
            return
        if is_url:
            asked = searched_url(asked)
        host, port = at or (None, None)
        ids = store.endpoints_at(self.connection, url=asked, host=host, port=port, tenant_id=self.own, limit=MOST)
        by_id = endpoints.fetch(self.connection, ids)
        for one in ids:
            yield _of_endpoint(by_id[one])
        if is_url and store.is_target(self.connection, url=asked, tenant_id=self.own):
            chosen = Filter(target_url=asked, tenant_id=self.own, mode=self.mode, created_after=self.now - TARGETS)
            for delivery in search(self.connection, chosen, limit=MOST):
                yield _of_delivery(delivery)


def _id(asked: str) -> tuple[Prefix, UUID] | None:
    """What an id of ours names; None for anything else, such as a merchant's own `key_1`."""
    prefixes: tuple[Prefix, ...] = ("evt", "ep", "dlv", "att", "rpl", "ten", "key")
    for prefix in prefixes:
        if asked.startswith(f"{prefix}_"):
            try:
                return prefix, parse_id(prefix, asked)
            except InvalidInput:
                return None
    return None


def host_and_port(asked: str) -> tuple[str, int | None] | None:
    """The host that is named, by itself or by a URL that names nothing else, and its port; None for anything else.

    Where no port is named it is None, and any port will do.

    >>> host_and_port("shop.example.com:8443"), host_and_port("https://shop.example.com/")
    (('shop.example.com', 8443), ('shop.example.com', None))
    >>> host_and_port("https://shop.example.com/hook")
    >>> host_and_port("bücher.example")
    ('xn--bcher-kva.example', None)
    """
    if (origin := _ORIGIN.fullmatch(asked)) is not None:
        asked = origin[1]
    found = _HOST.fullmatch(asked)
    return None if found is None else (found[1] or searched_host(found[2]), None if found[3] is None else int(found[3]))


def _of_event(one: LoggedEvent) -> Found:
    went = {0: "matched no endpoint", 1: "went to 1 endpoint"}.get(one.fanout, f"went to {one.fanout} endpoints")
    return Found("event", f"{one.type}: {went}", one)


def _of_endpoint(one: Endpoint) -> Found:
    why = f" ({one.status_reason})" if one.status_reason else ""
    return Found("endpoint", f"{one.url}: {one.status}{why}", one)


def _of_delivery(one: LoggedDelivery) -> Found:
    why = None if one.state is DeliveryState.DELIVERED else one.held or one.reason
    return Found("delivery", f"{one.event_type} to {one.url}: {one.state}" + (f" ({why})" if why else ""), one)


def _of_replay(one: Replay) -> Found:
    return Found("replay", f"{one.state}: {one.replayed} done", one)


def _of_key(one: ApiKey) -> Found:
    return Found("key", one.name + ("" if one.revoked_at is None else " (revoked)"), one)
