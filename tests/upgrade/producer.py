"""A producer as a script, for the `dispatcher` package that PYTHONPATH names, whichever version that is.

`producer.py register TYPE=URL…` registers endpoints, each with its event type. `producer.py emit` emits events from
several threads until its standard input ends, then prints {"committed": [[event id, type]], "repeated": number} as
JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import config, wiring
from dispatcher.flow.enqueue import enqueue
from dispatcher.flow.register import NewEndpoint, Register
from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import Event
from dispatcher.wakeup import Wakeup

THREADS = 3
CHUNK = 10
PAUSE_S = 0.05
MOST_LIVE = 400  # deliveries, so that a slow machine has no large backlog in the end
RARE = 20  # one event in so many chunks is of the type "rare"
GIVE_UP_S = 120.0


def register(settings: Any, endpoints: list[str]) -> None:
    if hasattr(wiring, "register"):
        registrar = wiring.register(settings)
    else:  # schema 0001
        policy = wiring.url_policy(settings)  # type: ignore[attr-defined]
        registrar = Register(keyring=wiring.keyring(settings), url_policy=policy)  # type: ignore[call-arg]
    with create_engine(settings.database_url).begin() as connection:
        for type_, _, url in (endpoint.partition("=") for endpoint in endpoints):
            registrar.create(connection, NewEndpoint(url=url, event_types=[type_], schedule="crash"))


class Producer:
    def __init__(self, settings: Any) -> None:
        self._engine = create_engine(settings.database_url, pool_size=THREADS)
        self._wakeup = Wakeup(settings.broker_url)
        self._stopping = threading.Event()
        self._committed: list[tuple[str, str]] = []  # id, type
        self._repeated = 0
        self._errors: list[BaseException] = []

    def run(self) -> dict[str, Any]:
        threads = [threading.Thread(target=self._emit_chunks) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._stopping.set()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return {"committed": self._committed, "repeated": self._repeated}

    def _emit_chunks(self) -> None:
        try:
            chunks = 0
            while not self._stopping.is_set():
                if self._live() < MOST_LIVE:
                    types = ["rare" if chunks % RARE == 0 else "common"] + ["common"] * (CHUNK - 1)
                    self._emit([Event(type=type_, payload={}, id=uuid7()) for type_ in types])
                    chunks += 1
                self._stopping.wait(PAUSE_S)
        except BaseException as error:
            self._errors.append(error)

    def _live(self) -> int:
        with self._engine.connect() as connection:
            live: int = connection.execute(text("SELECT count(*) FROM dispatcher.deliveries")).scalar_one()
            return live

    def _emit(self, events: list[Event]) -> None:
        """Until the commit is confirmed: the ids make a repetition safe."""
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                with self._engine.begin() as connection:
                    enqueue(connection, events)
                break
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                self._repeated += 1
                time.sleep(0.1)
        self._wakeup.ring()
        self._committed += [(format_id("evt", event.id), event.type) for event in events if event.id is not None]


if __name__ == "__main__":
    loaded = config.load()
    if sys.argv[1] == "register":
        register(loaded, sys.argv[2:])
    else:
        print(json.dumps(Producer(loaded).run()))
