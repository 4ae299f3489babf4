"""`/v1/tenants`: who owns endpoints and events."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import (
    Admin,
    ContextOf,
    Cursor,
    Limit,
    OnceOf,
    Operator,
    Page,
    Reader,
    page,
    read_cursor,
    reply,
)
from dispatcher.flow import tenants as flow
from dispatcher.flow.register import OVERLAP
from dispatcher.ids import parse_id
from dispatcher.model.access import NAME
from dispatcher.store import tenants as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])

_ID: Final = "ten_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the one of the specification

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=NAME)]


class NewTenant(BaseModel):
    """A tenant to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name = Field(description="Of its own, without control characters.", examples=["shop-8127"])
    parent_id: str | None = Field(
        default=None,
        description=f"Whose endpoints also receive this one's events; {flow.DEPTH} tenants deep at most. It stays.",
        examples=[_ID],
    )
    profile: str | None = Field(
        default=None,
        max_length=200,
        description="That of endpoints which name none; null: the installation's.",
        examples=["standard-webhooks"],
    )


class Tenant(BaseModel):
    """Who owns endpoints and events."""

    id: str = Field(examples=[_ID])
    name: str = Field(examples=["shop-8127"])
    parent_id: str | None = Field(examples=[None])
    profile: str | None = Field(examples=["standard-webhooks"])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00Z"])


class CreatedTenant(Tenant):
    """With what is told once."""

    secret: str = Field(
        default_factory=str,
        description="What deliveries to targets of its events are signed with. A repeat under the same "
        "Idempotency-Key does not have it.",
        examples=[_SECRET],
    )


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_s: float = Field(
        default=OVERLAP.total_seconds(),
        ge=0,
        le=30 * 86400,
        allow_inf_nan=False,
        description="How long, in seconds, the old secret signs beside the new one.",
        examples=[86400],
    )


@router.post("", status_code=201, response_model=CreatedTenant)
async def create(asked: NewTenant, context: ContextOf, caller: Operator, once: OnceOf) -> Response:
    """Makes a tenant. The answer holds its secret, this once."""
    wanted = flow.NewTenant(
        name=asked.name,
        parent_id=None if asked.parent_id is None else parse_id("ten", asked.parent_id, pointer="/parent_id"),
        profile=asked.profile,
    )

    def work(connection: Connection) -> dict[str, Any]:
        tenant, secret = flow.create(
            connection, context.keyring, wanted, profiles=context.profiles, by=caller.actor, clock=context.clock
        )
        return forms.tenant(tenant) | {"secret": secret.reveal_whsec()}

    return await once.run(work, status=201, secret=("secret",))


@router.get("", response_model=Page[Tenant])
async def list_(context: ContextOf, caller: Reader, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """The tenants, the newest first; to a tenant's key, its own."""
    before = read_cursor(cursor)
    found = await context.search(
        lambda connection: store.list_(connection, own=caller.tenant_id, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.tenant))


@router.get("/{tenant_id}", response_model=Tenant)
async def show(tenant_id: str, context: ContextOf, caller: Reader) -> Response:
    """One tenant."""
    wanted = parse_id("ten", tenant_id)
    found = await context.transaction(lambda connection: flow.find(connection, wanted, own=caller.tenant_id))
    return reply(forms.tenant(found))


@router.post("/{tenant_id}/rotate_secret", response_model=CreatedTenant)
async def rotate_secret(
    tenant_id: str, context: ContextOf, caller: Admin, once: OnceOf, asked: Rotation | None = None
) -> Response:
    """Gives the tenant a new secret, told this once; the old one signs beside it for a while."""
    wanted = parse_id("ten", tenant_id)
    overlap = timedelta(seconds=(asked or Rotation()).overlap_s)

    def work(connection: Connection) -> dict[str, Any]:
        tenant, secret = flow.rotate_secret(
            connection,
            context.keyring,
            wanted,
            by=caller.actor,
            overlap=overlap,
            own=caller.tenant_id,
            clock=context.clock,
        )
        return forms.tenant(tenant) | {"secret": secret.reveal_whsec()}

    return await once.run(work, secret=("secret",))
