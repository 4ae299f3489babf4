"""What every route needs: the caller, and transactions."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, HTTPException, Request

from dispatcher.errors import InvalidInput, NotFound
from dispatcher.ids import DEFAULT_TENANT, parse_id
from dispatcher.store import tenants

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dispatcher.flow.register import Register
    from dispatcher.wakeup import Wakeup

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """The application's parts, made once."""

    engine: AsyncEngine
    register: Register
    wakeup: Wakeup

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one transaction: committed when this returns, rolled back when it raises."""
        async with self.engine.begin() as connection:
            return await connection.run_sync(work)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: `tenant_id` None is an operator."""

    tenant_id: UUID | None

    def tenant(self, asked: str | None) -> UUID:
        """The tenant to act for: the caller's own or, for an operator, the one asked for or the default one.

        Raises NotFound where a tenant's key asks for another tenant.
        """
        wanted = None if asked is None else parse_id("ten", asked, pointer="/tenant_id")
        if self.tenant_id is None:
            return wanted or DEFAULT_TENANT
        if wanted not in (None, self.tenant_id):
            raise NotFound("there is no such tenant")
        return self.tenant_id

    def scope(self, asked: str | None) -> UUID | None:
        """The tenant that a search is limited to; None, for an operator who asks for none, means all."""
        return None if self.tenant_id is None and asked is None else self.tenant(asked)


def context(request: Request) -> Context:
    """The application's parts."""
    found: Context = request.app.state.context
    return found


async def caller(request: Request) -> Caller:
    """Whose key the request carries, as `Bearer <key>` or alone. Raises 401."""
    given = request.headers.get("authorization", "")
    key = given[7:] if given[:7].lower() == "bearer " else given
    found = await context(request).transaction(lambda connection: tenants.find_key(connection, key)) if key else None
    if found is None:
        raise HTTPException(
            401,
            "found no key, or one that is not valid; allowed: Authorization: Bearer <key>",
            headers={"www-authenticate": "Bearer"},
        )
    return Caller(found.tenant_id)


ContextOf = Annotated[Context, Depends(context)]
CallerOf = Annotated[Caller, Depends(caller)]


def read_cursor(cursor: str | None) -> UUID | None:
    """The id after which a page starts. Raises InvalidInput for a cursor that was not ours."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error) as error:
        raise InvalidInput("/cursor", repr(cursor)[:80], "a next_cursor of an earlier page") from error


def page(found: list[Any], limit: int, form: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A page of at most `limit` of the objects found; one more was asked for, to know whether there are more."""
    more = len(found) > limit
    last = found[limit - 1].id if more else None
    cursor = base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode() if last is not None else None
    return {"data": [form(one) for one in found[:limit]], "has_more": more, "next_cursor": cursor}
