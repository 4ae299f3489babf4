"""`/v1/replays`: new deliveries of old events, chosen by a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Caller, Reader, Replayer, TenantId
from dispatcher.api.context import Context, ContextOf, reply
from dispatcher.api.filters import filter_of
from dispatcher.api.once import Once, OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor
from dispatcher.errors import InvalidInput
from dispatcher.flow import previews, replay_choice
from dispatcher.flow import replay as flow
from dispatcher.flow.replay_choice import Options
from dispatcher.ids import parse_id
from dispatcher.model.filter import Filter, of_failed
from dispatcher.shapes import (
    NewCancellation,
    NewReplay,
    Preview,
    Replay,
    ReplayEndpointPage,
    ReplayPage,
    ReplayPreview,
    ReplayProgress,
    WaitingFilter,
)
from dispatcher.store import limits
from dispatcher.store import replays as store
from dispatcher.store.limits import limited
from dispatcher.store.search import NARROW

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.store.replays import Kind
    from dispatcher.store.replays import Replay as Started

router = APIRouter(prefix="/v1/replays", tags=["replays"])

OPTIONS: Final = ("rate_per_second", "rate_per_endpoint", "canary", "to")
"""How a replay is done, by name."""


def chosen_of(
    asked: ReplayPreview | WaitingFilter, caller: Caller, tenant_id: str | None, *, kind: Kind, to: str | None = None
) -> Filter:
    """What is chosen, within what is the caller's; `to` is where a replay goes. Raises NotFound for another tenant."""
    given: dict[str, Any] = dict(asked)
    if kind == "cancellation":
        given.pop("status", None)  # it has one value only, that of all that can be cancelled
    named = tenant_id if given.get("tenant_id") is None else given["tenant_id"]
    found = filter_of(given, caller.scope(named))
    if kind == "cancellation":
        return found
    include_delivered = bool(given.get("include_delivered"))
    if (to or given.get("to")) == "matching":
        return replay_choice.filter_of_events(found, include_delivered=include_delivered)
    return of_failed(found, include_delivered=include_delivered)


def options_of(asked: ReplayPreview) -> Options:
    """How it is to be done."""
    return Options(
        rate=asked.get("rate_per_second"),
        rate_per_endpoint=asked.get("rate_per_endpoint"),
        canary=asked.get("canary"),
        goes_to=replay_choice.parse_destination(asked.get("to") or "same"),
    )


async def previewed(
    context: Context, caller: Caller, once: Once, chosen: Filter, *, kind: Kind, options: Options | None = None
) -> Response:
    """The answer to a preview."""

    def work(connection: Connection) -> Preview:
        how = options or Options()
        with limited(connection, limit_s=limits.COUNT_S, pointer="/created_after", narrow=NARROW):
            found = replay_choice.preview(connection, chosen, kind=kind, options=how, own=caller.tenant_id)
        promise = previews.Promise(kind, found.filter, found.summary.count, how)
        token, until = previews.keep(connection, promise, own=caller.tenant_id, now=context.clock.now())
        return forms.preview(found, token, until)

    return await once.run(work)


def choice(asked: NewReplay | NewCancellation, caller: Caller, tenant_id: str | None, *, kind: Kind) -> Filter | None:
    """What is chosen; None where nothing is. Raises NotFound for another tenant."""
    ignored = {"preview_token", "include_delivered", *OPTIONS}
    if not caller.is_operator:
        ignored.add("tenant_id")  # which is theirs anyway
    if kind == "cancellation":
        ignored.add("status")
    if asked.get("attempts_min") == 0:
        ignored.add("attempts_min")  # which leaves nothing out; attempts_max=0 does
    chosen = chosen_of(asked, caller, tenant_id, kind=kind)
    given = {name: value for name, value in asked.items() if name not in ignored}
    return None if all(value is None or value is False for value in given.values()) else chosen


def check_same(
    asked: NewReplay | NewCancellation,
    caller: Caller,
    tenant_id: str | None,
    *,
    chosen: Filter | None,
    promise: previews.Promise,
) -> None:
    """Raises InvalidInput where what is given beside a token is not what was previewed."""
    previewed = _written(promise.options)
    if promise.kind == "replay":
        for name, value in asked.items():
            if name in OPTIONS and value is not None and value != previewed[name]:
                allowed = f"{previewed[name]!r} as previewed, or nothing beside a preview_token"
                raise InvalidInput(f"/{name}", repr(value), allowed)
    if chosen is None:
        return
    if promise.kind == "replay":  # where it goes decides what a choice without a status means
        chosen = chosen_of(asked, caller, tenant_id, kind="replay", to=previewed["to"])
    if not previews.is_same(promise.filter, chosen):
        raise InvalidInput("/", "another choice than was previewed", "the preview_token alone, or with the same choice")


def _written(options: Options) -> dict[str, Any]:
    return {
        "rate_per_second": options.rate,
        "rate_per_endpoint": options.rate_per_endpoint,
        "canary": options.canary,
        "to": replay_choice.format_destination(options.goes_to),
    }


async def started(
    context: Context,
    caller: Caller,
    once: Once,
    asked: NewReplay | NewCancellation,
    tenant_id: str | None,
    *,
    kind: Kind,
    options: Options | None = None,
) -> Response:
    """The answer to the start of a replay or a cancellation: of what was previewed, or of what is chosen.

    Raises InvalidInput where neither is given, or both and they differ, and Conflict for a token that has started one.
    """
    token, chosen = asked.get("preview_token"), choice(asked, caller, tenant_id, kind=kind)
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

    def work(connection: Connection) -> Replay:
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
    """Preview a replay. Nothing is done; the token in the answer has exactly this done, once, within an hour.

    Deliveries that were replayed before, and those to deleted endpoints, are not chosen.
    """
    chosen = chosen_of(asked, caller, tenant_id, kind="replay")
    return await previewed(context, caller, once, chosen, kind="replay", options=options_of(asked))


@router.post("", status_code=202, response_model=Replay)
async def create(
    asked: NewReplay, context: ContextOf, caller: Replayer, once: OnceOf, tenant_id: TenantId = None
) -> Response:
    """Start a replay of what a preview showed, or of what is chosen.

    A preview starts one: a second start is 409 with the code PREVIEW_USED, and names the first.

    Each delivery gets the whole schedule again, to the same URL, with the same `webhook-id`. One that was replayed
    before is left out: its replay can be replayed. It waits for its receivers: few of its deliveries ever wait for
    their first attempt, so that fresh events are not delayed.
    """
    return await started(context, caller, once, asked, tenant_id, kind="replay", options=options_of(asked))


@router.get("", response_model=ReplayPage)
async def list_(
    context: ContextOf,
    caller: Reader,
    kind: Annotated[Literal["replay", "cancellation"] | None, Query(description="Only those.")] = None,
    tenant_id: TenantId = None,
    cursor: Annotated[str | None, cursor_of("replays")] = None,
    limit: Limit = 50,
) -> Response:
    """List replays and cancellations, the newest first."""
    scope, before = caller.scope(tenant_id), read_cursor(cursor, "replays")
    found = await context.search(
        lambda connection: store.list_(connection, tenant_id=scope, kind=kind, before=before, limit=limit + 1)
    )
    return reply(page(found, limit, forms.replay, "replays"))


@router.get("/{replay_id}", response_model=ReplayProgress)
async def show(replay_id: str, context: ContextOf, caller: Reader) -> Response:
    """Get a replay or a cancellation and its progress."""
    id_ = parse_id("rpl", replay_id)

    def work(connection: Connection) -> ReplayProgress:
        found = flow.find(connection, id_, own=caller.tenant_id)
        return forms.replay_progress(found, flow.progress(connection, found))

    return reply(await context.transaction(work))


@router.get("/{replay_id}/endpoints", response_model=ReplayEndpointPage)
async def list_endpoints(
    replay_id: str,
    context: ContextOf,
    caller: Reader,
    cursor: Annotated[str | None, cursor_of("replay_endpoints")] = None,
    limit: Limit = 50,
) -> Response:
    """List a replay's endpoints with their progress, in the order of their ids.

    A cancellation has none.
    """
    id_, after = parse_id("rpl", replay_id), read_cursor(cursor, "replay_endpoints")
    found = await context.search(
        lambda connection: flow.endpoints(connection, id_, own=caller.tenant_id, after=after, limit=limit + 1)
    )
    return reply(page(found, limit, forms.replay_endpoint, "replay_endpoints"))


@router.post("/{replay_id}/pause", response_model=Replay)
async def pause(replay_id: str, caller: Replayer, once: OnceOf) -> Response:
    """Pause a replay until it is resumed. 409 with the code REPLAY_ENDED where it has ended."""
    return await _set_state(replay_id, "paused", caller, once)


@router.post("/{replay_id}/resume", response_model=Replay)
async def resume(replay_id: str, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Resume a replay. Endpoints that were stopped try their next deliveries.

    409 with the code REPLAY_ENDED where it has ended.
    """
    answer = await _set_state(replay_id, "running", caller, once)
    context.wakeup.ring()
    return answer


@router.post("/{replay_id}/cancel", response_model=Replay)
async def cancel(replay_id: str, caller: Replayer, once: OnceOf) -> Response:
    """Cancel a replay. What it has done stays done. 409 with the code REPLAY_ENDED where it has ended."""
    return await _set_state(replay_id, "cancelled", caller, once)


async def _set_state(
    replay_id: str, state: Literal["running", "paused", "cancelled"], caller: Caller, once: Once
) -> Response:
    id_ = parse_id("rpl", replay_id)

    def work(connection: Connection) -> Replay:
        return forms.replay(flow.set_state(connection, id_, state, by=caller.actor, own=caller.tenant_id))

    return await once.run(work)
