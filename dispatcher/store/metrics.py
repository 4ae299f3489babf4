"""The statements behind the metrics. Each costs the same on a table of ten thousand rows and of ten million."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

EXACT: Final = 10_000
"""Up to so many live deliveries are counted; beyond, the server's own estimate has to do."""

# In flight are at most as many as workers hold, behind an index of their own. The oldest due work stands at the ends
# of the indexes lanes_ready and wakes_due. What was inserted ever is counted by the server, whatever is in the tables.
_GAUGES = text("""
SELECT (SELECT count(*) FROM (SELECT FROM dispatcher.deliveries LIMIT :exact + 1) x) AS counted,
       (SELECT greatest(0, reltuples)::bigint FROM pg_class WHERE oid = 'dispatcher.deliveries'::regclass) AS estimated,
       (SELECT count(*) FROM dispatcher.deliveries WHERE claimed_by IS NOT NULL) AS in_flight,
       coalesce(extract(epoch FROM statement_timestamp() - least(
           (SELECT ready_at FROM dispatcher.lanes WHERE ready_at <= statement_timestamp() ORDER BY ready_at LIMIT 1),
           (SELECT due_at FROM dispatcher.wakes WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT 1))), 0)
           AS oldest_due_s,
       (SELECT count(*) FROM dispatcher.workers WHERE heartbeat_until > statement_timestamp()) AS workers,
       (SELECT coalesce(sum(room), 0) FROM dispatcher.workers WHERE heartbeat_until > statement_timestamp()) AS room,
       (SELECT count(*) FROM dispatcher.pauses) AS pauses,
       (SELECT count(*) FROM dispatcher.replays WHERE state = 'running') AS replays
""")

_ENDPOINTS = text("SELECT status, count(*) FROM dispatcher.endpoints GROUP BY status")

_INSERTED = text("""
SELECT coalesce(p.relname, s.relname), sum(s.n_tup_ins)::bigint
FROM pg_stat_user_tables s
LEFT JOIN pg_inherits i ON i.inhrelid = s.relid
LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE s.schemaname = 'dispatcher'
  AND coalesce(p.relname, s.relname) IN ('events', 'attempts', 'ended_deliveries')
GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class Figures:
    """How the system stands. `inserted` has what was ever inserted by table; `endpoints` how many by status."""

    waiting: int
    in_flight: int
    oldest_due_s: float
    workers: int
    room: int
    pauses: int
    replays: int
    endpoints: dict[str, int]
    inserted: dict[str, int]


def read(connection: Connection) -> Figures:
    """All of it, in three statements. Locks nothing."""
    row = connection.execute(_GAUGES, {"exact": EXACT}).one()
    live = row.counted if row.counted <= EXACT else max(row.estimated, EXACT)
    return Figures(
        waiting=max(0, live - row.in_flight),
        in_flight=row.in_flight,
        oldest_due_s=max(0.0, float(row.oldest_due_s)),
        workers=row.workers,
        room=row.room,
        pauses=row.pauses,
        replays=row.replays,
        endpoints=_counts(connection, _ENDPOINTS),
        inserted=_counts(connection, _INSERTED),
    )


def _counts(connection: Connection, statement: TextClause) -> dict[str, int]:
    return {str(name): int(count) for name, count in connection.execute(statement)}
