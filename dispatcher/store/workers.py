"""The statements by which a worker shows that it lives, and the scheduler which one leads, all by the due clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from dispatcher.store.clock import bind

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.clock import Now

_HEARTBEAT = text("""
INSERT INTO dispatcher.workers (id, host, pid, room, started_at, heartbeat_until)
VALUES (:id, :host, :pid, :room, dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])),
        dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) + make_interval(secs => :term_s))
ON CONFLICT (id) DO UPDATE
SET heartbeat_until = excluded.heartbeat_until, room = excluded.room, going = false
""")

_RETIRE = text("DELETE FROM dispatcher.workers WHERE id = :id")

_BURY = text("""
DELETE FROM dispatcher.workers w
WHERE w.heartbeat_until < dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) - interval '1 hour'
  AND NOT EXISTS (SELECT FROM dispatcher.deliveries d WHERE d.claimed_by = w.id OFFSET 0)  -- OFFSET 0: a look for each
""")

_LEAD = text("""
INSERT INTO dispatcher.leader AS l (name, owner, term, expires_at)
VALUES (:name, :owner, 1,
        dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])) + make_interval(secs => :term_s))
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, expires_at = excluded.expires_at, term = l.term + (l.owner <> excluded.owner)::int
WHERE l.owner = excluded.owner OR l.expires_at <= dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[]))
RETURNING term
""")

_SERVER_CLOCK = text("""
SELECT dispatcher.due_time(CAST(CAST(:now AS text) AS timestamptz[])), pg_postmaster_start_time()
""")


def heartbeat(
    connection: Connection,
    worker_id: UUID,
    *,
    host: str,
    pid: int,
    room: int,
    term_s: float,
    now: Now = None,
) -> None:
    """Prolongs the life of the worker's claims to `term_s` seconds from now; the first one registers it.

    It may be rung again: one that the database took to be going may have stopped meanwhile.
    """
    connection.execute(
        _HEARTBEAT, {"id": worker_id, "host": host, "pid": pid, "room": room, "term_s": term_s, "now": bind(now)}
    )


def retire(connection: Connection, worker_id: UUID) -> None:
    """Ends the worker's life at once: whatever it still had claimed can be rescued."""
    connection.execute(_RETIRE, {"id": worker_id})


def bury(connection: Connection, *, now: Now = None) -> None:
    """Forgets workers that have been dead for an hour and hold no claim."""
    connection.execute(_BURY, {"now": bind(now)})


def lead(connection: Connection, name: str, owner: UUID, *, term_s: float, now: Now = None) -> int | None:
    """Takes or keeps the leadership of `name` for `term_s` seconds; its term, or None while another has it."""
    return connection.execute(
        _LEAD, {"name": name, "owner": owner, "term_s": term_s, "now": bind(now)}
    ).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class ServerClock:
    """The due clock's time, and when the database's server started as its own clock said then: heartbeats cannot have
    been renewed between two servers. The latter says only which server it is, since clocks may step.
    """

    now: datetime
    started_at: datetime


def server_clock(connection: Connection, *, now: Now = None) -> ServerClock:
    """Reads the clock by which claims live and die."""
    return ServerClock(*connection.execute(_SERVER_CLOCK, {"now": bind(now)}).one())
