"""A receiver that was away comes back to a large backlog, while others are served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import psycopg

from bench.generator import Emitted, Generator
from bench.receiver import Receiver
from bench.site import STALLED_S, Bench, Figures, Site, latencies_ms, open_loop, quantile, site
from dispatcher import wiring
from dispatcher.flow import register

OUTAGE = 200
"""Events that meet the receiver while it fails: its cap has fallen when it comes back."""


def recovery(bench: Bench) -> Figures:
    """An endpoint fails, is disabled, gathers a backlog and is enabled; how fast that drains, beside live traffic."""
    options = bench.options

    def urls(receiver: Receiver) -> list[str]:
        return [receiver.url("flaky", 0), *(receiver.url("ok", n) for n in range(options.endpoints))]

    with site(bench, urls, max_in_flight=1_000, warm_up=0) as made:
        away, *others = made.tenants
        with _generator(made, [away]) as gathering, _generator(made, others) as living:
            made.receiver.delay(0.0)
            made.generator.start_bulk(min(2_000, 10 * options.endpoints))
            made.generator.emitted()
            made.system.await_recorded(STALLED_S)
            alone = open_loop(_with(made, living), "alone", options.recovery_live_per_s, options.latency_s)
            cap = _outage(made, gathering, away)
            gathering.start_bulk(options.recovery)
            gathered = gathering.emitted()
            return _drain(made, gathered, living, away) | {
                "cap_at_start": cap,
                "live_p99_alone_ms": alone["alone_p99_ms"],
            }


def _generator(made: Site, tenants: Sequence[UUID]) -> Generator:
    stack = made.system.stack
    size = made.bench.options.payload_bytes
    return Generator(stack.database_url, stack.broker_url, tenants, payload_bytes=size)


def _with(made: Site, generator: Generator) -> Site:
    return Site(made.bench, made.system, made.receiver, generator, made.tenants, made.secrets, made.fanout)


def _outage(made: Site, gathering: Generator, tenant: UUID) -> float:
    """Has the receiver fail for a while, disables the endpoint, and returns the cap that it is left with."""
    made.receiver.delay(1.0)
    made.begin()
    gathering.start_bulk(OUTAGE)
    gathering.emitted()
    made.await_posts(OUTAGE)
    _set(made, tenant, enabled=False)
    time.sleep(1)
    with psycopg.connect(made.system.dsn) as connection:
        row = connection.execute(
            "SELECT l.cap FROM dispatcher.lanes l JOIN dispatcher.endpoints e ON e.id = l.endpoint_id "
            "WHERE e.tenant_id = %s",
            (tenant,),
        ).fetchone()
    assert row is not None
    made.receiver.delay(0.0)
    return float(row[0])


def _set(made: Site, tenant: UUID, *, enabled: bool) -> None:
    engine = wiring.engine(made.system.settings)
    with engine.begin() as connection:
        row = connection.exec_driver_sql("SELECT id FROM dispatcher.endpoints WHERE tenant_id = %s", (tenant,)).one()
        if enabled:
            register.enable(connection, row[0])
        else:
            register.disable(connection, row[0], "the receiver is away")
    engine.dispose()


def _drain(made: Site, gathered: Emitted, living: Generator, tenant: UUID) -> Figures:
    options = made.bench.options
    live = _with(made, living)
    live.begin()
    began_s = time.monotonic()
    _set(made, tenant, enabled=True)
    count = int(options.recovery_live_per_s * options.latency_s)
    living.start_open_loop(count, options.recovery_live_per_s)
    live.await_posts(OUTAGE + len(gathered.ids) + count)
    ledger = made.receiver.ledger()
    ids = {b"evt_%b" % str(id_).encode() for id_ in gathered.ids}
    arrived = {key.split(b" ", 1)[1]: at_s for key, at_s in ledger.first_at_s.items() if key.startswith(b"/flaky")}
    drained_s = max(at_s for id_, at_s in arrived.items() if id_ in ids) - began_s
    emitted = living.emitted()
    live_ms = latencies_ms(ledger, emitted.ids, emitted.wanted_at_s, "/ok")
    walked = made.bench.figures.get("walk.deliveries_per_s")
    per_s = len(ids) / drained_s
    return {
        **live.checks(emitted, ledger),
        "n": len(ids),
        "deliveries_per_s": per_s,
        **({"drain_ratio": per_s / walked} if walked else {}),
        "drained_s": drained_s,
        "live_p99_ms": quantile(live_ms, 0.99),
        "lost": len(ids - arrived.keys()) + count - len(live_ms),
        "duplicates": ledger.posts - len(ledger.first_at_s),
    }
