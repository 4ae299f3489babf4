"""`client.tenants`, `client.keys` and `client.audit_log`: who may call, and who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dispatcher.client.answer import read_nothing, read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from dispatcher.shapes import AuditEntry, CreatedKey, CreatedTenant, Key, NewKey, NewTenant, Page, Tenant


class Tenants(Resource[X]):
    """Who owns endpoints and events."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **tenant: Unpack[NewTenant]) -> Call[CreatedTenant]:
        """Makes a tenant."""
        return Call("POST", path("tenants"), body=write(given(tenant)), idempotency_key=idempotency_key)

    @operation
    def list(self, *, name: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[Tenant]]:
        """The tenants, the newest first; with a name the one that is called so."""
        return Call("GET", path("tenants"), read_page, query({"name": name, "limit": limit, "cursor": cursor}))

    iterate = paging(list)

    @operation
    def get(self, tenant_id: str) -> Call[Tenant]:
        """One tenant."""
        return Call("GET", path("tenants", tenant_id))

    @operation
    def rotate_secret(
        self, tenant_id: str, *, overlap_s: float | None = None, idempotency_key: str | None = None
    ) -> Call[CreatedTenant]:
        """Makes a new secret, told this once; the old one signs too for `overlap_s` more."""
        body = write(given({"overlap_s": overlap_s}))
        return Call("POST", path("tenants", tenant_id, "rotate_secret"), body=body, idempotency_key=idempotency_key)


class Keys(Resource[X]):
    """What authenticates calls."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **key: Unpack[NewKey]) -> Call[CreatedKey]:
        """Makes a key, told this once."""
        return Call("POST", path("keys"), body=write(given(key)), idempotency_key=idempotency_key)

    @operation
    def list(self, *, tenant_id: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[Key]]:
        """The keys, revoked ones too, the newest first."""
        chosen = query({"tenant_id": tenant_id, "limit": limit, "cursor": cursor})
        return Call("GET", path("keys"), read_page, chosen)

    iterate = paging(list)

    @operation
    def revoke(self, key_id: str) -> Call[None]:
        """Makes a key worthless."""
        return Call("DELETE", path("keys", key_id), read_nothing)


class AuditLog(Resource[X]):
    """Every change that was made."""

    @operation
    def list(
        self,
        *,
        object: str | None = None,  # noqa: A002 - what the parameter is called
        tenant_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Call[Page[AuditEntry]]:
        """The changes of a tenant or of an object, the newest first."""
        chosen = query({"object": object, "tenant_id": tenant_id, "limit": limit, "cursor": cursor})
        return Call("GET", path("audit_log"), read_page, chosen)

    iterate = paging(list)
