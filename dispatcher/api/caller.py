"""Who calls, and what a route asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import AfterValidator

from dispatcher.api.strict import check_query
from dispatcher.errors import Forbidden, NotFound
from dispatcher.ids import DEFAULT_TENANT, parse_id
from dispatcher.model.access import Scope

if TYPE_CHECKING:
    from dispatcher.api.authenticate import Identity


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: `tenant_id` None is an operator; `key_id` None is somebody on this machine."""

    tenant_id: UUID | None
    scopes: frozenset[Scope]
    actor: str
    key_id: UUID | None = None

    @property
    def is_operator(self) -> bool:
        """Whether every tenant is theirs to see."""
        return self.tenant_id is None

    def may(self, scope: Scope) -> bool:
        """Whether their key has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

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


async def caller(request: Request) -> Caller:
    """Who calls: `Gate` has found out."""
    found: Identity = request.scope["dispatcher.caller"]
    return Caller(found.tenant_id, found.scopes, found.actor, None if found.key is None else found.key.id)


async def any_caller(request: Request) -> Caller:
    """A caller with any valid key."""
    found = await caller(request)
    check_query(request)
    return found


def require(caller: Caller, *scopes: Scope) -> None:
    """Raises Forbidden unless the caller's key has one of the scopes."""
    if not any(caller.may(scope) for scope in scopes):
        allowed = " or ".join(dict.fromkeys((*scopes, Scope.ADMIN)))
        raise Forbidden(f"this key may do {', '.join(sorted(caller.scopes))}; allowed: {allowed}")


def needs(*scopes: Scope) -> Any:
    """A caller whose key has one of the scopes. Raises Forbidden."""

    async def check(request: Request) -> Caller:
        found = await caller(request)
        require(found, *scopes)
        check_query(request)
        return found

    return Depends(check)


async def operator(request: Request) -> Caller:
    """An operator who may do everything. Raises Forbidden."""
    found = await caller(request)
    if not found.is_operator or not found.may(Scope.ADMIN):
        raise Forbidden("this is for operators' keys with the scope admin")
    check_query(request)
    return found


READERS: Final = (Scope.DELIVERIES_READ,)
EVENT_READERS: Final = (Scope.DELIVERIES_READ, Scope.EVENTS_WRITE)
ENDPOINT_READERS: Final = (Scope.DELIVERIES_READ, Scope.ENDPOINTS_WRITE)
ADMINS: Final = (Scope.ADMIN,)

CallerOf = Annotated[Caller, Depends(any_caller)]
"""Any valid key."""
EventWriter = Annotated[Caller, needs(Scope.EVENTS_WRITE)]
EndpointWriter = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE)]
Reader = Annotated[Caller, needs(*READERS)]
EventReader = Annotated[Caller, needs(*EVENT_READERS)]
EndpointReader = Annotated[Caller, needs(*ENDPOINT_READERS)]
Replayer = Annotated[Caller, needs(Scope.DELIVERIES_REPLAY)]
Admin = Annotated[Caller, needs(*ADMINS)]
Operator = Annotated[Caller, Depends(operator)]


def _tenant_id(text: str | None) -> str | None:
    if text is not None:
        parse_id("ten", text, pointer="tenant_id")
    return text


TenantId = Annotated[
    str | None,
    AfterValidator(_tenant_id),  # looked at even where the body names the tenant
    Query(description="The tenant to act for. Operators name it; a tenant's key may only name its own."),
]
