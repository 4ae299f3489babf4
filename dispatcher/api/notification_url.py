"""`/v1/notification_url`: the URL of a tenant that has one, such as a website."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from dispatcher.api import forms
from dispatcher.api.caller import EndpointWriter, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.flow.register import NewEndpoint
from dispatcher.model.endpoint import EndpointStatus
from dispatcher.shapes import CreatedEndpoint, NotificationUrl

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/notification_url", tags=["endpoints"])


@router.put("", response_model=CreatedEndpoint)
async def put(
    asked: NotificationUrl, context: ContextOf, caller: EndpointWriter, tenant_id: TenantId = None
) -> Response:
    """Set or replace a tenant's notification URL.

    The first call registers the tenant's one endpoint; its answer holds the signing secret, this once. A later call
    replaces the endpoint's URL and nothing else: its id and its secret stay. Deliveries that wait go to the new URL at
    their times; an attempt that is being made ends at the old one. Events that carry a URL of their own are not
    affected. The same URL again changes nothing. A new URL is pinged first, where the profile asks for that. A tenant
    that has several endpoints under its profile gets 409 with the code SEVERAL_ENDPOINTS.
    """
    tenant = caller.tenant(tenant_id if asked.get("tenant_id") is None else asked["tenant_id"])
    new = NewEndpoint(url=asked["url"], tenant_id=tenant)
    before, after = await context.transaction(lambda connection: context.register.plan_url(connection, new))
    if (before is None or before.url != after.url) and context.register.profile_of(after).ping:
        await context.ping.validate(after)

    def work(connection: Connection) -> CreatedEndpoint:
        endpoint, secret = context.register.set_url(connection, new, by=caller.actor)
        warnings = context.register.warnings(connection, endpoint)
        if endpoint.status is EndpointStatus.DISABLED:
            warnings.append(f"deliveries wait until the endpoint is enabled: {endpoint.status_reason}")
        return {
            **forms.endpoint(endpoint, context.keyring),
            "secret": None if secret is None else secret.reveal_whsec(),
            "warnings": warnings,
        }

    return reply(await context.transaction(work))
