"""What every benchmark stands on: its options, a system with endpoints, a generator and a receiver, its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from standardwebhooks.webhooks import Webhook

from bench import accounting
from bench.generator import BATCH, Emitted, Generator
from bench.receiver import Ledger, Receiver
from bench.system import System, cores

Figures = dict[str, float]


STALLED_S = 60.0
"""A run in which nothing more arrives for so long is ended; what is missing then counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is run. The numbers are per run, of events unless they say otherwise."""

    runs: int = 2
    workers: int = field(default_factory=cores)
    payload_bytes: int = 1024
    endpoints: int = 100
    walk: int = 100_000
    bare_posts: int = 30_000
    naive: int = 4_000
    one_endpoint: int = 20_000
    tls_posts: int = 4_000
    tls_keepalive: int = 20_000
    tls_new: int = 5_000
    fanout10: int = 3_000
    slow: int = 15_000
    slow_endpoints: int = 1_000
    in_flight: int = 2_000
    hold_s: float = 5.0
    latency_s: float = 15.0
    half_dead_s: float = 15.0
    half_dead_per_s: float = 500.0
    half_dead_endpoints: int = 150
    search: int = 5_000_000
    backlog: int = 10_000_000
    backlog_endpoints: int = 1_000
    backlog_live_per_s: float = 500.0
    recovery: int = 200_000
    recovery_live_per_s: float = 200.0
    replay: int = 100_000
    replay_endpoints: int = 200
    replay_per_s: float = 1_000.0
    replay_live_per_s: float = 200.0
    soak_s: float = 900.0
    ingest: int = 60_000
    calls: int = 10_000
    schema_shapes: int | None = None
    startups: int = 10
    durable: bool = True


TINY = Options(
    runs=1,
    startups=1,
    workers=1,
    endpoints=6,
    walk=1_000,
    bare_posts=640,
    naive=60,
    one_endpoint=400,
    tls_posts=64,
    tls_keepalive=300,
    tls_new=100,
    fanout10=40,
    slow=300,
    slow_endpoints=30,
    in_flight=100,
    hold_s=0.7,
    latency_s=1.0,
    half_dead_s=1.5,
    half_dead_per_s=60.0,
    half_dead_endpoints=6,
    search=3_000,
    backlog=2_000,
    backlog_endpoints=30,
    backlog_live_per_s=60.0,
    recovery=500,
    recovery_live_per_s=60.0,
    replay=400,
    replay_endpoints=6,
    replay_per_s=100.0,
    replay_live_per_s=60.0,
    soak_s=3.0,
    ingest=1_000,
    calls=200,
    schema_shapes=4,
    durable=False,
)
"""Shows that everything works, and measures nothing."""


@dataclass(slots=True)
class Bench:
    """One run of the benchmarks: options, where progress goes, and what is known so far."""

    options: Options
    progress: Callable[[int, int], None] = lambda *_: None
    """Told how many of how many are done."""
    figures: Figures = field(default_factory=dict)
    """Of the workloads that have been run, with their names in front."""
    details: dict[str, Any] = field(default_factory=dict)
    """What explains the figures of the current workload, for its own file."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the servers say of themselves."""
    system: System | None = None
    """Runs already and is used instead of a fresh one. For tests: what came before slows what comes after."""

    @contextmanager
    def fresh_system(self, env: Mapping[str, str] | None = None) -> Iterator[System]:
        """The whole system with the workers that the options ask for."""
        if self.system is not None:
            describe(self, self.system)
            yield self.system
            return
        with System(workers=self.options.workers, durable=self.options.durable, env=env) as system:
            describe(self, system)
            yield system


@dataclass(slots=True)
class Site:
    """A system with its endpoints, a generator and a receiver, warmed up."""

    bench: Bench
    system: System
    receiver: Receiver
    generator: Generator
    tenants: Sequence[UUID]
    secrets: Mapping[str, bytes]
    fanout: int
    attempts_before: int = 0
    log_lines_before: int = 0

    def pids(self) -> dict[str, list[int]]:
        return {**self.system.pids(), "producer": [self.generator.pid], "receiver": [self.receiver.pid]}

    def begin(self) -> None:
        """From here on the ledger counts."""
        self.receiver.clear()
        self.attempts_before = self.system.count("attempts")
        self.log_lines_before = self.system.log_lines()

    def await_posts(self, wanted: int) -> None:
        """Waits until so many different POSTs have come, or none for `STALLED_S`."""
        seen, moved_at_s = 0, time.monotonic()
        while True:
            _, distinct = self.receiver.posts()
            self.bench.progress(distinct, wanted)
            if distinct >= wanted:
                return
            if distinct > seen:
                seen, moved_at_s = distinct, time.monotonic()
            elif time.monotonic() - moved_at_s > STALLED_S:
                return
            time.sleep(0.05)

    def checks(self, emitted: Emitted, ledger: Ledger) -> Figures:
        """What makes a run checkable."""
        ids = {b"evt_%b" % str(id_).encode() for id_ in emitted.ids}
        arrived = sum(key.split(b" ", 1)[1] in ids for key in ledger.first_at_s)
        return {
            "n": len(ids) * self.fanout,
            "endpoints": len(self.secrets),
            "payload_bytes": self.bench.options.payload_bytes,
            "ledger_posts": ledger.posts,
            "attempt_rows": self.system.count("attempts") - self.attempts_before,
            "log_lines": self.system.log_lines() - self.log_lines_before,
            "signatures_sampled": len(ledger.samples),
            "signatures_verified": verified(ledger, self.secrets),
            "lost": len(ids) * self.fanout - arrived,
            "duplicates": ledger.posts - len(ledger.first_at_s),
        }


@contextmanager
def site(
    bench: Bench,
    urls: Callable[[Receiver], Sequence[str]],
    *,
    fanout: int = 1,
    max_in_flight: int = 64,
    warm_up: int = 2 * BATCH,
    system: System | None = None,
    certificate: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """A site whose warm-up of so many events has been recorded, on `system` or a fresh one."""
    options = bench.options
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(certificate))
        if system is None:
            system = stack.enter_context(bench.fresh_system(env))
        tenants, keys = system.add_endpoints(urls(receiver), per_tenant=fanout, max_in_flight=max_in_flight)
        generator = stack.enter_context(
            Generator(system.stack.database_url, system.stack.broker_url, tenants, payload_bytes=options.payload_bytes)
        )
        made = Site(bench, system, receiver, generator, tenants, keys, fanout)
        if warm_up:
            generator.start_bulk(min(warm_up, options.walk // 10))
            generator.emitted()
            if not system.await_recorded(STALLED_S):
                raise RuntimeError(f"the warm-up does not end:\n{system.log_path.read_text()[-2000:]}")
        yield made


def describe(bench: Bench, system: System) -> None:
    """Notes what the servers say of themselves."""
    servers = system.servers
    bench.environment |= {
        "fsync": servers.setting("fsync"),
        "synchronous_commit": servers.setting("synchronous_commit"),
        "full_page_writes": servers.setting("full_page_writes"),
        "postgres": servers.setting("server_version"),
        "redis": servers.redis_version(),
    }


def verified(ledger: Ledger, keys: Mapping[str, bytes]) -> int:
    """How many of the samples the reference implementation of Standard Webhooks signs as they are signed.

    Its `verify` refuses what is older than five minutes, as in a long run most samples are by the end.
    """
    verified = 0
    for sample in ledger.samples:
        headers = sample.headers()
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        signature = Webhook(keys[sample.path]).sign(headers["webhook-id"], at, sample.body.decode())
        verified += signature in headers["webhook-signature"].split(" ")
    return verified


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


def latencies_ms(ledger: Ledger, ids: Sequence[Any], since_s: Sequence[float], path: str = "") -> list[float]:
    """From `since_s` to the first POST of each event, in ms; of those whose path begins so."""
    since = {b"evt_%b" % str(id_).encode(): at_s for id_, at_s in zip(ids, since_s, strict=True)}
    return [
        (at_s - since[id_]) * 1000
        for (where, _, id_), at_s in ((key.partition(b" "), at_s) for key, at_s in ledger.first_at_s.items())
        if id_ in since and where.startswith(path.encode())
    ]


def healthy(count: int) -> Callable[[Receiver], list[str]]:
    return lambda receiver: [receiver.url("ok", n) for n in range(count)]


def drained(bench: Bench, made: Site, events: int) -> Figures:
    """Emits in bulk and waits until all is recorded: the figures of a walk."""
    posts = events * made.fanout
    made.begin()
    servers, pids = made.system.servers, made.pids()
    commands, wal, transactions = servers.redis_commands(), servers.wal_bytes(), servers.transactions()
    disk, idle = servers.database_bytes(), accounting.read_resident(pids)
    before, start_s = accounting.read_cpu(pids), time.monotonic()
    made.generator.start_bulk(events)
    made.await_posts(posts)
    busy = accounting.read_resident(pids)
    is_recorded = made.system.await_recorded(STALLED_S)
    seconds = time.monotonic() - start_s
    used = accounting.read_cpu(pids).since(before)
    commands_after = servers.redis_commands()
    figures: Figures = {
        "deliveries_per_s": posts / seconds,
        "seconds": seconds,
        "wal_bytes_per_delivery": (servers.wal_bytes() - wal) / posts,
        "disk_bytes_per_delivery": (servers.database_bytes() - disk) / posts,
        "transactions_per_delivery": (servers.transactions() - transactions) / posts,
        "redis_commands_per_delivery": (commands_after["total"] - commands["total"]) / posts,
    }
    if used:
        receiving = used.pop("receiver")
        figures["cpu_us_per_delivery"] = sum(used.values()) / posts * 1e6
        figures |= {f"{name}_cpu_us_per_delivery": cpu_s / posts * 1e6 for name, cpu_s in used.items()}
        figures["receiver_cpu_us_per_post"] = receiving / posts * 1e6
    for state, resident in (("idle", idle), ("busy", busy)):
        figures |= {f"{name}_{state}_bytes": size for name, size in resident.items()}
    bench.details.setdefault("redis_commands", []).append(
        {name: count - commands.get(name, 0) for name, count in commands_after.items()}
    )
    emitted, ledger = made.generator.emitted(), made.receiver.ledger()
    figures["emit_s"] = emitted.accepted_at_s[-1] - start_s
    latencies = latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
    if latencies:
        figures["accept_to_receive_p50_ms"] = quantile(latencies, 0.5)
        figures["accept_to_receive_p99_ms"] = quantile(latencies, 0.99)
    figures |= made.checks(emitted, ledger)
    if not is_recorded:
        figures["unrecorded"] = made.system.count("deliveries")
    return figures


def open_loop(made: Site, name: str, per_s: float, seconds: float, *, settles: bool = True) -> Figures:
    """Emits at a steady rate, and takes the time from commit to receipt.

    `from_wanted` counts from the instant at which an event was to be emitted: that has the producer's own transaction
    and its wait for the one before in it. `settles` waits until nothing lives any more.
    """
    made.begin()
    count = max(1, int(per_s * seconds))
    before = accounting.read_cpu(pids := made.pids())
    made.generator.start_open_loop(count, per_s)
    made.await_posts(count)
    if settles:
        made.system.await_recorded(STALLED_S)
    used = accounting.read_cpu(pids).since(before)
    used.pop("receiver", None)
    cpu = {f"{name}_{part}_cpu_us_per_delivery": cpu_s / count * 1e6 for part, cpu_s in used.items()}
    if used:
        cpu[f"{name}_cpu_us_per_delivery"] = sum(used.values()) / count * 1e6
    emitted, ledger = made.generator.emitted(), made.receiver.ledger()
    wanted = latencies_ms(ledger, emitted.ids, emitted.wanted_at_s)
    accepted = latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
    return {
        f"{name}_per_s": per_s,
        f"{name}_p50_ms": quantile(accepted, 0.5),
        f"{name}_p99_ms": quantile(accepted, 0.99),
        f"{name}_max_ms": max(accepted),
        f"{name}_from_wanted_p50_ms": quantile(wanted, 0.5),
        f"{name}_from_wanted_p99_ms": quantile(wanted, 0.99),
        **cpu,
        **made.checks(emitted, ledger),  # of the last load, which is the half
    }
