"""What operators and merchants do while everything runs: none of it is a fault, and none of it may cost anything."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from dispatcher.errors import DispatcherError
from dispatcher.flow import erase, pause, prune, register, replay, retention
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.filter import Filter
from dispatcher.store import partitions
from dispatcher.store.partitions import DayPartition
from dispatcher.store.pauses import Scope
from tests.crash.faults import Fault
from tests.crash.load import VICTIMS, Target
from tests.support.ledger import Ledger
from tests.support.patience import PATIENCE_S, until
from tests.support.system import System

T = TypeVar("T")

BY = "crash harness"
HELD_S = 1.0

_numbers = count()


def commit(system: System, work: Callable[[Connection], T]) -> T | None:
    """Does it in a transaction, again where the database was away meanwhile.

    The answer to a commit may be lost: on a repetition, what has been done already is no error.
    """
    deadline = time.monotonic() + PATIENCE_S
    is_repeated = False
    while True:
        try:
            with system.engine.begin() as connection:
                return work(connection)
        except DBAPIError:
            if time.monotonic() > deadline:
                raise
            is_repeated = True
            time.sleep(0.1)
        except DispatcherError:
            if not is_repeated:
                raise
            return None


def pause_endpoint(system: System, rng: random.Random) -> None:
    path, endpoint_id = _victim(system, rng)
    scope = Scope(endpoint_id=endpoint_id)
    commit(system, lambda connection: pause.create(connection, scope, reason="crash harness", by=BY))
    _hold(system, path, endpoint_id, "paused")
    commit(system, lambda connection: pause.end_scope(connection, scope, by=BY))


def disable_endpoint(system: System, rng: random.Random) -> None:
    path, endpoint_id = _victim(system, rng)
    commit(system, lambda connection: register.disable(connection, endpoint_id, "crash harness", by=BY))
    _hold(system, path, endpoint_id, "disabled")
    commit(system, lambda connection: register.enable(connection, endpoint_id, by=BY))


def _hold(system: System, path: str, endpoint_id: UUID, why: str) -> None:
    """Waits until nothing is in flight to the endpoint, and then for a while in which nothing may come."""

    def is_quiet(connection: Connection) -> bool:
        # Whoever claims has the lane locked: after him, claims see the hold.
        connection.execute(
            text("SELECT FROM dispatcher.lanes WHERE endpoint_id = :id FOR NO KEY UPDATE"), {"id": endpoint_id}
        )
        busy = "SELECT count(*) FROM dispatcher.deliveries WHERE endpoint_id = :id AND state = 'in_flight'"
        return bool(connection.execute(text(busy), {"id": endpoint_id}).scalar_one() == 0)

    until(lambda: commit(system, is_quiet), f"nothing is in flight to {path}")
    since_s = time.monotonic()
    time.sleep(HELD_S)
    system.history.hold(path, why, since_s)


def delete_endpoint(system: System, ledger: Ledger, rng: random.Random) -> None:
    """One that was registered a second ago: what waits for it is cancelled."""
    target = Target(f"/ok/gone-{next(_numbers)}", (f"load.v{rng.randrange(VICTIMS)}",))
    system.register(ledger, [target])
    time.sleep(1.0)
    system.history.deleted.add(target.path)
    endpoint_id = system.endpoint_ids[target.path]
    commit(system, lambda connection: register.delete(connection, endpoint_id, by=BY))


def rotate_secret(system: System, rng: random.Random) -> None:
    """The receiver goes on to know the old secret only, which signs beside the new one."""
    registrar = system.registrar()
    _, endpoint_id = _victim(system, rng)
    commit(system, lambda connection: registrar.rotate_secret(connection, endpoint_id, by=BY))


def erase_object(system: System, rng: random.Random) -> None:
    """A payment of the load, whose deliveries are over, waiting or in flight."""
    rows = system.rows("SELECT object_id FROM dispatcher.deliveries WHERE state = 'waiting' LIMIT 20")
    object_id = rng.choice([row[0] for row in rows]) if rows else "pay_0_0"
    system.history.erased.add(object_id)
    commit(system, lambda connection: erase.start(connection, object_id, by=BY))


def replay_delivered(system: System, rng: random.Random) -> None:
    """Everything that one endpoint was sent in the last half minute."""
    _, endpoint_id = _victim(system, rng)
    chosen = Filter(
        endpoint_id=endpoint_id,
        states=(DeliveryState.DELIVERED,),
        created_after=datetime.now(UTC) - timedelta(seconds=30),
    )
    commit(system, lambda connection: replay.start(connection, chosen, by=BY))


def retain(system: System, rng: random.Random) -> None:
    """Rewrites or empties a partition of the answers of today, as if it were the day after tomorrow."""
    policy = retention.Policy(payloads=timedelta(days=30), responses=timedelta(days=1), metadata=timedelta(days=90))
    at = datetime.now(UTC) + timedelta(days=2)
    _briefly(system, lambda connection: retention.step(connection, policy, now=at))


def make_partitions(system: System, rng: random.Random) -> None:
    """Of days to come, each time of others."""
    at = datetime.now(UTC) + timedelta(days=1 + next(_numbers) % 20)
    missing: list[DayPartition] = []
    _briefly(system, lambda connection: missing.extend(partitions.missing(connection, now=at)))
    for partition in missing:
        _briefly(system, partial(prune.make_partition, partition=partition))


def drop_last_partition(system: System) -> None:
    """Drops the partition of the day that is farthest ahead, which is empty: the scheduler makes it anew."""
    day = datetime.now(UTC) + timedelta(days=partitions.DAYS_AHEAD)

    def drop(connection: Connection) -> None:
        partitions.lock_briefly(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS dispatcher.events_{day:%Y%m%d}"))

    _briefly(system, drop)


def _briefly(system: System, work: Callable[[Connection], object]) -> None:
    """Does it if the locks are to be had now: otherwise the scheduler too would try again later."""
    try:
        with system.engine.begin() as connection:
            work(connection)
    except DBAPIError:
        time.sleep(0.1)


def _victim(system: System, rng: random.Random) -> tuple[str, UUID]:
    path = f"/ok/victim-{rng.randrange(VICTIMS)}"
    return path, system.endpoint_ids[path]


def all_of(ledger: Ledger) -> dict[str, Fault]:
    """Each by its name; deleting needs the ledger, which must know the secret of what is registered."""
    return {**BY_NAME, "delete_endpoint": lambda system, rng: delete_endpoint(system, ledger, rng)}


BY_NAME: dict[str, Fault] = {
    "pause_endpoint": pause_endpoint,
    "disable_endpoint": disable_endpoint,
    "rotate_secret": rotate_secret,
    "erase": erase_object,
    "replay": replay_delivered,
    "retain": retain,
    "make_partitions": make_partitions,
}
