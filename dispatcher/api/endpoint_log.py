"""`/v1/endpoints/{id}/stats` and `/recover`: how an endpoint is doing, and what it missed sent again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import EndpointReader, Replayer
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.once import OnceOf
from dispatcher.flow import replay, statistics
from dispatcher.ids import parse_id
from dispatcher.model.event import Mode
from dispatcher.shapes import EndpointStats, Recovery, Replay, Window
from dispatcher.store import limits, stats

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.post("/{endpoint_id}/recover", status_code=202, response_model=Replay)
async def recover(endpoint_id: str, asked: Recovery, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Replay an endpoint's deliveries that failed in a period.

    What has reached it by another delivery is left out.
    """
    id_ = parse_id("ep", endpoint_id)

    def work(connection: Connection) -> Replay:
        narrow = "a later since, or an earlier until"
        with limits.limited(connection, limit_s=limits.COUNT_S, pointer="/since", narrow=narrow):
            made = replay.recover(
                connection,
                id_,
                since=cast("datetime", asked["since"]),
                until=cast("datetime | None", asked.get("until")),
                mode=None if (mode := asked.get("mode")) is None else Mode(mode),
                by=caller.actor,
                own=caller.tenant_id,
                clock=context.clock,
            )
        return forms.replay(made)

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.get("/{endpoint_id}/stats", response_model=EndpointStats)
async def show_stats(
    endpoint_id: str,
    context: ContextOf,
    caller: EndpointReader,
    window: Annotated[Window, Query(description="Of what was recorded in so long.", examples=["24h"])] = "24h",
    mode: Annotated[
        Mode, Query(description="`live` for real events, `test` for those of a sandbox.", examples=["live"])
    ] = Mode.LIVE,
) -> Response:
    """Get an endpoint's statistics. They are of one mode."""
    id_ = parse_id("ep", endpoint_id)

    def read(connection: Connection) -> EndpointStats:
        fared = statistics.statistics(connection, tenant_id=caller.tenant_id, endpoint_id=id_, mode=mode, window=window)
        return forms.stats(fared, stats.latest(connection, id_, mode), mode.value)

    return reply(await context.search(read, pointer="/window", narrow="a shorter window"))
