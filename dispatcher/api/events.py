"""`/v1/events`: what happened."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request

from dispatcher.api.context import ContextOf, EventWriter
from dispatcher.errors import InvalidInput
from dispatcher.flow.enqueue import enqueue
from dispatcher.flow.parse import parse_event, read_object
from dispatcher.ids import format_id

router = APIRouter(prefix="/v1/events", tags=["events"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "payload"],
                    "additionalProperties": False,
                    "properties": {
                        "type": {"type": "string", "examples": ["payment.completed"]},
                        "payload": {"description": "Any JSON value.", "examples": [{"amount": 1000}]},
                        "tenant_id": {"type": "string"},
                        "id": {"type": "string"},
                        "idempotency_key": {"type": "string"},
                        "mode": {"enum": ["live", "test"], "default": "live"},
                        "object_id": {"type": "string", "examples": ["pay_8f3k2"]},
                        "not_before": {"type": "string", "format": "date-time"},
                        "expires_at": {"type": "string", "format": "date-time"},
                    },
                }
            }
        },
    }
}


@router.post("", status_code=202, openapi_extra=_BODY)
async def create(
    request: Request,
    context: ContextOf,
    caller: EventWriter,
    idempotency_key: Annotated[str | None, Header()] = None,
    tenant_id: str | None = None,
) -> dict[str, Any]:
    """Accepts an event. 202 means committed: it will be delivered, whatever dies."""
    values = await read_json(request)
    if isinstance(values, dict):
        asked = values.get("tenant_id")
        if asked is not None and not isinstance(asked, str):
            raise InvalidInput("/tenant_id", type(asked).__name__, "a string")
        values["tenant_id"] = format_id("ten", caller.tenant(asked or tenant_id))
        if idempotency_key is not None:
            values.setdefault("idempotency_key", idempotency_key)
    event = parse_event(values)
    (accepted,) = await context.transaction(lambda connection: enqueue(connection, [event]))
    context.wakeup.ring()
    return {
        "id": str(accepted),
        "type": event.type,
        "tenant_id": format_id("ten", event.tenant_id),
        "mode": str(event.mode),
        "object_id": event.object_id,
        "duplicate": accepted.duplicate,
        "deliveries": accepted.fanout,
    }


async def read_json(request: Request) -> Any:
    """The request's body, which `BodyLimit` bounds. Raises InvalidInput."""
    try:
        return read_object(await request.body())
    except orjson.JSONDecodeError as error:
        raise InvalidInput("/", f"no JSON ({error})", "one JSON object") from error
