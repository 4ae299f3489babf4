"""The statements that keep the progress of what is done to many deliveries: replays, and cancellations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

Kind = Literal["replay", "cancellation"]
State = Literal["running", "paused", "done", "cancelled"]

_REPLAY = """
SELECT id, kind, tenant_id, filter, state, replayed, total, rate, created_by, created_at, ended_at,
       rate_per_endpoint, canary, goes_to, status_reason, resumed_at, marked_at, marked, pace
"""

_START = text("""
INSERT INTO dispatcher.replays (id, kind, tenant_id, filter, state, rate, total, created_by, created_at,
                                rate_per_endpoint, canary, goes_to)
VALUES (:id, :kind, :tenant_id, CAST(:filter AS jsonb), 'running', :rate, :total, :created_by,
        coalesce(CAST(:now AS timestamptz), statement_timestamp()), :rate_per_endpoint, :canary, :goes_to)
""")

_FIND = text(f"{_REPLAY} FROM dispatcher.replays WHERE id = :id")

_LIST = text(f"""{_REPLAY} FROM dispatcher.replays
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
  AND (CAST(:kind AS text) IS NULL OR kind = :kind) AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")

# The one whose turn was longest ago, so that a long one does not keep the others waiting; of those with a rate only
# one that has come to at least one delivery.
_NEXT = text(f"""{_REPLAY}, clock.now,
       CAST(extract(epoch FROM clock.now - coalesce(stepped_at, created_at)) AS float8) AS waited_s
FROM dispatcher.replays,
     (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS now) clock
WHERE state = 'running' AND id <> ALL (CAST(:but AS uuid[]))
  AND (rate IS NULL OR coalesce(stepped_at, created_at) + make_interval(secs => 1 / CAST(rate AS float8)) <= clock.now
       OR coalesce(stepped_at, created_at) > clock.now)  -- the clock was set back
ORDER BY coalesce(looked_at, created_at), id LIMIT 1
FOR UPDATE OF replays SKIP LOCKED
""")

_RUNS = text("SELECT EXISTS (SELECT FROM dispatcher.replays WHERE state = 'running')")

# The pace is taken over two seconds and more, so that one step more or less does not show in it.
_ADVANCE = text("""
UPDATE dispatcher.replays
SET replayed = replayed + :replayed, stepped_at = :stepped_at, looked_at = clock.now,
    state = :state, status_reason = :status_reason, ended_at = CASE WHEN :state = 'done' THEN clock.now END,
    marked_at = CASE WHEN since.s >= 2 THEN clock.now ELSE coalesce(marked_at, created_at) END,
    marked = CASE WHEN since.s >= 2 THEN replayed + :replayed ELSE marked END,
    pace = CASE WHEN since.s >= 2 THEN (replayed + :replayed - marked) / since.s ELSE pace END
FROM (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS now) clock,
     LATERAL (SELECT CAST(extract(epoch FROM clock.now - coalesce(r.marked_at, r.created_at)) AS float8) AS s
              FROM dispatcher.replays r WHERE r.id = :id) since
WHERE id = :id
""")

_SET_STATE = text("""
UPDATE dispatcher.replays
SET state = :state, stepped_at = clock.now, looked_at = clock.now, resumed_at = clock.now, status_reason = NULL,
    marked_at = clock.now, marked = replayed, pace = NULL,
    ended_at = CASE WHEN :state = 'cancelled' THEN clock.now END
FROM (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS now) clock
WHERE id = :id AND state IN ('running', 'paused') AND state <> :state
""")

_LOCK = text("SELECT FROM dispatcher.replays WHERE id = :id FOR UPDATE")

_TAKE_TURNS = text("""
SELECT pg_advisory_xact_lock_shared(hashtextextended('dispatcher.replays', 0)),
       pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))
""")

_KEEP_OUT = text("SELECT pg_advisory_xact_lock(hashtextextended('dispatcher.replays', 0))")


@dataclass(frozen=True, slots=True)
class Replay:
    """New deliveries of old events or, as a cancellation, the end of deliveries that wait.

    `filter` is stored by `dispatcher.flow.replay_choice`. `replayed` counts what was done, `total` what there was to do
    when it was asked for. Rates are in deliveries a second, None for as fast as it goes. `canary` is how many of each
    endpoint go first. `goes_to` is `same`, `matching` or an endpoint's id. `pace` is how many it made a second until
    `marked_at`, when `marked` were made. `tenant_id` None is an operator's.
    """

    id: UUID
    kind: Kind
    tenant_id: UUID | None
    filter: dict[str, Any]
    state: State
    replayed: int
    total: int | None
    rate: float | None
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    rate_per_endpoint: float | None = None
    canary: int | None = None
    goes_to: str = "same"
    status_reason: str | None = None
    resumed_at: datetime | None = None
    marked_at: datetime | None = None
    marked: int = 0
    pace: float | None = None


def start(
    connection: Connection,
    replay_id: UUID,
    chosen: dict[str, Any],
    *,
    kind: Kind,
    tenant_id: UUID | None,
    rate: float | None,
    total: int,
    by: str,
    rate_per_endpoint: float | None = None,
    canary: int | None = None,
    goes_to: str = "same",
    now: datetime | None = None,
) -> None:
    """Asks for a replay or a cancellation; the scheduler carries it out."""
    values = {"id": replay_id, "filter": to_json(chosen), "kind": kind, "tenant_id": tenant_id, "rate": rate}
    values |= {"rate_per_endpoint": rate_per_endpoint, "canary": canary, "goes_to": goes_to}
    connection.execute(_START, {**values, "total": total, "created_by": by, "now": now})


def now(connection: Connection) -> datetime:
    """The database's clock."""
    found: datetime = connection.execute(text("SELECT statement_timestamp()")).scalar_one()
    return found


def set_total(connection: Connection, replay_id: UUID, total: int) -> None:
    """Notes how many there are to do."""
    connection.execute(
        text("UPDATE dispatcher.replays SET total = :total WHERE id = :id"), {"id": replay_id, "total": total}
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """The replay whose turn it is, the database's clock then, and the seconds of its rate that are not used up."""

    replay: Replay
    at: datetime
    waited_s: float


def next_running(connection: Connection, *, but: Collection[UUID] = (), now: datetime | None = None) -> Turn | None:
    """The running one whose turn was longest ago, locked until the transaction ends; none of `but`.

    None if there is none that is not locked and that its rate lets go on.
    """
    row = connection.execute(_NEXT, {"now": now, "but": list(but)}).first()
    return None if row is None else Turn(Replay(*row[:-2]), *row[-2:])


def runs(connection: Connection) -> bool:
    """Whether any replay or cancellation runs."""
    found: bool = connection.execute(_RUNS).scalar_one()
    return found


def advance(
    connection: Connection,
    replay_id: UUID,
    *,
    replayed: int,
    state: State,
    status_reason: str | None,
    stepped_at: datetime,
    now: datetime | None = None,
) -> None:
    """Notes how far it has come, in the transaction that brought it there: a kill repeats nothing.

    `stepped_at` is the instant up to which its rate is used up.
    """
    values = {"id": replay_id, "replayed": replayed, "state": state, "status_reason": status_reason}
    connection.execute(_ADVANCE, {**values, "stepped_at": stepped_at, "now": now})


def lock(connection: Connection, replay_id: UUID) -> None:
    """Waits for the step that is under way, and keeps the next one waiting until the transaction ends."""
    connection.execute(_LOCK, {"id": replay_id})


def set_state(
    connection: Connection,
    replay_id: UUID,
    state: Literal["running", "paused", "cancelled"],
    *,
    now: datetime | None = None,
) -> bool:
    """Pauses it, has it go on, or ends it; how long it has rested does not count for its rate.

    False where nothing changes: it is in that state, or has ended.
    """
    return connection.execute(_SET_STATE, {"id": replay_id, "state": state, "now": now}).rowcount > 0


def take_turns(connection: Connection, delivery_id: UUID) -> None:
    """Waits for whoever replays this delivery now, and for a step of a replay, until their transactions end."""
    connection.execute(_TAKE_TURNS, {"id": str(delivery_id)})


def keep_out(connection: Connection) -> None:
    """Waits for all who replay single deliveries, and has others wait until the transaction ends.

    The next statement then sees what they have made, so that no delivery is replayed by both.
    """
    connection.execute(_KEEP_OUT)


def find(connection: Connection, replay_id: UUID) -> Replay | None:
    """The one with this id."""
    row = connection.execute(_FIND, {"id": replay_id}).first()
    return None if row is None else Replay(*row)


def list_(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    kind: Kind | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Replay]:
    """Replays and cancellations, the newest first, older than `before`; only a tenant's, if given."""
    values = {"tenant_id": tenant_id, "kind": kind, "before": before, "limit": limit}
    return [Replay(*row) for row in connection.execute(_LIST, values)]
