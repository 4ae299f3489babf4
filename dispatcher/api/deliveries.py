"""`/v1/deliveries`: the delivery log, and what people do to one delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Response

from dispatcher.api import forms
from dispatcher.api.caller import Reader, Replayer
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.filters import filter_of, in_query
from dispatcher.api.once import OnceOf
from dispatcher.api.paging import Limit, cursor_of, page, read_cursor, whole
from dispatcher.flow import intervene
from dispatcher.ids import parse_id
from dispatcher.shapes import AttemptPage, Delivery, DeliveryCancellation, DeliveryPage, DeliverySearch
from dispatcher.store import log
from dispatcher.store.search import search

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])


@router.get("", response_model=DeliveryPage)
async def list_(
    context: ContextOf,
    caller: Reader,
    given: Annotated[dict[str, Any], in_query(DeliverySearch)],
    cursor: Annotated[str | None, cursor_of("deliveries")] = None,
    limit: Limit = 50,
) -> Response:
    """List deliveries, the newest or the oldest first. All given parameters must match.

    A search that takes longer than 5 s is given up: 422 with the code SEARCH_TOO_BROAD.
    """
    chosen = filter_of(given, caller.scope(given.get("tenant_id")))
    past = read_cursor(cursor, "deliveries")

    def read(connection: Connection) -> list[log.LoggedDelivery]:
        return search(connection, chosen, past=past, oldest_first=given.get("sort") == "oldest", limit=limit + 1)

    found = await context.transaction(read)
    return reply(page(found, limit, forms.delivery, "deliveries"))


@router.get("/{delivery_id}", response_model=Delivery)
async def show(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """Get a delivery."""
    id_ = parse_id("dlv", delivery_id)
    found = await context.transaction(lambda connection: intervene.find(connection, id_, own=caller.tenant_id))
    return reply(forms.delivery(found))


@router.get("/{delivery_id}/attempts", response_model=AttemptPage)
async def list_attempts(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """List a delivery's attempts, the first one first."""
    id_ = parse_id("dlv", delivery_id)

    def read(connection: Connection) -> list[log.LoggedAttempt]:
        intervene.find(connection, id_, own=caller.tenant_id)
        return log.attempts(connection, id_)

    return reply(whole([forms.attempt(one) for one in await context.transaction(read)]))


@router.post("/{delivery_id}/retry", status_code=202, response_model=Delivery)
async def retry(delivery_id: str, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Retry a delivery now: a waiting one at once, an ended one as a replay with the whole schedule again.

    Answers the delivery that will be attempted. 409 with the code IN_FLIGHT, ALREADY_REPLAYED or ENDPOINT_DELETED
    where none will be.
    """
    id_ = parse_id("dlv", delivery_id)

    def work(connection: Connection) -> Delivery:
        return forms.delivery(
            intervene.retry(connection, id_, by=caller.actor, own=caller.tenant_id, clock=context.clock)
        )

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.post("/{delivery_id}/advance", status_code=202, response_model=Delivery)
async def advance(delivery_id: str, context: ContextOf, caller: Replayer, once: OnceOf) -> Response:
    """Send a test delivery's next attempt now, whatever its schedule says.

    The attempt is made as every other, and what follows it waits again as the schedule says: so a whole schedule can be
    walked while integrating. 409 with the code LIVE_MODE where the delivery is of live mode, and HELD, IN_FLIGHT or
    ENDED where it has no attempt that could be made now.
    """
    id_ = parse_id("dlv", delivery_id)

    def work(connection: Connection) -> Delivery:
        return forms.delivery(intervene.advance(connection, id_, by=caller.actor, own=caller.tenant_id))

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer


@router.post("/{delivery_id}/cancel", status_code=202, response_model=Delivery)
async def cancel(
    delivery_id: str, context: ContextOf, caller: Replayer, once: OnceOf, asked: DeliveryCancellation | None = None
) -> Response:
    """Cancel a waiting delivery without sending it. 409 with the code IN_FLIGHT or ENDED where it does not wait."""
    id_ = parse_id("dlv", delivery_id)
    given = (asked or {}).get("reason")
    reason = given or f"cancelled by {'an operator' if caller.is_operator else 'its owner'}"

    def work(connection: Connection) -> Delivery:
        return forms.delivery(intervene.cancel(connection, id_, reason, by=caller.actor, own=caller.tenant_id))

    answer = await once.run(work, status=202)
    context.wakeup.ring()
    return answer
