"""What accepting an event costs: CPU of the producer and of PostgreSQL, for bulk and for one event a commit.

`python -m bench.emit_micro` starts a server of its own, prints one JSON object, and takes some 15 s.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from dispatcher import Event, Wakeup, emit, emit_many
from dispatcher.config import Settings
from dispatcher.ids import uuid7
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.wiring import prepare_database

BATCH = 500
ROUNDS = 5
PAYLOAD = {
    "payment": {f"field_{n}": "x" * 20 for n in range(28)},
    "amount": 12_500,
    "currency": "EUR",
    "note": 'a "quoted" line\n',
}
NO_WAKEUP = Wakeup(None)


def server_cpu_s(server: EmbeddedPostgres) -> float:
    """CPU of every process of the server that still runs: the backends stay connected while we measure."""
    assert server.pid is not None
    parent = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (parent, *parent.children())]
    return sum(one.user + one.system for one in times)


def measure(server: EmbeddedPostgres, events: int, work: Callable[[], None]) -> dict[str, float]:
    """Microseconds an event, the median of the rounds."""
    work()
    client: list[float] = []
    server_side: list[float] = []
    wall: list[float] = []
    for _ in range(ROUNDS):
        before = (time.process_time(), server_cpu_s(server), time.perf_counter())
        work()
        after = (time.process_time(), server_cpu_s(server), time.perf_counter())
        for kept, start, end in zip((client, server_side, wall), before, after, strict=True):
            kept.append((end - start) / events * 1e6)
    return {
        "client_cpu_us": round(median(client), 1),
        "server_cpu_us": round(median(server_side), 1),
        "wall_us": round(median(wall), 1),
    }


def register_endpoint(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint_id = uuid7()
        connection.execute(
            text(
                "INSERT INTO dispatcher.endpoints (id, tenant_id, url, type_patterns, profile, schedule, method,"
                " max_in_flight, secrets, status) SELECT :id, id, 'https://receiver.example.com/', '{payment.%}',"
                " 'default', 'standard', 'POST', 64, '[]', 'active' FROM dispatcher.tenants"
            ),
            {"id": endpoint_id},
        )


def event(n: int, **values: Any) -> Event:
    return Event(type="payment.completed", payload=PAYLOAD, object_id=f"pay_{n}", **values)


def bulk(engine: Engine, *, batches: int, **keyed: bool) -> None:
    for batch in range(batches):
        keys = [{"idempotency_key": f"{time.perf_counter_ns()}-{batch}-{n}"} if keyed else {} for n in range(BATCH)]
        with Session(engine) as session, session.begin():
            emit_many(session, [event(n, **keys[n]) for n in range(BATCH)], wakeup=NO_WAKEUP)


def single(engine: Engine, *, events: int) -> None:
    for n in range(events):
        with Session(engine) as session, session.begin():
            emit(session, event(n), wakeup=NO_WAKEUP)


def main() -> None:
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-bench-"))
    server = EmbeddedPostgres(data_dir)
    try:
        server.start()
        prepare_database(Settings(database_url=server.url))
        engine = create_engine(server.url, pool_size=1, max_overflow=0)
        register_endpoint(engine)
        results: dict[str, Any] = {"payload_bytes": len(json.dumps(PAYLOAD, separators=(",", ":"))), "batch": BATCH}
        results["bulk"] = measure(server, 10 * BATCH, lambda: bulk(engine, batches=10))
        results["bulk_keyed"] = measure(server, 4 * BATCH, lambda: bulk(engine, batches=4, keyed=True))
        results["single"] = measure(server, 500, lambda: single(engine, events=500))
        print(json.dumps(results))
        engine.dispose()
    finally:
        server.stop("immediate")
        remove_data_dir(data_dir, server_account())


if __name__ == "__main__":
    main()
