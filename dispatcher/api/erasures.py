"""`/v1/erasures`: what events of one object said is erased; that there were such, and what became of them, stays."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import Admin, ContextOf, OnceOf, reply
from dispatcher.errors import Forbidden, InvalidInput
from dispatcher.flow import erase
from dispatcher.ids import parse_id
from dispatcher.model.access import NAME

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/erasures", tags=["erasures"])

_TENANT = "ten_00000000-0000-7000-8000-000000000001"


class NewErasure(BaseModel):
    """What is to be erased."""

    model_config = ConfigDict(extra="forbid", strict=True)

    object_id: str = Field(min_length=1, max_length=200, pattern=NAME, examples=["pay_8f3k2"])
    tenant_id: str | None = Field(
        default=None,
        description="Whose events. An operator may leave it out where one tenant only has events of the object.",
        examples=[_TENANT],
    )
    all_tenants: bool = Field(
        default=False, description="Every tenant's events; for operators, without a tenant_id.", examples=[False]
    )
    reason: str | None = Field(
        default=None, min_length=1, max_length=500, pattern=NAME, examples=["asked for by the customer"]
    )


class Erasure(BaseModel):
    """An erasure, and how far it is."""

    id: str = Field(examples=["ers_0190d1f2-77aa-7c10-8e55-0f6a1d2c3b4e"])
    object_id: str = Field(examples=["pay_8f3k2"])
    tenant_id: str | None = Field(description="Null: every tenant's.", examples=[_TENANT])
    reason: str | None = Field(examples=["asked for by the customer"])
    created_by: str = Field(examples=["key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00Z"])
    status: Literal["running", "done"] = Field(
        description="Done once all events were erased that were there when it was asked for.", examples=["done"]
    )
    events: int = Field(description="That had a payload, or none any more, and are erased now.", examples=[3])
    attempts: int = Field(description="Whose answers and queries are erased.", examples=[5])
    cancelled_deliveries: int = Field(description="That waited.", examples=[1])
    in_flight_deliveries: int = Field(
        description="That were in flight at the latest look: what they are answered is erased later.", examples=[0]
    )
    next_look_at: datetime | None = Field(
        description="When what was in flight is looked at again; null: nothing can be any more.", examples=[None]
    )


@router.post("", status_code=202, response_model=Erasure)
async def create(asked: NewErasure, context: ContextOf, caller: Admin, once: OnceOf) -> Response:
    """Erases the payloads of an object's events, and the answers to their attempts. It cannot be undone.

    Deliveries that wait are cancelled; what is in flight ends as it ends. The first 500 events are done with the
    answer, the others within minutes. Tenants may have given one id to different objects: an operator who names no
    tenant is refused where more than one has events of it, unless `all_tenants` says that all are meant.
    """
    named = caller.scope(asked.tenant_id)
    if asked.all_tenants and not caller.is_operator:
        raise Forbidden("this erases events of every tenant; allowed: an operator's key")
    if asked.all_tenants and named is not None:
        raise InvalidInput("/all_tenants", "true beside a tenant_id", "one of the two")

    def work(connection: Connection) -> dict[str, Any]:
        tenant_id = named
        if tenant_id is None and not asked.all_tenants:
            tenant_id = erase.owner(connection, asked.object_id)
        started = erase.start(
            connection,
            asked.object_id,
            tenant_id=tenant_id,
            reason=asked.reason,
            by=caller.actor,
            clock=context.clock,
        )
        return forms.erasure(erase.step(connection, only=started.id, now=started.created_at) or started)

    return await once.run(work, status=202)


@router.get("/{erasure_id}", response_model=Erasure)
async def show(erasure_id: str, context: ContextOf, caller: Admin) -> Response:
    """How far an erasure is."""
    wanted = parse_id("ers", erasure_id)
    found = await context.transaction(lambda connection: erase.find(connection, wanted, own=caller.tenant_id))
    return reply(forms.erasure(found))
