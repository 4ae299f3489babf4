"""`/v1/statistics`: how deliveries fare, of everything, a tenant, an endpoint or an event type."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import ContextOf, Reader, TenantId, reply
from dispatcher.flow import statistics
from dispatcher.ids import format_id, parse_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/statistics", tags=["statistics"])

_ENDPOINT: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"
_AT: Final = "2026-03-02T09:00:00Z"
_TYPE: Final = r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*$"
_RATE: Final = "from 0 to 1; null where there were none."

Window = Annotated[Literal["1h", "24h", "7d", "30d"], Query(description="How long, until now.", examples=["24h"])]


class Attempts(BaseModel):
    """The attempts that were recorded in the window."""

    total: int = Field(examples=[1000])
    succeeded: int = Field(examples=[981])
    success_rate: float | None = Field(description=f"Succeeded, of all; {_RATE}", examples=[0.981])
    by_outcome: dict[str, int] = Field(examples=[{"http_retryable": 19, "ok": 981}])


class Deliveries(BaseModel):
    """The deliveries that ended in the window, by state."""

    delivered: int = Field(examples=[981])
    exhausted: int = Field(examples=[3])
    rejected: int = Field(examples=[0])
    expired: int = Field(examples=[0])
    cancelled: int = Field(examples=[0])
    success_rate: float | None = Field(
        description=f"Delivered, of all that have ended but were not cancelled; {_RATE}", examples=[0.99695]
    )


class Latency(BaseModel):
    """How long the attempts took of which somebody was dialled, each figure within 9 %; null where there were none."""

    attempts: int = Field(description="How many were looked at.", examples=[1000])
    p50: float | None = Field(examples=[41.5])
    p90: float | None = Field(examples=[83.0])
    p95: float | None = Field(examples=[197.4])
    p99: float | None = Field(examples=[1116.68])


class Made(BaseModel):
    """How many deliveries arrived with so many attempts."""

    attempts: int = Field(examples=[1])
    deliveries: int = Field(examples=[970])


class ToSuccess(BaseModel):
    """How many attempts counted for deliveries that arrived in the window."""

    mean: float | None = Field(examples=[1.02])
    distribution: list[Made]


class Backlog(BaseModel):
    """What is not done now. What is held waits too."""

    waiting: int = Field(examples=[12])
    in_flight: int = Field(examples=[3])
    at_least: bool = Field(
        description="More wait than were counted: at most 100,000 are for one question.", examples=[False]
    )
    oldest_waiting_at: datetime | None = Field(
        description="When the oldest that waits was made; with `at_least`, of those that were counted.", examples=[_AT]
    )
    oldest_due_at: datetime | None = Field(description="What comes due first; may be to come.", examples=[_AT])
    lag_s: float = Field(description="How long that has been due; 0 where nothing is.", examples=[0.0])


class Point(BaseModel):
    """What was recorded in the `step_s` seconds from `at`."""

    at: datetime = Field(examples=[_AT])
    attempts: int = Field(examples=[50])
    succeeded: int = Field(examples=[48])
    delivered: int = Field(examples=[48])
    failed: int = Field(description="Deliveries that were exhausted, rejected or expired.", examples=[1])


class Group(BaseModel):
    """One endpoint, event type or tenant."""

    key: str = Field(description="Its id, or the type's name.", examples=[_ENDPOINT])
    name: str | None = Field(
        description="The URL of an endpoint, the name of a tenant; null for a type.",
        examples=["https://shop.example.com/webhooks"],
    )
    attempts: Attempts
    deliveries: Deliveries
    latency_ms: Latency
    attempts_to_success: ToSuccess
    backlog: Backlog


class Statistics(BaseModel):
    """How the chosen deliveries fare."""

    model_config = ConfigDict(populate_by_name=True)

    window: Literal["1h", "24h", "7d", "30d"] = Field(examples=["24h"])
    since: datetime = Field(
        alias="from", description="The window's start, rounded down to `step_s`.", examples=["2026-03-01T09:00:00Z"]
    )
    to: datetime = Field(description="Now, by the database's clock.", examples=["2026-03-02T09:12:34.567890Z"])
    step_s: int = Field(description="How far apart the points of `series` are.", examples=[3600])
    tenant_id: str | None = Field(description="What was asked for; null for all.", examples=[None])
    endpoint_id: str | None = Field(examples=[None])
    event_type: str | None = Field(examples=[None])
    by: Literal["endpoint", "event_type", "tenant", "none"] = Field(examples=["none"])
    attempts: Attempts
    deliveries: Deliveries
    latency_ms: Latency
    attempts_to_success: ToSuccess
    backlog: Backlog
    series: list[Point] = Field(description="The whole window, from the start; the last point is not over yet.")
    groups: list[Group] = Field(
        description="The one with the most failed attempts first, then failed deliveries, then the most attempts; then "
        "those of which only something waits."
    )
    has_more: bool = Field(description="Groups were left out.", examples=[False])


@router.get("", response_model=Statistics)
async def read(
    context: ContextOf,
    caller: Reader,
    window: Window = "24h",
    tenant_id: TenantId = None,
    endpoint_id: Annotated[str | None, Query(description="Those to it.")] = None,
    event_type: Annotated[
        str | None,
        Query(max_length=128, pattern=_TYPE, description="Of this type exactly.", examples=["payment.completed"]),
    ] = None,
    by: Annotated[
        Literal["endpoint", "event_type", "tenant", "none"],
        Query(description="By what `groups` are made; without it there are none.", examples=["endpoint"]),
    ] = "none",
    limit: Annotated[int, Query(ge=1, le=100, description="How many groups at most.", examples=[10])] = 10,
) -> Response:
    """How deliveries fare: success rates, latencies, attempts to success, backlog, and how all that went in time.

    An attempt, and the end of a delivery, counts from the moment it is recorded, at that moment. The latencies are read
    from counts by span, so each is within 9 %.
    """
    own = caller.scope(tenant_id)
    endpoint = None if endpoint_id is None else parse_id("ep", endpoint_id, pointer="/endpoint_id")

    def work(connection: Connection) -> statistics.Statistics:
        return statistics.statistics(
            connection,
            tenant_id=own,
            endpoint_id=endpoint,
            event_type=event_type,
            window=window,
            by=by,
            limit=limit,
        )

    asked: dict[str, Any] = {
        "tenant_id": None if own is None else format_id("ten", own),
        "endpoint_id": endpoint_id,
        "event_type": event_type,
        "by": by,
    }
    narrow = "a shorter window, or a tenant, an endpoint or an event type besides"
    return reply(forms.statistics(await context.search(work, pointer="/window", narrow=narrow)) | asked)
