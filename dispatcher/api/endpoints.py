"""`/v1/endpoints`: registered URLs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import (
    Caller,
    Context,
    ContextOf,
    Cursor,
    EndpointReader,
    EndpointWriter,
    Limit,
    OnceOf,
    Page,
    TenantId,
    page,
    read_cursor,
    reply,
)
from dispatcher.flow import register, registration
from dispatcher.flow.signing_keys import PlatformKeys
from dispatcher.ids import parse_id
from dispatcher.model.endpoint import EVENT_TYPE, EndpointStatus
from dispatcher.model.profile import REGISTRATION_FIELDS
from dispatcher.signing import SCHEMES
from dispatcher.store import endpoints as store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.endpoint import Endpoint as Registered
    from dispatcher.signing import Secret

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

ID: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"
TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the one of the specification
_URL: Final = "https://shop.example.com/webhooks"

_REGISTERED: Final = {"profile", *REGISTRATION_FIELDS}

Method = Literal["POST", "GET"]
Status = Literal["active", "disabled"]
Text = Annotated[str, Field(max_length=registration.TEXT)]
SchemeName = Annotated[str, Field(json_schema_extra={"enum": list(SCHEMES)})]
HeaderValue = Annotated[str, Field(max_length=registration.HEADER_BYTES, pattern=registration.HEADER_VALUE)]
Headers = Annotated[
    dict[str, HeaderValue],
    Field(max_length=registration.HEADERS, json_schema_extra={"propertyNames": {"pattern": registration.HEADER_NAME}}),
]


class BasicAuth(BaseModel):
    """By what a delivery authenticates itself to the receiver (RFC 7617)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["basic"] = Field(examples=["basic"])
    username: str = Field(min_length=1, max_length=255, pattern=registration.USERNAME, examples=["shop"])
    password: str = Field(max_length=1024, pattern=registration.PASSWORD, repr=False, examples=["correct horse"])


class Choices(BaseModel):
    """What an endpoint's owner chooses, as far as its profile leaves a choice; null is what the profile has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Text | None = Field(default=None, description="For people.", examples=["orders"])
    description: Text | None = Field(default=None, description="For people.", examples=["The shop in Utrecht"])
    event_types: (
        Annotated[list[Annotated[str, Field(max_length=128, pattern=EVENT_TYPE)]], Field(min_length=1, max_length=1000)]
        | None
    ) = Field(
        default=None,
        description="Types, or `payment.*` for a family; null means all that the profile offers.",
        examples=[["payment.*"]],
    )
    metadata: dict[str, Any] | None = Field(
        default=None,
        description="Yours to keep; at most 16 KiB as JSON.",
        examples=[{"store": "Utrecht"}],
    )
    schedule: str | None = Field(
        default=None, min_length=1, max_length=200, description="When it is tried again.", examples=["standard"]
    )
    signature: Annotated[list[SchemeName], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Every delivery is signed by all of these schemes.",
        examples=[["standard_webhooks_v1"]],
    )
    auth: BasicAuth | None = Field(
        default=None,
        description="The password is never shown again.",
        examples=[{"type": "basic", "username": "shop", "password": "correct horse"}],
    )
    headers: Headers | None = Field(
        default=None,
        description="Sent with every delivery; none of the platform's own. The values are never shown again.",
        examples=[{"x-shop": "8127"}],
    )
    method: Method | None = Field(
        default=None, description="A GET has no body: what the event is stands in the query.", examples=["POST"]
    )
    max_in_flight: int | None = Field(
        default=None,
        ge=1,
        le=registration.MAX_IN_FLIGHT,
        description=f"How many deliveries may be attempted at once; null: {registration.IN_FLIGHT}.",
        examples=[64],
    )
    rate_limit: float | None = Field(
        default=None,
        ge=registration.RATE_LIMIT[0],
        le=registration.RATE_LIMIT[1],
        allow_inf_nan=False,
        description="Attempts a second; null: no limit.",
        examples=[50],
    )
    ordered: bool | None = Field(
        default=None,
        description="One delivery after the other, in the order of their events; null: not.",
        examples=[False],
    )


class NewEndpoint(Choices):
    """A URL to be registered."""

    url: str = Field(min_length=1, max_length=2048, description="As the profile allows it.", examples=[_URL])
    tenant_id: str | None = Field(
        default=None, description="Whose it is; where it is left out, the caller's own.", examples=[TENANT]
    )
    profile: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The rules that it follows; null: its tenant's profile, or the installation's.",
        examples=["default"],
    )
    status: Status | None = Field(
        default=None, description="Null: active. Deliveries of a disabled one wait.", examples=["active"]
    )


class EndpointChanges(Choices):
    """What is to be changed. What is left out stays; null takes a value back to what the profile has."""

    url: str = Field(default_factory=str, min_length=1, max_length=2048, examples=[_URL])


class AuthShown(BaseModel):
    """How a delivery authenticates itself, without the password."""

    type: Literal["basic"] = Field(examples=["basic"])
    username: str | None = Field(description="Null: the keyring does not open it.", examples=["shop"])


class Endpoint(BaseModel):
    """A registered URL, without what is secret of it."""

    id: str = Field(examples=[ID])
    tenant_id: str = Field(examples=[TENANT])
    url: str = Field(examples=[_URL])
    name: str | None = Field(examples=["orders"])
    description: str | None = Field(examples=["The shop in Utrecht"])
    event_types: list[str] | None = Field(description="Null: all that the profile offers.", examples=[["payment.*"]])
    metadata: dict[str, Any] = Field(examples=[{"store": "Utrecht"}])
    profile: str = Field(examples=["default"])
    schedule: str = Field(examples=["standard"])
    signature: list[str] | None = Field(description="Null: the schemes of the profile.", examples=[None])
    auth: AuthShown | None = Field(examples=[{"type": "basic", "username": "shop"}])
    headers: list[str] | None = Field(
        description="The names of its own headers; null: the keyring does not open them.", examples=[["x-shop"]]
    )
    method: Method = Field(examples=["POST"])
    max_in_flight: int = Field(examples=[64])
    rate_limit: float | None = Field(description="In attempts a second; null: no limit.", examples=[None])
    ordered: bool = Field(examples=[False])
    origin: str | None = Field(
        description="Of the endpoint that events' own targets at this origin have made: their URLs stand on the "
        "deliveries, and its secret is its tenant's.",
        examples=[None],
    )
    status: Status = Field(examples=["active"])
    status_reason: str | None = Field(description="Why it is disabled.", examples=[None])
    version: int = Field(description="Rises with every change.", examples=[1])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00Z"])
    updated_at: datetime = Field(examples=["2026-03-02T09:00:00Z"])


class CreatedEndpoint(Endpoint):
    """With what is told once."""

    secret: str | None = Field(
        default_factory=str,
        description="What its deliveries are signed with; null where its profile knows no secrets. A repeat under the "
        "same Idempotency-Key does not have it.",
        examples=[SECRET],
    )
    warnings: list[str] = Field(default_factory=list, description="What its owner should know.", examples=[[]])


class DeletedEndpoint(BaseModel):
    """What became of an endpoint that is deleted, and of what waited for it."""

    id: str = Field(examples=[ID])
    status: Literal["deleted"] = Field(examples=["deleted"])
    cancelled_deliveries: int = Field(description="How many were waiting for it.", examples=[0])


class Disabling(BaseModel):
    """Why an endpoint is disabled."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Text | None = Field(default=None, description="Shown with it.", examples=["the shop is moving"])


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_s: float | None = Field(
        default=None,
        ge=0,
        le=30 * 86400,
        allow_inf_nan=False,
        description="How long, in seconds, the old secret signs beside the new one; null: a day.",
        examples=[86400],
    )


class Pinged(BaseModel):
    """What came of a ping."""

    ok: bool = Field(description="Whether a delivery would be delivered by this answer.", examples=[True])
    outcome: str = Field(description="As attempts have it.", examples=["ok"])
    status_code: int | None = Field(description="Null: no answer.", examples=[200])
    duration_ms: float = Field(examples=[12.5])
    error: str | None = Field(description="Why there was no answer, or not a whole one.", examples=[None])


def wanted(asked: NewEndpoint, tenant_id: UUID, *, secrets: Sequence[Secret] = ()) -> register.NewEndpoint:
    """What the register takes, of a registration for this tenant."""
    values = asked.model_dump(include=_REGISTERED)
    return register.NewEndpoint(**values, tenant_id=tenant_id, secrets=secrets)


@router.post("", status_code=201, response_model=CreatedEndpoint)
async def create(
    asked: NewEndpoint, context: ContextOf, caller: EndpointWriter, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Registers a URL. The answer holds its signing secret, this once.

    Where the profile asks for it, the URL must first answer a ping with a success: a POST of
    `{"id", "type": "endpoint.ping", "timestamp", "mode": "test", "data": {}}` with the headers `webhook-id` and
    `webhook-timestamp`, the endpoint's own headers and authentication, and no signature, since nobody holds the secret
    yet. If it does not, the answer is 422 with the code ENDPOINT_VALIDATION_FAILED and nothing is stored.
    """
    new = wanted(asked, caller.tenant(tenant_id if asked.tenant_id is None else asked.tenant_id))
    if (before := await once.recall()) is not None:
        return before

    def plan(connection: Connection) -> Registered:
        if not caller.is_operator:
            context.register.check_choice(connection, new)
        return context.register.plan(connection, new)

    planned = await context.transaction(plan)
    if context.register.profile_of(planned).ping:
        await context.ping.validate(planned)

    def work(connection: Connection) -> dict[str, Any]:
        endpoint, secret = context.register.create(connection, new, by=caller.actor)
        warnings = context.register.warnings(connection, endpoint)
        told = None if secret is None else secret.reveal_whsec()
        return forms.endpoint(endpoint, context.keyring) | {"secret": told, "warnings": warnings}

    return await once.run(work, status=201, secret=("secret",))


@router.get("", response_model=Page[Endpoint])
async def list_(
    context: ContextOf,
    caller: EndpointReader,
    tenant_id: TenantId = None,
    status: Annotated[Status | None, Query(description="Only those.", examples=["disabled"])] = None,
    profile: Annotated[
        str | None, Query(max_length=200, description="Only those under it.", examples=["default"])
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The endpoints, the newest first."""
    after, scope = read_cursor(cursor), caller.scope(tenant_id)
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
    return reply(page(found, limit, lambda one: forms.endpoint(one, context.keyring)))


@router.get("/{endpoint_id}", response_model=Endpoint)
async def show(endpoint_id: str, context: ContextOf, caller: EndpointReader) -> Response:
    """One endpoint."""
    return reply(forms.endpoint(await _find(endpoint_id, context, caller), context.keyring))


@router.patch("/{endpoint_id}", response_model=Endpoint)
async def update(endpoint_id: str, asked: EndpointChanges, context: ContextOf, caller: EndpointWriter) -> Response:
    """Changes what is given. A new URL is pinged first, where the profile asks for that."""
    id_ = parse_id("ep", endpoint_id)
    changes = asked.model_dump(exclude_unset=True)
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
    """Takes an endpoint away for good and cancels what waits for it. The log of its deliveries stays."""
    id_ = parse_id("ep", endpoint_id)
    cancelled = await context.transaction(
        lambda connection: register.delete(connection, id_, tenant_id=caller.tenant_id, by=caller.actor)
    )
    return reply(forms.deleted_endpoint(id_, cancelled))


@router.post("/{endpoint_id}/enable", response_model=Endpoint)
async def enable(endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf) -> Response:
    """Has deliveries made again, those that were held too."""
    id_ = parse_id("ep", endpoint_id)

    def work(connection: Connection) -> dict[str, Any]:
        endpoint = register.enable(connection, id_, tenant_id=caller.tenant_id, by=caller.actor)
        return forms.endpoint(endpoint, context.keyring)

    answer = await once.run(work)
    context.wakeup.ring()
    return answer


@router.post("/{endpoint_id}/disable", response_model=Endpoint)
async def disable(
    endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf, asked: Disabling | None = None
) -> Response:
    """Holds deliveries until it is enabled: they wait, for 7 days at most."""
    id_ = parse_id("ep", endpoint_id)
    given = None if asked is None else asked.reason
    reason = given or f"disabled by {'an operator' if caller.is_operator else 'its owner'}"

    def work(connection: Connection) -> dict[str, Any]:
        endpoint = register.disable(connection, id_, reason, tenant_id=caller.tenant_id, by=caller.actor)
        return forms.endpoint(endpoint, context.keyring)

    return await once.run(work)


@router.post("/{endpoint_id}/ping", response_model=Pinged)
async def ping(endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf) -> Response:
    """Sends the ping of a registration, signed as deliveries are, and tells what came of it. Nothing is recorded."""
    if (before := await once.recall()) is not None:
        return before
    endpoint = await _find(endpoint_id, context, caller)
    keys = await context.transaction(lambda connection: PlatformKeys.load(connection, context.keyring, context.clock))
    result = forms.pinged(await context.ping(endpoint, keys))
    return await once.run(lambda _: result)


@router.post("/{endpoint_id}/rotate_secret", response_model=CreatedEndpoint)
async def rotate_secret(
    endpoint_id: str, context: ContextOf, caller: EndpointWriter, once: OnceOf, asked: Rotation | None = None
) -> Response:
    """Gives it a new secret, told this once; the old one signs beside it for a while."""
    id_ = parse_id("ep", endpoint_id)
    given = None if asked is None else asked.overlap_s
    overlap = register.OVERLAP if given is None else timedelta(seconds=given)

    def work(connection: Connection) -> dict[str, Any]:
        secret = context.register.rotate_secret(
            connection, id_, overlap=overlap, tenant_id=caller.tenant_id, by=caller.actor
        )
        told = {"secret": secret.reveal_whsec(), "warnings": []}
        return forms.endpoint(register.find(connection, id_), context.keyring) | told

    return await once.run(work, secret=("secret",))


async def _find(endpoint_id: str, context: Context, caller: Caller) -> Registered:
    id_ = parse_id("ep", endpoint_id)
    return await context.transaction(lambda connection: register.find(connection, id_, tenant_id=caller.tenant_id))
