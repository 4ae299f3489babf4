"""`/v1/keys`: what authenticates calls."""

from __future__ import annotations

from datetime import datetime
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
    Page,
    TenantId,
    page,
    read_cursor,
    reply,
)
from dispatcher.flow import keys as flow
from dispatcher.ids import parse_id
from dispatcher.model.access import EXAMPLE_KEY, NAME, Scope
from dispatcher.store import tenants as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"
_SIGNING_SECRET: Final = "hmsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # noqa: S105 - an example

_Scope = Annotated[Scope, Field(strict=False)]  # JSON has no enums


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=NAME)] = Field(
        description="For people; without control characters.", examples=["till-12"]
    )
    tenant_id: str | None = Field(
        default=None,
        description="The tenant that the key acts for. Where it is left out: the caller's own; an operator's key "
        "then makes one more operator's key.",
        examples=[_TENANT],
    )
    scopes: list[_Scope] = Field(
        default=[Scope.ADMIN],
        min_length=1,
        max_length=20,
        description="What the key may do.",
        examples=[["events:write", "deliveries:read"]],
    )
    rate_limit: float | None = Field(
        default=None,
        ge=0.01,
        le=100_000,
        allow_inf_nan=False,
        description="How many requests a second; null: no limit.",
        examples=[50],
    )


class Key(BaseModel):
    """A key, without what is secret of it."""

    id: str = Field(examples=["key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"])
    tenant_id: str | None = Field(description="Null: an operator's.", examples=[_TENANT])
    name: str = Field(examples=["till-12"])
    scopes: list[Scope] = Field(examples=[["deliveries:read", "events:write"]])
    rate_limit: float | None = Field(description="In requests a second; null: no limit.", examples=[50])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00Z"])
    last_used_at: datetime | None = Field(description="To the minute.", examples=["2026-03-02T09:15:00Z"])
    revoked_at: datetime | None = Field(examples=[None])


class CreatedKey(Key):
    """With what is told once; a repeat under the same Idempotency-Key does not have it."""

    key: str = Field(default_factory=str, description="For `Authorization: Bearer`.", examples=[EXAMPLE_KEY])
    signing_secret: str = Field(
        default_factory=str, description="For requests signed by HMAC.", examples=[_SIGNING_SECRET]
    )


@router.post("", status_code=201, response_model=CreatedKey)
async def create(
    asked: NewKey, context: ContextOf, caller: Admin, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Makes a key. The answer holds the key and its signing secret, this once."""
    wanted = flow.NewKey(
        name=asked.name,
        tenant_id=caller.scope(tenant_id if asked.tenant_id is None else asked.tenant_id),
        scopes=asked.scopes,
        rate_limit=asked.rate_limit,
    )

    def work(connection: Connection) -> dict[str, Any]:
        key, told = flow.create(
            connection, context.keyring, wanted, may=caller.scopes, by=caller.actor, clock=context.clock
        )
        return forms.key(key) | {"key": told.key, "signing_secret": told.signing_secret}

    return await once.run(work, status=201, secret=("key", "signing_secret"))


@router.get("", response_model=Page[Key])
async def list_(
    context: ContextOf, caller: Admin, tenant_id: TenantId = None, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """The keys, revoked ones too, the newest first."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor)
    found = await context.search(
        lambda connection: store.list_keys(connection, tenant_id=scope, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.key))


@router.delete("/{key_id}", status_code=204)
async def revoke(key_id: str, context: ContextOf, caller: Admin) -> Response:
    """Makes a key worthless, from the next request on. The key that makes the call cannot revoke itself."""
    wanted = parse_id("key", key_id)
    await context.transaction(
        lambda connection: flow.revoke(
            connection, wanted, by=caller.actor, tenant_id=caller.tenant_id, asking=caller.key_id
        )
    )
    return Response(status_code=204)
