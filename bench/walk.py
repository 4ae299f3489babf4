"""From emit to recorded: to many endpoints, to one, to ten for each event, to slow ones; and a bare POST beside it."""

from __future__ import annotations

import time

import orjson

from bench import accounting
from bench.bare import cpu_us_per_post
from bench.generator import BATCH, payload
from bench.receiver import Receiver
from bench.site import (
    STALLED_S,
    Bench,
    Figures,
    Site,
    drained,
    healthy,
    site,
)


def bare(bench: Bench) -> Figures:
    body = orjson.dumps(payload(bench.options.payload_bytes))
    posts = bench.options.bare_posts
    figures: Figures = {"n": posts, "payload_bytes": len(body)}
    with Receiver() as receiver:
        for n, (client, name) in enumerate((("aiohttp", ""), ("transport", "_transport"))):
            bench.progress(n, 2)
            receiver.clear()
            cpu_us, per_s = cpu_us_per_post(client, receiver.url("ok", 1), body, posts)
            figures[f"bare{name}.cpu_us_per_post"] = cpu_us
            figures[f"bare{name}.posts_per_s"] = per_s
            received, _ = receiver.posts()
            figures[f"bare{name}.ledger_posts"] = received - 640  # less those that connected and warmed up
    bench.progress(2, 2)
    return figures


def walk(bench: Bench) -> Figures:
    """The first walk of a fresh system, and beside it a quarter of another by the same one: `warm_…`."""
    with site(bench, healthy(bench.options.endpoints)) as made:
        cold = drained(bench, made, bench.options.walk)
        warm = drained(bench, made, bench.options.walk // 4)
    for name in ("lost", "duplicates"):
        cold[name] += warm[name]
    kept = ("deliveries_per_s", "cpu_us_per_delivery", "postgres_cpu_us_per_delivery", "worker_cpu_us_per_delivery")
    return cold | {f"warm_{name}": warm[name] for name in kept if name in warm}


def one_endpoint(bench: Bench) -> Figures:
    with site(bench, healthy(1), max_in_flight=1000) as made:
        return drained(bench, made, bench.options.one_endpoint)


def fanout10(bench: Bench) -> Figures:
    tenants = -(-bench.options.endpoints // 10)
    with site(bench, healthy(10 * tenants), fanout=10, warm_up=BATCH // 5) as made:
        return drained(bench, made, bench.options.fanout10)


def slow100ms(bench: Bench) -> Figures:
    options = bench.options

    def urls(receiver: Receiver) -> list[str]:
        receiver.delay(0.1)
        return [receiver.url("slow", n) for n in range(options.slow_endpoints)]

    with site(bench, urls) as made:
        memory = held(bench, made)
        figures = drained(bench, made, options.slow)
        figures["most_in_flight"] = made.receiver.ledger().most_waiting
        return figures | memory


def held(bench: Bench, made: Site) -> Figures:
    """The workers' memory while the receiver holds its answers: then the number in flight is known."""
    if not accounting.HAS_PROC:
        return {}
    workers = made.system.pids()["worker"]
    made.receiver.delay(bench.options.hold_s)
    before = accounting.resident_bytes(workers)
    made.generator.start_bulk(bench.options.in_flight)
    waiting, until = 0, time.monotonic() + 0.8 * bench.options.hold_s
    while waiting < bench.options.in_flight and time.monotonic() < until:
        time.sleep(0.02)
        waiting = made.receiver.waiting()
    grown = accounting.resident_bytes(workers) - before
    made.generator.emitted()
    made.receiver.delay(0.1)
    made.system.await_recorded(STALLED_S)
    return {"held_in_flight": waiting, "bytes_per_in_flight": grown / waiting} if waiting else {}
