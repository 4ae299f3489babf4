"""The statements that keep the progress of what is done to many deliveries: replays, and cancellations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

Kind = Literal["replay", "cancellation"]
State = Literal["running", "paused", "done", "cancelled"]

_REPLAY = """
SELECT id, kind, tenant_id, filter, state, cursor, replayed, total, rate, created_by, created_at, ended_at
"""

_START = text("""
INSERT INTO dispatcher.replays (id, kind, tenant_id, filter, state, rate, total, created_by, created_at)
VALUES (:id, :kind, :tenant_id, CAST(:filter AS jsonb), 'running', :rate, :total, :created_by,
        coalesce(CAST(:now AS timestamptz), statement_timestamp()))
""")

_FIND = text(f"{_REPLAY} FROM dispatcher.replays WHERE id = :id")

_LIST = text(f"""{_REPLAY} FROM dispatcher.replays
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
  AND (CAST(:kind AS text) IS NULL OR kind = :kind) AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")

# The one that was stepped longest ago, so that a long one does not keep the others waiting; of those with a rate only
# one that has come to at least one delivery.
_NEXT = text(f"""{_REPLAY}, clock.now,
       CAST(extract(epoch FROM clock.now - coalesce(stepped_at, created_at)) AS float8) AS waited_s
FROM dispatcher.replays,
     (SELECT coalesce(CAST(:now AS timestamptz), statement_timestamp()) AS now) clock
WHERE state = 'running'
  AND (rate IS NULL OR coalesce(stepped_at, created_at) + make_interval(secs => 1 / CAST(rate AS float8)) <= clock.now)
ORDER BY coalesce(stepped_at, created_at), id LIMIT 1
FOR UPDATE OF replays SKIP LOCKED
""")

_ADVANCE = text("""
UPDATE dispatcher.replays
SET cursor = coalesce(:cursor, cursor), replayed = replayed + :replayed, stepped_at = :stepped_at,
    state = CASE WHEN :done THEN 'done' ELSE state END,
    ended_at = CASE WHEN :done THEN coalesce(CAST(:now AS timestamptz), statement_timestamp()) END
WHERE id = :id
""")

_SET_STATE = text("""
UPDATE dispatcher.replays
SET state = :state, stepped_at = coalesce(CAST(:now AS timestamptz), statement_timestamp()),
    ended_at = CASE WHEN :state = 'cancelled' THEN coalesce(CAST(:now AS timestamptz), statement_timestamp()) END
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

    `filter` is as `dispatcher.flow.replay` writes it. `cursor` is the last old delivery that was looked at; `replayed`
    counts what was done, `total` what there was to do when it was asked for. `rate` is in deliveries a second, None for
    as fast as it goes. `tenant_id` None is an operator's.
    """

    id: UUID
    kind: Kind
    tenant_id: UUID | None
    filter: dict[str, Any]
    state: State
    cursor: UUID | None
    replayed: int
    total: int | None
    rate: float | None
    created_by: str
    created_at: datetime
    ended_at: datetime | None


def start(
    connection: Connection,
    replay_id: UUID,
    chosen: dict[str, Any],
    *,
    kind: Kind,
    tenant_id: UUID | None,
    rate: float | None,
    total: int | None,
    by: str,
    now: datetime | None = None,
) -> None:
    """Asks for a replay or a cancellation; the scheduler carries it out."""
    values = {"id": replay_id, "filter": to_json(chosen), "kind": kind, "tenant_id": tenant_id, "rate": rate}
    connection.execute(_START, {**values, "total": total, "created_by": by, "now": now})


@dataclass(frozen=True, slots=True)
class Turn:
    """The replay whose turn it is, the database's clock then, and the seconds since its last step."""

    replay: Replay
    at: datetime
    waited_s: float


def next_running(connection: Connection, *, now: datetime | None = None) -> Turn | None:
    """The running one that was stepped longest ago, locked until the transaction ends.

    None if there is none that is not locked and that its rate lets go on.
    """
    row = connection.execute(_NEXT, {"now": now}).first()
    return None if row is None else Turn(Replay(*row[:-2]), *row[-2:])


def advance(
    connection: Connection,
    replay_id: UUID,
    *,
    cursor: UUID | None,
    replayed: int,
    done: bool,
    stepped_at: datetime,
    now: datetime | None = None,
) -> None:
    """Notes how far it has come, in the transaction that brought it there: a kill repeats nothing.

    `stepped_at` is the instant up to which its rate is used up.
    """
    values = {"id": replay_id, "cursor": cursor, "replayed": replayed, "done": done, "stepped_at": stepped_at}
    connection.execute(_ADVANCE, {**values, "now": now})


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
