"""The statements that keep pauses. What they hold is the claim's to know: see `dispatcher.store.deliveries`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from dispatcher.model.endpoint import like_patterns
from dispatcher.model.event import Mode

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

_ADD = text("""
INSERT INTO dispatcher.pauses (id, tenant_id, endpoint_id, event_type, type_pattern, mode, reason, created_by)
VALUES (:id, :tenant_id, :endpoint_id, :event_type, :type_pattern, :mode, :reason, :created_by)
ON CONFLICT ON CONSTRAINT one_pause_a_scope DO NOTHING
""")

_PAUSES = """
SELECT id, tenant_id, endpoint_id, event_type, mode, reason, created_by, created_at FROM dispatcher.pauses
"""

_FIND = text(f"{_PAUSES} WHERE id = :id")

_FIND_SCOPE = text(f"""{_PAUSES}
WHERE tenant_id IS NOT DISTINCT FROM CAST(:tenant_id AS uuid)
  AND endpoint_id IS NOT DISTINCT FROM CAST(:endpoint_id AS uuid)
  AND event_type IS NOT DISTINCT FROM CAST(:event_type AS text)
  AND mode IS NOT DISTINCT FROM CAST(:mode AS text)
""")

_LIST = text(f"""{_PAUSES}
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id) AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")

# Every endpoint that was held, also one without a delivery: one that is being accepted right now is not seen here,
# and its own wake may be used up before the pause is gone.
_END = text("""
WITH ended AS (
    DELETE FROM dispatcher.pauses WHERE id = :id RETURNING tenant_id, endpoint_id
), woken AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at)
    SELECT e.id, dispatcher.due_time() FROM ended p
    CROSS JOIN LATERAL (
        SELECT id, tenant_id, status FROM dispatcher.endpoints WHERE id = p.endpoint_id
        UNION ALL
        SELECT id, tenant_id, status FROM dispatcher.endpoints
        WHERE p.endpoint_id IS NULL AND tenant_id = p.tenant_id AND status <> 'deleted'
        UNION ALL
        SELECT id, tenant_id, status FROM dispatcher.endpoints WHERE p.endpoint_id IS NULL AND p.tenant_id IS NULL
    ) e
    WHERE e.status <> 'deleted' AND (p.tenant_id IS NULL OR e.tenant_id = p.tenant_id)
)
SELECT count(*) FROM ended
""")


@dataclass(frozen=True, slots=True)
class Scope:
    """Deliveries that match all that is not None. `event_type` is a type or, where they are held, payment.*."""

    tenant_id: UUID | None = None
    endpoint_id: UUID | None = None
    event_type: str | None = None
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A hold. `created_by` is a key's id, or `cli:` and a name."""

    id: UUID
    scope: Scope
    reason: str
    created_by: str
    created_at: datetime


def _pause(row: Any) -> Pause:
    id_, tenant_id, endpoint_id, event_type, mode, reason, created_by, created_at = row
    scope = Scope(tenant_id, endpoint_id, event_type, None if mode is None else Mode(mode))
    return Pause(id_, scope, reason, created_by, created_at)


def add(connection: Connection, pause_id: UUID, scope: Scope, *, reason: str, by: str) -> bool:
    """Inserts a pause. False where there is one of the same scope."""
    patterns = None if scope.event_type is None else like_patterns([scope.event_type])
    values = {
        "id": pause_id,
        "tenant_id": scope.tenant_id,
        "endpoint_id": scope.endpoint_id,
        "event_type": scope.event_type,
        "type_pattern": None if patterns is None else patterns[0],
        "mode": scope.mode,
        "reason": reason,
        "created_by": by,
    }
    return connection.execute(_ADD, values).rowcount > 0


def find(connection: Connection, pause_id: UUID) -> Pause | None:
    """The pause with this id."""
    row = connection.execute(_FIND, {"id": pause_id}).first()
    return None if row is None else _pause(row)


def find_scope(connection: Connection, scope: Scope) -> Pause | None:
    """The pause of exactly this scope, by the unique index one_pause_a_scope."""
    values = {
        "tenant_id": scope.tenant_id,
        "endpoint_id": scope.endpoint_id,
        "event_type": scope.event_type,
        "mode": scope.mode,
    }
    row = connection.execute(_FIND_SCOPE, values).first()
    return None if row is None else _pause(row)


def list_(
    connection: Connection, *, tenant_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> list[Pause]:
    """Pauses, the newest first, older than `before`; only those within one tenant, if given."""
    rows = connection.execute(_LIST, {"tenant_id": tenant_id, "before": before, "limit": limit})
    return [_pause(row) for row in rows]


def end(connection: Connection, pause_id: UUID) -> bool:
    """Deletes a pause and wakes the lanes of all that it held. False where it is not there."""
    ended: int = connection.execute(_END, {"id": pause_id}).scalar_one()
    return ended > 0
