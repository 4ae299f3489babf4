"""The due clock: the database's clock, corrected for its steps, by which everything is due.

Deliveries, lanes, wakes, heartbeats and the scheduler's lead are all stamped and compared by it, in SQL by
`dispatcher.due_time`. When the database's clock steps, only the one row of `dispatcher.clock` changes, so that no
waiting delivery has to be rewritten. What people read (`created_at`, `ended_at`, …) keeps to the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

Bounds: TypeAlias = "tuple[datetime, datetime]"
"""The earliest and the latest instant that the due clock can show now, as a process knows by its monotonic clock."""

Now: TypeAlias = "datetime | Bounds | None"
"""What time a statement takes it to be: an instant, bound by a test; the due clock within bounds; None, unbounded."""

SLACK_S: Final = 0.5
"""How long after the notice of a step a statement may have been accepting deliveries without the correction."""

REPAIRED_FOR_S: Final = 600.0
"""How long after a step such deliveries are looked for: a producer's transaction may stay open for some minutes."""

READING: Final = "statement_timestamp() + c.correction, c.seq, CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)"
"""The values of a `Reading`, where `c` is the one row of `dispatcher.clock`."""

_READ = text(f"SELECT {READING} FROM dispatcher.clock c")

_CORRECT = text("""
WITH moved AS (
    UPDATE dispatcher.clock
    SET seq = seq + 1, correction = correction + make_interval(secs => :change_s)
    WHERE seq = :seq
    RETURNING seq, correction
)
INSERT INTO dispatcher.clock_steps
    (seq, at, before, after, change_s, correction, noticed_by, unnoticed_s, oldest_xid)
SELECT seq, statement_timestamp() + correction, statement_timestamp() + make_interval(secs => :change_s),
       statement_timestamp(), :change_s, correction, :noticed_by, :unnoticed_s, CAST(CAST(:oldest_xid AS text) AS xid8)
FROM moved
""")

# `misread_at` is what the due clock showed, wrongly, when the step was noticed. If that is to come, it comes.
_UNREPAIRED = text("""
SELECT change_s, unnoticed_s, CAST(oldest_xid AS text), at - make_interval(secs => change_s) AS misread_at
FROM dispatcher.clock_steps
WHERE at > dispatcher.due_time() - make_interval(secs => :kept_s)
  AND abs(change_s) > unnoticed_s + 2 * :slack_s  -- otherwise both sides of the step look alike
  AND (change_s > 0
       OR at - make_interval(secs => change_s) > dispatcher.due_time() + make_interval(secs => unnoticed_s))
ORDER BY seq
""")

# Whatever was accepted meanwhile has left a wake, or a claim has folded the wake and written the lane.
_REPAIR = text("""
WITH since AS MATERIALIZED (
    SELECT age(CAST(CAST(CAST(:oldest_xid AS text) AS xid8) AS xid)) AS age
), touched AS MATERIALIZED (
    SELECT endpoint_id FROM dispatcher.wakes WHERE age(xmin) <= (SELECT age FROM since)
    UNION
    SELECT endpoint_id FROM dispatcher.lanes WHERE age(xmin) <= (SELECT age FROM since)
), waits AS MATERIALIZED (
    SELECT make_interval(secs => first_wait_s) AS first_wait, array_agg(id) AS schedule_ids
    FROM dispatcher.schedule_versions GROUP BY first_wait_s
), moved AS (
    UPDATE dispatcher.deliveries d
    SET due_at = d.due_at + make_interval(secs => :change_s)
    FROM touched t, waits w
    WHERE d.endpoint_id = ANY (ARRAY[t.endpoint_id]) AND d.state = 'waiting'
      AND d.due_at BETWEEN CAST(:misread_at AS timestamptz) - make_interval(secs => :unnoticed_s) + w.first_wait
                       AND CAST(:misread_at AS timestamptz) + make_interval(secs => :slack_s) + w.first_wait
      AND d.claim_seq = 0 AND d.schedule_id = ANY (w.schedule_ids) AND age(d.xmin) <= (SELECT age FROM since)
    RETURNING d.endpoint_id
), hurried AS (
    UPDATE dispatcher.wakes SET due_at = dispatcher.due_time()
    WHERE age(xmin) <= (SELECT age FROM since) AND due_at > dispatcher.due_time()
)
INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT DISTINCT endpoint_id, dispatcher.due_time() FROM moved
""")

_STEPS = text("SELECT seq, at, before, after, noticed_by FROM dispatcher.clock_steps ORDER BY seq")


@dataclass(frozen=True, slots=True)
class Reading:
    """The due clock as a statement read it: its time, how many steps it has been corrected for, and the oldest
    transaction that was open then.
    """

    now: datetime
    seq: int
    oldest_xid: str


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step of the database's clock, from `before` to `after`. `at` is of the due clock, when it was noticed."""

    seq: int
    at: datetime
    before: datetime
    after: datetime
    noticed_by: str


def bind(now: Now) -> str | None:
    """What `dispatcher.due_time` takes, as the text of an array: asyncpg would ask the server about a type of array,
    by names that a producer's `search_path` may hide.
    """
    if now is None:
        return None
    return f"{{{','.join(at.isoformat() for at in (now if isinstance(now, tuple) else (now,)))}}}"


def read(connection: Connection) -> Reading:
    """Reads the due clock. Locks nothing."""
    return Reading(*connection.execute(_READ).one())


def correct(
    connection: Connection, *, seq: int, change_s: float, noticed_by: str, oldest_xid: str, unnoticed_s: float
) -> bool:
    """Corrects the due clock by `change_s` for a step that nobody has recorded since `seq`; whether it did.

    Locks the one row of `clock` until the transaction ends, so whoever else noticed the step waits, and then finds
    another `seq`. `unnoticed_s` is for how long the step may have gone unnoticed, `oldest_xid` of the reading then.
    """
    values = {"seq": seq, "change_s": change_s, "noticed_by": noticed_by}
    return connection.execute(_CORRECT, values | {"oldest_xid": oldest_xid, "unnoticed_s": unnoticed_s}).rowcount > 0


def repair(connection: Connection) -> None:
    """Moves what was accepted between a step and its notice, and is due by the clock as it was then.

    It may be done again, and has to be for some minutes: a producer's transaction may commit later. Finds the
    endpoints by a scan of the wakes and lanes, which is as short as they are few, and their deliveries by the index
    deliveries_due. Locks those rows in no order, so a claim that meets it may have to be made again.
    """
    limits = {"kept_s": REPAIRED_FOR_S, "slack_s": SLACK_S}
    for row in connection.execute(_UNREPAIRED, limits).mappings().all():
        connection.execute(_REPAIR, {**row, "slack_s": SLACK_S})


def steps(connection: Connection) -> list[RecordedStep]:
    """Every step that was recorded, the first one first."""
    return [RecordedStep(*row) for row in connection.execute(_STEPS)]
