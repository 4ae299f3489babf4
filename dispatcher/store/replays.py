"""The statements that keep a replay's progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

_START = text("INSERT INTO dispatcher.replays (id, filter, state) VALUES (:id, CAST(:filter AS jsonb), 'running')")

_NEXT = text("""
SELECT id, filter, state, cursor, replayed, created_at, ended_at FROM dispatcher.replays
WHERE state = 'running' ORDER BY created_at LIMIT 1
FOR UPDATE SKIP LOCKED
""")

_ADVANCE = text("""
UPDATE dispatcher.replays
SET cursor = coalesce(:cursor, cursor), replayed = replayed + :replayed,
    state = CASE WHEN :done THEN 'done' ELSE state END,
    ended_at = CASE WHEN :done THEN statement_timestamp() END
WHERE id = :id
""")

_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")

_FIND = text("SELECT id, filter, state, cursor, replayed, created_at, ended_at FROM dispatcher.replays WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Replay:
    """New deliveries of old events: `cursor` is the last old delivery that was looked at."""

    id: UUID
    filter: dict[str, Any]
    state: str
    cursor: UUID | None
    replayed: int
    created_at: datetime
    ended_at: datetime | None


def start(connection: Connection, replay_id: UUID, chosen: dict[str, Any]) -> None:
    """Asks for a replay; the scheduler carries it out."""
    connection.execute(_START, {"id": replay_id, "filter": orjson.dumps(chosen).decode()})


def next_running(connection: Connection) -> Replay | None:
    """The oldest running replay, locked until the transaction ends; None if there is none that is not locked."""
    row = connection.execute(_NEXT).first()
    return None if row is None else Replay(*row)


def advance(connection: Connection, replay_id: UUID, *, cursor: UUID | None, replayed: int, done: bool) -> None:
    """Notes how far a replay has come, in the transaction that inserted its deliveries: a kill repeats nothing."""
    connection.execute(_ADVANCE, {"id": replay_id, "cursor": cursor, "replayed": replayed, "done": done})


def take_turns(connection: Connection, delivery_id: UUID) -> None:
    """Waits for whoever replays this delivery now, until their transaction ends."""
    connection.execute(_TAKE_TURNS, {"id": str(delivery_id)})


def find(connection: Connection, replay_id: UUID) -> Replay | None:
    """The replay with this id."""
    row = connection.execute(_FIND, {"id": replay_id}).first()
    return None if row is None else Replay(*row)
