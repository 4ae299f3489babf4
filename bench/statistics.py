"""`python -m bench.statistics`: how long statistics take to read: 1,000 endpoints × 3 types, a month, and a backlog.

The counts are made, not folded: an endpoint and type has 16 counts a day, 6 an hour and 3 in five minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, text

from dispatcher.config import Settings
from dispatcher.flow.statistics import WINDOWS, statistics
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.store import counts
from dispatcher.store.pauses import Scope
from dispatcher.wiring import prepare_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

TYPES: Final = 3
SPANS: Final = (("day", "1 day", "31 days", 16), ("hour", "1 hour", "8 days", 6), ("5min", "5 minutes", "2 hours", 3))

_ENDPOINTS = text("""
WITH made AS (
    INSERT INTO dispatcher.endpoints (id, tenant_id, url, profile, schedule, method, max_in_flight, secrets, status)
    SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 'https://shop-' || n || '.example.com/hook',
           'default', 'standard', 'POST', 64, '[]', 'active'
    FROM generate_series(1, :endpoints) n RETURNING id
)
INSERT INTO dispatcher.lanes (endpoint_id, ready_at, cap) SELECT id, 'infinity', 64 FROM made
""")

_COUNTS = text("""
INSERT INTO dispatcher.counts (endpoint_id, grain, since, event_type, kind, what, size, n)
SELECT e.id, :grain, date_bin(CAST(:width AS interval), at, timestamptz '2000-01-01T00:00:00Z'), 'type.' || t,
       CASE WHEN r % 4 = 3 THEN 'end' ELSE 'attempt' END,
       CASE WHEN r % 4 = 3 THEN 'delivered' WHEN r % 8 = 6 THEN 'http_retryable' ELSE 'ok' END,
       CASE WHEN r % 4 = 3 THEN 1 + r / 4 ELSE 16 + r END, 1 + (random() * 50)::int
FROM dispatcher.endpoints e
CROSS JOIN generate_series(1, :types) t
CROSS JOIN generate_series(now() - CAST(:length AS interval), now(), CAST(:width AS interval)) at
CROSS JOIN generate_series(0, :rows - 1) r
""")

_BACKLOG = text("""
INSERT INTO dispatcher.deliveries
    (id, endpoint_id, event_id, tenant_id, created_at, due_at, schedule_id, event_type, mode)
SELECT gen_random_uuid(), (SELECT min(CAST(id AS text))::uuid FROM dispatcher.endpoints), gen_random_uuid(),
       '00000000-0000-7000-8000-000000000001', now(), now() + n * interval '1 ms', 1, 'type.1', 'live'
FROM generate_series(1, :waiting) n
""")


def measure(engine: Engine, *, repeats: int) -> dict[str, float]:
    """The median of some reads in milliseconds, by what was asked."""
    with engine.connect() as connection:
        one = connection.execute(text("SELECT min(CAST(id AS text))::uuid FROM dispatcher.endpoints")).scalar_one()
    questions = {
        **{f"{window}, all, by endpoint": {"window": window, "by": "endpoint"} for window in WINDOWS},
        "30d, all": {"window": "30d"},
        "30d, one endpoint, by type": {"window": "30d", "by": "event_type", "endpoint_id": one},
    }
    figures = {}
    for name, asked in questions.items():
        took = []
        for _ in range(repeats):
            with engine.begin() as connection:
                began_s = time.perf_counter()
                statistics(connection, **asked)
                took.append(1000 * (time.perf_counter() - began_s))
        figures[name] = round(median(took), 1)
    took = []
    for _ in range(repeats):
        with engine.begin() as connection:
            began_s = time.perf_counter()
            counts.backlog(connection, Scope(), by="endpoint")
            took.append(1000 * (time.perf_counter() - began_s))
    return figures | {"the backlog of it": round(median(took), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.statistics", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--waiting", type=int, default=300_000, help="deliveries that wait for one of them")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-bench-"))
    server = EmbeddedPostgres(data_dir)
    try:
        server.start()
        url = server.url_of("dispatcher")
        prepare_database(Settings(database_url=url))
        engine = create_engine(url)
        rows = {}
        with engine.begin() as connection:
            connection.execute(_ENDPOINTS, {"endpoints": asked.endpoints})
            for grain, width, length, each in SPANS:
                values = {"grain": grain, "width": width, "length": length, "rows": each, "types": TYPES}
                rows[grain] = connection.execute(_COUNTS, values).rowcount
            connection.execute(_BACKLOG, {"waiting": asked.waiting})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        print(
            json.dumps(
                {"counts": rows, "waiting": asked.waiting, "ms": measure(engine, repeats=asked.repeats)}, indent=2
            )
        )
        engine.dispose()
    finally:
        server.stop("immediate")
        remove_data_dir(data_dir, server_account())


if __name__ == "__main__":
    main()
