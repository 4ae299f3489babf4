"""The searches of a merchant's engineer over a month's log, bulk-loaded, each timed by the server itself."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from bench.report import RESULTS
from bench.site import Bench, Figures, describe, quantile
from bench.system import System
from dispatcher.flow.find import Finder
from dispatcher.ids import first_id, format_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.model.filter import Filter
from dispatcher.store import partitions
from dispatcher.store.limits import limited
from dispatcher.store.search import parts

DAYS = 30
TENANTS = 400
PER_TENANT = 5
WARM = 5

# Endpoints and types are used unequally; 95 of 100 are delivered, a fifth of them after a failure.
_ENDED = """
INSERT INTO dispatcher.ended_deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, first_attempt_at, ended_at, claim_seq, schedule_id, attempts,
     refunds, state, event_type, mode, object_id, reason, last_outcome, last_status_code, last_error)
SELECT x.id, e.id, x.event_id, e.tenant_id, x.at, x.at, x.at + interval '1 minute', x.attempts, v.id, x.attempts, 0,
       x.state, 'type_' || x.type || '.done', 'live', 'pay_' || x.n, x.outcome, x.outcome,
       CASE x.outcome WHEN 'ok' THEN 200 WHEN 'http_retryable' THEN 503 WHEN 'http_4xx' THEN 404 + x.n % 2 END,
       CASE x.outcome WHEN 'deadline' THEN 'the receiver has not answered in time'
                      WHEN 'connect' THEN 'the receiver cannot be reached: ECONNREFUSED'
                      WHEN 'tls_cert' THEN 'the receiver''s certificate is not valid: certificate has expired' END
FROM (
    SELECT n, id, uuidv7(id_at - statement_timestamp()) AS event_id, uuid_extract_timestamp(id) AS at,
           floor(:endpoints * place ^ 2)::int AS place, floor(40 * kind ^ 3)::int AS type, state,
           CASE WHEN state = 'delivered' THEN 1 + (CASE WHEN kind < 0.2 THEN 1 + n % 4 ELSE 0 END)
                WHEN state = 'exhausted' THEN 8 ELSE 1 END AS attempts,
           CASE WHEN state = 'delivered' THEN 'ok' WHEN state = 'rejected' THEN 'http_4xx'
                WHEN n % 2000 = 7 THEN 'tls_cert' WHEN n % 10 < 6 THEN 'http_retryable' WHEN n % 10 < 8 THEN 'deadline'
                ELSE 'connect' END AS outcome
    FROM (
        SELECT n, id, uuid_extract_timestamp(id) AS id_at, place, kind,
               CASE WHEN fate < 0.95 THEN 'delivered' WHEN fate < 0.995 THEN 'exhausted'
                    WHEN fate < 0.998 THEN 'rejected' ELSE 'cancelled' END AS state
        FROM (
            SELECT n, uuidv7(make_interval(secs => -86400 * :day - 60 - 86000 * random())) AS id, random() AS place,
                   random() AS kind, random() AS fate
            FROM generate_series(CAST(:first AS int), :last - 1) n
        ) drawn
    ) fated ORDER BY id
) x
JOIN (SELECT id, tenant_id, schedule, row_number() OVER (ORDER BY id) - 1 AS n FROM dispatcher.endpoints) e
  ON e.n = x.place
JOIN dispatcher.schedules s ON s.name = e.schedule JOIN dispatcher.schedule_versions v ON v.id = s.version_id
"""

_EVENTS = """
INSERT INTO dispatcher.events (id, tenant_id, type, mode, object_id, payload, fanout, created_at)
SELECT event_id, tenant_id, event_type, mode, object_id, '{"amount": 1250}', 1, created_at
FROM dispatcher.ended_deliveries WHERE id >= :low AND id < :high ORDER BY id
"""

_ATTEMPTS = """
INSERT INTO dispatcher.attempts
    (delivery_id, claim_seq, id, worker_id, started_at, duration_ms, number, status_code, outcome_known, outcome, phase,
     error, method, url, request_headers, response_headers, response_body, body_end, decision,
     charged, wait_s, from_first_attempt)
SELECT d.id, n, uuidv7(d.created_at + n * interval '5 s' - statement_timestamp()), d.id,
       d.created_at + n * interval '5 s', 20, n, d.last_status_code, true,
       CASE WHEN n = d.attempts THEN d.last_outcome ELSE 'http_retryable' END, 'body',
       d.last_error, 'POST', 'https://merchant.example.com/hook', '[["content-type", "application/json"]]', '[]', '',
       'complete', 'retry in 5 s', true, 5, false
FROM dispatcher.ended_deliveries d CROSS JOIN generate_series(1, d.attempts) n
WHERE d.id >= :low AND d.id < :high ORDER BY d.id
"""

_LIVE = """
INSERT INTO dispatcher.deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, due_at, first_attempt_at, claim_seq, schedule_id, attempts,
     event_type, mode, object_id, reason, last_outcome, last_status_code)
SELECT uuidv7(), e.id, uuidv7(), e.tenant_id, now(), now() + interval '2 hours', now(), 2, v.id, 2,
       'type_' || g.n % 40 || '.done', 'live', 'pay_live_' || g.n, 'http_retryable 503', 'http_retryable', 503
FROM (SELECT id, tenant_id, schedule, row_number() OVER (ORDER BY id) - 1 AS n FROM dispatcher.endpoints) e
JOIN generate_series(0, :live - 1) g(n) ON g.n % :endpoints = e.n
JOIN dispatcher.schedules s ON s.name = e.schedule JOIN dispatcher.schedule_versions v ON v.id = s.version_id
"""


def search5m(bench: Bench) -> Figures:
    """What the server takes for a page of 50 of each search, planning included."""
    with System(workers=0, durable=bench.options.durable) as system:
        describe(bench, system)
        urls = [f"https://merchant-{n // PER_TENANT}.example.com/hook/{n}" for n in range(TENANTS * PER_TENANT)]
        tenants = system.add_endpoints(urls, per_tenant=PER_TENANT)[0]
        engine = create_engine(system.stack.database_url)
        _load(bench, engine.connect)
        found: Figures = {"n": system.count("ended_deliveries"), "attempt_rows": system.count("attempts")}
        with engine.connect() as connection:
            for name, chosen, oldest_first in _searches(connection, tenants):
                first_ms, warm_ms = _timed(connection, name, chosen, oldest_first)
                found |= {f"first_{name}_ms": first_ms, f"{name}_ms": warm_ms}
            for name, asked in _asked(connection):
                found[f"find_{name}_ms"] = _found_ms(connection, asked)
            connection.rollback()
        engine.dispose()
    warm = [value for name, value in found.items() if name.endswith("_ms") and not name.startswith("first_")]
    found |= {"searches": len(warm), "slowest_ms": max(warm), "median_ms": quantile(warm, 0.5)}
    found["slowest_first_ms"] = max(value for name, value in found.items() if name.startswith("first_"))
    return found


def _load(bench: Bench, connect: Callable[[], Connection]) -> None:
    count, endpoints = bench.options.search, TENANTS * PER_TENANT
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with connect() as connection:
        for back in range(0, DAYS + 8, 8):
            partitions.ensure(connection, midnight - timedelta(days=back))
        connection.commit()
        connection.execute(text("SET synchronous_commit = off"))
        connection.execute(text("SET work_mem = '256MB'"))
        for day in range(DAYS):
            first, last = count * day // DAYS, count * (day + 1) // DAYS
            low, high = connection.execute(
                text("SELECT uuidv7(:low), uuidv7(:high)"),
                {"low": timedelta(days=-day - 1), "high": timedelta(days=-day)},
            ).one()
            connection.execute(text(_ENDED), {"day": day, "first": first, "last": last, "endpoints": endpoints})
            span = {"low": first_id(_at(low)), "high": first_id(_at(high))}
            connection.execute(text(_EVENTS), span)
            connection.execute(text(_ATTEMPTS), span)
            connection.commit()
            bench.progress(day, DAYS)
        connection.execute(text(_LIVE), {"live": min(20_000, count), "endpoints": endpoints})
        connection.commit()
    with connect() as connection:
        driver = connection.execution_options(isolation_level="AUTOCOMMIT")
        driver.execute(text("VACUUM ANALYZE"))


def _at(id_: Any) -> datetime:
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC)


def _searches(connection: Connection, tenants: Any) -> list[tuple[str, Filter, bool]]:
    """What a merchant on the phone can name, and an operator who looks for the like: name, filter, oldest first."""
    busy, quiet = tenants[0], tenants[-1]
    sample = connection.execute(
        text("SELECT * FROM dispatcher.ended_deliveries WHERE state = 'exhausted' ORDER BY id LIMIT 1 OFFSET 100")
    ).one()
    ends = connection.execute(
        text("SELECT endpoint_id FROM dispatcher.ended_deliveries GROUP BY 1 ORDER BY count(*) DESC")
    ).scalars()
    endpoints = list(ends)
    now = datetime.now(UTC)
    week, day = now - timedelta(days=7), now - timedelta(days=1)
    chosen: dict[str, Filter] = {
        "object": Filter(object_id=sample.object_id),
        "event": Filter(event_id=sample.event_id),
        "endpoint_busy": Filter(endpoint_id=endpoints[0]),
        "endpoint_quiet": Filter(endpoint_id=endpoints[-1]),
        "endpoint_failed": Filter(endpoint_id=endpoints[0], states=FAILED),
        "endpoint_outcome": Filter(endpoint_id=endpoints[0], outcome="tls_cert"),
        "endpoint_rare_type": Filter(endpoint_id=endpoints[0], event_type="type_39.done"),
        "tenant_busy": Filter(tenant_id=busy),
        "tenant_quiet": Filter(tenant_id=quiet),
        "tenant_failed": Filter(tenant_id=quiet, states=FAILED),
        "tenant_type": Filter(tenant_id=quiet, event_type="type_39.done"),
        "tenant_undelivered_day": Filter(tenant_id=busy, undelivered=True, created_after=day),
        "host": Filter(host="merchant-17.example.com"),
        "host_undelivered": Filter(host="merchant-17.example.com", undelivered=True),
        "host_unknown": Filter(host="nobody.example.com"),
        "type_frequent": Filter(event_type="type_0.done"),
        "type_rare": Filter(event_type="type_39.done"),
        "type_unknown": Filter(event_type="no.such"),
        "type_rare_failed": Filter(event_type="type_39.done", states=FAILED),
        "type_rare_rejected": Filter(event_type="type_39.done", states=(DeliveryState.REJECTED,)),
        "undelivered": Filter(undelivered=True),
        "cancelled": Filter(states=(DeliveryState.CANCELLED,)),
        "outcome_frequent": Filter(outcome="http_retryable", states=FAILED),
        "outcome_rare": Filter(outcome="tls_cert", undelivered=True),
        "status_frequent": Filter(status_code=503, undelivered=True),
        "status_rare": Filter(status_code=405, undelivered=True),
        "status_unknown": Filter(status_code=418, undelivered=True),
        "attempts_three": Filter(attempts_min=3),
        "attempts_eight_delivered": Filter(attempts_min=6, states=(DeliveryState.DELIVERED,)),
        "error_frequent": Filter(error="not answered in time"),
        "error_rare": Filter(error="certificate exp"),
        "error_unknown": Filter(error="gremlins"),
        "week_type_tenant": Filter(tenant_id=busy, event_type="type_3.done", created_after=week, created_before=day),
        "week_status_type": Filter(status_code=503, event_type="type_20.done", undelivered=True, created_after=week),
        "everything": Filter(),
    }
    oldest = {"endpoint_failed", "undelivered", "type_rare", "tenant_busy", "error_rare"}
    return [(name, one, False) for name, one in chosen.items()] + [
        (f"{name}_oldest", one, True) for name, one in chosen.items() if name in oldest
    ]


def _timed(connection: Connection, name: str, chosen: Filter, oldest_first: bool) -> tuple[float, float]:
    """The server's time for a page, planning included: the first, and the median of some more. Keeps the plans."""
    took_ms, explained = [], ""
    for _ in range(1 + WARM):
        explained, rows = "", 0.0
        with limited(connection):
            for part in parts(connection, chosen, oldest_first=oldest_first, limit=51):
                explain = text(f"EXPLAIN (ANALYZE, BUFFERS) {part.sql}")
                plan = "\n".join(connection.execute(explain, part.values).scalars())
                explained += plan + "\n\n"
                top = re.search(r"actual time=\S+ rows=([\d.]+)", plan)
                rows += 0 if part.is_live or top is None else float(top[1])
                if rows >= 51:
                    break
        took_ms.append(sum(float(ms) for ms in re.findall(r"(?:Planning|Execution) Time: ([\d.]+) ms", explained)))
        connection.rollback()
    folder = RESULTS / "search5m"
    Path(folder).mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(explained + "\n")
    return took_ms[0], statistics.median(took_ms[1:])


def _asked(connection: Connection) -> list[tuple[str, str]]:
    one = connection.execute(text("SELECT * FROM dispatcher.ended_deliveries LIMIT 1 OFFSET 1000")).one()
    attempt = connection.execute(
        text("SELECT id FROM dispatcher.attempts WHERE delivery_id = :id LIMIT 1"), {"id": one.id}
    ).scalar_one()
    return [
        ("event", format_id("evt", one.event_id)),
        ("delivery", format_id("dlv", one.id)),
        ("endpoint", format_id("ep", one.endpoint_id)),
        ("attempt", format_id("att", attempt)),
        ("no_attempt", format_id("att", first_id(datetime.now(UTC) - timedelta(days=3)))),
        ("object", one.object_id),
        ("url", "https://merchant-17.example.com/hook/85"),
        ("host", "merchant-17.example.com"),
        ("nothing", "pay_of_nobody"),
    ]


def _found_ms(connection: Connection, asked: str) -> float:
    """The median time of `find`, its round trips included."""
    took_ms = []
    for _ in range(1 + WARM):
        began_s = time.monotonic()
        Finder(connection, datetime.now(UTC), keys=True)(asked)
        took_ms.append((time.monotonic() - began_s) * 1000)
        connection.rollback()
    return statistics.median(took_ms[1:])
