"""The statements that keep endpoints, and what every change of one leaves behind in its history."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import text

from dispatcher.model.endpoint import REGISTRATION_FIELDS, Endpoint, EndpointStatus, SealedSecret, like_patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Row, TextClause

_CHOSEN: Final = tuple(name for name in REGISTRATION_FIELDS if name != "status")
"""Columns that the owner of an endpoint chooses: what `create` and `update` write."""

_VALUES: Final = {name: "CAST(:metadata AS jsonb)" if name == "metadata" else f":{name}" for name in _CHOSEN}

_COLUMNS = f"""
{", ".join(f"e.{field.name}" for field in fields(Endpoint) if field.name != "secrets")},
CASE WHEN e.origin IS NULL THEN e.secrets
     ELSE (SELECT t.secrets FROM dispatcher.tenants t WHERE t.id = e.tenant_id) END AS secrets
"""

# What an entry of the history says was heard is what decided, also where the endpoint itself chose nothing.
HEARD: Final = r"""
(SELECT array_agg(replace(replace(p.pattern, '\_', '_'), '%', '*') ORDER BY p.n)
 FROM unnest(type_patterns) WITH ORDINALITY p(pattern, n))
"""
"""What an endpoint hears, as its history keeps it: from the LIKE patterns, since null may stand for a catalogue."""

_CREATE = text(f"""
WITH endpoint AS (
    INSERT INTO dispatcher.endpoints (id, tenant_id, profile, {", ".join(_VALUES)}, type_patterns, origin, secrets,
                                      status, status_reason)
    VALUES (:id, :tenant_id, :profile, {", ".join(_VALUES.values())}, :type_patterns, :origin, CAST(:secrets AS jsonb),
            :status, :status_reason)
    RETURNING id, version, type_patterns, status, status_reason, max_in_flight
), lane AS (
    INSERT INTO dispatcher.lanes (endpoint_id, ready_at, cap) SELECT id, 'infinity', max_in_flight FROM endpoint
)
INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status, status_reason)
SELECT id, version, {HEARD}, status, status_reason FROM endpoint
""")

_REMEMBER = f"""
    RETURNING e.id, e.version, e.type_patterns, e.status, e.status_reason
), history AS (
    INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status, status_reason)
    SELECT id, version, {HEARD}, status, status_reason FROM endpoint
), wake AS (
    INSERT INTO dispatcher.wakes (endpoint_id, due_at) SELECT id, dispatcher.due_time() FROM endpoint
)
SELECT count(*) FROM endpoint
"""

_SET_STATUS = text(f"""
WITH endpoint AS (
    UPDATE dispatcher.endpoints e
    SET status = :status, status_reason = :status_reason,
        blocked = CASE WHEN :status = 'active' THEN 0 ELSE e.blocked END,
        version = e.version + 1, updated_at = statement_timestamp()
    WHERE e.id = :id AND e.status <> 'deleted'
    {_REMEMBER}
""")

_SET_SECRETS = text(f"""
WITH endpoint AS (
    UPDATE dispatcher.endpoints e
    SET secrets = CAST(:secrets AS jsonb), version = e.version + 1, updated_at = statement_timestamp()
    WHERE e.id = :id AND e.status <> 'deleted'
    {_REMEMBER}
""")

_UPDATE = text(f"""
WITH endpoint AS (
    UPDATE dispatcher.endpoints e
    SET {", ".join(f"{name} = {value}" for name, value in _VALUES.items())}, type_patterns = :type_patterns,
        blocked = CASE WHEN e.url = :url THEN e.blocked ELSE 0 END,
        version = e.version + 1, updated_at = statement_timestamp()
    WHERE e.id = :id AND e.status <> 'deleted'
    {_REMEMBER}
""")

_LOCK = text("SELECT FROM dispatcher.endpoints WHERE id = :id FOR NO KEY UPDATE")

# Rows that are being recorded right now are passed over rather than waited for, since the recorder may be waiting for
# the endpoint; `deliveries.set_order` finds those that go on.
_SET_ORDER = text("""
UPDATE dispatcher.deliveries SET ordered = :ordered
WHERE id = ANY (ARRAY(SELECT id FROM dispatcher.deliveries WHERE endpoint_id = :id AND ordered <> :ordered
                      FOR NO KEY UPDATE SKIP LOCKED))
""")

_COUNT = text("""
SELECT count(*) FROM dispatcher.endpoints
WHERE tenant_id = :tenant_id AND profile = :profile AND origin IS NULL AND status <> 'deleted'
""")

_REGISTERED = text("""
SELECT id FROM dispatcher.endpoints
WHERE tenant_id = :tenant_id AND profile = :profile AND origin IS NULL AND status <> 'deleted'
ORDER BY id LIMIT :limit
""")

_FETCH = text(f"""
SELECT {_COLUMNS} FROM dispatcher.endpoints e
WHERE e.id = ANY (ARRAY(SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))))
""")

_LIST = text(f"""
SELECT {_COLUMNS} FROM dispatcher.endpoints e
WHERE (CAST(:tenant_id AS uuid) IS NULL OR e.tenant_id = :tenant_id)
  AND (CAST(:status AS text) IS NULL OR e.status = :status)
  AND (CAST(:profile AS text) IS NULL OR e.profile = :profile)
  AND (CAST(:after AS uuid) IS NULL OR e.id < :after)
  AND e.status <> 'deleted'
ORDER BY e.id DESC
LIMIT :limit
""")


def _secrets(secrets: Sequence[SealedSecret]) -> str:
    return orjson.dumps([secret.to_json() for secret in secrets]).decode()


def _endpoint(row: Row[Any]) -> Endpoint:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    values["event_types"] = None if values["event_types"] is None else tuple(values["event_types"])
    values["signature"] = None if values["signature"] is None else tuple(values["signature"])
    values["status"] = EndpointStatus(values["status"])
    values["secrets"] = tuple(SealedSecret.from_json(secret) for secret in values["secrets"])
    return Endpoint(**values)


def _values(endpoint: Endpoint, heard: Sequence[str] | None) -> dict[str, Any]:
    """What can be changed of an endpoint, as the statements bind it."""
    return {
        **{name: _bound(getattr(endpoint, name)) for name in _CHOSEN},
        "id": endpoint.id,
        "type_patterns": like_patterns(endpoint.event_types if heard is None else heard),
    }


def _bound(value: Any) -> Any:
    """A value as the driver takes it: an array from a list, a document from its text."""
    match value:
        case tuple():
            return list(value)
        case dict():
            return orjson.dumps(value).decode()
        case _:
            return value


def create(connection: Connection, endpoint: Endpoint, *, heard: Sequence[str] | None = None) -> None:
    """Inserts the endpoint, its sleeping lane and the first entry of its history.

    `heard` are the patterns of what it hears, where they are not just those that it chose.
    """
    connection.execute(
        _CREATE,
        _values(endpoint, heard)
        | {
            "tenant_id": endpoint.tenant_id,
            "profile": endpoint.profile,
            "origin": endpoint.origin,
            "secrets": _secrets(endpoint.secrets),
            "status": endpoint.status,
            "status_reason": endpoint.status_reason,
        },
    )


def update(connection: Connection, endpoint: Endpoint, *, heard: Sequence[str] | None = None) -> bool:
    """Writes all that can be changed of the endpoint but its status and secrets, and wakes its lane; `heard` as above.

    False where there is no such endpoint, or it is deleted.
    """
    return _is_changed(connection, _UPDATE, _values(endpoint, heard))


def set_order(connection: Connection, endpoint_id: UUID, *, ordered: bool) -> int:
    """Has the live deliveries of an endpoint take turns, or no longer; returns how many. Waits for nobody."""
    return connection.execute(_SET_ORDER, {"id": endpoint_id, "ordered": ordered}).rowcount


def set_status(connection: Connection, endpoint_id: UUID, status: EndpointStatus, reason: str | None) -> bool:
    """Changes the status and wakes the lane. False where there is no such endpoint, or it is deleted."""
    return _is_changed(connection, _SET_STATUS, {"id": endpoint_id, "status": status, "status_reason": reason})


def _is_changed(connection: Connection, statement: TextClause, values: dict[str, Any]) -> bool:
    changed: int = connection.execute(statement, values).scalar_one()
    return changed > 0


def lock(connection: Connection, endpoint_id: UUID) -> None:
    """Keeps the endpoint from changing until the transaction ends, for who writes what follows from what it reads."""
    connection.execute(_LOCK, {"id": endpoint_id})


def set_secrets(connection: Connection, endpoint_id: UUID, secrets: Sequence[SealedSecret]) -> bool:
    """Replaces the sealed secrets. False where there is no such endpoint, or it is deleted."""
    return _is_changed(connection, _SET_SECRETS, {"id": endpoint_id, "secrets": _secrets(secrets)})


def count(connection: Connection, tenant_id: UUID, profile: str) -> int:
    """How many endpoints the tenant has registered under the profile, by the index endpoints_tenant.

    Those that are deleted, and those that targets of events have made, do not count.
    """
    found: int = connection.execute(_COUNT, {"tenant_id": tenant_id, "profile": profile}).scalar_one()
    return found


def registered(connection: Connection, tenant_id: UUID, profile: str, *, limit: int) -> list[UUID]:
    """The ids of endpoints that `count` counts, the oldest first."""
    values = {"tenant_id": tenant_id, "profile": profile, "limit": limit}
    return list(connection.execute(_REGISTERED, values).scalars())


def fetch(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Endpoint]:
    """The endpoints with these ids, deleted ones too."""
    rows = connection.execute(_FETCH, {"ids": orjson.dumps(sorted(ids)).decode()})
    return {row.id: _endpoint(row) for row in rows}


def list_(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    status: EndpointStatus | None = None,
    profile: str | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[Endpoint]:
    """Endpoints that are not deleted, the newest first, after the id `after` in that order."""
    values = {"tenant_id": tenant_id, "status": status, "profile": profile, "after": after, "limit": limit}
    return [_endpoint(row) for row in connection.execute(_LIST, values)]
