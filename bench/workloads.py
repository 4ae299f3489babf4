"""What is run: each workload makes its own system and receiver, and returns its figures by name."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bench import accounting, naive_celery
from bench.bare import cpu_us_per_post
from bench.callers import Callers
from bench.generator import BATCH, Emitted, Generator, payload
from bench.receiver import Ledger, Receiver
from bench.system import KEY, System, cores, logging_to
from dispatcher.flow.parse import MAX_BATCH
from dispatcher.local import Program

Figures = dict[str, float]

CONNECTIONS = 32
"""Kept connections to the API, each of which posts single events one after the other."""

BATCH_CONNECTIONS = 4

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
    naive: int = 5_000
    one_endpoint: int = 20_000
    fanout10: int = 3_000
    slow: int = 20_000
    slow_endpoints: int = 1_000
    in_flight: int = 2_000
    hold_s: float = 5.0
    latency_s: float = 15.0
    half_dead_s: float = 15.0
    half_dead_per_s: float = 500.0
    half_dead_endpoints: int = 150
    ingest: int = 60_000
    calls: int = 10_000
    durable: bool = True


TINY = Options(
    runs=1,
    workers=1,
    endpoints=6,
    walk=1_000,
    bare_posts=640,
    naive=60,
    one_endpoint=400,
    fanout10=40,
    slow=300,
    slow_endpoints=30,
    in_flight=100,
    hold_s=0.7,
    latency_s=1.0,
    half_dead_s=1.5,
    half_dead_per_s=60.0,
    half_dead_endpoints=6,
    ingest=1_000,
    calls=200,
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
    def fresh_system(self) -> Iterator[System]:
        """The whole system with the workers that the options ask for."""
        if self.system is not None:
            describe(self, self.system)
            yield self.system
            return
        with System(workers=self.options.workers, durable=self.options.durable) as system:
            describe(self, system)
            yield system


@dataclass(slots=True)
class Site:
    """A system with its endpoints, a generator and a receiver, warmed up."""

    bench: Bench
    system: System
    receiver: Receiver
    generator: Generator
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
            "signatures_verified": _verified(ledger, self.secrets),
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
) -> Iterator[Site]:
    """A site whose warm-up of so many events has been recorded, on `system` or a fresh one."""
    options = bench.options
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        if system is None:
            system = stack.enter_context(bench.fresh_system())
        tenants, keys = system.add_endpoints(urls(receiver), per_tenant=fanout, max_in_flight=max_in_flight)
        generator = stack.enter_context(
            Generator(system.stack.database_url, system.stack.broker_url, tenants, payload_bytes=options.payload_bytes)
        )
        made = Site(bench, system, receiver, generator, keys, fanout)
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


def _verified(ledger: Ledger, keys: Mapping[str, bytes]) -> int:
    """How many of the samples the reference implementation of Standard Webhooks accepts."""
    verified = 0
    for sample in ledger.samples:
        try:
            Webhook(keys[sample.path]).verify(sample.body, sample.headers())
        except WebhookVerificationError:
            continue
        verified += 1
    return verified


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


def _latencies_ms(ledger: Ledger, ids: Sequence[Any], since_s: Sequence[float], path: str = "") -> list[float]:
    """From `since_s` to the first POST of each event, in ms; of those whose path begins so."""
    since = {b"evt_%b" % str(id_).encode(): at_s for id_, at_s in zip(ids, since_s, strict=True)}
    return [
        (at_s - since[id_]) * 1000
        for (where, _, id_), at_s in ((key.partition(b" "), at_s) for key, at_s in ledger.first_at_s.items())
        if id_ in since and where.startswith(path.encode())
    ]


def _healthy(count: int) -> Callable[[Receiver], list[str]]:
    return lambda receiver: [receiver.url("ok", n) for n in range(count)]


def _drained(bench: Bench, made: Site, events: int) -> Figures:
    """Emits in bulk and waits until all is recorded: the figures of a walk."""
    posts = events * made.fanout
    made.begin()
    servers, pids = made.system.servers, made.pids()
    commands, wal, transactions = servers.redis_commands(), servers.wal_bytes(), servers.transactions()
    before, start_s = accounting.read_cpu(pids), time.monotonic()
    made.generator.start_bulk(events)
    made.await_posts(posts)
    is_recorded = made.system.await_recorded(STALLED_S)
    seconds = time.monotonic() - start_s
    used = accounting.read_cpu(pids).since(before)
    commands_after = servers.redis_commands()
    figures: Figures = {
        "deliveries_per_s": posts / seconds,
        "seconds": seconds,
        "wal_bytes_per_delivery": (servers.wal_bytes() - wal) / posts,
        "transactions_per_delivery": (servers.transactions() - transactions) / posts,
        "redis_commands_per_delivery": (commands_after["total"] - commands["total"]) / posts,
    }
    if used:
        receiving = used.pop("receiver")
        figures["cpu_us_per_delivery"] = sum(used.values()) / posts * 1e6
        figures |= {f"{name}_cpu_us_per_delivery": cpu_s / posts * 1e6 for name, cpu_s in used.items()}
        figures["receiver_cpu_us_per_post"] = receiving / posts * 1e6
    bench.details.setdefault("redis_commands", []).append(
        {name: count - commands.get(name, 0) for name, count in commands_after.items()}
    )
    emitted, ledger = made.generator.emitted(), made.receiver.ledger()
    figures["emit_s"] = emitted.accepted_at_s[-1] - start_s
    latencies = _latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
    if latencies:
        figures["accept_to_receive_p50_ms"] = quantile(latencies, 0.5)
        figures["accept_to_receive_p99_ms"] = quantile(latencies, 0.99)
    figures |= made.checks(emitted, ledger)
    if not is_recorded:
        figures["unrecorded"] = made.system.count("deliveries")
    return figures


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
    with site(bench, _healthy(bench.options.endpoints)) as made:
        return _drained(bench, made, bench.options.walk)


def one_endpoint(bench: Bench) -> Figures:
    with site(bench, _healthy(1), max_in_flight=1000) as made:
        return _drained(bench, made, bench.options.one_endpoint)


def fanout10(bench: Bench) -> Figures:
    tenants = -(-bench.options.endpoints // 10)
    with site(bench, _healthy(10 * tenants), fanout=10, warm_up=BATCH // 5) as made:
        return _drained(bench, made, bench.options.fanout10)


def slow100ms(bench: Bench) -> Figures:
    options = bench.options

    def urls(receiver: Receiver) -> list[str]:
        receiver.delay(0.1)
        return [receiver.url("slow", n) for n in range(options.slow_endpoints)]

    with site(bench, urls) as made:
        held = _held(bench, made)
        figures = _drained(bench, made, options.slow)
        figures["most_in_flight"] = made.receiver.ledger().most_waiting
        return figures | held


def _held(bench: Bench, made: Site) -> Figures:
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


def latency(bench: Bench) -> Figures:
    """Accept to receive at a half and at a tenth of what the walk sustained in this run."""
    capacity = bench.figures["walk.deliveries_per_s"]
    figures: Figures = {}
    with site(bench, _healthy(bench.options.endpoints)) as made:
        for share, name in ((0.1, "tenth_load"), (0.5, "half_load")):
            figures |= _open_loop(made, name, capacity * share, bench.options.latency_s)
    return figures


def _open_loop(made: Site, name: str, per_s: float, seconds: float) -> Figures:
    made.begin()
    count = max(1, int(per_s * seconds))
    made.generator.start_open_loop(count, per_s)
    made.await_posts(count)
    made.system.await_recorded(STALLED_S)
    emitted, ledger = made.generator.emitted(), made.receiver.ledger()
    wanted = _latencies_ms(ledger, emitted.ids, emitted.wanted_at_s)
    accepted = _latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
    return {
        f"{name}_per_s": per_s,
        f"{name}_p50_ms": quantile(wanted, 0.5),
        f"{name}_p99_ms": quantile(wanted, 0.99),
        f"{name}_max_ms": max(wanted),
        f"{name}_from_commit_p50_ms": quantile(accepted, 0.5),
        f"{name}_from_commit_p99_ms": quantile(accepted, 0.99),
        **made.checks(emitted, ledger),  # of the last load, which is the half
    }


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
            found = _latencies_ms(ledger, emitted.ids[first:], emitted.wanted_at_s[first:], "/ok")
            every = _latencies_ms(ledger, emitted.ids, emitted.wanted_at_s, "/ok")
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
                "signatures_verified": _verified(ledger, made.secrets),
                "lost": expected - len(every),
            }


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
    """The API: single calls over 32 kept connections, without and with a key, those again, and batches of 1,000."""
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
            "signatures_verified": _verified(ledger, keys),
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


@dataclass(frozen=True, slots=True)
class Workload:
    """`main` is the figure whose spread over the runs is told; `needs` are workloads of which it reads figures.

    One that `is_long` runs only by name.
    """

    name: str
    about: str
    run: Callable[[Bench], Figures]
    main: str
    needs: tuple[str, ...] = ()
    is_long: bool = False


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
        Workload("half_dead", "healthy endpoints beside dead ones", half_dead, "p99_ms"),
        Workload("ingest", "accepting events", ingest, "emit_events_per_s"),
    )
}

_COUNTS = {"n", "endpoints", "payload_bytes", "ledger_posts", "attempt_rows", "log_lines", "signatures_verified"}
_COUNTS |= {"signatures_sampled", "bare.ledger_posts", "bare_transport.ledger_posts", "held_in_flight"}
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
    for _ in range(runs):
        found.append(workload.run(bench))
        os.sync()  # one run's dirty pages are not the next one's to write
    bench.figures |= prefixed(workload.name, merged(found, workload.main))
    bench.figures |= derived(bench.figures)
    return found
