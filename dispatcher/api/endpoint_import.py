"""`/v1/endpoints/import`: many endpoints at once, with the secrets that they have elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import DataError

from dispatcher.api.caller import Operator, TenantId
from dispatcher.api.context import Context, ContextOf
from dispatcher.api.endpoints import wanted
from dispatcher.api.once import OnceOf
from dispatcher.api.problems import faults, field_faults
from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.ids import format_id
from dispatcher.shapes import EndpointImport, ImportedEndpoint, ImportItem, ImportResult
from dispatcher.signing import Secret, parse_secret
from dispatcher.store import tenants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dispatcher.api.caller import Caller
    from dispatcher.flow import register
    from dispatcher.shapes.problems import Fault, Refusal

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

AT_ONCE: Final = 32
"""Pings at a time: each may take its whole deadline."""

_imported: Final = TypeAdapter(ImportedEndpoint)


@router.post("/import", response_model=ImportResult)
async def import_(
    asked: EndpointImport, context: ContextOf, caller: Operator, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Import endpoints with the secrets that they have elsewhere. The secrets are sealed and never shown.

    Bad ones do not stop the good ones: each has its own result. Where a profile asks for a ping, it is sent.
    """
    if (before := await once.recall()) is not None:
        return before
    items = [_read(one, caller, tenant_id) for one in asked["endpoints"]]
    room = asyncio.Semaphore(AT_ONCE)
    items = await asyncio.gather(*(_pinged(one, context, room) for one in items))
    return await once.run(lambda connection: _register(connection, context, items, by=caller.actor))


def _read(asked: object, caller: Caller, tenant_id: str | None) -> register.NewEndpoint | Exception:
    """What the register takes of one item, or why it is none."""
    if not isinstance(asked, dict):
        return InvalidInput("/", type(asked).__name__, "an object with a url and a secret")
    try:
        endpoint = _imported.validate_python(asked)
        named = endpoint.get("tenant_id")
        return wanted(endpoint, caller.tenant(tenant_id if named is None else named), secrets=_secrets(endpoint))
    except (ValidationError, DispatcherError) as error:
        return error


def _secrets(endpoint: ImportedEndpoint) -> list[Secret]:
    secret, secrets = endpoint.get("secret"), endpoint.get("secrets")
    if secret is not None and secrets is not None:
        raise InvalidInput("/secrets", "secrets beside a secret", "one of the two")
    if secret is not None:
        return [parse_secret(secret)]
    return [parse_secret(text, pointer=f"/secrets/{n}") for n, text in enumerate(secrets or ())]


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
) -> ImportResult:
    """Registers the good ones in one transaction; what became of each."""
    for tenant_id in sorted({item.tenant_id for item in items if not isinstance(item, Exception)}):
        tenants.lock(connection, tenant_id)  # in one order, or two imports could wait for each other for ever
    data = [_result(connection, context, n, item, by=by) for n, item in enumerate(items)]
    failed = sum(1 for one in data if one["status"] == "failed")
    return {"created": len(data) - failed, "failed": failed, "data": data}


def _result(
    connection: Connection, context: Context, n: int, item: register.NewEndpoint | Exception, *, by: str
) -> ImportItem:
    if isinstance(item, Exception):
        return _failed(n, item)
    try:
        with connection.begin_nested():
            endpoint, _ = context.register.create(connection, item, by=by)
    except (DispatcherError, DataError, UnicodeEncodeError) as error:
        return _failed(n, error)
    warnings = context.register.warnings(connection, endpoint)
    return {"index": n, "status": "created", "id": format_id("ep", endpoint.id), "warnings": warnings, "error": None}


def _failed(n: int, error: Exception) -> ImportItem:
    code, detail = InvalidInput.code, "found what cannot be stored; allowed: Unicode text without NUL"
    errors: list[Fault] = []
    match error:
        case ValidationError():
            errors = field_faults(error.errors())
            detail = "; ".join(one["detail"] for one in errors)
        case DispatcherError():
            code, detail, errors = error.code, str(error), faults(error)
    refusal: Refusal = {"code": code, "detail": detail, "errors": errors}
    return {"index": n, "status": "failed", "id": None, "warnings": [], "error": refusal}
