"""The statements that keep tenants, and the keys that authenticate calls to us."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
from sqlalchemy import text

from dispatcher.model.access import Scope
from dispatcher.model.endpoint import SealedSecret

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_EXISTS = text("SELECT EXISTS (SELECT FROM dispatcher.tenants WHERE id = :id)")

_LOCK = text("SELECT FROM dispatcher.tenants WHERE id = :id FOR NO KEY UPDATE")

# Unlike _LOCK it also waits for, and keeps waiting, whoever adds a row that refers to the tenant.
_LOCK_OUT = text("SELECT FROM dispatcher.tenants WHERE id = :id FOR UPDATE")

_DEPTH = text("""
WITH RECURSIVE chain AS (
    SELECT id, parent_id FROM dispatcher.tenants WHERE id = :id
    UNION -- not ALL: it also ends where parents form a ring
    SELECT t.id, t.parent_id
    FROM chain c CROSS JOIN LATERAL (SELECT * FROM dispatcher.tenants WHERE id = c.parent_id OFFSET 0) t
)
SELECT count(*) FROM chain
""")

_TENANTS = """
SELECT id, name, parent_id, profile, created_at, jsonb_array_length(secrets) > 0 AS has_secret
FROM dispatcher.tenants
"""

_ADD_TENANT = text("""
INSERT INTO dispatcher.tenants (id, name, parent_id, profile, secrets)
VALUES (:id, :name, :parent_id, :profile, CAST(:secrets AS jsonb))
ON CONFLICT (name) DO NOTHING
""")

_FIND_TENANT = text(f"{_TENANTS} WHERE id = :id")

_LIST_TENANTS = text(f"""{_TENANTS}
WHERE (CAST(:own AS uuid) IS NULL OR id = :own) AND (CAST(:before AS uuid) IS NULL OR id < :before)
  AND (CAST(:name AS text) IS NULL OR name = :name)
ORDER BY id DESC LIMIT :limit
""")

_SECRETS = text("""
SELECT id, secrets FROM dispatcher.tenants
WHERE id = ANY (ARRAY(
    SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))))
""")

# Workers keep what an endpoint needs until its version changes, and an implicit endpoint has its tenant's secrets.
_SET_SECRETS = text("""
WITH tenant AS (
    UPDATE dispatcher.tenants SET secrets = CAST(:secrets AS jsonb) WHERE id = :id
), endpoint AS (
    UPDATE dispatcher.endpoints e SET version = e.version + 1, updated_at = statement_timestamp()
    WHERE e.tenant_id = :id AND e.origin IS NOT NULL AND e.status <> 'deleted'
    RETURNING e.id, e.version, e.event_types, e.status, e.status_reason
)
INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status, status_reason)
SELECT id, version, event_types, status, status_reason FROM endpoint
""")

_ADD_KEY = text("""
INSERT INTO dispatcher.api_keys (id, tenant_id, name, key_sha256, scopes, rate_limit, signing_secret)
VALUES (:id, :tenant_id, :name, :key_sha256, :scopes, :rate_limit, :signing_secret)
ON CONFLICT (key_sha256) DO NOTHING
""")

_KEYS = """
SELECT id, tenant_id, name, scopes, rate_limit, signing_secret, created_at, last_used_at, revoked_at,
       coalesce(last_used_at > statement_timestamp() - interval '1 minute', false)
FROM dispatcher.api_keys
"""

# OFFSET 0: one look for each hash, whatever the statistics say.
_FIND_KEYS = text("""
SELECT k.key_sha256, k.id, k.tenant_id, k.name, k.scopes, k.rate_limit, k.signing_secret, k.created_at, k.last_used_at,
       k.revoked_at, coalesce(k.last_used_at > statement_timestamp() - interval '1 minute', false)
FROM json_array_elements_text(CAST(CAST(:hashes AS text) AS json)) h
CROSS JOIN LATERAL (SELECT * FROM dispatcher.api_keys WHERE key_sha256 = decode(h.value, 'hex') OFFSET 0) k
WHERE k.revoked_at IS NULL
""")

_FIND_KEY_BY_ID = text(f"{_KEYS} WHERE id = :id")

_LIST_KEYS = text(f"""{_KEYS}
WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id) AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")

_REVOKE_KEY = text("""
UPDATE dispatcher.api_keys SET revoked_at = statement_timestamp() WHERE id = :id AND revoked_at IS NULL
""")

_USED = text("""
UPDATE dispatcher.api_keys SET last_used_at = statement_timestamp()
WHERE id = ANY (ARRAY(
    SELECT k.id FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json)) asked
    JOIN dispatcher.api_keys k ON k.id = ANY (ARRAY[CAST(asked.value AS uuid)])
    WHERE k.last_used_at IS NULL OR k.last_used_at < statement_timestamp() - interval '1 minute'
    FOR NO KEY UPDATE OF k SKIP LOCKED))
""")

_VALID = text("""
WITH asked AS MATERIALIZED (
    SELECT CAST(value AS uuid) AS id FROM json_array_elements_text(CAST(CAST(:ids AS text) AS json))
), used AS (
    UPDATE dispatcher.api_keys SET last_used_at = statement_timestamp()
    WHERE id = ANY (ARRAY(
        SELECT k.id FROM asked JOIN dispatcher.api_keys k ON k.id = ANY (ARRAY[asked.id])
        WHERE k.revoked_at IS NULL
          AND (k.last_used_at IS NULL OR k.last_used_at < statement_timestamp() - interval '1 minute')
        FOR NO KEY UPDATE OF k SKIP LOCKED)) -- two that note the same keys never wait for each other
)
SELECT CAST(k.id AS text)
FROM asked CROSS JOIN LATERAL (SELECT * FROM dispatcher.api_keys WHERE id = asked.id OFFSET 0) k
WHERE k.revoked_at IS NULL
""")

_TAKE_SIGNATURE = text("""
INSERT INTO dispatcher.request_signatures (signature_sha256, expires_at)
VALUES (:signature_sha256, statement_timestamp() + make_interval(secs => :lifetime_s))
ON CONFLICT (signature_sha256) DO NOTHING
""")

_FORGET_SIGNATURES = text("""
DELETE FROM dispatcher.request_signatures WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM dispatcher.request_signatures
    WHERE expires_at <= coalesce(CAST(:now AS timestamptz), statement_timestamp())
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns endpoints and events. `profile` is that of endpoints that name none; None: the installation's.

    `has_secret` says whether events with a target of their own can be signed for it.
    """

    id: UUID
    name: str
    parent_id: UUID | None
    profile: str | None
    created_at: datetime
    has_secret: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who calls: `tenant_id` None is an operator, who may act for every tenant.

    `rate_limit` is in requests a second; `signing_secret` is sealed, None where requests cannot be signed.
    `use_is_noted`: `last_used_at` was less than a minute ago when this was read.
    """

    id: UUID
    tenant_id: UUID | None
    name: str
    scopes: frozenset[Scope]
    rate_limit: float | None
    signing_secret: str | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    use_is_noted: bool


def _key(row: Sequence[object]) -> ApiKey:
    id_, tenant_id, name, scopes, *rest = row
    return ApiKey(id_, tenant_id, name, frozenset(map(Scope, scopes)), *rest)  # type: ignore[arg-type, call-overload]


def exists(connection: Connection, tenant_id: UUID) -> bool:
    """Whether there is such a tenant."""
    found: bool = connection.execute(_EXISTS, {"id": tenant_id}).scalar_one()
    return found


def lock(connection: Connection, tenant_id: UUID) -> None:
    """Has registrations of one tenant take turns, until the transaction ends: what they count stays true."""
    connection.execute(_LOCK, {"id": tenant_id})


def lock_out_endpoints(connection: Connection, tenant_id: UUID) -> None:
    """Has nobody add an endpoint to the tenant until the transaction ends, so that none misses what is changed."""
    connection.execute(_LOCK_OUT, {"id": tenant_id})


def depth(connection: Connection, tenant_id: UUID) -> int:
    """How many tenants there are from this one up to the one without a parent, both included; 0 if it is not there."""
    found: int = connection.execute(_DEPTH, {"id": tenant_id}).scalar_one()
    return found


def add(
    connection: Connection,
    tenant_id: UUID,
    *,
    name: str,
    parent_id: UUID | None = None,
    profile: str | None = None,
    secrets: Sequence[SealedSecret] = (),
) -> bool:
    """Inserts a tenant. False where the name is taken."""
    added = connection.execute(
        _ADD_TENANT,
        {"id": tenant_id, "name": name, "parent_id": parent_id, "profile": profile, "secrets": _to_json(secrets)},
    )
    return added.rowcount > 0


def find(connection: Connection, tenant_id: UUID) -> Tenant | None:
    """The tenant with this id."""
    row = connection.execute(_FIND_TENANT, {"id": tenant_id}).first()
    return None if row is None else Tenant(*row)


def list_(
    connection: Connection,
    *,
    own: UUID | None = None,
    name: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Tenant]:
    """Tenants, the newest first, older than `before`; only the one that is `own`, or called `name`, if given."""
    values = {"own": own, "name": name, "before": before, "limit": limit}
    return [Tenant(*row) for row in connection.execute(_LIST_TENANTS, values)]


def secrets_of(connection: Connection, ids: Collection[UUID]) -> dict[UUID, tuple[SealedSecret, ...]]:
    """The sealed secrets of tenants, by which deliveries to a target of their own are signed; the newest first."""
    rows = connection.execute(_SECRETS, {"ids": orjson.dumps(sorted(ids)).decode()})
    return {id_: tuple(SealedSecret.from_json(secret) for secret in secrets) for id_, secrets in rows}


def set_secrets(connection: Connection, tenant_id: UUID, secrets: Sequence[SealedSecret]) -> None:
    """Replaces a tenant's sealed secrets, also for those of its endpoints that sign with them."""
    connection.execute(_SET_SECRETS, {"id": tenant_id, "secrets": _to_json(secrets)})


def _to_json(secrets: Sequence[SealedSecret]) -> str:
    return orjson.dumps([secret.to_json() for secret in secrets]).decode()


def add_key(
    connection: Connection,
    key_id: UUID,
    key: str,
    *,
    name: str,
    tenant_id: UUID | None,
    scopes: Collection[Scope] = (Scope.ADMIN,),
    rate_limit: float | None = None,
    signing_secret: str | None = None,
) -> None:
    """Keeps the SHA-256 of a key; one that is there already, revoked or not, stays as it is."""
    connection.execute(
        _ADD_KEY,
        {
            "id": key_id,
            "tenant_id": tenant_id,
            "name": name,
            "key_sha256": sha256(key.encode()).digest(),
            "scopes": sorted(scopes),
            "rate_limit": rate_limit,
            "signing_secret": signing_secret,
        },
    )


def find_key(connection: Connection, key: str) -> ApiKey | None:
    """Whose key this is. A look-up by the hash of 256 random bits gives its time away to nobody."""
    digest = sha256(key.encode()).digest()
    return find_keys(connection, [digest]).get(digest)


def find_keys(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, ApiKey]:
    """The keys with these SHA-256 hashes that have not been revoked, by their hash."""
    rows = connection.execute(_FIND_KEYS, {"hashes": orjson.dumps([digest.hex() for digest in hashes]).decode()})
    return {bytes(digest): _key(key) for digest, *key in rows}


def find_key_by_id(connection: Connection, key_id: UUID) -> ApiKey | None:
    """The key with this id, revoked or not."""
    row = connection.execute(_FIND_KEY_BY_ID, {"id": key_id}).first()
    return None if row is None else _key(row)


def list_keys(
    connection: Connection, *, tenant_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> list[ApiKey]:
    """Keys, revoked ones too, the newest first: of one tenant, or all."""
    rows = connection.execute(_LIST_KEYS, {"tenant_id": tenant_id, "before": before, "limit": limit})
    return [_key(row) for row in rows]


def revoke_key(connection: Connection, key_id: UUID) -> bool:
    """Makes a key worthless. False where it is unknown, or was already."""
    return connection.execute(_REVOKE_KEY, {"id": key_id}).rowcount > 0


def note_uses(connection: Connection, ids: Collection[UUID]) -> None:
    """Notes that keys are used now, to the minute. Waits for nobody who notes the same."""
    connection.execute(_USED, {"ids": orjson.dumps(list(ids)).decode()})


def valid_keys(connection: Connection, ids: Collection[UUID]) -> set[UUID]:
    """Those of the keys that have not been revoked; notes that they are used now, to the minute. Waits for nobody."""
    rows = connection.execute(_VALID, {"ids": orjson.dumps(list(ids)).decode()})
    return {UUID(id_) for id_ in rows.scalars()}


def take_signature(connection: Connection, signature: bytes, *, lifetime_s: float) -> bool:
    """Remembers a request's signature. False where it was seen before: the request is a copy."""
    taken = connection.execute(
        _TAKE_SIGNATURE, {"signature_sha256": sha256(signature).digest(), "lifetime_s": lifetime_s}
    )
    return taken.rowcount > 0


def forget_signatures(connection: Connection, *, batch: int, now: datetime | None = None) -> int:
    """Deletes up to `batch` signatures that are too old to be accepted again; returns how many."""
    return connection.execute(_FORGET_SIGNATURES, {"batch": batch, "now": now}).rowcount
