"""`/v1/endpoints/import`: many endpoints at once, with the secrets that they have elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import DataError

from dispatcher.api.context import Context, ContextOf, OnceOf, Operator, TenantId
from dispatcher.api.endpoints import ID, SECRET, NewEndpoint, wanted
from dispatcher.api.problems import Fault, faults, field_faults
from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.ids import format_id
from dispatcher.signing import Secret, parse_secret
from dispatcher.store import tenants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dispatcher.api.context import Caller
    from dispatcher.flow import register

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

MAX_ITEMS: Final = 1000

AT_ONCE: Final = 32
"""Pings at a time: each may take its whole deadline."""

_URL: Final = "https://shop.example.com/webhooks"


class ImportedEndpoint(NewEndpoint):
    """An endpoint with its secret, or its secrets while they rotate: the newest first, all of which sign."""

    secret: str | None = Field(default=None, max_length=200, repr=False, examples=[SECRET])
    secrets: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=5)] | None = Field(
        default=None, repr=False, examples=[None]
    )


class Import(BaseModel):
    """Endpoints that exist elsewhere."""

    model_config = ConfigDict(extra="forbid", strict=True)

    endpoints: list[Annotated[ImportedEndpoint | Any, Field(union_mode="left_to_right")]] = Field(
        min_length=1,
        max_length=MAX_ITEMS,
        description="Each is judged by itself: one that is none is told of in the answer, and stops no other.",
        examples=[[{"url": _URL, "secret": SECRET}]],
    )


class Refusal(BaseModel):
    """Why an endpoint was not registered: as the problem that it would be by itself."""

    code: str = Field(examples=["INVALID_INPUT"])
    detail: str = Field(examples=["/url: found the scheme 'http'; allowed: https"])
    errors: list[Fault] = Field(description="The pointers are into the endpoint.", examples=[[]])


class ImportItem(BaseModel):
    """What became of one endpoint."""

    index: int = Field(description="Its place in the request, from 0.", examples=[0])
    status: Literal["created", "failed"] = Field(examples=["created"])
    id: str | None = Field(description="Null if it failed.", examples=[ID])
    warnings: list[str] = Field(description="What its owner should know.", examples=[[]])
    error: Refusal | None = Field(description="Null unless it failed.", examples=[None])


class ImportResult(BaseModel):
    """What became of an import: of each endpoint, in their order. No secret is in it."""

    created: int = Field(examples=[1])
    failed: int = Field(examples=[0])
    data: list[ImportItem]


@router.post("/import", response_model=ImportResult)
async def import_(
    asked: Import, context: ContextOf, caller: Operator, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Registers endpoints with the secrets that they have elsewhere, which are sealed and never shown.

    Bad ones do not stop the good ones: each has its own result. Where a profile asks for a ping, it is sent.
    """
    if (before := await once.recall()) is not None:
        return before
    items = [_read(one, caller, tenant_id) for one in asked.endpoints]
    room = asyncio.Semaphore(AT_ONCE)
    items = await asyncio.gather(*(_pinged(one, context, room) for one in items))
    return await once.run(lambda connection: _register(connection, context, items, by=caller.actor))


def _read(asked: object, caller: Caller, tenant_id: str | None) -> register.NewEndpoint | Exception:
    """What the register takes of one item, or why it is none."""
    if not isinstance(asked, dict | ImportedEndpoint):
        return InvalidInput("/", type(asked).__name__, "an object with a url and a secret")
    try:
        one = asked if isinstance(asked, ImportedEndpoint) else ImportedEndpoint.model_validate(asked)
        return wanted(one, caller.tenant(one.tenant_id or tenant_id), secrets=_secrets(one))
    except (ValidationError, DispatcherError) as error:
        return error


def _secrets(one: ImportedEndpoint) -> list[Secret]:
    if one.secret is not None and one.secrets is not None:
        raise InvalidInput("/secrets", "secrets beside a secret", "one of the two")
    if one.secret is not None:
        return [parse_secret(one.secret)]
    return [parse_secret(text, pointer=f"/secrets/{n}") for n, text in enumerate(one.secrets or ())]


async def _pinged(
    item: register.NewEndpoint | Exception, context: Context, room: asyncio.Semaphore
) -> register.NewEndpoint | Exception:
    """The item, once its URL has answered where its profile asks for that; or why it cannot be registered."""
    if isinstance(item, Exception):
        return item
    async with room:
        try:
            planned = await context.transaction(lambda connection: context.register.plan(connection, item))
            profile = context.register.profile_of(planned)
            if profile.secret and not item.secrets:
                raise InvalidInput("/secret", "nothing", "the secret that it has elsewhere")
            if profile.ping:
                await context.ping.validate(planned)
        except (DispatcherError, DataError, UnicodeEncodeError) as error:
            return error
    return item


def _register(
    connection: Connection, context: Context, items: Sequence[register.NewEndpoint | Exception], *, by: str
) -> dict[str, Any]:
    """Registers the good ones in one transaction; what became of each."""
    for tenant_id in sorted({item.tenant_id for item in items if not isinstance(item, Exception)}):
        tenants.lock(connection, tenant_id)  # in one order, or two imports could wait for each other for ever
    data = [_result(connection, context, n, item, by=by) for n, item in enumerate(items)]
    failed = sum(1 for one in data if one["status"] == "failed")
    return {"created": len(data) - failed, "failed": failed, "data": data}


def _result(
    connection: Connection, context: Context, n: int, item: register.NewEndpoint | Exception, *, by: str
) -> dict[str, Any]:
    if isinstance(item, Exception):
        return _failed(n, item)
    try:
        with connection.begin_nested():
            endpoint, _ = context.register.create(connection, item, by=by)
    except (DispatcherError, DataError, UnicodeEncodeError) as error:
        return _failed(n, error)
    warnings = context.register.warnings(connection, endpoint)
    return {"index": n, "status": "created", "id": format_id("ep", endpoint.id), "warnings": warnings, "error": None}


def _failed(n: int, error: Exception) -> dict[str, Any]:
    code, detail, errors = "INVALID_INPUT", "found what cannot be stored; allowed: Unicode text without NUL", []
    match error:
        case ValidationError():
            errors = field_faults(error.errors())
            detail = "; ".join(one["detail"] for one in errors)
        case DispatcherError():
            code, detail, errors = error.code, str(error), faults(error)
    refusal = {"code": code, "detail": detail, "errors": errors}
    return {"index": n, "status": "failed", "id": None, "warnings": [], "error": refusal}
