"""The load of a system under test: its endpoints, and producers of every kind that write down what was confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dispatcher import emit_many
from dispatcher.client import Client
from dispatcher.errors import DispatcherError
from dispatcher.ids import first_id, format_id, uuid7
from dispatcher.model.event import Event
from tests.support.patience import PATIENCE_S
from tests.support.system import System


@dataclass(frozen=True)
class Target:
    """An endpoint of the load: where it is, what it hears, and what else is special about it."""

    path: str
    types: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ordered(self) -> bool:
        return bool(self.values.get("ordered"))


KINDS = ["ok"] * 14 + ["fail-1", "fail-1", "fail-2", "slow-150", "slow-150", "down"]
TYPES = [f"load.t{n:02}" for n in range(len(KINDS))]
ORDERED = ["ok", "fail-1", "slow-20", "fail-2"]
VICTIMS = 3


def standard_targets() -> list[Target]:
    """Twenty-six shared lanes, two of them asked by GET, four ordered ones, and some for the disturbances."""
    shared = [Target(f"/{kind}/{n}", (TYPES[n],)) for n, kind in enumerate(KINDS)]
    shared += [Target(f"/ok/two-{n}", (TYPES[n], TYPES[n + 4])) for n in range(4)]
    shared += [Target(f"/{kind}/get", (TYPES[n],), {"method": "GET"}) for n, kind in enumerate(("ok", "fail-1"))]
    ordered = [Target(f"/{kind}/in-order", (f"load.o{n}",), {"ordered": True}) for n, kind in enumerate(ORDERED)]
    return shared + ordered + [Target(f"/ok/victim-{n}", (f"load.v{n}",)) for n in range(VICTIMS)]


def type_of(n: int) -> str:
    """The type of the n-th event. What fails is sent to one at a time for a while, so it is asked for less."""
    if n % 10 == 4:
        return f"load.v{n // 10 % VICTIMS}"
    place = n % len(TYPES)
    return TYPES[place if KINDS[place] in ("ok", "slow-150") or n // len(TYPES) % 5 == 0 else n % KINDS.count("ok")]


def ordered_type(n: int) -> str:
    """The type of the n-th ordered event: what is retried holds up all that comes after it, so it is asked for less."""
    kind = {0: "fail-2", 5: "fail-1", 15: "fail-1"}.get(n % 20) or ("ok", "slow-20")[n % 2]
    return f"load.o{ORDERED.index(kind)}"


class Stalled(AssertionError):
    """Deliveries are open, and nothing has moved for long."""


@dataclass
class Load:
    """Producers that have `count` events accepted over `seconds`, each in a thread of its own.

    Half of the events come by `emit_many` in transactions of `chunk`, a tenth by `emit_many` one by one to ordered
    endpoints, and, where the system has an API, a fifth each by single requests and by batches.

    `committed` holds the ids of all events whose acceptance was confirmed, at first or on a repetition with the same
    ids: what a producer may rely on.
    """

    system: System
    count: int = 2000
    seconds: float = 5.0
    chunk: int = 20
    choose: Callable[[int], str] = type_of
    in_order: Callable[[int], str] | None = ordered_type
    committed: set[UUID] = field(default_factory=set)
    repeated: int = 0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.first = first_id(self.since)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._local = threading.local()
        shares: list[tuple[Callable[[list[Event]], None], int, float, Callable[[int], str]]] = []
        rest = 1.0
        if self.in_order is not None:
            shares.append((self._emit, 1, 0.1, self.in_order))
            rest -= 0.1
        if self.system.has_api:
            shares += [(self._post, 1, 0.2, self.choose), (self._post_batch, 25, 0.2, self.choose)]
            rest -= 0.4
        shares.append((self._emit, self.chunk, rest, self.choose))
        self._threads = [
            threading.Thread(target=self._run, args=(*share, n), name=f"producer-{n}", daemon=True)
            for n, share in enumerate(shares)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def finish(self) -> None:
        """Begins nothing more."""
        self._end.set()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(
        self, send: Callable[[list[Event]], None], chunk: int, share: float, choose: Callable[[int], str], salt: int
    ) -> None:
        began = time.monotonic()
        count = int(self.count * share)
        try:
            for start in range(0, count, chunk):
                if self._end.wait(max(0.0, began + self.seconds * start / count - time.monotonic())):
                    return
                self._confirm(send, [self._event(n, choose, salt) for n in range(start, min(start + chunk, count))])
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._close_client()

    def _event(self, n: int, choose: Callable[[int], str], salt: int) -> Event:
        payload = {"n": n, "amount": 1000 + n, "note": "x" * 200}
        return Event(type=choose(n), payload=payload, id=uuid7(), object_id=f"pay_{salt}_{n}")

    def _confirm(self, send: Callable[[list[Event]], None], events: list[Event]) -> None:
        """Until the acceptance is confirmed: the ids make a repetition safe."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                send(events)
                break
            except (SQLAlchemyError, DispatcherError):
                if time.monotonic() > deadline:
                    raise
                with self._lock:
                    self.repeated += 1
                time.sleep(0.1)
        with self._lock:
            self.committed.update(event.id for event in events if event.id is not None)

    def _emit(self, events: list[Event]) -> None:
        with Session(self.system.engine) as session, session.begin():
            emit_many(session, events, wakeup=self.system.wakeup)

    def _post(self, events: list[Event]) -> None:
        client = self._client()
        for event in events:
            client.events.create(**_asked(event))

    def _post_batch(self, events: list[Event]) -> None:
        for item in self._client().events.create_many([_asked(event) for event in events]):
            if item["status"] == "failed":
                raise DispatcherError(f"an event of a batch was refused: {item}")

    def _client(self) -> Client:
        """The thread's own, for as long as the API stays where it is."""
        kept: tuple[str, Client] | None = getattr(self._local, "client", None)
        if kept is None or kept[0] != self.system.url:
            self._close_client()
            url = self.system.url
            kept = url, Client(url, api_key=self.system.api_key, max_retries=0, timeout_s=20.0)
            self._local.client = kept
        return kept[1]

    def _close_client(self) -> None:
        kept: tuple[str, Client] | None = getattr(self._local, "client", None)
        if kept is not None:
            kept[1].close()

    def drain(self, *, stalled_s: float = PATIENCE_S, within_s: float = 2 * PATIENCE_S) -> float:
        """Waits until every delivery of this load has ended, and every replay; seconds since the call.

        Raises Stalled where nothing moves for so long, or much moves and nothing comes of it within `within_s`.
        """
        began = moved_at = time.monotonic()
        before: Any = None
        while True:
            now = self.system.rows(
                """SELECT count(*), coalesce(sum(claim_seq), 0),
                          (SELECT count(*) FROM dispatcher.replays WHERE state = 'running')
                   FROM dispatcher.deliveries WHERE event_id >= :first""",
                first=self.first,
            )[0]
            if now[0] == now[2] == 0:
                return time.monotonic() - began
            if now != before:
                before, moved_at = now, time.monotonic()
            if time.monotonic() - moved_at > stalled_s or time.monotonic() - began > within_s:
                raise Stalled(f"{now[0]} deliveries are open, and nothing has moved for {stalled_s:g} s")
            time.sleep(0.1)


def _asked(event: Event) -> dict[str, Any]:
    assert event.id is not None
    return {
        "id": format_id("evt", event.id),
        "type": event.type,
        "payload": event.payload,
        "object_id": event.object_id,
    }
