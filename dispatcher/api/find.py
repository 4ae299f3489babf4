"""`/v1/find`: anything by any id, object or URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from fastapi import APIRouter, Query, Response

from dispatcher.api import forms
from dispatcher.api.caller import Reader, TenantId
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import whole
from dispatcher.flow.find import AttemptOf, Finder
from dispatcher.flow.find import Found as FoundThing
from dispatcher.ids import format_id
from dispatcher.model.access import Scope
from dispatcher.model.endpoint import Endpoint
from dispatcher.model.event import Mode
from dispatcher.shapes import Found, FoundPage
from dispatcher.store.log import LoggedDelivery, LoggedEvent
from dispatcher.store.replays import Replay
from dispatcher.store.tenants import ApiKey, Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from dispatcher.signing import Keyring

router = APIRouter(prefix="/v1/find", tags=["find"])


@router.get("", response_model=FoundPage)
async def find(
    context: ContextOf,
    caller: Reader,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=2048,
            description="An id; the payment, order or refund that events are about; a URL, or the host of one.",
            examples=["pay_8f3k2"],
        ),
    ],
    mode: Annotated[
        Mode | None, Query(description="Only events, deliveries and attempts of this mode.", examples=["test"])
    ] = None,
    tenant_id: TenantId = None,
) -> Response:
    """Find anything by an id, an object, a URL or a host.

    At most 50 of each kind, the newest. Events that matched no endpoint are found too.

    An event is found with its deliveries. The first characters of an id find what has an id that begins so, except for
    attempts; several events are then found without their deliveries.

    An attempt is found by its id in the 30 days from its delivery's beginning, a delivery by the URL of its event's
    target for 30 days. Keys are found by those whose scope is admin. With `mode`, things that have no mode,
    such as endpoints, are found as without it.
    """
    own = caller.scope(tenant_id)

    def read(connection: Connection) -> list[Found]:
        finder = Finder(connection, context.clock.now(), own=own, keys=caller.may(Scope.ADMIN), mode=mode)
        return [_form(one, context.keyring) for one in finder(q)]

    narrow = "the id of one thing, or a tenant besides"
    return reply(whole(await context.search(read, pointer="/q", narrow=narrow)))


def _form(one: FoundThing, keyring: Keyring) -> Found:
    shown: Mapping[str, object]
    match one.thing:
        case LoggedEvent():
            shown = forms.event(one.thing)
        case Endpoint():
            shown = forms.endpoint(one.thing, keyring)
        case LoggedDelivery():
            shown = forms.delivery(one.thing)
        case AttemptOf(attempt, delivery_id):
            shown = {**forms.attempt(attempt), "delivery_id": format_id("dlv", delivery_id)}
        case Replay():
            shown = forms.replay(one.thing)
        case Tenant():
            shown = forms.tenant(one.thing)
        case ApiKey():
            shown = forms.key(one.thing)
        case _:  # pragma: no cover - mypy proves that every thing is above
            assert_never(one.thing)
    return forms.found(one.kind, one.summary, shown)
