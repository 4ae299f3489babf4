"""A Celery task for each delivery, as one would write it otherwise."""

from __future__ import annotations

import base64
import secrets
import sys
import time
from contextlib import ExitStack

from bench import accounting, naive_celery
from bench.receiver import Receiver
from bench.site import (
    STALLED_S,
    Bench,
    Figures,
    describe,
    verified,
)
from bench.system import System, logging_to
from dispatcher.local.child import Program


def celery_naive(bench: Bench) -> Figures:
    options = bench.options
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        system = stack.enter_context(System(workers=0, durable=options.durable))
        describe(bench, system)
        database_url, broker_url = system.stack.database_url, system.stack.broker_url
        naive_celery.create_tables(database_url)
        celery = ["celery", "-A", "bench.naive_celery", "--quiet", "worker", "--pool=solo", "--loglevel=WARNING"]
        celery += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        system.stack.supervisor.start(
            logging_to(
                system.log_path,
                Program(
                    f"worker-{n}",
                    [sys.executable, "-m", *celery, f"--hostname=naive-{n}@%h"],
                    {naive_celery.DATABASE: database_url, naive_celery.BROKER: broker_url},
                ),
            )
            for n in range(options.workers)
        )
        keys = {f"/ok/{n}": secrets.token_bytes(24) for n in range(options.endpoints)}
        targets = [
            (receiver.url("ok", n), base64.b64encode(keys[f"/ok/{n}"]).decode()) for n in range(options.endpoints)
        ]
        producer = stack.enter_context(naive_celery.Producer(broker_url, targets, payload_bytes=options.payload_bytes))
        warm = max(20, options.naive // 25)
        producer.start(warm)
        producer.sent()
        _await_naive(bench, receiver, database_url, warm, warm)
        receiver.clear()
        log_lines = system.log_lines()
        pids = {**system.pids(), "producer": [producer.pid]}
        commands, wal = system.servers.redis_commands()["total"], system.servers.wal_bytes()
        before, start_s = accounting.read_cpu(pids), time.monotonic()
        producer.start(options.naive)
        _await_naive(bench, receiver, database_url, options.naive, options.naive + warm)
        seconds = time.monotonic() - start_s
        used = accounting.read_cpu(pids).since(before)
        ids = {id_.encode() for id_ in producer.sent()}
        ledger = receiver.ledger()
        figures: Figures = {
            "deliveries_per_s": options.naive / seconds,
            "redis_commands_per_delivery": (system.servers.redis_commands()["total"] - commands) / options.naive,
            "wal_bytes_per_delivery": (system.servers.wal_bytes() - wal) / options.naive,
            "n": options.naive,
            "endpoints": options.endpoints,
            "payload_bytes": options.payload_bytes,
            "ledger_posts": ledger.posts,
            "attempt_rows": naive_celery.attempts(database_url) - warm,
            "log_lines": system.log_lines() - log_lines,
            "signatures_sampled": len(ledger.samples),
            "signatures_verified": verified(ledger, keys),
            "lost": len(ids) - sum(key.split(b" ", 1)[1] in ids for key in ledger.first_at_s),
            "duplicates": ledger.posts - len(ledger.first_at_s),
        }
        if used:
            figures["cpu_us_per_delivery"] = sum(used.values()) / options.naive * 1e6
            figures |= {f"{name}_cpu_us_per_delivery": cpu_s / options.naive * 1e6 for name, cpu_s in used.items()}
        return figures


def _await_naive(bench: Bench, receiver: Receiver, database_url: str, posts: int, rows: int) -> None:
    until = time.monotonic() + max(STALLED_S, posts / 20)
    while (distinct := receiver.posts()[1]) < posts or naive_celery.attempts(database_url) < rows:
        bench.progress(distinct, posts)
        if time.monotonic() > until:
            return
        time.sleep(0.05)
    bench.progress(posts, posts)
