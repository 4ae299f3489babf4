"""The statements of the audit log: who changed what, append-only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import text

from dispatcher.ids import uuid7

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

_APPEND = text("""
INSERT INTO dispatcher.audit_log (id, actor, action, object, tenant_id, before, after)
VALUES (:id, :actor, :action, :object, :tenant_id, CAST(:before AS jsonb), CAST(:after AS jsonb))
""")

_READ = text("""
SELECT id, at, actor, action, object, tenant_id, before, after FROM dispatcher.audit_log
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
  AND (CAST(:object AS text) IS NULL OR object = :object)
  AND (CAST(:before AS uuid) IS NULL OR id < :before)
  AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
ORDER BY id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `actor` is a key's id, `cli:name` or `worker`; `object` the id of what was changed."""

    id: UUID
    at: datetime
    actor: str
    action: str
    object: str
    tenant_id: UUID | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def append(
    connection: Connection,
    *,
    actor: str,
    action: str,
    object: str,  # noqa: A002 - what the column is called
    tenant_id: UUID | None,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    """Notes a change in the transaction that makes it. `before` and `after` hold no secret: only public facts."""
    connection.execute(
        _APPEND,
        {
            "id": uuid7(),
            "actor": actor,
            "action": action,
            "object": object,
            "tenant_id": tenant_id,
            "before": None if before is None else orjson.dumps(before).decode(),
            "after": None if after is None else orjson.dumps(after).decode(),
        },
    )


def read(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    object: str | None = None,  # noqa: A002
    before: UUID | None = None,
    since: datetime | None = None,
    limit: int = 50,
) -> list[Entry]:
    """The newest entries, of a tenant or an object; older than the entry `before`, made at `since` or later."""
    values = {"tenant_id": tenant_id, "object": object, "before": before, "since": since, "limit": limit}
    rows = connection.execute(_READ, values)
    return [Entry(*row) for row in rows]
