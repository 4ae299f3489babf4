"""The conditions by which deliveries are chosen, as a query or a body gives them and as the store takes them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

from fastapi import Depends, Query

from dispatcher.egress.url import searched_host
from dispatcher.ids import parse_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.model.event import Mode
from dispatcher.model.filter import Filter
from dispatcher.shapes import DeliveryConditions
from dispatcher.shapes.about import NO_EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from dispatcher.ids import Prefix

_IDS: Final[Mapping[str, Prefix]] = {"endpoint_id": "ep", "event_id": "evt", "replay_id": "rpl"}

_ENDED: Final = {"ended_after", "ended_before"}
"""Conditions of replays only."""

_AS_THEY_ARE: Final = (get_type_hints(DeliveryConditions).keys() | _ENDED) - _IDS.keys() - {"tenant_id"}
"""A condition that the shape has and `Filter` lacks is a TypeError, never one that is passed over."""


def in_query(shape: Any) -> Any:
    """A dependency that reads the members of a shape, all optional, from the query: a dict of those that are given."""
    parameters = []
    for name, hint in get_type_hints(shape, include_extras=True).items():
        of, about = get_args(hint)
        examples = None if about.example is NO_EXAMPLE else [about.example]
        query = Query(description=about.description, examples=examples)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[of, query])
        )

    async def read(**given: Any) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None}

    read.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return Depends(read)


def filter_of(given: Mapping[str, Any], tenant_id: UUID | None) -> Filter:
    """What is chosen, within a tenant or, with None, in all. Raises InvalidInput for an id that is invalid."""
    values: dict[str, Any] = {name: given.get(name) for name in _AS_THEY_ARE}
    for name, prefix in _IDS.items():
        if (id_ := given.get(name)) is not None:
            values[name] = parse_id(prefix, id_, pointer=f"/{name}")
    if values["mode"] is not None:
        values["mode"] = Mode(values["mode"])
    if (host := values.get("host")) is not None:
        values["host"] = searched_host(host)
    return Filter(
        states=states(given.get("status")),
        undelivered=bool(given.get("undelivered")),
        tenant_id=tenant_id,
        delivery_ids=tuple(
            parse_id("dlv", id_, pointer=f"/delivery_ids/{n}") for n, id_ in enumerate(given.get("delivery_ids") or ())
        ),
        **values,
    )


def states(status: str | None) -> tuple[DeliveryState, ...]:
    """The states that a status names, with commas between, each once.

    >>> states("delivered,failed")[:2]
    (<DeliveryState.DELIVERED: 'delivered'>, <DeliveryState.EXHAUSTED: 'exhausted'>)
    """
    named: dict[DeliveryState, None] = {}
    for name in () if status is None else status.split(","):
        named |= dict.fromkeys(FAILED if name == "failed" else (DeliveryState(name),))
    return tuple(named)
