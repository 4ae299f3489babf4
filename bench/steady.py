"""Latency at a steady rate: at shares of what the walk sustains, and beside dead endpoints."""

from __future__ import annotations

import socket
import time

from bench.receiver import Receiver
from bench.site import (
    Bench,
    Figures,
    healthy,
    latencies_ms,
    open_loop,
    quantile,
    site,
    verified,
)
from bench.system import System


def latency(bench: Bench) -> Figures:
    """Accept to receive at a half and at a tenth of what the walk sustained in this run."""
    capacity = bench.figures["walk.deliveries_per_s"]
    figures: Figures = {}
    with site(bench, healthy(bench.options.endpoints)) as made:
        for share, name in ((0.1, "tenth_load"), (0.5, "half_load")):
            figures |= open_loop(made, name, capacity * share, bench.options.latency_s)
    return figures


def half_dead(bench: Bench) -> Figures:
    """Healthy endpoints' latency at a steady rate, alone and beside as many dead ones with as many events."""
    options = bench.options
    with bench.fresh_system() as system:
        alone = _beside(bench, system, dead=0)
        beside = _beside(bench, system, dead=options.half_dead_endpoints)
    return {
        **beside,
        "p99_without_ms": alone["p99_ms"],
        "p50_without_ms": alone["p50_ms"],
        "p99_ratio": beside["p99_ms"] / alone["p99_ms"],
        "lost": alone["lost"] + beside["lost"],
    }


def _beside(bench: Bench, system: System, *, dead: int) -> Figures:
    options = bench.options
    healthy = options.half_dead_endpoints
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # and does not listen, so that it refuses
        port = refusing.getsockname()[1]

        def urls(receiver: Receiver) -> list[str]:
            """Healthy and dead ones take turns, the dead refused, hanging and 500 a third each."""
            kinds = [
                f"http://127.0.0.1:{port}/refused/{{}}",
                receiver.url("hang", 0)[:-1],
                receiver.url("fail", 0)[:-1],
            ]
            found = []
            for n in range(healthy):
                found.append(receiver.url("ok", n))
                if dead:
                    kind = kinds[n % 3]
                    found.append(kind.format(n) if "{}" in kind else f"{kind}{n}")
            return found

        # Not warmed up by dead ones' events: a cap must not be known before the measurement begins.
        with site(bench, urls, warm_up=0, system=system) as made:
            made.begin()
            per_s = options.half_dead_per_s * (2 if dead else 1)
            count = int(per_s * options.half_dead_s)
            made.generator.start_open_loop(count, per_s)
            until = time.monotonic() + options.half_dead_s + 20
            expected = 0
            while time.monotonic() < until:
                bench.progress(min(count, made.receiver.posts()[1]), count)
                if made.generator.is_done():
                    ledger = made.receiver.ledger()
                    expected = -(-count // 2) if dead else count
                    if sum(key.startswith(b"/ok") for key in ledger.first_at_s) >= expected:
                        break
                time.sleep(0.2)
            emitted, ledger = made.generator.emitted(), made.receiver.ledger()
            # The first second warms up: connections are opened, routes unsealed.
            first = int(per_s)
            found = latencies_ms(ledger, emitted.ids[first:], emitted.wanted_at_s[first:], "/ok")
            every = latencies_ms(ledger, emitted.ids, emitted.wanted_at_s, "/ok")
            return {
                "p50_ms": quantile(found, 0.5),
                "p99_ms": quantile(found, 0.99),
                "max_ms": max(found),
                "healthy_per_s": options.half_dead_per_s,
                "dead_per_s": per_s - options.half_dead_per_s,
                "endpoints": len(made.secrets),
                "dead_endpoints": dead,
                "payload_bytes": options.payload_bytes,
                "n": expected,
                "ledger_posts": ledger.posts,
                "attempt_rows": system.count("attempts") - made.attempts_before,
                "log_lines": system.log_lines() - made.log_lines_before,
                "signatures_sampled": len(ledger.samples),
                "signatures_verified": verified(ledger, made.secrets),
                "lost": expected - len(every),
            }
