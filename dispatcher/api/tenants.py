"""`/v1/tenants`: who owns endpoints and events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Admin, Operator, Reader
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.flow import tenants as flow
from dispatcher.flow.register import OVERLAP
from dispatcher.ids import parse_id
from dispatcher.shapes import CreatedTenant, NewTenant, Rotation, Tenant, TenantPage
from dispatcher.store import tenants as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])


@router.post("", status_code=201, response_model=CreatedTenant)
async def create(asked: NewTenant, context: ContextOf, caller: Operator, once: OnceOf) -> Response:
    """Create a tenant. The answer holds its secret, this once."""
    parent = asked.get("parent_id")
    wanted = flow.NewTenant(
        name=asked["name"],
        parent_id=None if parent is None else parse_id("ten", parent, pointer="/parent_id"),
        profile=asked.get("profile"),
    )

    def work(connection: Connection) -> CreatedTenant:
        tenant, secret = flow.create(
            connection, context.keyring, wanted, profiles=context.profiles, by=caller.actor, clock=context.clock
        )
        return {**forms.tenant(tenant), "secret": secret.reveal_whsec()}

    return await once.run(work, status=201, secret=("secret",))


@router.get("", response_model=TenantPage)
async def list_(
    context: ContextOf,
    caller: Reader,
    name: Annotated[
        str | None, Query(max_length=200, description="Only the tenant with this name.", examples=["shop-8127"])
    ] = None,
    cursor: Annotated[str | None, cursor_of("tenants")] = None,
    limit: Limit = 50,
) -> Response:
    """List tenants, the newest first. A tenant's key sees its own."""
    before = read_cursor(cursor, "tenants")
    found = await context.search(
        lambda connection: store.list_(connection, own=caller.tenant_id, name=name, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.tenant, "tenants"))


@router.get("/{tenant_id}", response_model=Tenant)
async def show(tenant_id: str, context: ContextOf, caller: Reader) -> Response:
    """Get a tenant."""
    wanted = parse_id("ten", tenant_id)
    found = await context.transaction(lambda connection: flow.find(connection, wanted, own=caller.tenant_id))
    return reply(forms.tenant(found))


@router.post("/{tenant_id}/rotate_secret", response_model=CreatedTenant)
async def rotate_secret(
    tenant_id: str, context: ContextOf, caller: Admin, once: OnceOf, asked: Rotation | None = None
) -> Response:
    """Rotate a tenant's secret. The new one is shown only once; the old one signs beside it for a while."""
    wanted = parse_id("ten", tenant_id)
    given = (asked or {}).get("overlap_s")
    overlap = OVERLAP if given is None else timedelta(seconds=given)

    def work(connection: Connection) -> CreatedTenant:
        tenant, secret = flow.rotate_secret(
            connection,
            context.keyring,
            wanted,
            by=caller.actor,
            overlap=overlap,
            own=caller.tenant_id,
            clock=context.clock,
        )
        return {**forms.tenant(tenant), "secret": secret.reveal_whsec()}

    return await once.run(work, secret=("secret",))
