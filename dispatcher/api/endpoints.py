"""`/v1/endpoints`: registered URLs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Caller, EndpointReader, EndpointWriter, TenantId
from dispatcher.api.context import Context, ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.flow import register
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import parse_id
from dispatcher.model.endpoint import REGISTRATION_FIELDS, EndpointStatus
from dispatcher.shapes import (
    CreatedEndpoint,
    DeletedEndpoint,
    Disabling,
    Endpoint,
    EndpointChanges,
    EndpointPage,
    NewEndpoint,
    Ping,
    Rotation,
)
from dispatcher.shapes import EndpointStatus as ShownStatus
from dispatcher.store import endpoints as store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.endpoint import Endpoint as Registered
    from dispatcher.signing import Secret

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

_REGISTERED: Final = {"profile", *REGISTRATION_FIELDS}


def wanted(asked: NewEndpoint, tenant_id: UUID, *, secrets: Sequence[Secret] = ()) -> register.NewEndpoint:
    """What the register takes, of a registration for this tenant."""
    values: dict[str, Any] = {name: value for name, value in asked.items() if name in _REGISTERED}
    return register.NewEndpoint(**values, tenant_id=tenant_id, secrets=secrets)


@router.post("", status_code=201, response_model=CreatedEndpoint)
async def create(
    asked: NewEndpoint, context: ContextOf, caller: EndpointWriter, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Register an endpoint. The answer holds its signing secret, this once.

    Where the profile asks for it, the URL must first answer a ping with a success: a POST of
    `{"id", "type": "endpoint.ping", "timestamp", "mode": "test", "data": {}}` with the headers `webhook-id` and
    `webhook-timestamp`, the endpoint's own headers and authentication, and no signature, since nobody holds the secret
    yet. If it does not, the answer is 422 with the code ENDPOINT_VALIDATION_FAILED and nothing is stored.
    """
    new = wanted(asked, caller.tenant(tenant_id if asked.get("tenant_id") is None else asked["tenant_id"]))
    if (before := await once.recall()) is not None:
        return before

    def plan(connection: Connection) -> Registered:
        if not caller.is_operator:
            context.register.check_choice(connection, new)
        return context.register.plan(connection, new)

    planned = await context.transaction(plan)
    if context.register.profile_of(planned).ping:
        await context.ping.validate(planned)
    warnings = await context.warnings_of_address(planned.url, is_operator=caller.is_operator)

    def work(connection: Connection) -> CreatedEndpoint:
        endpoint, secret = context.register.create(connection, new, by=caller.actor)
        return {
            **forms.endpoint(endpoint, context.keyring),
            "secret": None if secret is None else secret.reveal_whsec(),
            "warnings": [*context.register.warnings(connection, endpoint), *warnings],
        }

    return await once.run(work, status=201, secret=("secret",))


@router.get("", response_model=EndpointPage)
async def list_(
    context: ContextOf,
    caller: EndpointReader,
    tenant_id: TenantId = None,
    status: Annotated[ShownStatus | None, Query(description="Only those.", examples=["disabled"])] = None,
    profile: Annotated[
        str | None, Query(max_length=200, description="Only those under it.", examples=["default"])
    ] = None,
    cursor: Annotated[str | None, cursor_of("endpoints")] = None,
    limit: Limit = 50,
) -> Response:
    """List endpoints, the newest first."""
    after, scope = read_cursor(cursor, "endpoints"), caller.scope(tenant_id)
    found = await context.search(
        lambda connection: store.list_(
            connection,
            tenant_id=scope,
            status=None if status is None else EndpointStatus(status),
            profile=profile,
            after=after,
            limit=limit + 1,
        )
    )
    return reply(page(found, limit, lambda one: forms.endpoint(one, context.keyring), "endpoints"))


@router.get("/{endpoint_id}", response_model=Endpoint)
async def show(endpoint_id: str, context: ContextOf, caller: EndpointReader) -> Response:
    """Get an endpoint."""
    return reply(forms.endpoint(await _find(endpoint_id, context, caller), context.keyring))


@router.patch("/{endpoint_id}", response_model=Endpoint)
async def update(endpoint_id: str, asked: EndpointChanges, context: ContextOf, caller: EndpointWriter) -> Response:
    """Change an endpoint. A new URL is pinged first, where the profile asks for that."""
    id_ = parse_id("ep", endpoint_id)
    changes = dict(asked)
    if "url" in changes:
        before, after = await context.transaction(
            lambda connection: context.register.plan_update(connection, id_, changes, tenant_id=caller.tenant_id)
        )
        if before.url != after.url and context.register.profile_of(after).ping:
            await context.ping.validate(after)
    endpoint = await context.transaction(
        lambda connection: context.register.update(
            connection, id_, changes, tenant_id=caller.tenant_id, by=caller.actor
        )
    )
    return reply(forms.endpoint(endpoint, context.keyring))


@router.delete("/{endpoint_id}", response_model=DeletedEndpoint)
async def delete(endpoint_id: str, context: ContextOf, caller: EndpointWriter) -> Response:
    """Delete an endpoint and cancel its waiting deliveries. The log of its deliveries stays."""
    id_ = parse_id("ep", endpoint_id)
    cancelled = await context.transaction(
        lambda connection: register.delete(connection, id_, tenant_id=caller.tenant_id, by=caller.actor)
    )
    return reply(forms.deleted_endpoint(id_, cancelled))


@router.post("/{endpoint_id}/enable", response_model=Endpoint)
async def enable(endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf) -> Response:
    """Enable an endpoint. Deliveries that were held are sent too."""
    id_ = parse_id("ep", endpoint_id)

    def work(connection: Connection) -> Endpoint:
        endpoint = register.enable(connection, id_, tenant_id=caller.tenant_id, by=caller.actor)
        return forms.endpoint(endpoint, context.keyring)

    answer = await once.run(work)
    context.wakeup.ring()
    return answer


@router.post("/{endpoint_id}/disable", response_model=Endpoint)
async def disable(
    endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf, asked: Disabling | None = None
) -> Response:
    """Disable an endpoint. Its deliveries wait until it is enabled, for at most 7 days."""
    id_ = parse_id("ep", endpoint_id)
    given = (asked or {}).get("reason")
    reason = given or f"disabled by {'an operator' if caller.is_operator else 'its owner'}"

    def work(connection: Connection) -> Endpoint:
        endpoint = register.disable(connection, id_, reason, tenant_id=caller.tenant_id, by=caller.actor)
        return forms.endpoint(endpoint, context.keyring)

    return await once.run(work)


@router.post("/{endpoint_id}/ping", response_model=Ping)
async def ping(endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf) -> Response:
    """Ping an endpoint, with a signature as deliveries have it. Nothing is recorded."""
    if (before := await once.recall()) is not None:
        return before
    endpoint = await _find(endpoint_id, context, caller)
    keys = await context.transaction(lambda connection: PlatformKeys.load(connection, context.keyring, context.clock))
    result = forms.ping(await context.ping(endpoint, keys))
    return await once.run(lambda _: result)


@router.post("/{endpoint_id}/rotate_secret", response_model=CreatedEndpoint)
async def rotate_secret(
    endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf, asked: Rotation | None = None
) -> Response:
    """Rotate an endpoint's secret. The new one is shown only once; the old one signs beside it for a while."""
    id_ = parse_id("ep", endpoint_id)
    given = (asked or {}).get("overlap_s")
    overlap = register.OVERLAP if given is None else timedelta(seconds=given)

    def work(connection: Connection) -> CreatedEndpoint:
        secret = context.register.rotate_secret(
            connection, id_, overlap=overlap, tenant_id=caller.tenant_id, by=caller.actor
        )
        endpoint = register.find(connection, id_)
        return {**forms.endpoint(endpoint, context.keyring), "secret": secret.reveal_whsec(), "warnings": []}

    return await once.run(work, secret=("secret",))


async def _find(endpoint_id: str, context: Context, caller: Caller) -> Registered:
    id_ = parse_id("ep", endpoint_id)
    return await context.transaction(lambda connection: register.find(connection, id_, tenant_id=caller.tenant_id))
