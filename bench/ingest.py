"""What is accepted a second, by `emit_many` and by the API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import UUID

from bench import accounting
from bench.callers import Callers
from bench.generator import BATCH, Generator
from bench.site import (
    Bench,
    Figures,
    describe,
    quantile,
)
from bench.system import KEY, System, cores
from dispatcher.model.parse import MAX_BATCH

CONNECTIONS = 64
"""Kept connections to the API, each of which posts single events one after the other."""


BATCH_CONNECTIONS = 4


def ingest(bench: Bench) -> Figures:
    """What is accepted a second by `emit_many`, by single calls of the API and by its batches; nobody delivers."""
    options = bench.options
    with System(workers=0, durable=options.durable, api=True) as system:
        describe(bench, system)
        tenants, _ = system.add_endpoints([f"http://127.0.0.1:9/{n}" for n in range(options.endpoints)])
        emitted = _emitted(bench, system, tenants)
        bench.progress(1, 3)
        called = _called(bench, system, tenants)
        bench.progress(3, 3)
    return {
        **emitted,
        **called,
        "endpoints": options.endpoints,
        "payload_bytes": options.payload_bytes,
        "lost": emitted["lost"] + called["lost"],
    }


def _emitted(bench: Bench, system: System, tenants: Sequence[UUID]) -> Figures:
    """`emit_many` in batches of 500, by as many producers as cores."""
    options = bench.options
    producers = max(1, cores())
    with ExitStack() as stack:
        generators = [
            stack.enter_context(
                Generator(
                    system.stack.database_url, system.stack.broker_url, tenants, payload_bytes=options.payload_bytes
                )
            )
            for _ in range(producers)
        ]
        for generator in generators:
            generator.start_bulk(min(2 * BATCH, options.ingest // producers))
        warm = sum(len(generator.emitted().ids) for generator in generators)
        each = options.ingest // producers
        pids = {**system.pids(), "producer": [generator.pid for generator in generators]}
        before, start_s, wal = accounting.read_cpu(pids), time.monotonic(), system.servers.wal_bytes()
        for generator in generators:
            generator.start_bulk(each)
        while not all(generator.is_done() for generator in generators):
            time.sleep(0.005)
        seconds = time.monotonic() - start_s
        used = accounting.read_cpu(pids).since(before)
        events = each * producers
        return {
            "emit_events_per_s": events / seconds,
            "emit_wal_bytes_per_event": (system.servers.wal_bytes() - wal) / events,
            "n": events,
            "producers": producers,
            "lost": events + warm - system.count("events"),
            **{f"emit_{name}_cpu_us_per_event": cpu_s / events * 1e6 for name, cpu_s in used.items()},
        }


def _called(bench: Bench, system: System, tenants: Sequence[UUID]) -> Figures:
    """The API: single calls over kept connections, without and with a key, those again, and batches of 1,000."""
    options = bench.options
    already = system.count("events")
    accepted, figures, answers = 0, Figures(), Counter[int]()
    with Callers(system.stack.port, KEY, tenants, payload_bytes=options.payload_bytes) as callers:

        def measure(name: str, events: int, connections: int) -> None:
            pids = {**system.pids(), "callers": [callers.pid]}
            before = accounting.read_cpu(pids)
            answered = callers.post(connections=connections)
            used = accounting.read_cpu(pids).since(before)
            answers.update(answered.statuses)
            figures[f"{name}_per_s"] = events / answered.seconds
            figures[f"{name}_p50_ms"] = quantile(answered.latencies_s, 0.5) * 1000
            figures[f"{name}_p99_ms"] = quantile(answered.latencies_s, 0.99) * 1000
            figures.update({f"{name}_{who}_cpu_us_per_event": cpu_s / events * 1e6 for who, cpu_s in used.items()})

        def singles(name: str, count: int, *, keyed: bool) -> int:
            callers.prepare_singles(accepted, count, keyed=keyed)
            measure(name, count, CONNECTIONS)
            return count

        accepted += singles("warm_up", max(CONNECTIONS, options.calls // 10), keyed=True)
        accepted += singles("single", options.calls, keyed=False)
        first = accepted
        accepted += singles("keyed", options.calls, keyed=True)
        callers.prepare_singles(first, options.calls, keyed=True)
        measure("repeat", options.calls, CONNECTIONS)
        batches = max(1, options.ingest // MAX_BATCH)
        callers.prepare_batches(accepted, batches, size=MAX_BATCH)
        measure("batch_events", batches * MAX_BATCH, BATCH_CONNECTIONS)
        accepted += batches * MAX_BATCH
    bench.details["answers"] = dict(answers)
    figures["repeat_ratio"] = figures["repeat_per_s"] / figures["keyed_per_s"]
    figures["calls"] = sum(answers.values())
    figures["lost"] = already + accepted - system.count("events")
    return {name: value for name, value in figures.items() if not name.startswith("warm_up")}
