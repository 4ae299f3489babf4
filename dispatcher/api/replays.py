"""`/v1/replays`: new deliveries of old events, chosen by a filter."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.api import forms
from dispatcher.api.context import (
    Caller,
    Context,
    ContextOf,
    Cursor,
    Instant,
    Limit,
    Once,
    OnceOf,
    Page,
    Reader,
    Replayer,
    TenantId,
    page,
    read_cursor,
    reply,
)
from dispatcher.errors import InvalidInput
from dispatcher.flow import previews
from dispatcher.flow import replay as flow
from dispatcher.flow.replay import Options
from dispatcher.ids import parse_id
from dispatcher.model.delivery import FAILED, LIVE, DeliveryState
from dispatcher.model.outcome import OutcomeClass
from dispatcher.store import limits
from dispatcher.store import replays as store
from dispatcher.store.limits import limited
from dispatcher.store.log import Filter
from dispatcher.store.search import NARROW

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.store.replays import Kind
    from dispatcher.store.replays import Replay as Started

router = APIRouter(prefix="/v1/replays", tags=["replays"])

ID: Final = "rpl_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d11"
_TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"
_ENDPOINT: Final = "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"
_EVENT: Final = "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"
_DELIVERY: Final = "dlv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0f"
_TOKEN: Final = "prv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d12"  # noqa: S105 - nobody's
_AT: Final = "2026-03-02T09:00:00Z"

DELIVERY_IDS: Final = 1000
"""Deliveries that a filter can name one by one."""

RATES: Final = (0.01, 10_000.0)
"""Deliveries a second."""

CANARY: Final = 100
"""Deliveries of an endpoint that can go first."""

OF_PREVIEW: Final = "Of a preview of the last hour, by the same tenant, that has started nothing yet."

OPTIONS: Final = ("rate_per_second", "rate_per_endpoint", "canary", "to")
"""How a replay is done, by name."""

_TO: Final = r"^(same|matching|ep_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$"
_ENDED: Final = "(" + "|".join([*(state for state in DeliveryState if state not in LIVE), "failed"]) + ")"
_TYPE: Final = r"^[A-Za-z0-9_]+([.\-][A-Za-z0-9_]+)*$"
_DELIVERY_ID: Final = r"^dlv_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

Rate = Annotated[float, Field(ge=RATES[0], le=RATES[1], allow_inf_nan=False)]


class Chosen(BaseModel):
    """Which deliveries: those that all that is given chooses."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tenant_id: str | None = Field(default=None, description="Whose; for operators.", examples=[_TENANT])
    endpoint_id: str | None = Field(default=None, description="Those to it.", examples=[_ENDPOINT])
    event_id: str | None = Field(default=None, description="Those of it.", examples=[_EVENT])
    event_type: Annotated[str, Field(max_length=128, pattern=_TYPE)] | None = Field(
        default=None, description="Of this type exactly.", examples=["payment.completed"]
    )
    object_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="The payment, order or refund that the event is about.", examples=["pay_8f3k2"]
    )
    host: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        default=None, description="Where the endpoint is.", examples=["shop.example.com"]
    )
    outcome: Annotated[OutcomeClass, Field(strict=False)] | None = Field(
        default=None, description="Of the last attempt.", examples=["http_retryable"]
    )
    status_code: Annotated[int, Field(ge=0, le=99_999)] | None = Field(
        default=None, description="The last HTTP status.", examples=[503]
    )
    attempts_min: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="At least so many attempts.", examples=[3]
    )
    attempts_max: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="At most so many attempts.", examples=[8]
    )
    error: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Words of the last attempt's error, the last of which may be a beginning.",
        examples=["certificate expired"],
    )
    created_after: Instant | None = Field(default=None, description="Only those made then or later.", examples=[_AT])
    created_before: Instant | None = Field(
        default=None, description="Only those made before.", examples=["2026-03-09T09:00:00Z"]
    )
    delivery_ids: (
        Annotated[list[Annotated[str, Field(pattern=_DELIVERY_ID)]], Field(min_length=1, max_length=DELIVERY_IDS)]
        | None
    ) = Field(default=None, description="Only those of these.", examples=[[_DELIVERY]])


class ChosenEnded(Chosen):
    """Which deliveries: of those that have ended, what all that is given chooses; the failed, unless it says else."""

    status: Annotated[str, Field(max_length=200, pattern=f"^{_ENDED}(,{_ENDED})*$")] | None = Field(
        default=None,
        description="One, or several with commas between. `failed` is every end but delivered and cancelled.",
        examples=["failed"],
    )
    undelivered: bool = Field(default=False, description="Whatever has not been delivered.", examples=[False])
    include_delivered: bool = Field(
        default=False,
        description="Also those that have been delivered, if no status is given, and those whose event has reached "
        "the endpoint by another delivery; without it these are left out.",
        examples=[False],
    )


class ReplayPreview(ChosenEnded):
    """What is to be previewed, and how it would be done: the token in the answer has it done in just this way."""

    rate_per_second: Rate | None = Field(
        default=None, description="At most so many deliveries a second; null: as fast as it goes.", examples=[50]
    )
    rate_per_endpoint: Rate | None = Field(
        default=None, description="At most so many a second to each endpoint.", examples=[5]
    )
    canary: Annotated[int, Field(ge=1, le=CANARY)] | None = Field(
        default=None,
        description="So many of each endpoint go first. If all of them fail their first attempt, the endpoint is "
        "stopped until the replay is resumed; if one is delivered, the rest follows.",
        examples=[3],
    )
    to: Annotated[str, Field(pattern=_TO)] | None = Field(
        default=None,
        description="Null or `same`: the endpoints that they went to. `matching`: the endpoints that want the events "
        "today, as if they were new; also events that nobody wanted. An endpoint's id: only there.",
        examples=["same"],
    )


class NewReplay(ReplayPreview):
    """What is to be replayed: what a preview showed, or what is chosen here; if both are given, both are the same."""

    preview_token: str | None = Field(default=None, description=OF_PREVIEW, examples=[_TOKEN])


class PreviewedEndpoint(BaseModel):
    """How much of it goes to one endpoint."""

    endpoint_id: str = Field(examples=[_ENDPOINT])
    url: str = Field(examples=["https://shop.example.com/hook"])
    count: int = Field(description="Deliveries.", examples=[128])
    disabled: bool = Field(description="They would wait until it is enabled.", examples=[False])
    already_delivered: int = Field(description="Those whose event has reached it.", examples=[0])


class Preview(BaseModel):
    """What would be done. Nothing that comes later is taken."""

    count: int = Field(description="Deliveries.", examples=[128])
    oldest: datetime | None = Field(description="When the first of them was made.", examples=[_AT])
    newest: datetime | None = Field(description="When the last of them was made.", examples=[_AT])
    already_delivered: int = Field(
        description="Those whose event has reached the endpoint; in `count` only if they are included.", examples=[0]
    )
    endpoints_disabled: int = Field(description="Endpoints for which they would wait.", examples=[0])
    in_flight: int = Field(
        description="Those that are being attempted; not in `count`. A replay has none.", examples=[0]
    )
    payload_gone: int = Field(description="Those whose payload is not kept any more; not in `count`.", examples=[0])
    foreign: int = Field(
        description="Those whose event is of a tenant that the endpoint in `to` may not hear; not in `count`.",
        examples=[0],
    )
    endpoints: list[PreviewedEndpoint] = Field(description="Those with the most, ten at most; of a replay.")
    rate_per_second: float | None = Field(description="As asked.", examples=[50])
    rate_per_endpoint: float | None = Field(description="As asked.", examples=[None])
    canary: int | None = Field(description="As asked.", examples=[None])
    to: str = Field(description="`same`, `matching`, or an endpoint's id.", examples=["same"])
    estimated_seconds: float = Field(
        description="How long it takes at least, by its rates and the rate limits of endpoints.", examples=[2.6]
    )
    preview_token: str = Field(description="Has exactly this done, once.", examples=[_TOKEN])
    expires_at: datetime = Field(description="Until when the token counts.", examples=["2026-03-02T10:00:00Z"])


class ReplayFilter(BaseModel):
    """What was chosen; null does not matter."""

    status: str | None = Field(examples=["exhausted,rejected,expired"])
    undelivered: bool = Field(examples=[False])
    include_delivered: bool = Field(examples=[False])
    tenant_id: str | None = Field(examples=[_TENANT])
    endpoint_id: str | None = Field(examples=[_ENDPOINT])
    event_id: str | None = Field(examples=[None])
    replay_id: str | None = Field(examples=[None])
    event_type: str | None = Field(examples=["payment.completed"])
    object_id: str | None = Field(examples=[None])
    host: str | None = Field(examples=[None])
    outcome: str | None = Field(examples=[None])
    status_code: int | None = Field(examples=[None])
    attempts_min: int | None = Field(examples=[None])
    attempts_max: int | None = Field(examples=[None])
    error: str | None = Field(examples=[None])
    created_after: datetime | None = Field(examples=[_AT])
    created_before: datetime | None = Field(examples=[None])
    ended_after: datetime | None = Field(description="Of a recovery.", examples=[None])
    ended_before: datetime | None = Field(description="Of a recovery.", examples=[None])
    delivery_ids: list[str] | None = Field(examples=[None])
    as_of: datetime | None = Field(description="What ended then or later is not taken.", examples=[_AT])


class Replay(BaseModel):
    """A replay or a cancellation, and how far it is."""

    id: str = Field(examples=[ID])
    kind: Literal["replay", "cancellation"] = Field(examples=["replay"])
    status: Literal["running", "paused", "done", "cancelled"] = Field(examples=["running"])
    tenant_id: str | None = Field(description="Null: an operator's.", examples=[_TENANT])
    filter: ReplayFilter
    total: int | None = Field(description="How many there were when it was asked for.", examples=[128])
    replayed: int = Field(description="For how many it is done; of a cancellation, how many it ended.", examples=[64])
    rate_per_second: float | None = Field(description="Null: as fast as it goes.", examples=[50])
    rate_per_endpoint: float | None = Field(description="Null: no limit of its own.", examples=[None])
    canary: int | None = Field(description="How many of each endpoint go first; null: none.", examples=[None])
    to: str = Field(description="`same`, `matching`, or an endpoint's id.", examples=["same"])
    status_reason: str | None = Field(description="What it waits for, or why it is paused.", examples=[None])
    percent: float = Field(description="How much of `total` is done.", examples=[50.0])
    created_by: str = Field(
        description="The id of a key, or `cli:` and the account's name.",
        examples=["key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"],
    )
    created_at: datetime = Field(examples=[_AT])
    ended_at: datetime | None = Field(description="Null while it runs or is paused.", examples=[None])


class ReplayProgress(Replay):
    """A replay or a cancellation, how far it is, and what has become of what it made."""

    delivered: int = Field(description="Of those that it made.", examples=[60])
    failed: int = Field(description="Those that have ended in any other way.", examples=[1])
    waiting: int = Field(description="Those that wait for an attempt or are in flight.", examples=[3])
    endpoints_running: int = Field(description="Endpoints for which it has more to make.", examples=[2])
    endpoints_stopped: int = Field(
        description="Those of which all that went first have failed; a resume tries the next.", examples=[0]
    )
    rate_now: float | None = Field(
        description="Deliveries made a second over the last seconds; null unless it runs.", examples=[49.8]
    )
    estimated_end: datetime | None = Field(
        description="When it may have made all; null while nothing tells.", examples=["2026-03-02T09:01:00Z"]
    )


class ReplayEndpoint(BaseModel):
    """How far a replay is with one endpoint."""

    endpoint_id: str = Field(examples=[_ENDPOINT])
    url: str = Field(examples=["https://shop.example.com/hook"])
    status: Literal["running", "stopped", "done"] = Field(examples=["running"])
    status_reason: str | None = Field(description="Why it is stopped, or what it waits for.", examples=[None])
    total: int = Field(description="How many there were when it was asked for.", examples=[64])
    replayed: int = Field(examples=[32])
    delivered: int = Field(examples=[30])
    failed: int = Field(examples=[0])
    waiting: int = Field(description="For an attempt, or in flight.", examples=[2])


def filter_of(asked: Chosen, caller: Caller, tenant_id: str | None) -> Filter:
    """What is chosen, within what is the caller's. Raises NotFound for another tenant."""
    named: dict[DeliveryState, None] = {}
    if isinstance(asked, ChosenEnded) and asked.status is not None:
        for name in asked.status.split(","):
            named |= dict.fromkeys(FAILED if name == "failed" else (DeliveryState(name),))
    found = Filter(
        states=tuple(named),
        undelivered=isinstance(asked, ChosenEnded) and asked.undelivered,
        tenant_id=caller.scope(tenant_id if asked.tenant_id is None else asked.tenant_id),
        endpoint_id=None if asked.endpoint_id is None else parse_id("ep", asked.endpoint_id, pointer="/endpoint_id"),
        event_id=None if asked.event_id is None else parse_id("evt", asked.event_id, pointer="/event_id"),
        event_type=asked.event_type,
        object_id=asked.object_id,
        host=asked.host,
        outcome=asked.outcome,
        status_code=asked.status_code,
        attempts_min=asked.attempts_min,
        attempts_max=asked.attempts_max,
        error=asked.error,
        created_after=asked.created_after,
        created_before=asked.created_before,
        delivery_ids=tuple(
            parse_id("dlv", one, pointer=f"/delivery_ids/{n}") for n, one in enumerate(asked.delivery_ids or ())
        ),
    )
    if isinstance(asked, ReplayPreview) and asked.to == "matching":
        return flow.of_events(found, include_delivered=asked.include_delivered)
    if isinstance(asked, ChosenEnded):
        return flow.of_failed(found, include_delivered=asked.include_delivered)
    return found


def options_of(asked: ReplayPreview) -> Options:
    """How it is to be done."""
    return Options(
        rate=asked.rate_per_second,
        rate_per_endpoint=asked.rate_per_endpoint,
        canary=asked.canary,
        goes_to=flow.goes_to(asked.to or "same"),
    )


async def previewed(
    context: Context, caller: Caller, once: Once, chosen: Filter, *, kind: Kind, options: Options | None = None
) -> Response:
    """The answer to a preview."""

    def work(connection: Connection) -> dict[str, Any]:
        how = options or Options()
        with limited(connection, limit_s=limits.COUNT_S, pointer="/created_after", narrow=NARROW):
            found = flow.preview(connection, chosen, kind=kind, options=how, own=caller.tenant_id)
        promise = previews.Promise(kind, found.filter, found.summary.count, how)
        token, until = previews.keep(connection, promise, own=caller.tenant_id, now=context.clock.now())
        return forms.preview(found, token, until)

    return await once.run(work)


def choice(asked: Chosen, caller: Caller, tenant_id: str | None, *, kind: Kind) -> Filter | None:
    """What is chosen; None where nothing is. Raises NotFound for another tenant."""
    ignored = {"preview_token", "include_delivered", *OPTIONS}
    if not caller.is_operator:
        ignored.add("tenant_id")  # which is theirs anyway
    if kind == "cancellation":
        ignored.add("status")  # which has one value only, that of all that can be cancelled
    if asked.attempts_min == 0:
        ignored.add("attempts_min")  # which leaves nothing out; attempts_max=0 does
    chosen = filter_of(asked, caller, tenant_id)
    given = {name: value for name, value in asked if name not in ignored}
    return None if all(value is None or value is False for value in given.values()) else chosen


def check_same(
    asked: Chosen, caller: Caller, tenant_id: str | None, *, chosen: Filter | None, promise: previews.Promise
) -> None:
    """Raises InvalidInput where what is given beside a token is not what was previewed."""
    given = {name: value for name, value in asked if name in OPTIONS and value is not None}
    if isinstance(asked, NewReplay) and given:
        previewed = _written(promise.options)
        for name, value in given.items():
            if value != previewed[name]:
                allowed = f"{previewed[name]!r} as previewed, or nothing beside a preview_token"
                raise InvalidInput(f"/{name}", repr(value), allowed)
    if chosen is None:
        return
    if isinstance(asked, NewReplay):  # where it goes decides what a choice without a status means
        to = _written(promise.options)["to"]
        chosen = filter_of(asked.model_copy(update={"to": to}), caller, tenant_id)
    if not previews.is_same(promise.filter, chosen):
        raise InvalidInput("/", "another choice than was previewed", "the preview_token alone, or with the same choice")


def _written(options: Options) -> dict[str, object]:
    return {
        "rate_per_second": options.rate,
        "rate_per_endpoint": options.rate_per_endpoint,
        "canary": options.canary,
        "to": flow.written(options.goes_to),
    }


async def started(
    context: Context,
    caller: Caller,
    once: Once,
    asked: Chosen,
    tenant_id: str | None,
    *,
    token: str | None,
    kind: Kind,
    options: Options | None = None,
) -> Response:
    """The answer to the start of a replay or a cancellation: of what was previewed, or of what is chosen.

    Raises InvalidInput where neither is given, or both and they differ, and Conflict for a token that has started one.
    """
    chosen = choice(asked, caller, tenant_id, kind=kind)
    if chosen is None and token is None:
        raise InvalidInput("/", "nothing that chooses deliveries", "a preview_token, or at least one condition")

    def start(connection: Connection, filter_: Filter, how: Options, total: int | None) -> Started:
        with limited(connection, limit_s=limits.COUNT_S, pointer="/created_after", narrow=NARROW):
            return flow.start(
                connection,
                filter_,
                by=caller.actor,
                kind=kind,
                tenant_id=caller.tenant_id,
                options=how,
                total=total,
                clock=context.clock,
            )

    def work(connection: Connection) -> dict[str, Any]:
        if token is None:
            assert chosen is not None
            return forms.replay(start(connection, chosen, options or Options(), None))
        preview_id, promise = previews.take(connection, token, kind=kind, own=caller.tenant_id, now=context.clock.now())
        check_same(asked, caller, tenant_id, chosen=chosen, promise=promise)
        replay = start(connection, promise.filter, promise.options, promise.count)
        previews.use(connection, preview_id, replay.id)
        return forms.replay(replay)

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.post("/preview", response_model=Preview)
async def preview(
    asked: ReplayPreview, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """What a replay would do now. Nothing is done; the token in the answer has exactly this done, once, within an hour.

    Deliveries that were replayed before, and those to deleted endpoints, are not chosen.
    """
    chosen = filter_of(asked, caller, tenant_id)
    return await previewed(context, caller, once, chosen, kind="replay", options=options_of(asked))


@router.post("", status_code=202, response_model=Replay)
async def create(
    asked: NewReplay, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Starts a replay of what a preview showed, or of what is chosen.

    A preview starts one: a second start is 409 with the code PREVIEW_USED, and names the first.

    Each delivery gets the whole schedule again, to the same URL, with the same `webhook-id`. One that was replayed
    before is left out: its replay can be replayed. It waits for its receivers: few of its deliveries ever wait for
    their first attempt, so that fresh events are not delayed.
    """
    return await started(
        context, caller, once, asked, tenant_id, token=asked.preview_token, kind="replay", options=options_of(asked)
    )


@router.get("", response_model=Page[Replay])
async def list_(
    context: ContextOf,
    caller: Reader,
    kind: Annotated[Literal["replay", "cancellation"] | None, Query(description="Only those.")] = None,
    tenant_id: TenantId = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The replays and cancellations, the newest first."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor)
    found = await context.search(
        lambda connection: store.list_(connection, tenant_id=scope, kind=kind, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.replay))


@router.get("/{replay_id}", response_model=ReplayProgress)
async def show(replay_id: str, context: ContextOf, caller: Reader) -> Response:
    """One replay or cancellation, and how far it is."""
    id_ = parse_id("rpl", replay_id)

    def work(connection: Connection) -> dict[str, Any]:
        found = flow.find(connection, id_, own=caller.tenant_id)
        return forms.replay_progress(found, flow.progress(connection, found))

    return reply(await context.transaction(work))


@router.get("/{replay_id}/endpoints", response_model=Page[ReplayEndpoint])
async def list_endpoints(
    replay_id: str, context: ContextOf, caller: Reader, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """How far a replay is with each endpoint, in the order of their ids, and what it waits for.

    A cancellation has none.
    """
    id_, after = parse_id("rpl", replay_id), read_cursor(cursor)
    found = await context.search(
        lambda connection: flow.endpoints(connection, id_, own=caller.tenant_id, after=after, limit=limit + 1)
    )
    return reply(page(found, limit, forms.replay_endpoint))


@router.post("/{replay_id}/pause", response_model=Replay)
async def pause(replay_id: str, caller: Replayer, once: OnceOf) -> Response:
    """Has it rest until it is resumed. 409 with the code REPLAY_ENDED where it has ended."""
    return await _set_state(replay_id, "paused", caller, once)


@router.post("/{replay_id}/resume", response_model=Replay)
async def resume(replay_id: str, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Has it go on; endpoints that are stopped try their next ones.

    409 with the code REPLAY_ENDED where it has ended.
    """
    answer = await _set_state(replay_id, "running", caller, once)
    context.wakeup.ring()
    return answer


@router.post("/{replay_id}/cancel", response_model=Replay)
async def cancel(replay_id: str, caller: Replayer, once: OnceOf) -> Response:
    """Ends it; what it has done stays done. 409 with the code REPLAY_ENDED where it has ended."""
    return await _set_state(replay_id, "cancelled", caller, once)


async def _set_state(
    replay_id: str, state: Literal["running", "paused", "cancelled"], caller: Caller, once: Once
) -> Response:
    id_ = parse_id("rpl", replay_id)

    def work(connection: Connection) -> dict[str, Any]:
        return forms.replay(flow.set_state(connection, id_, state, by=caller.actor, own=caller.tenant_id))

    return await once.run(work)
