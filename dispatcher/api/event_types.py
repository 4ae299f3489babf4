"""`/v1/event_types`: what kinds of events there are, and what their payloads must look like."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Path, Response

from dispatcher.api.caller import CallerOf, Operator
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import whole
from dispatcher.errors import NotFound
from dispatcher.flow import event_schemas
from dispatcher.model import event_type
from dispatcher.shapes import EventType, EventTypePage, NewEventType
from dispatcher.shapes.values import instant_or_none
from dispatcher.store import event_types as store
from dispatcher.store import trail

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.model.profile import Profile

router = APIRouter(prefix="/v1/event_types", tags=["event types"])

Name = Annotated[
    str,
    Path(
        description="A type of event.",
        pattern=event_type.TYPE,
        max_length=event_type.MAX_LENGTH,
        examples=["payment.completed"],
    ),
]

NameOrFamily = Annotated[
    str,
    Path(
        description="A type of event, or a family that profiles name, such as `order.*`.",
        pattern=event_type.TYPE_OR_FAMILY,
        max_length=event_type.MAX_LENGTH,
        examples=["payment.completed"],
    ),
]


@router.get("", response_model=EventTypePage)
async def list_(context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """List the event types: those that were described here, and those that profiles name."""
    found = {one.name: one for one in await context.transaction(store.list_)}
    await asyncio.to_thread(lambda: [_refusal(one) for one in found.values()])  # kept, so the forms find it at once
    named = {name for profile in context.profiles.values() for name in profile.catalogue}
    return reply(
        whole([_form(found.get(name), name, list(context.profiles.values())) for name in sorted({*found, *named})])
    )


@router.get("/{name}", response_model=EventType)
async def show(name: NameOrFamily, context: ContextOf, caller: CallerOf) -> Response:  # noqa: ARG001 - any key
    """Get an event type."""
    found = await context.transaction(lambda connection: store.find(connection, name))
    profiles = list(context.profiles.values())
    if found is None and not any(name in profile.catalogue for profile in profiles):
        raise NotFound(_missing(name))
    return reply(await asyncio.to_thread(_form, found, name, profiles))


@router.put("/{name}", response_model=EventType)
async def put(name: Name, asked: NewEventType, context: ContextOf, caller: Operator) -> Response:
    """Describe an event type.

    With a schema, events of the type whose payload does not meet it are refused from now on.
    """
    described = asked.get("schema")
    schema = None if described is None else await asyncio.to_thread(event_schemas.write_schema, described)

    def work(connection: Connection) -> store.EventType:
        before = store.lock(connection, name)
        after = store.put(connection, name, description=asked.get("description"), schema=schema)
        _note(connection, caller.actor, "event_type.described", name, before, after)
        return after

    return reply(_form(await context.transaction(work), name, list(context.profiles.values())))


@router.delete("/{name}", status_code=204, response_class=Response)
async def delete(name: Name, context: ContextOf, caller: Operator) -> Response:
    """Delete an event type from the catalogue. Its payloads are not checked any more."""

    def work(connection: Connection) -> None:
        before = store.lock(connection, name)
        if not store.delete(connection, name):
            raise NotFound(_missing(name))
        _note(connection, caller.actor, "event_type.deleted", name, before, None)

    await context.transaction(work)
    return Response(status_code=204)


def _missing(name: str) -> str:
    return f"there is no event type {name}"


def _form(one: store.EventType | None, name: str, profiles: list[Profile]) -> EventType:
    return {
        "name": name,
        "description": None if one is None else one.description,
        "schema": None if one is None or one.schema is None else orjson.loads(one.schema),
        "schema_refusal": None if one is None else _refusal(one),
        "profiles": sorted(profile.name for profile in profiles if name in profile.catalogue),
        "created_at": None if one is None else instant_or_none(one.created_at),
        "updated_at": None if one is None else instant_or_none(one.updated_at),
    }


def _refusal(one: store.EventType) -> str | None:
    return None if one.schema is None else event_schemas.refusal(one.schema)


def _note(
    connection: Connection,
    actor: str,
    action: str,
    name: str,
    before: store.EventType | None,
    after: store.EventType | None,
) -> None:
    def facts(one: store.EventType | None) -> dict[str, Any] | None:
        return None if one is None else {"description": one.description, "schema": one.schema}

    trail.append(
        connection, actor=actor, action=action, object=name, tenant_id=None, before=facts(before), after=facts(after)
    )
