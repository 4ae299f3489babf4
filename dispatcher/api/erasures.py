"""`/v1/erasures`: what events of one object said is erased; that there were such, and what became of them, stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Response

from dispatcher.api import forms
from dispatcher.api.caller import Admin, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.errors import Forbidden, InvalidInput
from dispatcher.flow import erase
from dispatcher.ids import parse_id
from dispatcher.shapes import Erasure, ErasurePage, NewErasure
from dispatcher.store import erasures as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/erasures", tags=["erasures"])


@router.post("", status_code=202, response_model=Erasure)
async def create(asked: NewErasure, context: ContextOf, caller: Admin, once: OnceOf) -> Response:
    """Erase the payloads of an object's events, and the responses to their attempts. It cannot be undone.

    Deliveries that wait are cancelled; what is in flight ends as it ends. The first 500 events are done with the
    answer, the others within minutes. Tenants may have given one id to different objects: an operator who names no
    tenant is refused where more than one has events of it, unless `all_tenants` says that all are meant.
    """
    named, all_tenants = caller.scope(asked.get("tenant_id")), asked.get("all_tenants", False)
    if all_tenants and not caller.is_operator:
        raise Forbidden("this erases events of every tenant; allowed: an operator's key")
    if all_tenants and named is not None:
        raise InvalidInput("/all_tenants", "true beside a tenant_id", "one of the two")

    def work(connection: Connection) -> Erasure:
        tenant_id = named
        if tenant_id is None and not all_tenants:
            tenant_id = erase.owner(connection, asked["object_id"])
        started = erase.start(
            connection,
            asked["object_id"],
            tenant_id=tenant_id,
            reason=asked.get("reason"),
            by=caller.actor,
            clock=context.clock,
        )
        return forms.erasure(erase.step(connection, only=started.id, clock=context.clock) or started)

    return await once.run(work, status=202)


@router.get("", response_model=ErasurePage)
async def list_(
    context: ContextOf,
    caller: Admin,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("erasures")] = None,
    limit: Limit = 50,
) -> Response:
    """List erasures, the newest first. A tenant's key sees those of its own events."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor, "erasures")
    found = await context.search(
        lambda connection: store.list_(connection, tenant_id=scope, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.erasure, "erasures"))


@router.get("/{erasure_id}", response_model=Erasure)
async def show(erasure_id: str, context: ContextOf, caller: Admin) -> Response:
    """Get an erasure and its progress."""
    wanted = parse_id("ers", erasure_id)
    found = await context.transaction(lambda connection: erase.find(connection, wanted, own=caller.tenant_id))
    return reply(forms.erasure(found))
