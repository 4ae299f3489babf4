"""The statements that remember what a POST other than an event's answered under its idempotency key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:owner AS text) || :key, 1))")

_RECALL = text("""
SELECT request_sha256, status, body FROM dispatcher.idempotent_requests
WHERE owner = :owner AND key = :key AND expires_at > statement_timestamp()
""")

_REMEMBER = text("""
INSERT INTO dispatcher.idempotent_requests AS i (owner, key, request_sha256, status, body, expires_at)
VALUES (:owner, :key, :request_sha256, :status, :body, statement_timestamp() + make_interval(secs => :lifetime_s))
ON CONFLICT (owner, key) DO UPDATE
SET request_sha256 = excluded.request_sha256, status = excluded.status, body = excluded.body,
    expires_at = excluded.expires_at
""")

_FORGET = text("""
DELETE FROM dispatcher.idempotent_requests WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM dispatcher.idempotent_requests
    WHERE expires_at <= coalesce(CAST(:now AS timestamptz), statement_timestamp())
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked under a key, as a hash, and what it answered; `body` is JSON without secrets."""

    request_sha256: bytes
    status: int
    body: str


def lock(connection: Connection, owner: UUID, key: str) -> None:
    """Has requests under one key take turns, until the transaction ends."""
    connection.execute(_LOCK, {"owner": owner, "key": key})


def recall(connection: Connection, owner: UUID, key: str) -> Answered | None:
    """What the key answered before; None where it is new, or too old."""
    row = connection.execute(_RECALL, {"owner": owner, "key": key}).first()
    return None if row is None else Answered(bytes(row[0]), row[1], row[2])


def remember(connection: Connection, owner: UUID, key: str, answered: Answered, *, lifetime_s: float) -> None:
    """Keeps an answer, in the transaction of what it tells of."""
    connection.execute(
        _REMEMBER,
        {
            "owner": owner,
            "key": key,
            "request_sha256": answered.request_sha256,
            "status": answered.status,
            "body": answered.body,
            "lifetime_s": lifetime_s,
        },
    )


def forget(connection: Connection, *, batch: int, now: datetime | None = None) -> int:
    """Deletes up to `batch` answers whose time has passed; returns how many."""
    return connection.execute(_FORGET, {"batch": batch, "now": now}).rowcount
