"""The statements behind statistics: tallies folded into counts, both read as one, and what waits now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import text

from dispatcher.model.event import Mode
from dispatcher.store import limits
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, TextClause

    from dispatcher.store.pauses import Scope

Grain: TypeAlias = Literal["5min", "hour", "day"]
By: TypeAlias = Literal["endpoint", "event_type", "tenant", "none"]

MOST: Final = 100_000
"""So many waiting deliveries are counted for one question, whatever waits."""

PART: Final = 200
"""Counts in a part of a fold, which with three grains each are some 10 ms of the database's time."""

_KEY: Final = ("endpoint_id", "since", "event_type", "kind", "what", "size", "n")
_WIDTHS: Final = "(VALUES ('5min', interval '5 minutes'), ('hour', interval '1 hour'), ('day', interval '1 day'))"
_EPOCH: Final = "timestamptz '2000-01-01T00:00:00Z'"
_EXPANDED: Final = """json_to_recordset(t.body)
         AS x(endpoint_id uuid, event_type text, kind text, what text, size smallint, n bigint)"""

# Tallies are unpacked once, into the finest grain, of which the coarser ones are made.
_TAKE = text(f"""
WITH taken AS (
    DELETE FROM dispatcher.tallies
    WHERE id = ANY (ARRAY(SELECT id FROM dispatcher.tallies ORDER BY id LIMIT :batch FOR UPDATE SKIP LOCKED))
    RETURNING at, body
), finest AS (
    SELECT x.endpoint_id, date_bin('5 minutes', t.at, {_EPOCH}) AS since, x.event_type, x.kind, x.what, x.size,
           sum(x.n) AS n
    FROM taken t CROSS JOIN LATERAL {_EXPANDED}
    GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT (SELECT count(*) FROM taken),
       CAST(json_agg(json_build_array(endpoint_id, since, event_type, kind, what, size, n)) AS text)
FROM finest
""")

# In the order of the key, so that two who fold at once wait for one another rather than deadlock.
_ADD = text(f"""
INSERT INTO dispatcher.counts AS c (endpoint_id, grain, since, event_type, kind, what, size, n)
SELECT f.endpoint_id, g.grain, date_bin(g.width, f.since, {_EPOCH}), f.event_type, f.kind, f.what, f.size, sum(f.n)
FROM json_to_recordset(CAST(CAST(:counted AS text) AS json))
     AS f(endpoint_id uuid, since timestamptz, event_type text, kind text, what text, size smallint, n bigint)
CROSS JOIN {_WIDTHS} AS g(grain, width)
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT (endpoint_id, grain, since, event_type, kind, what, size) DO UPDATE SET n = c.n + excluded.n
""")

# A look into the index counts_since for each grain.
_FORGET = text("""
DELETE FROM dispatcher.counts c
USING (VALUES ('5min', interval '2 days'), ('hour', interval '32 days'), ('day', interval '400 days')) AS g(grain, kept)
CROSS JOIN LATERAL (
    SELECT o.ctid AS place FROM dispatcher.counts o
    WHERE o.grain = g.grain AND o.since < coalesce(CAST(:now AS timestamptz), statement_timestamp()) - g.kept
    ORDER BY o.since
    LIMIT :batch
    FOR UPDATE SKIP LOCKED
) old
WHERE c.ctid = old.place
""")

_NOW = text("SELECT statement_timestamp()")

# What is in tallies is added as if it were folded already. One statement, so one snapshot: a fold that commits
# meanwhile is seen in both tables or in neither.
_READ: Final = """
WITH source AS NOT MATERIALIZED (
    SELECT {key} AS key, date_bin(:step, c.since, :start) AS point, {kind} AS kind, c.what, c.size, c.n
    FROM dispatcher.counts c {joined}
    WHERE c.grain = :grain AND c.since >= :start AND c.since <= :now {chosen}
    UNION ALL
    SELECT {key}, date_bin(:step, c.since, :start), {kind}, c.what, c.size, c.n
    FROM (SELECT x.*, date_bin(:width, t.at, :start) AS since
          FROM dispatcher.tallies t CROSS JOIN LATERAL {expanded}) c {joined}
    WHERE c.since >= :start AND c.since <= :now {chosen}
)
SELECT CAST(0 AS bigint) AS place, CAST(NULL AS text) AS key, point, kind, what, size, CAST(sum(n) AS bigint) AS n
FROM source GROUP BY point, kind, what, size
"""

# To be added to the former: another look at the same rows is cheaper than one look that groups twice.
_READ_BY: Final = """
UNION ALL
(WITH keyed AS MATERIALIZED (
    SELECT key, kind, what, size, sum(n) AS n FROM source GROUP BY key, kind, what, size
), top AS (
    SELECT key, row_number() OVER (ORDER BY failed DESC, lost DESC, total DESC, key) AS place
    FROM (SELECT key, sum(CASE WHEN kind = 'attempt' AND what <> 'ok' THEN n ELSE 0 END) AS failed,
                 sum(CASE WHEN what IN ('exhausted', 'rejected', 'expired') THEN n ELSE 0 END) AS lost, sum(n) AS total
          FROM keyed GROUP BY key) x
)
SELECT place, CAST(key AS text), NULL, kind, what, size, CAST(n AS bigint)
FROM top JOIN keyed USING (key) WHERE place <= :limit + 1)
ORDER BY place
"""

_OF_BOTH: Final = "replace(c.kind, 'test_', '')"
_KINDS: Final[dict[Mode | None, tuple[str, str]]] = {
    None: (_OF_BOTH, ""),
    Mode.LIVE: ("c.kind", "AND c.kind IN ('attempt', 'end')"),
    Mode.TEST: (_OF_BOTH, "AND c.kind IN ('test_attempt', 'test_end')"),
}
"""By the mode: what a count is of, `attempt` or `end`, and which counts are read."""

_KEYS: Final[dict[By, str]] = {
    "endpoint": "c.endpoint_id",
    "event_type": "c.event_type",
    "tenant": "owner.tenant_id",
    "none": "CAST(NULL AS text)",
}

# For this transaction: a million counts are hashed by what they are, and neither sorted nor worth compiling for.
_HASHED = text("""
SELECT set_config('enable_sort', 'off', true), set_config('jit', 'off', true), set_config('work_mem', '32MB', true)
""")

# Each endpoint that has any has an equal share of what may be read, so that the backlog of one hides no other's; what
# comes due first is read first. In flight are at most as many as workers hold, behind an index of their own.
_BACKLOG: Final = """
WITH holder AS MATERIALIZED (
    SELECT e.id, e.tenant_id FROM dispatcher.endpoints e
    CROSS JOIN LATERAL (SELECT FROM dispatcher.deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting'
                        ORDER BY d.due_at, d.id LIMIT 1) first
    WHERE {chosen}
), share AS MATERIALIZED (
    SELECT greatest(1, :most / greatest(1, count(*))) AS n FROM holder
), live AS (
    SELECT e.id AS endpoint_id, e.tenant_id, d.event_type, d.mode, d.created_at, d.due_at, false AS in_flight,
           d.place > share.n AS beyond
    FROM share CROSS JOIN holder e
    CROSS JOIN LATERAL (
        SELECT event_type, mode, created_at, due_at, row_number() OVER (ORDER BY due_at) AS place
        FROM dispatcher.deliveries WHERE endpoint_id = e.id AND state = 'waiting'
        ORDER BY due_at LIMIT share.n + 1
    ) d
    UNION ALL
    (SELECT e.id, e.tenant_id, d.event_type, d.mode, NULL, NULL, true, false
     FROM dispatcher.deliveries d JOIN dispatcher.endpoints e ON e.id = d.endpoint_id
     WHERE d.claimed_by IS NOT NULL AND {chosen}
     LIMIT :most)
)
SELECT grouping(key) = 0 AS of_key, CAST(key AS text) AS key,
       count(*) FILTER (WHERE asked AND NOT in_flight AND NOT beyond) AS waiting,
       count(*) FILTER (WHERE asked AND in_flight) AS in_flight,
       min(created_at) FILTER (WHERE asked) AS oldest_waiting_at,
       min(due_at) FILTER (WHERE asked) - dispatcher.clock_correction() AS oldest_due_at,
       coalesce(bool_or(beyond), false) AS at_least
FROM (SELECT {key} AS key, c.*, {asked} AS asked FROM live c) x
GROUP BY GROUPING SETS ((), (key))
"""

_NAMES: Final[dict[By, TextClause]] = {
    "endpoint": text("SELECT CAST(id AS text), url FROM dispatcher.endpoints WHERE id = ANY (CAST(:keys AS uuid[]))"),
    "tenant": text("SELECT CAST(id AS text), name FROM dispatcher.tenants WHERE id = ANY (CAST(:keys AS uuid[]))"),
}

Counts: TypeAlias = Counter[tuple[str, str, int]]
"""How many by kind ("attempt" or "end", of the requested mode), by outcome or state, and by span of latency or attempts
made.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in which grain, and how far apart points are. `start` is a bound of both."""

    start: datetime
    now: datetime
    grain: Grain
    width: timedelta
    step: timedelta


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted: in all, by point (there `size` is 0), and by key, the one with the most failures first.

    A key is an endpoint's or a tenant's UUID, or a type; `more` where there are others.
    """

    total: Counts
    points: dict[datetime, Counts]
    groups: dict[str, Counts]
    more: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not done now. Held deliveries wait too.

    With `at_least` more wait than were counted, and the oldest that waits may be older than what is said; what is due
    first is exact even then, unless one event type or mode was requested. `oldest_due_at` may be to come.
    """

    waiting: int = 0
    in_flight: int = 0
    oldest_waiting_at: datetime | None = None
    oldest_due_at: datetime | None = None
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Backlogs:
    """In all, and by key, the longest first."""

    total: Backlog
    groups: dict[str, Backlog] = field(default_factory=dict)


@dataclass(slots=True)
class Taken:
    """So many tallies, and what they come to: endpoint, since, type, kind, what and size of the finest grain."""

    tallies: int = 0
    counts: Counter[tuple[Any, ...]] = field(default_factory=Counter)

    def parts(self) -> list[list[dict[str, Any]]]:
        """Of some `PART` counts each, in the order in which they are added; all of an endpoint are in one."""
        found: list[list[dict[str, Any]]] = []
        for _, of_one in groupby(sorted(self.counts.items()), lambda counted: counted[0][0]):
            if not found or len(found[-1]) >= PART:
                found.append([])
            found[-1] += [dict(zip(_KEY, (*key, n), strict=True)) for key, n in of_one]
        return found


def take(connection: Connection, taken: Taken, *, batch: int) -> int:
    """Deletes up to `batch` tallies, the oldest first, and adds them to `taken`; returns how many.

    To be added to the counts in the same transaction: whatever dies, a tally is either there or counted. Passes over
    what another folds right now.
    """
    tallies, counted = connection.execute(_TAKE, {"batch": batch}).one()
    taken.tallies += tallies
    for *key, n in orjson.loads(counted or "[]"):
        taken.counts[tuple(key)] += n
    return int(tallies)


def add(connection: Connection, part: list[dict[str, Any]]) -> None:
    """Adds a part to the counts of every grain."""
    connection.execute(_ADD, {"counted": to_json(part)})


def forget(connection: Connection, *, batch: int, now: datetime | None = None) -> int:
    """Deletes up to `batch` counts of each grain that no window reaches any more: 5 minutes after 2 days, hours after
    32, days after 400. Returns how many.
    """
    return connection.execute(_FORGET, {"batch": batch, "now": now}).rowcount


def server_now(connection: Connection) -> datetime:
    """The database's clock, by which everything is counted."""
    at: datetime = connection.execute(_NOW).scalar_one()
    return at


def read(connection: Connection, scope: Scope, span: Span, *, by: By, limit: int) -> Counted:
    """What was counted since `span.start`, folded or not, with at most `limit` groups.

    All and a tenant's by the index counts_since, an endpoint's by the primary key.
    """
    connection.execute(_HASHED)
    values = {
        "step": span.step,
        "width": span.width,
        "start": span.start,
        "now": span.now,
        "grain": span.grain,
        "limit": limit,
    }
    found = Counted(Counter(), {}, {}, more=False)
    more = False
    for row in connection.execute(
        _reading(_shape(scope), scope.event_type is not None, scope.mode, by), values | _values(scope)
    ):
        if row.place > limit:
            more = True
        elif row.place:
            found.groups.setdefault(row.key, Counter())[row.kind, row.what, row.size] += row.n
        else:
            found.total[row.kind, row.what, row.size] += row.n
            found.points.setdefault(row.point, Counter())[row.kind, row.what, 0] += row.n
    return Counted(found.total, found.points, found.groups, more)


def backlog(connection: Connection, scope: Scope, *, by: By, most: int = MOST) -> Backlogs:
    """What waits and is in flight, of at most `most` waiting deliveries or one an endpoint.

    By the indexes deliveries_due and deliveries_claimed. Pins the plans of its transaction, so it comes last there.
    """
    limits.pin_plans(connection)
    statement = _waiting(_shape(scope), scope.event_type is not None, scope.mode, by)
    total, groups = Backlog(), {}
    for of_key, key, *values in connection.execute(statement, {"most": most} | _values(scope)):
        if not of_key:
            total = Backlog(*values)
        elif key is not None and (values[0] or values[1]):
            groups[key] = Backlog(*values)
    if by == "event_type" and total.at_least:  # of what was not read, the type is not known
        groups = {key: Backlog(b.waiting, b.in_flight, b.oldest_waiting_at, b.oldest_due_at, True)
                  for key, b in groups.items()}  # fmt: skip
    order = sorted(groups, key=lambda key: (-groups[key].waiting, -groups[key].in_flight, key))
    return Backlogs(total, {key: groups[key] for key in order})


def names(connection: Connection, by: By, keys: Collection[str]) -> dict[str, str]:
    """What people know groups by: the URL of an endpoint, the name of a tenant; nothing for a type."""
    if by not in _NAMES or not keys:
        return {}
    return {row[0]: row[1] for row in connection.execute(_NAMES[by], {"keys": list(keys)})}


def _shape(scope: Scope) -> str:
    """An endpoint's own tenant was looked at by who asks, so the endpoint alone chooses."""
    if scope.endpoint_id is not None:
        return "endpoint"
    return "all" if scope.tenant_id is None else "tenant"


def _values(scope: Scope) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if scope.event_type is not None:
        values["event_type"] = scope.event_type
    if scope.endpoint_id is not None:
        values["endpoint_id"] = scope.endpoint_id
    elif scope.tenant_id is not None:
        values["tenant_id"] = scope.tenant_id
    return values


@cache
def _reading(shape: str, typed: bool, mode: Mode | None, by: By) -> TextClause:
    kind, kinds = _KINDS[mode]
    chosen = {
        "all": "",
        "tenant": "AND c.endpoint_id IN (SELECT id FROM dispatcher.endpoints WHERE tenant_id = :tenant_id)",
        "endpoint": "AND c.endpoint_id = :endpoint_id",
    }[shape]
    if typed:
        chosen += " AND c.event_type = :event_type"
    chosen += f" {kinds}"
    joined = "JOIN dispatcher.endpoints owner ON owner.id = c.endpoint_id" if by == "tenant" else ""
    reading = _READ if by == "none" else _READ + _READ_BY
    return text(reading.format(key=_KEYS[by], kind=kind, chosen=chosen, joined=joined, expanded=_EXPANDED))


@cache
def _waiting(shape: str, typed: bool, mode: Mode | None, by: By) -> TextClause:
    chosen = {"all": "true", "tenant": "e.tenant_id = :tenant_id", "endpoint": "e.id = :endpoint_id"}[shape]
    key = "c.tenant_id" if by == "tenant" else _KEYS[by]
    asked = "c.event_type = :event_type" if typed else "true"
    if mode is not None:
        asked += f" AND c.mode = '{mode}'"
    return text(_BACKLOG.format(key=key, chosen=chosen, asked=asked))
