"""What is done to a running system. Each fault returns once it has happened; the supervisor repairs what died."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from sqlalchemy import text

from dispatcher.workers.app import DELIVER, QUEUE, make_app
from tests.support.patience import until
from tests.support.system import System

Fault = Callable[[System, random.Random], None]


def kill_worker(system: System, rng: random.Random) -> None:
    """SIGKILL in the middle of its work: what it has in flight or unrecorded has an unknown outcome."""
    system.kill(rng.choice(system.busy_workers()))


def pause_worker(system: System, rng: random.Random) -> None:
    """Stopped for longer than its term, as by a machine that swaps: it wakes up with claims that are others' now."""
    name = rng.choice(system.busy_workers())
    pid = system.stack.supervisor.children[name].pid
    system.kill(name, signal.SIGSTOP)
    until(
        lambda: system.rows(
            """SELECT FROM dispatcher.workers w WHERE pid = :pid HAVING count(*) FILTER (WHERE heartbeat_until > now()
               OR EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.claimed_by = w.id)) = 0""",
            pid=pid,
        ),
        "its claims are others'",
    )
    system.kill(name, signal.SIGCONT)


def kill_scheduler(system: System, rng: random.Random) -> None:
    system.kill(rng.choice(system.names("scheduler")))


def kill_api(system: System, rng: random.Random) -> None:
    """With requests half done: their callers repeat them."""
    system.kill("api")


def kill_everything(system: System, rng: random.Random) -> None:
    """Every process of ours but the supervisor, one right after the other."""
    for name in [*system.names("worker"), *system.names("scheduler"), *system.names("api")]:
        system.kill(name)


def terminate_backends(system: System, rng: random.Random) -> None:
    """Cuts every connection to the database."""
    with system.engine.connect() as connection:
        connection.execute(
            text(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                   AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
            )
        )


def flush_redis(system: System, rng: random.Random) -> None:
    system.flush_redis()


def kill_redis(system: System, rng: random.Random) -> None:
    """Gone with all its bells; the supervisor starts an empty one."""
    system.kill("redis")
    until(lambda: system.stack.supervisor.children["redis"].pid is not None, "redis runs again")


def hang_redis(system: System, rng: random.Random) -> None:
    """Accepts connections and answers nothing for longer than a socket's time-out, then goes on as if nothing was."""
    system.kill("redis", signal.SIGSTOP)
    time.sleep(7)
    system.kill("redis", signal.SIGCONT)


def restart_postgres(system: System, rng: random.Random) -> None:
    began = time.monotonic()
    system.restart_postgres()
    if time.monotonic() - began > system.term_s / 2:  # on a busy machine
        system.take_all_workers()


def stop_worker(system: System, rng: random.Random) -> None:
    """SIGTERM: it lets what it has in flight finish, then leaves, and another takes its place."""
    system.stop_worker(rng.choice(system.busy_workers()))


def ring_falsely(system: System, rng: random.Random, times: int = 500) -> None:
    """Bells that nobody asked for, half of them copies of one another with the same message id."""
    app = make_app(system.broker_url)
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(times // 2):
            app.send_task(DELIVER, queue=QUEUE, producer=producer, retry=False)
    app.close()
    with system.redis() as client:
        waiting = client.lrange(QUEUE, 0, times // 2 - 1)
        for n in range(times - times // 2):
            if waiting:
                client.lpush(QUEUE, waiting[n % len(waiting)])


def spread(system: System, rng: random.Random, faults: list[Fault], *, over_s: float) -> None:
    """One after another, about evenly over that time."""
    began = time.monotonic()
    for n, fault in enumerate(faults):
        time.sleep(max(0.0, began + over_s * (n + rng.uniform(0.2, 0.8)) / len(faults) - time.monotonic()))
        fault(system, rng)
