"""`client.tenants` and `client.keys`: who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dispatcher.client.answer import read_nothing, read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from dispatcher.client.types import CreatedKey, CreatedTenant, Key, NewKey, NewTenant, Page, Tenant


class Tenants(Resource[X]):
    """Who owns endpoints and events."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **tenant: Unpack[NewTenant]) -> Call[CreatedTenant]:
        """Makes a tenant."""
        return Call("POST", path("tenants"), body=write(given(tenant)), idempotency_key=idempotency_key)

    @operation
    def list(self, *, limit: int = 50, cursor: str | None = None) -> Call[Page[Tenant]]:
        """The tenants, the newest first."""
        return Call("GET", path("tenants"), read_page, query({"limit": limit, "cursor": cursor}))

    iterate = paging(list)


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
