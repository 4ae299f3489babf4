"""`/v1/events`: what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, cast
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import Connection

from dispatcher.api import forms
from dispatcher.api.caller import Caller, EventReader, EventWriter, TenantId, needs
from dispatcher.api.context import ContextOf, context, reply
from dispatcher.api.ingest import check_key, pause
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import CreatedAfter, CreatedBefore, Limit, cursor_of, page, read_cursor
from dispatcher.api.problems import faults
from dispatcher.errors import DispatcherError, InvalidInput, NotFound
from dispatcher.flow.enqueue import Accepted, enqueue_each
from dispatcher.flow.explain import explain
from dispatcher.ids import format_id, parse_id
from dispatcher.model.access import Scope
from dispatcher.model.event import Event as GivenEvent
from dispatcher.model.parse import parse_event, read_batch, read_event
from dispatcher.shapes import (
    AcceptedEvent,
    BatchItem,
    BatchResult,
    Event,
    EventPage,
    Explanation,
    Mode,
    NewBatch,
    NewEvent,
    Refusal,
)
from dispatcher.store import event_log, log

T = TypeVar("T")

router = APIRouter(tags=["events"])
_PATH: Final = "/v1/events"


class _Direct(APIRoute):
    """A route whose function gets the request itself, and reads of it what `openapi_extra` says.

    On the path of every event, FastAPI's own reading of parameters would be the larger part of the work (measured).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


_direct = APIRouter(route_class=_Direct)

_PARAMETERS: Final = [
    {
        "name": "tenant_id",
        "in": "query",
        "required": False,
        "description": "Whose event it is, where it does not say so itself; for operators.",
        "schema": {"type": "string"},
    },
    {
        "name": "idempotency-key",
        "in": "header",
        "required": False,
        "description": "A repeat with the same key and the same event makes no second one: the answer is the first "
        "one's id, with `duplicate`. With another event it is refused. For 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
]


def _body(shape: Any) -> dict[str, Any]:
    """A route's body in the document. Requests with events go around FastAPI's own parsing, which would change their
    payloads.
    """
    schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


# In

_may_write = needs(Scope.EVENTS_WRITE).dependency


@_direct.post(
    _PATH,
    status_code=202,
    response_model=AcceptedEvent,
    openapi_extra={"parameters": _PARAMETERS, **_body(NewEvent)},
)
async def create(request: Request) -> Response:
    """Accept an event. 202 means committed: it will be delivered, whatever dies."""
    who: Caller = await _may_write(request)
    tenant_id = who.tenant(request.query_params.get("tenant_id"))
    values = _read(read_event, await request.body())
    if (key := request.headers.get("idempotency-key")) is not None and isinstance(values, dict):
        if values.setdefault("idempotency_key", key) not in (key, None):
            raise InvalidInput("idempotency-key", "another key than in the body", "one of the two, or twice the same")
        values["idempotency_key"] = key
    event = _own(parse_event(values, tenant_id=tenant_id), who)
    accepted = await (await context(request)).ingest.accept(event, who)
    body: AcceptedEvent = {
        "id": str(accepted),
        "type": event.type,
        "tenant_id": format_id("ten", event.tenant_id),
        "mode": cast("Mode", event.mode),
        "object_id": event.object_id,
        "duplicate": accepted.duplicate,
        "deliveries": accepted.fanout,
    }
    return reply(body, 202)


router.include_router(_direct)


@router.post(f"{_PATH}/batch", status_code=202, response_model=BatchResult, openapi_extra=_body(NewBatch))
async def create_batch(
    request: Request, context: ContextOf, caller: EventWriter, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Accept many events. Each is judged by itself: a fault of one does not stop the others.

    Those that are answered as accepted are committed. In their order, by the one transaction that they share.
    """
    default = caller.tenant(tenant_id)
    answers: list[Accepted | DispatcherError | None] = []
    events: list[GivenEvent] = []
    for values in _read(read_batch, await request.body()):
        try:
            events.append(_own(parse_event(values, tenant_id=default), caller))
            answers.append(None)
        except (InvalidInput, NotFound) as error:
            answers.append(error)

    def accept(connection: Connection) -> BatchResult:
        check_key(connection, caller)
        accepted = iter(enqueue_each(connection, events, pause=pause))
        return _result([next(accepted) if answer is None else answer for answer in answers])

    answered = await once.run(accept, status=202)
    context.wakeup.ring()
    return answered


def _read(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("/", f"invalid JSON ({error})", "one JSON object") from error


def _own(event: GivenEvent, caller: Caller) -> GivenEvent:
    """The event, where the caller may emit it. Another's tenant is not there."""
    if caller.tenant_id not in (None, event.tenant_id):
        raise NotFound("there is no such tenant")
    return event


def _result(answers: Sequence[Accepted | DispatcherError]) -> BatchResult:
    data = [_item(n, answer) for n, answer in enumerate(answers)]
    counted = Counter(item["status"] for item in data)
    return {
        "accepted": counted["accepted"],
        "duplicates": counted["duplicate"],
        "failed": counted["failed"],
        "data": data,
    }


def _item(index: int, answer: Accepted | DispatcherError) -> BatchItem:
    if isinstance(answer, Accepted):
        status: Literal["duplicate", "accepted"] = "duplicate" if answer.duplicate else "accepted"
        return {"index": index, "status": status, "id": str(answer), "deliveries": answer.fanout, "error": None}
    refusal: Refusal = {"code": answer.code, "detail": str(answer), "errors": faults(answer)}
    return {"index": index, "status": "failed", "id": None, "deliveries": None, "error": refusal}


# Out


@router.get(_PATH, response_model=EventPage)
async def list_(
    context: ContextOf,
    caller: EventReader,
    event_type: Annotated[
        str | None, Query(max_length=128, description="Its type.", examples=["payment.completed"])
    ] = None,
    object_id: Annotated[
        str | None, Query(max_length=200, description="What it is about.", examples=["pay_8f3k2"])
    ] = None,
    mode: Annotated[Mode | None, Query(description="Its mode.")] = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("events")] = None,
    limit: Limit = 50,
) -> Response:
    """List events, the newest first. All given parameters must match."""
    chosen = event_log.EventFilter(
        tenant_id=caller.scope(tenant_id),
        type=event_type,
        object_id=object_id,
        mode=mode,
        created_after=created_after,
        created_before=created_before,
    )
    before = read_cursor(cursor, "events")
    found = await context.search(
        lambda connection: event_log.search(connection, chosen, before=before, limit=limit + 1),
        pointer="/created_after",
        narrow="a shorter time, or an object besides",
    )
    return reply(page(found, limit, forms.event, "events"))


@router.get(f"{_PATH}/{{event_id}}", response_model=Event)
async def show(event_id: str, context: ContextOf, caller: EventReader) -> Response:
    """Get an event."""
    wanted = parse_id("evt", event_id)
    return reply(forms.event(await context.transaction(lambda connection: _find(connection, wanted, caller))))


@router.get(f"{_PATH}/{{event_id}}/explain", response_model=Explanation)
async def explain_(event_id: str, context: ContextOf, caller: EventReader) -> Response:
    """Explain where an event went and why, endpoint by endpoint.

    A tenant sees its own endpoints, not those of tenants above it.
    """
    wanted = parse_id("evt", event_id)

    def read(connection: Connection) -> Explanation:
        event = _find(connection, wanted, caller)
        return forms.explanation(event, explain(connection, event, now=context.clock.now(), only=caller.tenant_id))

    return reply(await context.search(read, pointer="/event_id", narrow="an event of a tenant with fewer endpoints"))


def _find(connection: Connection, event_id: UUID, caller: Caller) -> log.LoggedEvent:
    found = log.find_event(connection, event_id)
    if found is None or caller.tenant_id not in (None, found.tenant_id):
        raise NotFound("there is no such event")
    return found
