"""Ten million deliveries that wait for their next attempt, and live traffic on top."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import create_engine

from bench import accounting
from bench.site import Bench, Figures, Site, healthy, open_loop, site
from dispatcher.ids import uuid7
from dispatcher.store import deliveries
from dispatcher.wiring import PLANS

CLAIM = 512
CLAIMS = 30
FEW = 10_000
IDLE_S = 20.0
DUE = 20_000

_LOAD = """
INSERT INTO dispatcher.deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, due_at, first_attempt_at, claim_seq, schedule_id, attempts,
     event_type, mode, reason, last_outcome, last_status_code)
SELECT uuidv7(-interval '2 hours'), e.id, uuidv7(-interval '2 hours'), e.tenant_id, now() - interval '2 hours',
       now() + interval '2 hours' + random() * interval '8 hours', now() - interval '2 hours', 3, v.id, 3,
       'payment.completed', 'live', 'http_retryable 503', 'http_retryable', 503
FROM (SELECT id, tenant_id, schedule, row_number() OVER (ORDER BY id) - 1 AS n FROM dispatcher.endpoints) e
JOIN generate_series(CAST(%s AS int), %s - 1) g(n) ON g.n %% (SELECT count(*) FROM dispatcher.endpoints) = e.n
JOIN dispatcher.schedules s ON s.name = e.schedule JOIN dispatcher.schedule_versions v ON v.id = s.version_id
"""


def backlog10m(bench: Bench) -> Figures:
    """What a claim, a rest and a live event cost beside a few waiting deliveries, and beside very many."""
    options = bench.options
    with site(bench, healthy(options.backlog_endpoints)) as made:
        alone = open_loop(made, "alone", options.backlog_live_per_s, options.latency_s)
        _load(bench, made, 0, min(FEW, options.backlog))
        few_ms = _claim_ms(made)
        _load(bench, made, min(FEW, options.backlog), options.backlog)
        many_ms = _claim_ms(made)
        idle = _idle_cpu_percent(made)
        beside = open_loop(made, "beside", options.backlog_live_per_s, options.latency_s, settles=False)
        waiting = _count_waiting(made)
    return {
        **beside,
        "n": waiting,
        "claim_few_ms": few_ms,
        "claim_many_ms": many_ms,
        "claim_ratio": many_ms / few_ms,
        "idle_cpu_percent": idle,
        "live_p99_ms": beside["beside_p99_ms"],
        "live_p99_ratio": beside["beside_p99_ms"] / alone["alone_p99_ms"],
        "lost": alone["lost"] + beside["lost"],
        "duplicates": alone["duplicates"] + beside["duplicates"],
    }


def _count_waiting(made: Site) -> int:
    with psycopg.connect(made.system.dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM dispatcher.deliveries WHERE due_at > now() + interval '1 hour'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _load(bench: Bench, made: Site, first: int, last: int) -> None:
    """Adds waiting deliveries number `first` to `last`, and has their lanes woken when the first of them is due."""
    with psycopg.connect(made.system.dsn, autocommit=True) as connection:
        step = 500_000
        for low in range(first, last, step):
            bench.progress(low, last)
            connection.execute(_LOAD, (low, min(last, low + step)))
        connection.execute(
            "INSERT INTO dispatcher.wakes (endpoint_id, due_at) "
            "SELECT id, now() + interval '2 hours' FROM dispatcher.endpoints"
        )
        connection.execute("VACUUM ANALYZE dispatcher.deliveries")
        connection.execute("CHECKPOINT")


@contextmanager
def _nobody_else(made: Site) -> Iterator[None]:
    """Stops the scheduler and the workers meanwhile, so that what is due stays so."""
    pids = [pid for name, pids in made.system.pids().items() if name in ("worker", "scheduler") for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _claim_ms(made: Site) -> float:
    """The median of some claims, each taken back, so that all find the same."""
    made.begin()
    engine = create_engine(made.system.stack.database_url, connect_args={"options": PLANS})
    due = min(DUE, 20 * made.bench.options.backlog_endpoints)
    took_ms = []
    with _nobody_else(made):
        made.generator.start_bulk(due)
        made.generator.emitted()
        with engine.connect() as connection:
            for _ in range(CLAIMS):
                began_s = time.monotonic()
                claimed = deliveries.claim(connection, worker_id=uuid7(), room=CLAIM, batch=CLAIM)
                took_ms.append((time.monotonic() - began_s) * 1000)
                assert len(claimed.claims) == min(CLAIM, due)
                connection.rollback()
    engine.dispose()
    made.await_posts(due)
    return statistics.median(took_ms[5:])  # the first ones plan, and read what is not in memory yet


def _idle_cpu_percent(made: Site) -> float:
    """CPU of all our processes and servers, in percent of a core, while nothing is due."""
    is_real = made.bench.options.durable
    time.sleep(10 if is_real else 0)  # what the deliveries before left to be written and vacuumed
    pids = made.system.pids()
    before, began_s = accounting.read_cpu(pids), time.monotonic()
    time.sleep(IDLE_S if is_real else 0.5)
    used = accounting.read_cpu(pids).since(before)
    return 100 * sum(used.values()) / (time.monotonic() - began_s)
