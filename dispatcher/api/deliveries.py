"""`/v1/deliveries`: the delivery log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from dispatcher.api import forms
from dispatcher.api.context import ContextOf, Reader, page, read_cursor
from dispatcher.errors import NotFound
from dispatcher.ids import parse_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.store import log

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])

_STATUS = "^(" + "|".join([*DeliveryState, "failed"]) + ")$"


@router.get("")
async def list_(
    context: ContextOf,
    caller: Reader,
    status: Annotated[str | None, Query(pattern=_STATUS)] = None,
    tenant_id: str | None = None,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    event_type: str | None = None,
    object_id: str | None = None,
    outcome: str | None = None,
    created_after: AwareDatetime | None = None,
    created_before: AwareDatetime | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """The deliveries that all the given parameters choose, the newest first.

    `failed` is every end but delivered and cancelled.
    """
    states = FAILED if status == "failed" else () if status is None else (DeliveryState(status),)
    chosen = log.Filter(
        states=states,
        tenant_id=caller.scope(tenant_id),
        endpoint_id=None if endpoint_id is None else parse_id("ep", endpoint_id, pointer="/endpoint_id"),
        event_id=None if event_id is None else parse_id("evt", event_id, pointer="/event_id"),
        event_type=event_type,
        object_id=object_id,
        outcome=outcome,
        created_after=created_after,
        created_before=created_before,
    )
    before = read_cursor(cursor)
    found = await context.transaction(lambda connection: log.search(connection, chosen, before=before, limit=limit + 1))
    return page(found, limit, forms.delivery)


@router.get("/{delivery_id}")
async def show(delivery_id: str, context: ContextOf, caller: Reader) -> dict[str, Any]:
    """One delivery."""
    wanted = parse_id("dlv", delivery_id)
    return forms.delivery(
        await context.transaction(lambda connection: _find(connection, wanted, tenant_id=caller.tenant_id))
    )


@router.get("/{delivery_id}/attempts")
async def attempts(delivery_id: str, context: ContextOf, caller: Reader) -> dict[str, Any]:
    """Every attempt of one delivery, the first one first."""
    wanted = parse_id("dlv", delivery_id)

    def read(connection: Connection) -> list[log.LoggedAttempt]:
        _find(connection, wanted, tenant_id=caller.tenant_id)
        return log.attempts(connection, wanted)

    found = await context.transaction(read)
    return {"data": [forms.attempt(one) for one in found], "has_more": False, "next_cursor": None}


def _find(connection: Connection, delivery_id: UUID, *, tenant_id: UUID | None) -> log.LoggedDelivery:
    found = log.find(connection, delivery_id)
    if found is None or (tenant_id is not None and found.tenant_id != tenant_id):
        raise NotFound("there is no such delivery")
    return found
