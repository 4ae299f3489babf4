"""The statements behind the metrics. Each costs the same on a table of ten thousand rows and of ten million."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from dispatcher.store import limits

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

EXACT: Final = 10_000
"""Up to so many rows are counted; of more live deliveries the server's own estimate is told, of the others this."""

# Live deliveries are counted along their primary key: what a backlog leaves behind when it is gone is a large table of
# empty pages, which a scan of the table would read. In flight are at most as many as workers hold, behind an index of
# their own. The oldest due work stands at the ends of the indexes lanes_ready and wakes_due.
_GAUGES = text("""
SELECT (SELECT count(*) FROM (SELECT id FROM dispatcher.deliveries ORDER BY id LIMIT :exact + 1) x) AS counted,
       (SELECT greatest(0, reltuples)::bigint FROM pg_class WHERE oid = 'dispatcher.deliveries'::regclass) AS estimated,
       (SELECT count(*) FROM dispatcher.deliveries WHERE claimed_by IS NOT NULL) AS in_flight,
       coalesce(extract(epoch FROM dispatcher.due_time() - least(
           (SELECT ready_at FROM dispatcher.lanes WHERE ready_at <= dispatcher.due_time() ORDER BY ready_at LIMIT 1),
           (SELECT due_at FROM dispatcher.wakes WHERE due_at <= dispatcher.due_time() ORDER BY due_at LIMIT 1))), 0)
           AS oldest_due_s,
       (SELECT count(*) FROM dispatcher.workers WHERE heartbeat_until > dispatcher.due_time()) AS workers,
       (SELECT coalesce(sum(room), 0) FROM dispatcher.workers WHERE heartbeat_until > dispatcher.due_time()) AS room,
       (SELECT count(*) FROM dispatcher.pauses) AS pauses,
       (SELECT count(*) FROM dispatcher.replays WHERE state = 'running') AS replays
""")

# One look into deliveries_due an endpoint that is held, until there are enough. Pauses are hashed by what they hold.
_HELD = text("""
WITH pause AS MATERIALIZED (
    SELECT tenant_id, endpoint_id FROM dispatcher.pauses WHERE type_pattern IS NULL AND mode IS NULL
)
SELECT count(*) FROM (
    SELECT FROM (
        SELECT e.id FROM dispatcher.endpoints e
        WHERE e.status = 'disabled'
           OR e.status = 'active' AND (
               (SELECT bool_or(tenant_id IS NULL AND endpoint_id IS NULL) FROM pause)
               OR e.tenant_id IN (SELECT tenant_id FROM pause WHERE endpoint_id IS NULL AND tenant_id IS NOT NULL)
               OR e.id IN (SELECT p.endpoint_id FROM pause p JOIN dispatcher.endpoints o ON o.id = p.endpoint_id
                           WHERE p.tenant_id IS NULL OR p.tenant_id = o.tenant_id))
    ) held
    CROSS JOIN LATERAL (
        SELECT FROM dispatcher.deliveries d
        WHERE d.endpoint_id = held.id AND d.state = 'waiting'
        ORDER BY d.due_at, d.id
        LIMIT :exact
    ) d
    LIMIT :exact
) x
""")

# Of live mode, by the index ended_lately_live, the latest first; ids would not do, since a delivery may end a week
# after it was made.
_FAILED = text("""
SELECT state, count(*) FROM (
    SELECT state FROM dispatcher.ended_deliveries
    WHERE state <> 'delivered' AND mode = 'live' AND ended_at > statement_timestamp() - interval '1 hour'
    ORDER BY ended_at DESC
    LIMIT :exact
) x
GROUP BY state
""")

# Of endpoints there are thousands, not millions.
_ENDPOINTS = text("SELECT status, count(*) FROM dispatcher.endpoints GROUP BY status")

# The server counts what is inserted, whatever is in the tables. By partition: were they added up, the sum would fall
# with each partition that is dropped, which a counter must not.
_INSERTED = text("""
SELECT parent.relname, substr(part.relname, length(parent.relname) + 2), pg_stat_get_tuples_inserted(part.oid)
FROM pg_class parent
JOIN pg_inherits i ON i.inhparent = parent.oid
JOIN pg_class part ON part.oid = i.inhrelid
WHERE parent.relnamespace = 'dispatcher'::regnamespace
  AND parent.relname IN ('events', 'attempts', 'ended_deliveries')
ORDER BY part.relname
""")


@dataclass(frozen=True, slots=True)
class Figures:
    """How the system stands.

    `endpoints` has how many by status, `failed` how many deliveries ended without success in the last hour by state;
    `inserted` by table and day ("20260302", or "default") how many rows were ever inserted there.
    """

    waiting: int
    in_flight: int
    held: int
    oldest_due_s: float
    workers: int
    room: int
    pauses: int
    replays: int
    failed: dict[str, int]
    endpoints: dict[str, int]
    inserted: dict[str, dict[str, int]]


def read(connection: Connection) -> Figures:
    """All of it, in six statements. Locks nothing."""
    limits.pin_plans(connection)
    row = connection.execute(_GAUGES, {"exact": EXACT}).one()
    live = row.counted if row.counted <= EXACT else max(row.estimated, EXACT)
    inserted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for table, day, count in connection.execute(_INSERTED):
        inserted[table][day] = count
    return Figures(
        waiting=max(0, live - row.in_flight),
        in_flight=row.in_flight,
        held=connection.execute(_HELD, {"exact": EXACT}).scalar_one(),
        oldest_due_s=max(0.0, float(row.oldest_due_s)),
        workers=row.workers,
        room=row.room,
        pauses=row.pauses,
        replays=row.replays,
        failed=_counts(connection, _FAILED, exact=EXACT),
        endpoints=_counts(connection, _ENDPOINTS),
        inserted=dict(inserted),
    )


def _counts(connection: Connection, statement: TextClause, **values: int) -> dict[str, int]:
    return {str(name): int(count) for name, count in connection.execute(statement, values)}
