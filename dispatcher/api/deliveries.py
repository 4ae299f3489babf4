"""`/v1/deliveries`: the delivery log, and what people do to one delivery."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import (
    ContextOf,
    CreatedAfter,
    CreatedBefore,
    Cursor,
    Limit,
    OnceOf,
    Page,
    Reader,
    Replayer,
    TenantId,
    page,
    read_cursor,
    reply,
    whole,
)
from dispatcher.flow import intervene, registration
from dispatcher.ids import parse_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.model.outcome import OutcomeClass, Phase
from dispatcher.store import log
from dispatcher.store.search import search

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])

ID: Final = "dlv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0f"
_EVENT: Final = "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"
_ENDPOINT: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"
_TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"
_AT: Final = "2026-03-02T09:00:00.123456Z"

_STATUS: Final = "(" + "|".join([*DeliveryState, "failed"]) + ")"
_TYPE: Final = r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*$"


class PinnedSchedule(BaseModel):
    """The schedule, as it was when the delivery was made."""

    name: str = Field(examples=["standard"])
    version: str = Field(examples=["3c9d0f5a6b7e"])


class Delivery(BaseModel):
    """One event on its way to one endpoint."""

    id: str = Field(examples=[ID])
    event_id: str = Field(examples=[_EVENT])
    event_type: str = Field(examples=["payment.completed"])
    object_id: str | None = Field(examples=["pay_8f3k2"])
    mode: Literal["live", "test"] = Field(examples=["live"])
    endpoint_id: str = Field(examples=[_ENDPOINT])
    url: str = Field(
        description="The endpoint's, or that of the event's target.", examples=["https://shop.example.com/webhooks"]
    )
    tenant_id: str = Field(examples=[_TENANT])
    status: DeliveryState = Field(examples=["waiting"])
    status_reason: str | None = Field(
        description="Why it is held, what came of the last attempt, or why it has ended.",
        examples=["http_retryable 503"],
    )
    attempt_count: int = Field(description="Attempts that counted.", examples=[1])
    next_attempt_at: datetime | None = Field(
        description="Null where none is planned, or it is held.", examples=["2026-03-02T09:00:05Z"]
    )
    schedule: PinnedSchedule
    replay_of: str | None = Field(description="The delivery that this one replays.", examples=[None])
    created_at: datetime = Field(examples=[_AT])
    ended_at: datetime | None = Field(description="Null while it lives.", examples=[None])


class SentRequest(BaseModel):
    """What was sent, but its body: that is the event's."""

    method: str = Field(examples=["POST"])
    url: str = Field(examples=["https://shop.example.com/webhooks"])
    headers: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        description="Names and values.", examples=[[["content-type", "application/json"]]]
    )


class ReceivedResponse(BaseModel):
    """What came back; empty where nothing did."""

    headers: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        description="Names and values.", examples=[[["content-type", "text/plain"]]]
    )
    body: str = Field(description="What of it was kept.", examples=["try again later"])
    body_encoding: Literal["utf-8", "hex"] = Field(description="`hex` of a body that is no UTF-8.", examples=["utf-8"])
    body_end: str = Field(description="How it ended.", examples=["complete"])
    body_truncated: bool = Field(description="There was more of it, or may have been.", examples=[False])


class Attempt(BaseModel):
    """One request to the endpoint, and what was decided on it."""

    id: str = Field(examples=["att_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d10"])
    number: int = Field(description="From 1. One that did not count has its successor's.", examples=[1])
    started_at: datetime = Field(examples=[_AT])
    duration_ms: float = Field(examples=[12.5])
    outcome: OutcomeClass = Field(examples=["http_retryable"])
    phase: Phase | None = Field(description="How far it got.", examples=["body"])
    outcome_known: bool = Field(
        description="False where the request may have arrived without our learning the answer.", examples=[True]
    )
    status_code: int | None = Field(examples=[503])
    error: str | None = Field(examples=[None])
    peer_ip: str | None = Field(examples=["192.0.2.1"])
    request: SentRequest
    response: ReceivedResponse
    body_sha256: str | None = Field(
        description="Of the body that was sent, in hex; null where a worker died with it.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    )
    retry_after_s: float | None = Field(description="What the receiver asked for.", examples=[None])
    decision: str = Field(examples=["retry in 5 s"])


class Cancelling(BaseModel):
    """Why it is cancelled."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(max_length=registration.TEXT)] | None = Field(
        default=None, description="Shown with the delivery.", examples=["the merchant has closed"]
    )


@router.get("", response_model=Page[Delivery])
async def list_(
    context: ContextOf,
    caller: Reader,
    status: Annotated[
        str | None,
        Query(
            pattern=f"^{_STATUS}(,{_STATUS})*$",
            max_length=200,
            description="One, or several with commas between. `failed` is every end but delivered and cancelled.",
            examples=["failed"],
        ),
    ] = None,
    tenant_id: TenantId = None,
    endpoint_id: Annotated[str | None, Query(description="Those to it.")] = None,
    event_id: Annotated[str | None, Query(description="Those of it.")] = None,
    event_type: Annotated[
        str | None,
        Query(max_length=128, pattern=_TYPE, description="Of this type exactly.", examples=["payment.completed"]),
    ] = None,
    object_id: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="The payment, order or refund that the event is about.",
            examples=["pay_8f3k2"],
        ),
    ] = None,
    host: Annotated[
        str | None,
        Query(min_length=1, max_length=253, description="Where the endpoint is.", examples=["shop.example.com"]),
    ] = None,
    outcome: Annotated[OutcomeClass | None, Query(description="Of the last attempt.", examples=["http_4xx"])] = None,
    status_code: Annotated[
        int | None, Query(ge=0, le=99_999, description="The last HTTP status.", examples=[503])
    ] = None,
    attempts_min: Annotated[int | None, Query(ge=0, le=100, description="At least so many.", examples=[3])] = None,
    attempts_max: Annotated[int | None, Query(ge=0, le=100, description="At most so many.", examples=[8])] = None,
    error: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="Words of the last attempt's error, the last of which may be a beginning.",
            examples=["certificate expired"],
        ),
    ] = None,
    replay_id: Annotated[str | None, Query(description="Those that it has made.")] = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    sort: Annotated[
        Literal["newest", "oldest"], Query(description="Which come first.", examples=["newest"])
    ] = "newest",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The deliveries that all the given parameters choose, the newest first or the oldest.

    A search that takes longer than 5 s is given up: 422 with the code SEARCH_TOO_BROAD.
    """
    chosen = log.Filter(
        states=_states(status),
        tenant_id=caller.scope(tenant_id),
        endpoint_id=None if endpoint_id is None else parse_id("ep", endpoint_id, pointer="/endpoint_id"),
        event_id=None if event_id is None else parse_id("evt", event_id, pointer="/event_id"),
        event_type=event_type,
        object_id=object_id,
        host=host,
        outcome=outcome,
        status_code=status_code,
        attempts_min=attempts_min,
        attempts_max=attempts_max,
        error=error,
        replay_id=None if replay_id is None else parse_id("rpl", replay_id, pointer="/replay_id"),
        created_after=created_after,
        created_before=created_before,
    )
    past = read_cursor(cursor)

    def read(connection: Connection) -> list[log.LoggedDelivery]:
        return search(connection, chosen, past=past, oldest_first=sort == "oldest", limit=limit + 1)

    found = await context.transaction(read)
    return reply(page(found, limit, forms.delivery))


@router.get("/{delivery_id}", response_model=Delivery)
async def show(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """One delivery."""
    id_ = parse_id("dlv", delivery_id)
    found = await context.transaction(lambda connection: intervene.find(connection, id_, own=caller.tenant_id))
    return reply(forms.delivery(found))


@router.get("/{delivery_id}/attempts", response_model=Page[Attempt])
async def attempts(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """Every attempt of one delivery, the first one first."""
    id_ = parse_id("dlv", delivery_id)

    def read(connection: Connection) -> list[log.LoggedAttempt]:
        intervene.find(connection, id_, own=caller.tenant_id)
        return log.attempts(connection, id_)

    return reply(whole([forms.attempt(one) for one in await context.transaction(read)]))


@router.post("/{delivery_id}/retry", status_code=202, response_model=Delivery)
async def retry(delivery_id: str, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Has it attempted now: one that waits at once, one that has ended as a replay with the whole schedule again.

    Answers the delivery that will be attempted. 409 with the code IN_FLIGHT, ALREADY_REPLAYED or ENDPOINT_DELETED
    where none will be.
    """
    id_ = parse_id("dlv", delivery_id)

    def work(connection: Connection) -> dict[str, Any]:
        return forms.delivery(
            intervene.retry(connection, id_, by=caller.actor, own=caller.tenant_id, clock=context.clock)
        )

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.post("/{delivery_id}/cancel", status_code=202, response_model=Delivery)
async def cancel(
    delivery_id: str, context: ContextOf, caller: Replayer, once: OnceOf, asked: Cancelling | None = None
) -> Response:
    """Ends a delivery that waits, without sending it. 409 with the code IN_FLIGHT or ENDED where it does not wait."""
    id_ = parse_id("dlv", delivery_id)
    given = None if asked is None else asked.reason
    reason = given or f"cancelled by {'an operator' if caller.is_operator else 'its owner'}"

    def work(connection: Connection) -> dict[str, Any]:
        return forms.delivery(intervene.cancel(connection, id_, reason, by=caller.actor, own=caller.tenant_id))

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


def _states(status: str | None) -> tuple[DeliveryState, ...]:
    """The states that are named, each once."""
    named: dict[DeliveryState, None] = {}
    for name in () if status is None else status.split(","):
        named |= dict.fromkeys(FAILED if name == "failed" else (DeliveryState(name),))
    return tuple(named)
