"""Faults of the matrix: each is done while processes stand at a step, which `release` lets go on.

Each returns once the fault is over, or has happened. How long one lasts is less than the workers' term of the matrix:
what is longer than a term may cost duplicates, and is tried by `freeze`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.support.patience import PATIENCE_S, until
from tests.support.system import System, UpSystem
from tests.support.walk import hot_url

LASTS_S = 1.5

Release = Callable[[], None]


@dataclass(frozen=True)
class Outage:
    """A fault by its name. `needs` says of which kind the system must be: stack, disk or up.

    `act` gets the numbers of the processes that stand at a step. `uses` is what the fault takes away.
    """

    name: str
    act: Callable[[System, Sequence[int], Release], None]
    needs: str = "stack"
    uses: str = "process"


def admin(system: System) -> psycopg.Connection[Any]:
    """A connection that commits at once and may write whatever the database's settings say."""
    return psycopg.connect(
        hot_url(system.database_url),
        autocommit=True,
        options="-c default_transaction_read_only=off",
        connect_timeout=10,
    )


OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"


def kill(system: System, pids: Sequence[int], release: Release) -> None:
    for pid in pids:
        system.history.taken.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        system.history.kills += 1
    until(lambda: not any(_runs(pid) for pid in pids), "they are gone")
    release()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def freeze(system: System, pids: Sequence[int], release: Release) -> None:
    """For longer than a worker's term."""
    system.history.taken.update(pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(system.term_s * 1.3)
    release()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def terminate(system: System, pids: Sequence[int], release: Release) -> None:
    with admin(system) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")
    release()


def cancel(system: System, pids: Sequence[int], release: Release) -> None:
    """Every statement that runs, again and again: one is under way only after the release."""
    deadline = time.monotonic() + LASTS_S / 3
    with admin(system) as connection:
        release()
        while time.monotonic() < deadline:
            connection.execute(
                f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OTHERS} AND state = 'active'"
            )


def immediate_stop(system: System, pids: Sequence[int], release: Release) -> None:
    began = time.monotonic()
    system.restart_postgres()
    if time.monotonic() - began > system.term_s / 2:
        system.take_all_workers()
    release()


def connection_limit(system: System, pids: Sequence[int], release: Release) -> None:
    """Others hold every connection that the server has; whoever comes back finds none."""
    held: list[psycopg.Connection[Any]] = []

    def fill() -> None:
        with suppress(psycopg.OperationalError):
            while True:
                held.append(admin(system))

    try:
        fill()
        ours = [connection.info.backend_pid for connection in held]
        held[0].execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS} AND NOT pid = ANY (%s)", [ours]
        )
        fill()
        release()
        time.sleep(LASTS_S)
    finally:
        for connection in held:
            connection.close()


LOCKED = "dispatcher.deliveries, dispatcher.lanes, dispatcher.wakes, dispatcher.events, dispatcher.attempts"


def lock(system: System, pids: Sequence[int], release: Release) -> None:
    """The tables of the walk, exclusively; who waits in a transaction of his own ends it first.

    They are locked one after the other, so PostgreSQL may find a deadlock with a transaction of the product and end
    either of the two: where that is ours, it is done again.
    """
    timer = threading.Timer(0.2, release)
    timer.start()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with admin(system) as connection, connection.transaction():
                connection.execute(f"LOCK TABLE {LOCKED} IN ACCESS EXCLUSIVE MODE")
                time.sleep(LASTS_S)
            break
        except psycopg.errors.DeadlockDetected:
            if time.monotonic() > deadline:
                raise
    timer.join()


def read_only(system: System, pids: Sequence[int], release: Release) -> None:
    with admin(system) as connection:
        try:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            release()
            time.sleep(LASTS_S)
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


def redis_wiped(system: System, pids: Sequence[int], release: Release) -> None:
    system.flush_redis()
    release()


def redis_frozen(system: System, pids: Sequence[int], release: Release) -> None:
    """Longer than a wake-up's time-out."""
    system.kill("redis", signal.SIGSTOP)
    try:
        release()
        time.sleep(LASTS_S)
    finally:
        system.kill("redis", signal.SIGCONT)


@contextmanager
def _configured(system: System, on: Sequence[str], off: Sequence[str]) -> Iterator[None]:
    with system.redis() as client:
        client.execute_command(*on)
        try:
            yield
        finally:
            client.execute_command(*off)


def redis_full(system: System, pids: Sequence[int], release: Release) -> None:
    with _configured(system, ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]):
        release()
        time.sleep(LASTS_S)


def redis_replica(system: System, pids: Sequence[int], release: Release) -> None:
    """Of a primary that is not there: it refuses to be written to."""
    with _configured(system, ["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]):
        release()
        time.sleep(LASTS_S)


def broker_gone(system: System, pids: Sequence[int], release: Release) -> None:
    system.stack.supervisor.stop_one("redis")
    try:
        release()
        time.sleep(LASTS_S)
    finally:
        system.stack.supervisor.start_one("redis")
    until(lambda: _answers(system), "Redis answers")


def _answers(system: System) -> bool:
    with system.redis() as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def disk_full(system: System, pids: Sequence[int], release: Release) -> None:
    """Of the servers' own file system, until PostgreSQL has refused something or stopped."""
    assert system.disk is not None
    filler = system.disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    try:
        release()
        time.sleep(LASTS_S)
    finally:
        filler.unlink()
    system.take_all_workers()  # PostgreSQL may stop of it, and starts again by the supervisor's back-off
    until(lambda: system.rows("SELECT 1"), "PostgreSQL answers")


def supervisor(system: System, pids: Sequence[int], release: Release) -> None:
    _kill_up(system, release, with_guard=False)


def guard(system: System, pids: Sequence[int], release: Release) -> None:
    """The guard and then the supervisor: nobody stops what is left over but the next start."""
    _kill_up(system, release, with_guard=True)


def _kill_up(system: System, release: Release, *, with_guard: bool) -> None:
    assert isinstance(system, UpSystem)
    system.take_all_workers()
    if with_guard:
        system.kill_guard()
    system.kill_supervisor()
    release()
    system.start()
    system.note_workers()  # those that had no row before


OUTAGES = [
    Outage("kill", kill),
    Outage("freeze", freeze),
    Outage("pg terminate", terminate, uses="database"),
    Outage("pg cancel", cancel, uses="database"),
    Outage("pg immediate stop", immediate_stop, uses="database"),
    Outage("pg connection limit", connection_limit, uses="database"),
    Outage("pg lock", lock, uses="database"),
    Outage("pg read-only", read_only, uses="database"),
    Outage("disk full", disk_full, needs="disk", uses="database"),
    Outage("redis wiped", redis_wiped, uses="broker"),
    Outage("redis frozen", redis_frozen, uses="broker"),
    Outage("redis full", redis_full, uses="broker"),
    Outage("redis replica", redis_replica, uses="broker"),
    Outage("broker gone", broker_gone, uses="broker"),
    Outage("supervisor", supervisor, needs="up"),
    Outage("guard", guard, needs="up"),
]
