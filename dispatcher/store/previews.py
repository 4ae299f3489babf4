"""The statements that keep what a preview showed, until it has started what it showed or its time has passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.replays import Kind

_ADD = text("""
INSERT INTO dispatcher.previews (id, tenant_id, kind, filter, options, count, expires_at)
VALUES (:id, :tenant_id, :kind, CAST(:filter AS jsonb), CAST(:options AS jsonb), :count, :expires_at)
""")

_LOCK = text("""
SELECT id, tenant_id, kind, filter, options, count, expires_at, replay_id
FROM dispatcher.previews WHERE id = :id FOR UPDATE
""")

_USE = text("UPDATE dispatcher.previews SET replay_id = :replay_id WHERE id = :id")

_FORGET = text("""
DELETE FROM dispatcher.previews WHERE id = ANY (ARRAY(
    SELECT id FROM dispatcher.previews
    WHERE expires_at <= coalesce(CAST(:now AS timestamptz), statement_timestamp())
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")


@dataclass(frozen=True, slots=True)
class StoredPreview:
    """A preview. `filter` and `options` are as `dispatcher.flow.previews` writes them.

    `tenant_id` is who has previewed, None for an operator; `replay_id` what it has started, None if nothing yet.
    """

    id: UUID
    tenant_id: UUID | None
    kind: Kind
    filter: dict[str, Any]
    options: dict[str, Any]
    count: int
    expires_at: datetime
    replay_id: UUID | None = None


def add(connection: Connection, preview: StoredPreview) -> None:
    """Inserts a preview that has started nothing yet."""
    values = {
        "id": preview.id,
        "tenant_id": preview.tenant_id,
        "kind": preview.kind,
        "filter": to_json(preview.filter),
        "options": to_json(preview.options),
        "count": preview.count,
        "expires_at": preview.expires_at,
    }
    connection.execute(_ADD, values)


def lock(connection: Connection, preview_id: UUID) -> StoredPreview | None:
    """The preview with this id, locked until the transaction ends: waits for whoever starts it now."""
    row = connection.execute(_LOCK, {"id": preview_id}).first()
    return None if row is None else StoredPreview(*row)


def use(connection: Connection, preview_id: UUID, replay_id: UUID) -> None:
    """Notes what the preview has started, in the transaction that starts it."""
    connection.execute(_USE, {"id": preview_id, "replay_id": replay_id})


def forget(connection: Connection, *, batch: int, now: datetime | None = None) -> int:
    """Deletes up to `batch` previews whose time has passed; returns how many. By the index previews_expiry."""
    return connection.execute(_FORGET, {"batch": batch, "now": now}).rowcount
