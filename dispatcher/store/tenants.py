"""The statements that keep tenants and the keys that authenticate calls to us."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

_EXISTS = text("SELECT EXISTS (SELECT FROM dispatcher.tenants WHERE id = :id)")

_ADD_KEY = text("""
INSERT INTO dispatcher.api_keys (id, tenant_id, name, key_sha256) VALUES (:id, :tenant_id, :name, :key_sha256)
ON CONFLICT (key_sha256) DO NOTHING
""")

_FIND_KEY = text("SELECT id, tenant_id FROM dispatcher.api_keys WHERE key_sha256 = :key_sha256 AND revoked_at IS NULL")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who calls: `tenant_id` None is an operator, who may act for every tenant."""

    id: UUID
    tenant_id: UUID | None


def exists(connection: Connection, tenant_id: UUID) -> bool:
    """Whether there is such a tenant."""
    found: bool = connection.execute(_EXISTS, {"id": tenant_id}).scalar_one()
    return found


def add_key(connection: Connection, key_id: UUID, key: str, *, name: str, tenant_id: UUID | None) -> None:
    """Keeps the SHA-256 of a key; one that is there already, revoked or not, stays as it is."""
    hashed = sha256(key.encode()).digest()
    connection.execute(_ADD_KEY, {"id": key_id, "tenant_id": tenant_id, "name": name, "key_sha256": hashed})


def find_key(connection: Connection, key: str) -> ApiKey | None:
    """Whose key this is. A look-up by the hash of 256 random bits gives its time away to nobody."""
    row = connection.execute(_FIND_KEY, {"key_sha256": sha256(key.encode()).digest()}).first()
    return None if row is None else ApiKey(*row)
