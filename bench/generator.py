"""The producer's side: a process of its own that emits events, so that its CPU can be told apart.

In bulk it emits batch after batch as fast as the database takes them. In an open loop each event has an instant at
which it is to be emitted, whatever became of the earlier ones, and its latency counts from that instant: a system that
stalls does not hide its stall by stalling the load too (coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self
from uuid import UUID

import orjson
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench import processes
from dispatcher import Event, Wakeup, emit_many

BATCH = 500
TICK_S = 0.005
"""In an open loop, what has become due within so long shares a transaction, as concurrent calls of an API would."""


def payload(size: int) -> dict[str, Any]:
    """A payment of exactly `size` bytes as JSON."""
    made: dict[str, Any] = {
        "payment": {"id": "pay_01890a5d", "amount": 12_500, "currency": "EUR", "status": "completed"},
        "customer": {"name": "Zoë Müller", "email": "zoe@example.com", "country": "DE"},
        "lines": [{"sku": f"item-{n}", "quantity": n, "price": 1_990, "note": 'a "quoted" word'} for n in range(1, 6)],
        "note": "",
    }
    lacking = size - len(orjson.dumps(made))
    if lacking < 0:
        raise ValueError(f"a payload has at least {size - lacking} bytes")
    made["note"] = "x" * lacking
    return made


@dataclass(frozen=True, slots=True)
class Emitted:
    """The events in their order: ids, when each was to be emitted and when its transaction had committed."""

    ids: Sequence[UUID]
    wanted_at_s: Sequence[float]
    accepted_at_s: Sequence[float]


class _Generator:
    def __init__(self, database_url: str, broker_url: str, tenants: Sequence[UUID], payload_bytes: int) -> None:
        self._engine = create_engine(database_url)
        self._wakeup = Wakeup(broker_url)
        self._tenants = tenants
        self._payload = payload(payload_bytes)
        self._emitted = 0

    def _emit(self, count: int) -> list[UUID]:
        first = self._emitted
        self._emitted += count
        events = [
            Event(
                type="payment.completed",
                payload=self._payload,
                tenant_id=self._tenants[n % len(self._tenants)],
                object_id=f"pay_{n}",
            )
            for n in range(first, first + count)
        ]
        with Session(self._engine) as session, session.begin():
            accepted = emit_many(session, events, wakeup=self._wakeup)
        return [one.id for one in accepted]

    def bulk(self, count: int) -> Emitted:
        ids: list[UUID] = []
        wanted: list[float] = []
        accepted: list[float] = []
        while len(ids) < count:
            wanted_at_s = time.monotonic()
            batch = self._emit(min(BATCH, count - len(ids)))
            ids += batch
            wanted += [wanted_at_s] * len(batch)
            accepted += [time.monotonic()] * len(batch)
        return Emitted(ids, wanted, accepted)

    def open_loop(self, count: int, per_s: float) -> Emitted:
        ids: list[UUID] = []
        accepted: list[float] = []
        start_s = time.monotonic() + 0.01
        while len(ids) < count:
            time.sleep(max(0.0, start_s + len(ids) / per_s - time.monotonic()) + TICK_S)
            due = min(count, int((time.monotonic() - start_s) * per_s) + 1) - len(ids)
            ids += self._emit(min(due, BATCH))
            accepted += [time.monotonic()] * (len(ids) - len(accepted))
        return Emitted(ids, [start_s + n / per_s for n in range(count)], accepted)


def _run(pipe: Connection, *arguments: Any) -> None:
    generator = _Generator(*arguments)
    emitted = None
    try:
        while True:
            what, values = pipe.recv()
            if what == "tell":
                pipe.send(emitted)
            else:
                emitted = getattr(generator, what)(*values)
                pipe.send(None)  # what was emitted is told later: to say it costs CPU that no producer has
    except EOFError:  # whoever started us is gone
        return


class Generator:
    """The generator's process. Tenants take turns: event n goes to tenant n modulo their number."""

    def __init__(self, database_url: str, broker_url: str, tenants: Sequence[UUID], *, payload_bytes: int) -> None:
        context = processes.context()
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, database_url, broker_url, tenants, payload_bytes)
        self._process = context.Process(target=_run, args=arguments, daemon=True, name="bench-generator")
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def start_bulk(self, count: int) -> None:
        """Begins to emit; `emitted` has the result."""
        self._pipe.send(("bulk", (count,)))

    def start_open_loop(self, count: int, per_s: float) -> None:
        """Begins to emit `count` events, so many a second."""
        self._pipe.send(("open_loop", (count, per_s)))

    def is_done(self) -> bool:
        """Whether `emitted` would not wait."""
        return self._pipe.poll()

    def emitted(self) -> Emitted:
        """Waits for what was begun. Raises RuntimeError where the process died of it."""
        try:
            self._pipe.recv()
            self._pipe.send(("tell", ()))
            found: Emitted = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError("the generator failed: its traceback stands above") from error
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()
