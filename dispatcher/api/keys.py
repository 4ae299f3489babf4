"""`/v1/keys`: what authenticates calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Response

from dispatcher.api import forms
from dispatcher.api.caller import Admin, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.flow import keys as flow
from dispatcher.ids import parse_id
from dispatcher.model.access import ALL, Scope
from dispatcher.shapes import CreatedKey, KeyPage, NewKey
from dispatcher.store import tenants as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201, response_model=CreatedKey)
async def create(
    asked: NewKey, context: ContextOf, caller: Admin, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Create a key. The answer holds the key and its signing secret, this once."""
    wanted = flow.NewKey(
        name=asked["name"],
        tenant_id=caller.scope(tenant_id if asked.get("tenant_id") is None else asked["tenant_id"]),
        scopes=[Scope(scope) for scope in asked.get("scopes", ALL)],
        rate_limit=asked.get("rate_limit"),
    )

    def work(connection: Connection) -> CreatedKey:
        key, told = flow.create(
            connection, context.keyring, wanted, may=caller.scopes, by=caller.actor, clock=context.clock
        )
        return {**forms.key(key), "key": told.key, "signing_secret": told.signing_secret}

    return await once.run(work, status=201, secret=("key", "signing_secret"))


@router.get("", response_model=KeyPage)
async def list_(
    context: ContextOf,
    caller: Admin,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("keys")] = None,
    limit: Limit = 50,
) -> Response:
    """List keys, including revoked ones, the newest first."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor, "keys")
    found = await context.search(
        lambda connection: store.list_keys(connection, tenant_id=scope, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.key, "keys"))


@router.delete("/{key_id}", status_code=204)
async def revoke(key_id: str, context: ContextOf, caller: Admin) -> Response:
    """Revoke a key, from the next request on. The key that makes the call cannot revoke itself."""
    wanted = parse_id("key", key_id)
    await context.transaction(
        lambda connection: flow.revoke(
            connection, wanted, by=caller.actor, tenant_id=caller.tenant_id, asking=caller.key_id
        )
    )
    return Response(status_code=204)
