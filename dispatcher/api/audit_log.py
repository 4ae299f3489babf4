"""`/v1/audit_log`: who changed what."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Admin, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.shapes import AuditPage
from dispatcher.store import trail

router = APIRouter(prefix="/v1/audit_log", tags=["audit log"])

_OBJECT: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"


@router.get("", response_model=AuditPage)
async def list_(
    context: ContextOf,
    caller: Admin,
    object: Annotated[  # noqa: A002 - what the parameter is called
        str | None, Query(max_length=200, description="The id of what was changed.", examples=[_OBJECT])
    ] = None,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("audit_log")] = None,
    limit: Limit = 50,
) -> Response:
    """List all changes, the newest first. Nobody can change or delete an entry."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor, "audit_log")
    found = await context.search(
        lambda connection: trail.read(connection, tenant_id=scope, object=object, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.audit_entry, "audit_log"))
