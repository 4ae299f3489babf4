"""Lets a producer's own SQL role emit, and do nothing else.

The columns are those that the statements of `dispatcher.store.events` name. A producer reads no payload, URL, secret
or delivery, and changes nothing but the idempotency keys that it takes. An endpoint it makes only by a function that
runs as the schema's owner, and only for a target of an event. The correction of the database's clock, by which it is
due, everybody may read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from dispatcher.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

PRODUCER: Final = (
    "USAGE ON SCHEMA dispatcher",
    "SELECT (id, parent_id, profile) ON dispatcher.tenants",
    "SELECT (id, tenant_id, schedule, status, type_patterns, origin, ordered) ON dispatcher.endpoints",
    "SELECT (name, version_id) ON dispatcher.schedules",
    "SELECT (id, first_wait_s) ON dispatcher.schedule_versions",
    "SELECT (name, is_default, body) ON dispatcher.profiles",
    "SELECT (name, schema) ON dispatcher.event_types",
    "SELECT, INSERT, UPDATE (event_id, body_sha256, expires_at) ON dispatcher.idempotency",
    "INSERT (id, tenant_id, type, mode, object_id, payload, fanout, created_at) ON dispatcher.events",
    """INSERT (id, endpoint_id, event_id, tenant_id, created_at, due_at, expires_at, schedule_id,
               event_type, mode, object_id, replay_id, replay_of, target_url, target_method, ordered)
       ON dispatcher.deliveries""",
    "INSERT (endpoint_id, due_at) ON dispatcher.wakes",
    "EXECUTE ON FUNCTION dispatcher.register_implicit_endpoint(uuid, uuid, text, text, text, int)",
)
"""What `emit` needs. Rows of partitioned tables are inserted through the parent, whose grant is enough."""

_EXISTS = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")


def grant_producer(connection: Connection, role: str) -> None:
    """Grants the role what `emit` needs; granting it again changes nothing. Takes nothing away that it has already.

    Raises NotFound where the server has no such role.
    """
    if "\0" in role or not connection.execute(_EXISTS, {"role": role}).scalar_one():
        raise NotFound(f"there is no role {role!r} on this server; create it with CREATE ROLE … LOGIN")
    grantee = connection.dialect.identifier_preparer.quote_identifier(role)
    for privileges in PRODUCER:
        connection.exec_driver_sql(f"GRANT {privileges} TO {grantee}")
