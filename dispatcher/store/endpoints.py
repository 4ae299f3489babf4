"""The statements that keep endpoints, and what every change of one leaves behind in its history."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import text

from dispatcher.model.endpoint import Endpoint, EndpointStatus, SealedSecret, like_patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Row

_COLUMNS = """
e.id, e.tenant_id, e.url, e.schedule, e.profile, e.name, e.description, e.metadata, e.event_types, e.method,
e.max_in_flight, e.signature, e.headers, e.auth, e.rate_limit, e.ordered, e.origin,
CASE WHEN e.origin IS NULL THEN e.secrets
     ELSE (SELECT t.secrets FROM dispatcher.tenants t WHERE t.id = e.tenant_id) END AS secrets, e.status, e.status_reason, e.version, e.created_at, e.updated_at
"""

_CREATE = text("""
WITH endpoint AS (
    INSERT INTO dispatcher.endpoints (id, tenant_id, url, schedule, profile, name, description, metadata, event_types,
                                      type_patterns, method, max_in_flight, signature, headers, auth, rate_limit,
                                      ordered, origin, secrets, status, status_reason)
    VALUES (:id, :tenant_id, :url, :schedule, :profile, :name, :description, CAST(:metadata AS jsonb), :event_types,
            :type_patterns, :method, :max_in_flight, :signature, :headers, :auth, :rate_limit, :ordered, :origin,
            CAST(:secrets AS jsonb), :status, :status_reason)
    RETURNING id, version, event_types, status, status_reason, max_in_flight
), lane AS (
    INSERT INTO dispatcher.lanes (endpoint_id, ready_at, cap) SELECT id, 'infinity', max_in_flight FROM endpoint
)
INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status, status_reason)
SELECT id, version, event_types, status, status_reason FROM endpoint
""")

_UPDATE = text("""
WITH endpoint AS (
    UPDATE dispatcher.endpoints e
    SET status = coalesce(:status, e.status),
        status_reason = CASE WHEN CAST(:status AS text) IS NULL THEN e.status_reason ELSE :status_reason END,
        secrets = coalesce(CAST(:secrets AS jsonb), e.secrets),
        version = e.version + 1, updated_at = statement_timestamp()
    WHERE e.id = :id AND e.status <> 'deleted'
    RETURNING e.id, e.version, e.event_types, e.status, e.status_reason
), history AS (
    INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status, status_reason)
    SELECT id, version, event_types, status, status_reason FROM endpoint
), wake AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT id, statement_timestamp() FROM endpoint
)
SELECT count(*) FROM endpoint
""")

_LOCK = text("SELECT FROM dispatcher.endpoints WHERE id = :id FOR NO KEY UPDATE")

_FETCH = text(f"""
SELECT {_COLUMNS} FROM dispatcher.endpoints e
WHERE e.id IN (SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json)))
""")

_LIST = text(f"""
SELECT {_COLUMNS} FROM dispatcher.endpoints e
WHERE (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
  AND (CAST(:after AS uuid) IS NULL OR e.id < :after)
  AND e.status <> 'deleted'
ORDER BY e.id DESC
LIMIT :limit
""")


def _secrets(secrets: Sequence[SealedSecret]) -> str:
    return orjson.dumps([{"sealed": secret.sealed, "expires_at": secret.expires_at} for secret in secrets]).decode()


def _endpoint(row: Row[Any]) -> Endpoint:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    values["event_types"] = None if values["event_types"] is None else tuple(values["event_types"])
    values["signature"] = None if values["signature"] is None else tuple(values["signature"])
    values["status"] = EndpointStatus(values["status"])
    values["secrets"] = tuple(
        SealedSecret(secret["sealed"], _instant(secret["expires_at"])) for secret in values["secrets"]
    )
    return Endpoint(**values)


def _instant(text_: str | None) -> datetime | None:
    return None if text_ is None else datetime.fromisoformat(text_)


def create(connection: Connection, endpoint: Endpoint) -> None:
    """Inserts the endpoint, its sleeping lane and the first entry of its history."""
    connection.execute(
        _CREATE,
        {
            "id": endpoint.id,
            "tenant_id": endpoint.tenant_id,
            "url": endpoint.url,
            "schedule": endpoint.schedule,
            "profile": endpoint.profile,
            "name": endpoint.name,
            "description": endpoint.description,
            "metadata": orjson.dumps(endpoint.metadata).decode(),
            "event_types": None if endpoint.event_types is None else list(endpoint.event_types),
            "type_patterns": like_patterns(endpoint.event_types),
            "method": endpoint.method,
            "max_in_flight": endpoint.max_in_flight,
            "signature": None if endpoint.signature is None else list(endpoint.signature),
            "headers": endpoint.headers,
            "auth": endpoint.auth,
            "rate_limit": endpoint.rate_limit,
            "ordered": endpoint.ordered,
            "origin": endpoint.origin,
            "secrets": _secrets(endpoint.secrets),
            "status": endpoint.status,
            "status_reason": endpoint.status_reason,
        },
    )


def set_status(connection: Connection, endpoint_id: UUID, status: EndpointStatus, reason: str | None) -> bool:
    """Changes the status and wakes the lane. False where there is no such endpoint, or it is deleted."""
    changed: int = connection.execute(
        _UPDATE, {"id": endpoint_id, "status": status, "status_reason": reason, "secrets": None}
    ).scalar_one()
    return changed > 0


def lock(connection: Connection, endpoint_id: UUID) -> None:
    """Keeps the endpoint from changing until the transaction ends, for who writes what follows from what it reads."""
    connection.execute(_LOCK, {"id": endpoint_id})


def set_secrets(connection: Connection, endpoint_id: UUID, secrets: Sequence[SealedSecret]) -> bool:
    """Replaces the sealed secrets. False where there is no such endpoint, or it is deleted."""
    changed: int = connection.execute(
        _UPDATE, {"id": endpoint_id, "status": None, "status_reason": None, "secrets": _secrets(secrets)}
    ).scalar_one()
    return changed > 0


def fetch(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Endpoint]:
    """The endpoints with these ids, deleted ones too."""
    rows = connection.execute(_FETCH, {"ids": orjson.dumps(sorted(ids)).decode()})
    return {row.id: _endpoint(row) for row in rows}


def list_(
    connection: Connection, *, tenant_id: UUID | None = None, after: UUID | None = None, limit: int = 100
) -> list[Endpoint]:
    """Endpoints that are not deleted, the newest first, after the id `after` in that order."""
    rows = connection.execute(_LIST, {"tenant_id": tenant_id, "after": after, "limit": limit})
    return [_endpoint(row) for row in rows]
