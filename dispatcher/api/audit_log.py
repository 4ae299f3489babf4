"""`/v1/audit_log`: who changed what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from dispatcher.api import forms
from dispatcher.api.context import Admin, ContextOf, Cursor, Limit, Page, TenantId, page, read_cursor, reply
from dispatcher.store import trail

router = APIRouter(prefix="/v1/audit_log", tags=["audit log"])

_OBJECT: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"


class Entry(BaseModel):
    """One change."""

    id: str = Field(examples=["aud_0190d1f2-77aa-7c10-8e55-0f6a1d2c3b4e"])
    at: datetime = Field(examples=["2026-03-02T09:00:00Z"])
    actor: str = Field(
        description="The id of a key, `cli:` and the account's name, or the process that changed it by itself.",
        examples=["key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"],
    )
    action: str = Field(examples=["endpoint.created"])
    object: str = Field(description="The id of what was changed.", examples=[_OBJECT])
    tenant_id: str | None = Field(
        description="Whose it is; null: the installation's.", examples=["ten_00000000-0000-7000-8000-000000000001"]
    )
    before: dict[str, Any] | None = Field(description="What it was, without secrets.", examples=[None])
    after: dict[str, Any] | None = Field(
        description="What it became, without secrets.", examples=[{"url": "https://shop.example.com/webhooks"}]
    )


@router.get("", response_model=Page[Entry])
async def list_(
    context: ContextOf,
    caller: Admin,
    object: Annotated[  # noqa: A002 - what the parameter is called
        str | None, Query(max_length=200, description="The id of what was changed.", examples=[_OBJECT])
    ] = None,
    tenant_id: TenantId = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """Every change that was made, the newest first. Nobody can change or delete an entry."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor)
    found = await context.search(
        lambda connection: trail.read(connection, tenant_id=scope, object=object, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.entry))
