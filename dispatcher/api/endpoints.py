"""`/v1/endpoints`: registered URLs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import ContextOf, EndpointReader, EndpointWriter, page, read_cursor
from dispatcher.flow import register
from dispatcher.ids import parse_id
from dispatcher.store import endpoints as store

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


class EndpointIn(BaseModel):
    """What registering takes. Leaving `event_types` out means all of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str = Field(examples=["https://shop.example.com/webhooks"])
    tenant_id: str | None = None
    name: str | None = None
    description: str | None = None
    event_types: list[str] | None = Field(default=None, examples=[["payment.*"]])
    metadata: dict[str, Any] = Field(default_factory=dict)
    schedule: str = register.DEFAULT_SCHEDULE
    max_in_flight: int = 64
    status: str = "active"


@router.post("", status_code=201)
async def create(
    asked: EndpointIn, context: ContextOf, caller: EndpointWriter, tenant_id: str | None = None
) -> dict[str, Any]:
    """Registers a URL. The answer holds its signing secret, this once."""
    values = asked.model_dump()
    values["tenant_id"] = caller.tenant(asked.tenant_id or tenant_id)
    wanted = register.NewEndpoint(**values)
    endpoint, secret = await context.transaction(lambda connection: context.register.create(connection, wanted))
    return forms.endpoint(endpoint) | {"secret": secret.reveal_whsec()}


@router.get("")
async def list_(
    context: ContextOf,
    caller: EndpointReader,
    tenant_id: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """The endpoints, the newest first."""
    after, scope = read_cursor(cursor), caller.scope(tenant_id)
    found = await context.transaction(
        lambda connection: store.list_(connection, tenant_id=scope, after=after, limit=limit + 1)
    )
    return page(found, limit, forms.endpoint)


@router.get("/{endpoint_id}")
async def show(endpoint_id: str, context: ContextOf, caller: EndpointReader) -> dict[str, Any]:
    """One endpoint."""
    wanted = parse_id("ep", endpoint_id)
    found = await context.transaction(lambda connection: register.find(connection, wanted, tenant_id=caller.tenant_id))
    return forms.endpoint(found)
