"""`/v1/events`: what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dispatcher.api import forms
from dispatcher.api.context import (
    Caller,
    ContextOf,
    CreatedAfter,
    CreatedBefore,
    Cursor,
    EventReader,
    EventWriter,
    Limit,
    OnceOf,
    Page,
    TenantId,
    context,
    needs,
    page,
    read_cursor,
    reply,
)
from dispatcher.api.ingest import check_key, pause
from dispatcher.api.problems import Fault, faults
from dispatcher.errors import DispatcherError, InvalidInput, NotFound
from dispatcher.flow.enqueue import Accepted, enqueue_each
from dispatcher.flow.explain import Verdict, explain
from dispatcher.flow.parse import MAX_BATCH, parse_event, read_batch, read_event
from dispatcher.ids import format_id, parse_id
from dispatcher.model.access import Scope
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import Event as NewEvent
from dispatcher.store import event_log, log

T = TypeVar("T")

router = APIRouter(tags=["events"])
_PATH: Final = "/v1/events"
_ID: Final = "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"
_TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"


class _Direct(APIRoute):
    """A route whose function gets the request itself, and reads of it what `openapi_extra` says.

    On the path of every event, FastAPI's own reading of parameters would be the larger part of the work (measured).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


_direct = APIRouter(route_class=_Direct)

_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "payload"],
    "additionalProperties": False,
    "properties": {
        "type": {
            "type": "string",
            "maxLength": 128,
            "pattern": r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*$",
            "examples": ["payment.completed"],
        },
        "payload": {
            "description": "Any JSON value, of at most 256 KiB. It is sent as it is written here.",
            "examples": [{"amount": 1000}],
        },
        "tenant_id": {
            "type": ["string", "null"],
            "description": "Whose event it is; for operators.",
            "examples": [_TENANT],
        },
        "id": {
            "type": ["string", "null"],
            "description": "`evt_` and a UUIDv7 within a day of now: the producer's own, and an idempotency key.",
            "examples": [None],
        },
        "idempotency_key": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 255,
            "description": "Printable characters. The same as the header. Not with an `id`.",
            "examples": ["order-8127-paid"],
        },
        "mode": {"enum": ["live", "test"], "default": "live", "examples": ["live"]},
        "object_id": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 200,
            "description": "Printable characters: the payment, order or refund that it is about, to be searched by.",
            "examples": ["pay_8f3k2"],
        },
        "not_before": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "No attempt starts before.",
            "examples": ["2026-03-02T09:00:00Z"],
        },
        "expires_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "No attempt starts after.",
            "examples": ["2026-03-09T09:00:00Z"],
        },
        "target": {
            "type": ["object", "null"],
            "description": "Where it goes, instead of to the endpoints of its tenant; if the tenant's profile allows.",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {
                "url": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 2048,
                    "examples": ["https://shop.example.com/orders/8127/paid"],
                },
                "method": {"enum": ["POST", "GET", None], "examples": ["POST"]},
            },
            "examples": [{"url": "https://shop.example.com/orders/8127/paid"}],
        },
    },
}
"""What `parse_event` takes. Requests with events go around FastAPI's own parsing, which would change their payloads."""


_BATCH: Final = {
    "type": "object",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {"events": {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": _EVENT}},
}


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


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class AcceptedEvent(BaseModel):
    """An event that is committed."""

    id: str = Field(examples=[_ID])
    type: str = Field(examples=["payment.completed"])
    tenant_id: str = Field(examples=[_TENANT])
    mode: Literal["live", "test"] = Field(examples=["live"])
    object_id: str | None = Field(examples=["pay_8f3k2"])
    duplicate: bool = Field(description="It had been accepted before, and this is its id.", examples=[False])
    deliveries: int | None = Field(description="To how many endpoints it goes; null of a duplicate.", examples=[1])


class Refusal(BaseModel):
    """Why an event was not accepted: as in the problem that it would be by itself."""

    code: str = Field(examples=["INVALID_INPUT"])
    detail: str = Field(examples=["/type: found nothing; allowed: a value: it is required"])
    errors: list[Fault] = Field(description="The pointers are into the event.")


class BatchItem(BaseModel):
    """What became of one event of a batch."""

    index: int = Field(description="Its place in the batch, from 0.", examples=[0])
    status: Literal["accepted", "duplicate", "failed"] = Field(examples=["accepted"])
    id: str | None = Field(description="Null if it failed.", examples=[_ID])
    deliveries: int | None = Field(description="Null of a duplicate, and if it failed.", examples=[1])
    error: Refusal | None = Field(description="Null unless it failed.", examples=[None])


class BatchResult(BaseModel):
    """What became of a batch: of each event, in their order."""

    accepted: int = Field(examples=[1])
    duplicates: int = Field(examples=[0])
    failed: int = Field(examples=[0])
    data: list[BatchItem]


class Event(BaseModel):
    """An event that was accepted."""

    id: str = Field(examples=[_ID])
    type: str = Field(examples=["payment.completed"])
    tenant_id: str = Field(examples=[_TENANT])
    mode: Literal["live", "test"] = Field(examples=["live"])
    object_id: str | None = Field(examples=["pay_8f3k2"])
    payload: Any = Field(description="As it is stored: any JSON value.", examples=[{"amount": 1000}])
    payload_gone: Literal["erased", "retention"] | None = Field(
        description="Why the payload is gone, and null here; null where it is not.", examples=[None]
    )
    deliveries: int = Field(description="To how many endpoints it went when it was accepted.", examples=[1])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00.123456Z"])


class ExplainedDelivery(BaseModel):
    """The latest delivery of the event to an endpoint."""

    id: str = Field(examples=["dlv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0f"])
    status: DeliveryState = Field(examples=["waiting"])
    next_attempt_at: datetime | None = Field(
        description="Null where none is planned, or it is held.", examples=["2026-03-02T09:00:05Z"]
    )
    held: str | None = Field(description="Why it waits although it may be due.", examples=[None])


class ExplainedEndpoint(BaseModel):
    """What became of an event at one endpoint."""

    endpoint_id: str = Field(examples=["ep_019cade3-0000-7c1e-9d2b-5f6a7b8c9d0e"])
    url: str = Field(examples=["https://shop.example.com/webhooks"])
    tenant_id: str = Field(examples=[_TENANT])
    verdict: Verdict = Field(
        description="With the first four there is a delivery, else there is none.", examples=["filtered"]
    )
    rule: str = Field(
        description="The rule that decided, as of the moment at which the event was accepted.",
        examples=["event_types payment.* does not match refund.failed (version 2 of the endpoint)"],
    )
    delivery: ExplainedDelivery | None


class Explanation(BaseModel):
    """Where an event went and why: each endpoint of its tenant and of the tenants above, also those deleted since."""

    event_id: str = Field(examples=[_ID])
    type: str = Field(examples=["refund.failed"])
    tenant_id: str = Field(examples=[_TENANT])
    created_at: datetime = Field(examples=["2026-03-02T09:00:00.123456Z"])
    deliveries: int = Field(description="To how many endpoints it went when it was accepted.", examples=[0])
    endpoints: list[ExplainedEndpoint]


# In

_may_write = needs(Scope.EVENTS_WRITE).dependency


@_direct.post(
    _PATH,
    status_code=202,
    response_model=AcceptedEvent,
    openapi_extra={"parameters": _PARAMETERS, **_body(_EVENT)},
)
async def create(request: Request) -> Response:
    """Accepts an event. 202 means committed: it will be delivered, whatever dies."""
    who: Caller = await _may_write(request)
    tenant_id = who.tenant(request.query_params.get("tenant_id"))
    values = _read(read_event, await request.body())
    if (key := request.headers.get("idempotency-key")) is not None and isinstance(values, dict):
        if values.setdefault("idempotency_key", key) not in (key, None):
            raise InvalidInput("idempotency-key", "another key than in the body", "one of the two, or twice the same")
        values["idempotency_key"] = key
    event = _own(parse_event(values, tenant_id=tenant_id), who)
    accepted = await (await context(request)).ingest.accept(event, who)
    return reply(
        {
            "id": str(accepted),
            "type": event.type,
            "tenant_id": format_id("ten", event.tenant_id),
            "mode": str(event.mode),
            "object_id": event.object_id,
            "duplicate": accepted.duplicate,
            "deliveries": accepted.fanout,
        },
        202,
    )


router.include_router(_direct)


@router.post(f"{_PATH}/batch", status_code=202, response_model=BatchResult, openapi_extra=_body(_BATCH))
async def create_batch(
    request: Request, context: ContextOf, caller: EventWriter, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Accepts many events at once, each for itself: what is wrong with one does not stop the others.

    Those that are answered as accepted are committed. In their order, by the one transaction that they share.
    """
    default = caller.tenant(tenant_id)
    answers: list[Accepted | DispatcherError | None] = []
    events: list[NewEvent] = []
    for values in _read(read_batch, await request.body()):
        try:
            events.append(_own(parse_event(values, tenant_id=default), caller))
            answers.append(None)
        except (InvalidInput, NotFound) as error:
            answers.append(error)

    def accept(connection: Connection) -> dict[str, Any]:
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
        raise InvalidInput("/", f"no JSON ({error})", "one JSON object") from error


def _own(event: NewEvent, caller: Caller) -> NewEvent:
    """The event, where the caller may emit it. Another's tenant is not there."""
    if caller.tenant_id not in (None, event.tenant_id):
        raise NotFound("there is no such tenant")
    return event


def _result(answers: Sequence[Accepted | DispatcherError]) -> dict[str, Any]:
    data = [_item(n, answer) for n, answer in enumerate(answers)]
    counted = Counter(item["status"] for item in data)
    return {
        "accepted": counted["accepted"],
        "duplicates": counted["duplicate"],
        "failed": counted["failed"],
        "data": data,
    }


def _item(index: int, answer: Accepted | DispatcherError) -> dict[str, Any]:
    if isinstance(answer, Accepted):
        status = "duplicate" if answer.duplicate else "accepted"
        return {"index": index, "status": status, "id": str(answer), "deliveries": answer.fanout, "error": None}
    error = {"code": answer.code, "detail": str(answer), "errors": faults(answer)}
    return {"index": index, "status": "failed", "id": None, "deliveries": None, "error": error}


# Out


@router.get(_PATH, response_model=Page[Event])
async def list_(
    context: ContextOf,
    caller: EventReader,
    event_type: Annotated[
        str | None, Query(max_length=128, description="Its type.", examples=["payment.completed"])
    ] = None,
    object_id: Annotated[
        str | None, Query(max_length=200, description="What it is about.", examples=["pay_8f3k2"])
    ] = None,
    mode: Annotated[Literal["live", "test"] | None, Query(description="Its mode.")] = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    tenant_id: TenantId = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The events that all the given parameters choose, the newest first."""
    chosen = event_log.EventFilter(
        tenant_id=caller.scope(tenant_id),
        type=event_type,
        object_id=object_id,
        mode=mode,
        created_after=created_after,
        created_before=created_before,
    )
    before = read_cursor(cursor)
    found = await context.search(
        lambda connection: event_log.search(connection, chosen, before=before, limit=limit + 1),
        pointer="/created_after",
        narrow="a shorter time, or an object besides",
    )
    return reply(page(found, limit, forms.event))


@router.get(f"{_PATH}/{{event_id}}", response_model=Event)
async def show(event_id: str, context: ContextOf, caller: EventReader) -> Response:
    """One event."""
    wanted = parse_id("evt", event_id)
    return reply(forms.event(await context.transaction(lambda connection: _find(connection, wanted, caller))))


@router.get(f"{_PATH}/{{event_id}}/explain", response_model=Explanation)
async def explain_(event_id: str, context: ContextOf, caller: EventReader) -> Response:
    """Where it went and why, endpoint by endpoint. A tenant sees its own endpoints, not those of tenants above it."""
    wanted = parse_id("evt", event_id)

    def read(connection: Connection) -> dict[str, Any]:
        event = _find(connection, wanted, caller)
        return forms.explanation(event, explain(connection, event, now=context.clock.now(), only=caller.tenant_id))

    return reply(await context.search(read, pointer="/event_id", narrow="an event of a tenant with fewer endpoints"))


def _find(connection: Connection, event_id: UUID, caller: Caller) -> log.LoggedEvent:
    found = log.find_event(connection, event_id)
    if found is None or caller.tenant_id not in (None, found.tenant_id):
        raise NotFound("there is no such event")
    return found
