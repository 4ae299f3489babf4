"""`/v1/pauses`: what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator

from dispatcher.api import forms
from dispatcher.api.caller import Caller, EndpointReader, EndpointWriter, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.errors import Forbidden, InvalidInput
from dispatcher.flow import pause as flow
from dispatcher.ids import parse_id
from dispatcher.model.access import Scope
from dispatcher.model.event import Mode
from dispatcher.shapes import NewPause, Pause, PausePage
from dispatcher.shapes.pauses import EVERYTHING
from dispatcher.shapes.values import EventTypeOrFamily
from dispatcher.store import pauses as store

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/pauses", tags=["pauses"])


def _exactly(value: object) -> object:
    """Only `true` and `false`: pydantic also takes `yes`, `on` and `1`, and this ends what holds everything."""
    if value not in (True, False, "true", "false"):
        raise ValueError("true or false")
    return value


@router.post("", status_code=201, response_model=Pause)
async def create(asked: NewPause, context: ContextOf, caller: EndpointWriter, once: OnceOf) -> Response:
    """Pause deliveries. What is in flight is not called back."""
    scope = _scope(
        caller,
        asked.get("tenant_id"),
        asked.get("endpoint_id"),
        asked.get("event_type"),
        asked.get("mode"),
        everything=asked.get("all", False),
    )
    reason = asked.get("reason") or f"paused by {'an operator' if caller.is_operator else 'its owner'}"

    def work(connection: Connection) -> Pause:
        return forms.pause(
            flow.create(connection, scope, reason=reason, by=caller.actor, own=caller.tenant_id, clock=context.clock)
        )

    return await once.run(work, status=201)


@router.get("", response_model=PausePage)
async def list_(
    context: ContextOf,
    caller: EndpointReader,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("pauses")] = None,
    limit: Limit = 50,
) -> Response:
    """List pauses, the newest first. A tenant's key sees those within its tenant."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor, "pauses")
    found = await context.search(
        lambda connection: store.list_(connection, tenant_id=scope, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.pause, "pauses"))


@router.delete("/{pause_id}", status_code=204)
async def end(pause_id: str, context: ContextOf, caller: EndpointWriter) -> Response:
    """End a pause. The deliveries that it held are sent."""
    id_ = parse_id("pau", pause_id)
    await context.transaction(lambda connection: flow.end(connection, id_, by=caller.actor, own=caller.tenant_id))
    context.wakeup.ring()
    return Response(status_code=204)


@router.delete("", status_code=204)
async def end_scope(
    context: ContextOf,
    caller: EndpointWriter,
    everything: Annotated[
        bool, BeforeValidator(_exactly), Query(alias="all", description=EVERYTHING.description, examples=[False])
    ] = False,
    tenant_id: TenantId = None,
    endpoint_id: Annotated[str | None, Query(description="As the pause has it.")] = None,
    event_type: Annotated[
        EventTypeOrFamily | None, Query(description="As the pause has it.", examples=["payment.*"])
    ] = None,
    mode: Annotated[Mode | None, Query(description="As the pause has it.", examples=["test"])] = None,
) -> Response:
    """End the pause of exactly this scope. `all=true` names the pause of everything."""
    scope = _scope(caller, tenant_id, endpoint_id, event_type, mode, everything=everything)
    await context.transaction(
        lambda connection: flow.end_scope(connection, scope, by=caller.actor, own=caller.tenant_id)
    )
    context.wakeup.ring()
    return Response(status_code=204)


def _scope(
    caller: Caller,
    tenant_id: str | None,
    endpoint_id: str | None,
    event_type: str | None,
    mode: str | None,
    *,
    everything: bool,
) -> store.Scope:
    """What is named, within what is the caller's.

    Raises InvalidInput where nothing is named, or everything and something, NotFound for another tenant, and Forbidden
    for everything of every tenant, or all of one mode, by an operator's key that is not an admin's.
    """
    of_all = (tenant_id, endpoint_id, event_type) == (None, None, None)
    if everything != (of_all and mode is None):
        found = "true beside a narrower scope" if everything else "no scope"
        raise InvalidInput(
            "/all", found, "all=true for everything, or one or more of tenant_id, endpoint_id, event_type, mode"
        )
    tenant = caller.scope(tenant_id)
    endpoint = None if endpoint_id is None else parse_id("ep", endpoint_id, pointer="/endpoint_id")
    if of_all and caller.is_operator and not caller.may(Scope.ADMIN):
        what = "everything" if mode is None else f"everything of {mode} mode"
        raise Forbidden(f"this holds {what}, of every tenant; allowed: an operator's key with the scope admin")
    return store.Scope(tenant, endpoint, event_type, None if mode is None else Mode(mode))
