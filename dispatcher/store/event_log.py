"""The statements that read events, and what explains where one went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from dispatcher.ids import first_id
from dispatcher.store.log import LoggedEvent

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

_OWN_IDS = timedelta(days=1)
"""How far a producer's own id may be from the instant at which its event was accepted."""

_HEARERS = text("""
WITH RECURSIVE owner AS (
    SELECT id, parent_id FROM dispatcher.tenants WHERE id = :tenant_id
    UNION
    SELECT t.id, t.parent_id FROM owner o JOIN dispatcher.tenants t ON t.id = o.parent_id
), hearer AS (
    SELECT e.* FROM dispatcher.endpoints e
    WHERE e.tenant_id = ANY (ARRAY(SELECT id FROM owner)) AND e.origin IS NULL
    UNION ALL
    SELECT e.* FROM dispatcher.endpoints e
    WHERE e.id = ANY (ARRAY(SELECT endpoint_id FROM dispatcher.deliveries WHERE event_id = :event_id
                            UNION SELECT endpoint_id FROM dispatcher.ended_deliveries WHERE event_id = :event_id))
      AND (e.origin IS NOT NULL OR e.tenant_id <> ALL (ARRAY(SELECT id FROM owner)))
)
SELECT e.id, e.tenant_id, e.url, e.origin IS NOT NULL AS is_implicit, e.created_at,
       h.version, h.event_types, h.status, h.status_reason, h.changed_at,
       e.status AS status_now, e.version AS version_now,
       nullif(concat_ws(' in ', pause.event_type, pause.mode || ' mode'), '') AS pause_scope, pause.reason,
       pause.created_at AS paused_at,
       e.rate_limit, coalesce(l.capped, false) AS capped
FROM hearer e
LEFT JOIN LATERAL (
    SELECT * FROM dispatcher.endpoint_history h WHERE h.endpoint_id = e.id AND h.changed_at <= :at
    ORDER BY h.version DESC LIMIT 1
) h ON true
LEFT JOIN LATERAL (
    SELECT p.* FROM dispatcher.pauses p
    WHERE (p.tenant_id IS NULL OR p.tenant_id = e.tenant_id) AND (p.endpoint_id IS NULL OR p.endpoint_id = e.id)
      AND (p.type_pattern IS NULL OR :type LIKE p.type_pattern) AND (p.mode IS NULL OR p.mode = :mode)
    ORDER BY p.created_at LIMIT 1
) pause ON true
LEFT JOIN dispatcher.lanes l ON l.endpoint_id = ANY (ARRAY[e.id])
WHERE CAST(:only AS uuid) IS NULL OR e.tenant_id = :only
ORDER BY e.id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; what is None does not matter."""

    tenant_id: UUID | None = None
    type: str | None = None
    object_id: str | None = None
    mode: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hearer:
    """An endpoint that could have heard an event, as it was when the event was accepted and as it is.

    `version` and the four after it are of the entry of its history that was in force then: None where it had none
    yet. `pause_*` are of a pause that holds such events for it now. `is_capped` means that as many attempts are in
    flight as it may have.
    """

    id: UUID
    tenant_id: UUID
    url: str
    is_implicit: bool
    created_at: datetime
    version: int | None
    event_types: list[str] | None
    status: str | None
    status_reason: str | None
    changed_at: datetime | None
    status_now: str
    version_now: int
    pause_scope: str | None
    pause_reason: str | None
    paused_at: datetime | None
    rate_limit: float | None
    is_capped: bool


def search(
    connection: Connection, chosen: EventFilter, *, before: UUID | None = None, limit: int = 50
) -> list[LoggedEvent]:
    """Events, the newest first, older than the event `before`. By the index of ids, or events_object."""
    parts, values = ["true"], dict[str, Any](limit=limit, before=before)
    for name in ("tenant_id", "type", "object_id", "mode"):
        if (value := getattr(chosen, name)) is not None:
            parts.append(f"{name} = :{name}")
            values[name] = value
    if chosen.created_after is not None:
        parts.append("created_at >= :after AND id >= :first")
        values |= {"after": chosen.created_after, "first": _id_at(chosen.created_after, -_OWN_IDS)}
    if chosen.created_before is not None:
        parts.append("created_at < :until AND id < :last")
        values |= {"until": chosen.created_before, "last": _id_at(chosen.created_before, _OWN_IDS)}
    rows = connection.execute(
        text(f"""
        SELECT id, tenant_id, type, mode, object_id, payload, fanout, created_at, erased_at
        FROM dispatcher.events WHERE {" AND ".join(parts)} AND (CAST(:before AS uuid) IS NULL OR id < :before)
        ORDER BY id DESC LIMIT :limit"""),
        values,
    )
    return [LoggedEvent(*row) for row in rows]


def _id_at(at: datetime, offset: timedelta) -> UUID:
    """The id that begins so far from an instant; from those at the ends of the calendar, the instant's own."""
    try:
        return first_id(at + offset)
    except OverflowError:
        return first_id(at)


def hearers(connection: Connection, event: LoggedEvent, *, only: UUID | None = None) -> list[Hearer]:
    """Every endpoint that there is or was of the event's tenant and of those above it, and where the event went.

    Deleted ones too; of implicit ones only that of the event's target. `only` limits them to one tenant's.
    """
    rows = connection.execute(
        _HEARERS,
        {
            "tenant_id": event.tenant_id,
            "event_id": event.id,
            "at": event.created_at,
            "type": event.type,
            "mode": event.mode,
            "only": only,
        },
    )
    return [Hearer(*row) for row in rows]
