"""`/v1/endpoints/{id}/stats` and `/recover`: how an endpoint is doing, and what it missed sent again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import ContextOf, EndpointReader, Instant, OnceOf, Replayer, reply
from dispatcher.api.replays import Replay
from dispatcher.flow import replay, statistics
from dispatcher.ids import parse_id
from dispatcher.model.outcome import OutcomeClass
from dispatcher.store import limits, stats

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

_AT: Final = "2026-03-02T09:00:00Z"


class Recovery(BaseModel):
    """From when to when deliveries to the endpoint failed, whenever they were made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: Instant = Field(examples=["2026-03-02T08:00:00Z"])
    until: Instant | None = Field(default=None, description="Without it, until now.", examples=[_AT])


class LastFailure(BaseModel):
    """The latest attempt that did not succeed."""

    at: datetime = Field(examples=[_AT])
    outcome: OutcomeClass = Field(examples=["http_retryable"])
    status_code: int | None = Field(examples=[503])
    error: str | None = Field(examples=[None])


class Stats(BaseModel):
    """How an endpoint is doing. What waits and is in flight is of now, all else of what was recorded in the window.

    The last attempt, success and failure are those of the newest 500 deliveries that have ended and as many that live,
    whatever the window. `GET /v1/statistics` with its `endpoint_id` tells more.
    """

    window: Literal["1h", "24h", "7d", "30d"] = Field(examples=["24h"])
    waiting: int = Field(examples=[0])
    in_flight: int = Field(examples=[0])
    at_least: bool = Field(description="More than 100,000 wait, which is as many as are counted.", examples=[False])
    oldest_waiting_at: datetime | None = Field(description="When it was made.", examples=[None])
    delivered: int = Field(examples=[981])
    exhausted: int = Field(examples=[3])
    rejected: int = Field(examples=[0])
    expired: int = Field(examples=[0])
    cancelled: int = Field(examples=[0])
    success_rate: float | None = Field(
        description="Delivered, of all that have ended but were not cancelled; from 0 to 1.", examples=[0.99695]
    )
    attempts_p50_ms: float | None = Field(
        description="How long half of the attempts took at most, within 9 %.", examples=[41.5]
    )
    attempts_p95_ms: float | None = Field(description="How long 95 of 100 took at most, within 9 %.", examples=[212.0])
    attempts_to_success_mean: float | None = Field(
        description="How many attempts counted for a delivery that succeeded.", examples=[1.02]
    )
    cap: int = Field(description="How many attempts may be in flight now: fewer while it fails.", examples=[16])
    last_attempt_at: datetime | None = Field(examples=[_AT])
    last_success_at: datetime | None = Field(examples=[_AT])
    last_failure: LastFailure | None


@router.post("/{endpoint_id}/recover", status_code=202, response_model=Replay)
async def recover(endpoint_id: str, asked: Recovery, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Sends again what failed to reach the endpoint: a replay of its deliveries that have failed since then.

    What has reached it by another delivery is left out.
    """
    id_ = parse_id("ep", endpoint_id)

    def work(connection: Connection) -> dict[str, Any]:
        narrow = "a later since, or an earlier until"
        with limits.limited(connection, limit_s=limits.COUNT_S, pointer="/since", narrow=narrow):
            made = replay.recover(
                connection,
                id_,
                since=asked.since,
                until=asked.until,
                by=caller.actor,
                own=caller.tenant_id,
                clock=context.clock,
            )
        return forms.replay(made)

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.get("/{endpoint_id}/stats", response_model=Stats)
async def read_stats(
    endpoint_id: str,
    context: ContextOf,
    caller: EndpointReader,
    window: Annotated[
        Literal["1h", "24h", "7d", "30d"], Query(description="Of what was recorded in so long.", examples=["24h"])
    ] = "24h",
) -> Response:
    """How the endpoint is doing."""
    id_ = parse_id("ep", endpoint_id)

    def read(connection: Connection) -> dict[str, Any]:
        fared = statistics.statistics(connection, tenant_id=caller.tenant_id, endpoint_id=id_, window=window)
        return forms.stats(fared, stats.latest(connection, id_))

    return reply(await context.search(read, pointer="/window", narrow="a shorter window"))
