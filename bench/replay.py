"""A replay of very many failed deliveries at a set rate, beside live traffic, while processes are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
import psycopg

from bench.generator import Generator, payload
from bench.receiver import Receiver
from bench.site import STALLED_S, Bench, Figures, Site, latencies_ms, open_loop, quantile, site
from dispatcher import wiring
from dispatcher.flow import replay as flow
from dispatcher.flow import replay_choice
from dispatcher.model.filter import Filter, of_failed

WINDOW_S = 5.0
"""Of the rate: in each one in which nothing was down it is compared with what was asked."""

SETTLES_S = 2.0
"""How long after a kill's downtime the rate is not looked at: what it catches up falls into it."""

KILL_S = 4.0
"""How long after a kill, and a second before it, live events are left out of the p99 that is compared: what the killed
process had is late, whoever else runs."""

KILLS = ("worker", "worker", "scheduler", "worker", "scheduler")

# Each event has one delivery, which is exhausted; endpoints take turns.
_LOAD = """
WITH made AS MATERIALIZED (
    SELECT uuidv7(-interval '2 hours') AS event_id, uuidv7(-interval '2 hours') AS id, e.id AS endpoint_id, e.tenant_id,
           v.id AS schedule_id
    FROM (SELECT id, tenant_id, schedule, row_number() OVER (ORDER BY id) - 1 AS n FROM dispatcher.endpoints
          WHERE id = ANY(%(endpoints)s)) e
    JOIN generate_series(0, %(n)s - 1) g(n) ON g.n %% %(of)s = e.n
    JOIN dispatcher.schedules s ON s.name = e.schedule JOIN dispatcher.schedule_versions v ON v.id = s.version_id
), event AS (
    INSERT INTO dispatcher.events (id, tenant_id, type, mode, payload, fanout, created_at)
    SELECT event_id, tenant_id, 'payment.completed', 'live', %(payload)s, 1, now() - interval '2 hours' FROM made
)
INSERT INTO dispatcher.ended_deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, ended_at, claim_seq, schedule_id, attempts,
     refunds, state, event_type, mode, reason, last_outcome, last_status_code)
SELECT id, endpoint_id, event_id, tenant_id, now() - interval '2 hours', now() - interval '2 hours',
       now() - interval '1 hour', 6, schedule_id, 6, 0, 'exhausted', 'payment.completed', 'live',
       'http_retryable 503', 'http_retryable', 503
FROM made RETURNING event_id
"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """How many were made at an instant."""

    at_s: float
    made: int


def replay100k(bench: Bench) -> Figures:
    """Replays exhausted deliveries; half of the endpoints that have them get live events too."""
    options = bench.options
    count = options.replay_endpoints

    def urls(receiver: Receiver) -> list[str]:
        return [receiver.url("ok", n) for n in range(count + count // 2)]

    with site(bench, urls) as made:
        living = made.tenants[count // 2 :]
        size = options.payload_bytes
        stack = made.system.stack
        with Generator(stack.database_url, stack.broker_url, living, payload_bytes=size) as generator:
            live = Site(bench, made.system, made.receiver, generator, living, made.secrets, 1)
            alone = open_loop(live, "alone", options.replay_live_per_s, options.latency_s)
            ids = _load(made, made.tenants[:count])
            found = _replay(live, ids)
    return {
        **found,
        "live_p99_alone_ms": alone["alone_p99_ms"],
        "live_p99_ratio": found["live_p99_ms"] / alone["alone_p99_ms"],
    }


def _load(made: Site, tenants: Sequence[UUID]) -> list[UUID]:
    options = made.bench.options
    with psycopg.connect(made.system.dsn, autocommit=True) as connection:
        endpoints = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM dispatcher.endpoints WHERE tenant_id = ANY(%s)", (list(tenants),)
            )
        ]
        body = orjson.dumps(payload(options.payload_bytes))
        values: dict[str, Any] = {"endpoints": endpoints, "n": options.replay, "of": len(endpoints), "payload": body}
        ids = [row[0] for row in connection.execute(_LOAD, values)]
        connection.execute("VACUUM ANALYZE dispatcher.ended_deliveries")
        connection.execute("VACUUM ANALYZE dispatcher.events")
        connection.execute("CHECKPOINT")
    return ids


def _replay(live: Site, ids: Sequence[UUID]) -> Figures:
    options = live.bench.options
    rate = options.replay_per_s
    engine = wiring.engine(live.system.settings)
    live.begin()
    with engine.begin() as connection:
        one = flow.start(connection, of_failed(Filter()), by="bench", options=replay_choice.Options(rate=rate))
    began_s = time.monotonic()
    live_count = int(options.replay_live_per_s * len(ids) / rate)
    live.generator.start_open_loop(live_count, options.replay_live_per_s)
    seen, kills = _watch(live, one.id, began_s)
    engine.dispose()
    live.await_posts(len(ids) + live_count)
    live.system.await_recorded(STALLED_S)
    emitted, ledger = live.generator.emitted(), live.receiver.ledger()
    arrived = {key.split(b" ", 1)[1] for key in ledger.first_at_s}
    wanted = {b"evt_%b" % str(id_).encode() for id_ in ids}
    live_ms = latencies_ms(ledger, emitted.ids, emitted.accepted_at_s)
    calm = [
        (id_, at_s)
        for id_, at_s in zip(emitted.ids, emitted.accepted_at_s, strict=True)
        if not any(-1 <= at_s - kill_s <= KILL_S for kill_s in kills) and at_s < seen[-1].at_s
    ]
    calm_ms = latencies_ms(ledger, [id_ for id_, _ in calm], [at_s for _, at_s in calm])
    with psycopg.connect(live.system.dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM dispatcher.attempts WHERE outcome = 'worker_lost' OR NOT outcome_known"
        ).fetchone()
    assert row is not None
    rates = _rates(seen, kills)
    live.bench.details["rates"] = rates
    return {
        "n": len(ids),
        "endpoints": len(live.secrets),
        "payload_bytes": options.payload_bytes,
        "rate_per_s": rate,
        "rate_error": max((abs(found / rate - 1) for found in rates), default=1.0),
        "rate_windows": len(rates),
        "seconds": seen[-1].at_s - began_s,
        "kills": len(kills),
        "lost": len(wanted - arrived) + live_count - len(live_ms),
        "duplicates": ledger.posts - len(ledger.first_at_s),
        "admitted": row[0],
        "live_per_s": options.replay_live_per_s,
        "live_p50_ms": quantile(calm_ms, 0.5),
        "live_p99_ms": quantile(calm_ms, 0.99),
        "live_p99_with_kills_ms": quantile(live_ms, 0.99),
    }


def _watch(live: Site, replay_id: UUID, began_s: float) -> tuple[list[_Seen], list[float]]:
    """Follows the replay until it has made all, and kills meanwhile: what was seen of it, and when was killed."""
    options = live.bench.options
    every_s = options.replay / options.replay_per_s / (len(KILLS) + 1)
    seen: list[_Seen] = []
    kills: list[float] = []
    moved_at_s = began_s
    with psycopg.connect(live.system.dsn, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT replayed, state FROM dispatcher.replays WHERE id = %s", (replay_id,)
            ).fetchone()
            assert row is not None
            now_s = time.monotonic()
            if not seen or row[0] > seen[-1].made:
                moved_at_s = now_s
            seen.append(_Seen(now_s, row[0]))
            live.bench.progress(row[0], options.replay)
            if row[1] != "running" or now_s - moved_at_s > STALLED_S:
                return seen, kills
            if len(kills) < len(KILLS) and now_s > began_s + (len(kills) + 1) * every_s:
                pids = live.system.pids().get(KILLS[len(kills)], [])
                if pids:
                    os.kill(pids[len(kills) % len(pids)], signal.SIGKILL)
                    kills.append(now_s)
            time.sleep(0.1)


def _rates(seen: Sequence[_Seen], kills: Sequence[float]) -> list[float]:
    """The rate in each whole window in which nothing was down.

    Down is from a kill on, and while nothing moves after it, each until what is caught up has been made. A rest that
    no kill began counts against the rate.
    """
    moved = [seen[0], *(one for before, one in pairwise(seen) if one.made > before.made)]
    rests = [(one.at_s, then.at_s) for one, then in pairwise(moved) if then.at_s - one.at_s > 1]
    down = [
        (seen[0].at_s, moved[min(1, len(moved) - 1)].at_s + SETTLES_S),
        *((at_s, at_s + SETTLES_S) for at_s in kills),
    ]
    down += [
        (since, until + SETTLES_S) for since, until in rests if any(since - 1 <= at_s <= since + 1 for at_s in kills)
    ]
    rates = []
    start = seen[0]
    for one in seen[:-1]:
        if any(since <= one.at_s <= until for since, until in down):
            start = one
        elif one.at_s - start.at_s >= WINDOW_S:
            rates.append((one.made - start.made) / (one.at_s - start.at_s))
            start = one
    return rates
