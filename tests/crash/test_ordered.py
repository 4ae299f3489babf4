"""Ordered endpoints under the faults of PostgreSQL, with five producers at once; the receiver's ledger is the judge.

`ORDERED_DELIVERIES=20000` makes a campaign of it, `ORDERED_SEED` another one.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher.flow.enqueue import enqueue
from dispatcher.ids import format_id, uuid7
from dispatcher.model.event import Event
from tests.crash.load import Target
from tests.support.ledger import Ledger, Post
from tests.support.patience import PATIENCE_S, until
from tests.support.system import System

pytestmark = pytest.mark.crash

DELIVERIES: Final = int(os.environ.get("ORDERED_DELIVERIES", "160"))
SEED: Final = int(os.environ.get("ORDERED_SEED", "1"))
PRODUCERS: Final = 5
LANES: Final = 4 if DELIVERIES < 1000 else 40


@dataclass
class Emitted:
    """An event: when its producer began to emit it, and when it knew that it was committed, by one monotonic clock."""

    lane: str
    began_s: float
    committed_s: float = float("inf")


@dataclass
class Producers:
    """Five threads that emit to every lane in turn, each transaction until its commit is confirmed."""

    system: System
    emitted: dict[UUID, Emitted] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(PRODUCERS)]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        assert self.errors == []

    def _run(self, number: int) -> None:
        rng = random.Random(SEED * PRODUCERS + number)
        engine = create_engine(self.system.database_url, pool_pre_ping=True)
        try:
            for n in range(DELIVERIES // PRODUCERS):
                lane = f"/ok/ordered-{rng.randrange(LANES)}"
                event = Event(type=f"ordered.{lane.rpartition('-')[2]}", payload={"n": n}, id=uuid7())
                assert event.id is not None
                self.emitted[event.id] = Emitted(lane, time.monotonic())
                deadline = time.monotonic() + PATIENCE_S
                while True:
                    try:
                        with engine.begin() as connection:
                            enqueue(connection, [event])
                            time.sleep(rng.choice((0, 0, 0.005)))  # transactions overlap
                        break
                    except DBAPIError:
                        assert time.monotonic() < deadline
                        time.sleep(0.02)
                self.emitted[event.id].committed_s = time.monotonic()
                self.system.wakeup.ring()
        except BaseException as error:
            self.errors.append(error)
        finally:
            engine.dispose()


def terminate(system: System) -> None:
    system.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def cancel(system: System) -> None:
    system.rows("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def lock(system: System) -> None:
    """A lock in the way of every claim and record, for half a second."""
    with system.engine.begin() as connection:
        connection.execute(text("LOCK TABLE dispatcher.deliveries IN SHARE ROW EXCLUSIVE MODE"))
        time.sleep(0.5)


def read_only(system: System) -> None:
    """As after a failover that was not noticed: every write is refused for half a second."""
    with system.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET default_transaction_read_only = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
        time.sleep(0.5)
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text("ALTER SYSTEM RESET default_transaction_read_only"))
        connection.execute(text("SELECT pg_reload_conf()"))


def stop_immediately(system: System) -> None:
    system.restart_postgres()


FAULTS: Final[list[Callable[[System], None]]] = [terminate, cancel, lock, read_only, stop_immediately]


@pytest.fixture
def system() -> Iterator[System]:
    with System(workers=2, schedulers=1, term_s=10.0) as found:
        yield found


def inverted(emitted: dict[UUID, Emitted], posts: list[Post]) -> list[str]:
    """Events that first came after one that was emitted only when they had been committed."""
    first: dict[str, int] = {}
    for n, post in enumerate(posts):
        first.setdefault(post.webhook_id, n)
    found = []
    for lane in sorted({one.lane for one in emitted.values()}):
        came = sorted((first[format_id("evt", id_)], id_) for id_, one in emitted.items() if one.lane == lane)
        committed_s = float("inf")  # of what came later, whatever was committed first
        for _, id_ in reversed(came):
            if committed_s < emitted[id_].began_s:
                found.append(f"{lane}: {id_}")
            committed_s = min(committed_s, emitted[id_].committed_s)
    return found


def against_ids(system: System, posts: list[Post]) -> int:
    """How many events first came after one whose delivery has a greater id: their transactions overlapped."""
    ids = {
        format_id("evt", event_id): (endpoint_id, id_)
        for event_id, endpoint_id, id_ in system.rows(
            "SELECT event_id, endpoint_id, id FROM dispatcher.ended_deliveries"
        )
    }
    greatest: dict[UUID, UUID] = {}
    count = 0
    for webhook_id in dict.fromkeys(post.webhook_id for post in posts):
        endpoint_id, id_ = ids[webhook_id]
        count += id_ < greatest.get(endpoint_id, id_)
        greatest[endpoint_id] = max(id_, greatest.get(endpoint_id, id_))
    return count


def test_the_judge_finds_an_inversion() -> None:
    ids = [uuid7() for _ in range(2)]
    emitted = {ids[0]: Emitted("/ok", 0.0, 1.0), ids[1]: Emitted("/ok", 2.0, 3.0)}
    posts = [Post(format_id("evt", id_), "/ok", 0.0, "", 200, None) for id_ in reversed(ids)]
    assert inverted(emitted, posts) != []
    assert inverted(emitted, posts[::-1]) == []


def test_what_was_committed_before_another_was_emitted_comes_before_it_whatever_happens_to_the_database(
    system: System, ledger: Ledger
) -> None:
    system.register(ledger, [Target(f"/ok/ordered-{n}", (f"ordered.{n}",)) for n in range(LANES)])
    with system.engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher.endpoints SET ordered = true"))
    before, rng = ledger.count(), random.Random(SEED)
    producers = Producers(system)
    producers.start()
    faults = 0
    while producers.running or faults < len(FAULTS):
        fault = FAULTS[faults] if faults < len(FAULTS) else rng.choice(FAULTS)
        with contextlib.suppress(DBAPIError):  # the one before is not over
            fault(system)
        faults += 1
        time.sleep(rng.uniform(0.05, 0.5))
    producers.join()
    until(lambda: system.rows("SELECT count(*) FROM dispatcher.deliveries")[0][0] == 0, "everything has ended")
    posts = ledger.posts(before)
    assert {post.webhook_id for post in posts} == {format_id("evt", id_) for id_ in producers.emitted}
    overlapping = against_ids(system, posts)
    print(f"{len(posts)} POSTs of {DELIVERIES} deliveries, {faults} faults, {overlapping} not in the order of ids")
    assert inverted(producers.emitted, posts) == []
