"""`/v1/statistics`: how deliveries fare, of everything, a tenant, an endpoint or an event type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Reader, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.flow import statistics
from dispatcher.ids import format_id, parse_id
from dispatcher.model.event import Mode
from dispatcher.shapes import Statistics, Window
from dispatcher.shapes.values import EventTypeName

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/statistics", tags=["statistics"])


@router.get("", response_model=Statistics)
async def read(
    context: ContextOf,
    caller: Reader,
    window: Annotated[Window, Query(description="How long, until now.", examples=["24h"])] = "24h",
    tenant_id: TenantId = None,
    endpoint_id: Annotated[str | None, Query(description="Those to it.")] = None,
    event_type: Annotated[
        EventTypeName | None, Query(description="Of this type exactly.", examples=["payment.completed"])
    ] = None,
    mode: Annotated[
        Mode, Query(description="`live` for real events, `test` for those of a sandbox.", examples=["live"])
    ] = Mode.LIVE,
    by: Annotated[
        Literal["endpoint", "event_type", "tenant", "none"],
        Query(description="By what `groups` are made; without it there are none.", examples=["endpoint"]),
    ] = "none",
    limit: Annotated[int, Query(ge=1, le=100, description="How many groups at most.", examples=[10])] = 10,
) -> Response:
    """Get statistics: success rates, latencies, attempts to success, backlog, and their course in time.

    An attempt, and the end of a delivery, counts from the moment it is recorded, at that moment. The latencies are read
    from counts by span, so each is within 9 %. All of it is of one mode: a sandbox's failures are in no live figure.
    """
    own = caller.scope(tenant_id)
    endpoint = None if endpoint_id is None else parse_id("ep", endpoint_id, pointer="/endpoint_id")

    def work(connection: Connection) -> statistics.Statistics:
        return statistics.statistics(
            connection,
            tenant_id=own,
            endpoint_id=endpoint,
            event_type=event_type,
            mode=mode,
            window=window,
            by=by,
            limit=limit,
        )

    narrow = "a shorter window, or a tenant, an endpoint or an event type besides"
    found = await context.search(work, pointer="/window", narrow=narrow)
    return reply(
        forms.statistics(
            found,
            tenant_id=None if own is None else format_id("ten", own),
            endpoint_id=endpoint_id,
            event_type=event_type,
            mode=mode.value,
            by=by,
        )
    )
