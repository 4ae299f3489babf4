"""Hours at half load: whether the tables that live on the hot path grow."""

from __future__ import annotations

import time

import psycopg

from bench.site import Bench, Figures, Site, healthy, latencies_ms, quantile, site

TABLES = ("deliveries", "lanes", "wakes", "workers", "tallies")

_SIZE = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname = ANY(%s) AND relkind = 'r'"


def soak(bench: Bench) -> Figures:
    """Half of what the walk sustains, for long; the size of the hot tables in its last third against its first."""
    options = bench.options
    per_s = bench.figures["walk.deliveries_per_s"] / 2
    with site(bench, healthy(options.endpoints)) as made:
        made.begin()
        count = int(per_s * options.soak_s)
        made.generator.start_open_loop(count, per_s)
        sizes = _sizes(made, count)
        made.await_posts(count)
        made.system.await_recorded(60)
        emitted, ledger = made.generator.emitted(), made.receiver.ledger()
        latencies = latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
        third = max(1, len(sizes) // 3)
        return {
            **made.checks(emitted, ledger),
            "seconds": options.soak_s,
            "per_s": per_s,
            "p50_ms": quantile(latencies, 0.5),
            "p99_ms": quantile(latencies, 0.99),
            "hot_bytes_first": quantile(sizes[:third], 0.5),
            "hot_bytes_last": quantile(sizes[-third:], 0.5),
            "growth_ratio": quantile(sizes[-third:], 0.5) / quantile(sizes[:third], 0.5),
        }


def _sizes(made: Site, count: int) -> list[float]:
    """The hot tables' bytes, indexes included, ten times a minute, until all is emitted."""
    found: list[float] = []
    with psycopg.connect(made.system.dsn, autocommit=True) as connection:
        while not made.generator.is_done():
            row = connection.execute(_SIZE, (list(TABLES),)).fetchone()
            assert row is not None
            found.append(float(row[0]))
            made.bench.progress(min(count, made.receiver.posts()[1]), count)
            time.sleep(min(6.0, made.bench.options.soak_s / 30))
    return found
