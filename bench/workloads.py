"""The benchmarks by name, and what is made of several runs of one."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.backlog import backlog10m
from bench.ingest import ingest
from bench.install import install
from bench.naive import celery_naive
from bench.recovery import recovery
from bench.replay import replay100k
from bench.schema import schema
from bench.search import search5m
from bench.site import Bench, Figures
from bench.soak import soak
from bench.startup import startup
from bench.steady import half_dead, latency
from bench.tls import slow100ms_tls, tls_keepalive, tls_new
from bench.walk import bare, fanout10, one_endpoint, slow100ms, walk


@dataclass(frozen=True, slots=True)
class Workload:
    """`main` is the figure whose spread over the runs is told; `needs` are workloads of which it reads figures.

    One that `is_long` runs only by name, and one that is run `once` takes as long as two of the others.
    """

    name: str
    about: str
    run: Callable[[Bench], Figures]
    main: str
    needs: tuple[str, ...] = ()
    is_long: bool = False
    once: bool = False


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("bare", "a POST by a bare client, without a database", bare, "bare.cpu_us_per_post"),
        Workload("celery_naive", "a Celery task for each delivery", celery_naive, "deliveries_per_s"),
        Workload("walk", "the whole system, from emit to recorded", walk, "deliveries_per_s", ("bare",)),
        Workload("latency", "accept to receive at steady load", latency, "half_load_p99_ms", ("walk",)),
        Workload("one_endpoint", "all to one endpoint", one_endpoint, "deliveries_per_s"),
        Workload("fanout10", "each event to ten endpoints", fanout10, "deliveries_per_s"),
        Workload("slow100ms", "receivers that answer after 100 ms", slow100ms, "deliveries_per_s"),
        Workload("slow100ms_tls", "the same over TLS", slow100ms_tls, "deliveries_per_s"),
        Workload("tls_keepalive", "the walk over TLS connections that are kept", tls_keepalive, "deliveries_per_s"),
        Workload("tls_new", "the walk with a new TLS connection each", tls_new, "deliveries_per_s"),
        Workload("recovery", "a receiver comes back to a backlog", recovery, "deliveries_per_s", ("walk",), once=True),
        Workload("half_dead", "healthy endpoints beside dead ones", half_dead, "p99_ms"),
        Workload("ingest", "accepting events", ingest, "emit_events_per_s"),
        Workload("startup", "short commands, from start to end", startup, "help_cpu_ms", once=True),
        Workload("install", "what is installed, and imports", install, "emit_import_cpu_ms", is_long=True, once=True),
        Workload("schema", "the worst schemas and payloads", schema, "worst_pair_cpu_ms", is_long=True, once=True),
        Workload("search5m", "searches of a month's log", search5m, "slowest_ms", is_long=True),
        Workload("backlog10m", "beside ten million waiting", backlog10m, "claim_ratio", is_long=True),
        Workload("replay100k", "a replay at a rate, with kills", replay100k, "live_p99_ms", is_long=True),
        Workload("soak", "half load for long", soak, "growth_ratio", ("walk",), is_long=True),
    )
}


_COUNTS = {"n", "endpoints", "payload_bytes", "ledger_posts", "attempt_rows", "log_lines", "signatures_verified"}
_COUNTS |= {"signatures_sampled", "pairs", "bare.ledger_posts", "bare_transport.ledger_posts", "held_in_flight"}


_SUMS = {"lost", "duplicates", "unrecorded"}


def merged(runs: Sequence[Figures], main: str) -> Figures:
    """Of several runs: the median of each figure, the least of each count, the sum of what went wrong."""
    found: Figures = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run[name] for run in runs if name in run]
        found[name] = min(values) if name in _COUNTS else sum(values) if name in _SUMS else statistics.median(values)
    values = [run[main] for run in runs if main in run]
    found["runs"] = len(runs)
    if len(values) > 1:
        found["spread"] = (max(values) - min(values)) / statistics.median(values)
    return found


def prefixed(name: str, figures: Figures) -> Figures:
    """The figures with the workload's name in front, where they have none of their own."""
    return {key if "." in key else f"{name}.{key}": value for key, value in figures.items()}


def derived(figures: Figures) -> Figures:
    """What follows from the figures of several workloads of one run."""
    found: Figures = {}
    total, naive = figures.get("walk.cpu_us_per_delivery"), figures.get("celery_naive.cpu_us_per_delivery")
    for name, post in (("overhead_us", "bare"), ("overhead_over_transport_us", "bare_transport")):
        if total is not None and (least := figures.get(f"{post}.cpu_us_per_post")) is not None:
            found[f"walk.{name}"] = total - least
            if (warm := figures.get("walk.warm_cpu_us_per_delivery")) is not None:
                found[f"walk.warm_{name}"] = warm - least
    if total and (fanned := figures.get("fanout10.cpu_us_per_delivery")) is not None:
        found["fanout10.saves_us"] = total - fanned
    if total and naive:
        found["celery_naive.cpu_ratio"] = naive / total
        found["celery_naive.deliveries_ratio"] = (
            figures["walk.deliveries_per_s"] / figures["celery_naive.deliveries_per_s"]
        )
    return found


def selected(names: Sequence[str]) -> list[Workload]:
    """The named workloads, or all but the long ones, after what they need. Raises KeyError for an unknown name."""
    found: dict[str, Workload] = {}

    def add(name: str) -> None:
        for needed in WORKLOADS[name].needs:
            add(needed)
        found.setdefault(name, WORKLOADS[name])

    for name in names or [one.name for one in WORKLOADS.values() if not one.is_long]:
        add(name)
    return list(found.values())


def run(workload: Workload, bench: Bench, runs: int) -> list[Figures]:
    """Runs it so often; its merged figures are in the bench's from then on."""
    bench.details = {}
    found = []
    for _ in range(1 if workload.once else runs):
        found.append(workload.run(bench))
        os.sync()  # one run's dirty pages are not the next one's to write
    bench.figures |= prefixed(workload.name, merged(found, workload.main))
    bench.figures |= derived(bench.figures)
    return found
