"""Chooses what a replay or a cancellation does: its filter and options, a preview of them, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.flow import register
from dispatcher.ids import format_id, parse_id
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import Mode
from dispatcher.model.filter import Filter
from dispatcher.store import log, originals
from dispatcher.store.originals import Summary
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.store.originals import GoesTo
    from dispatcher.store.replays import Kind

FASTEST: Final = 1000.0
"""Deliveries a second that a replay without a rate is expected to make."""

_EVENTS_ONLY: Final = frozenset(
    {"tenant_id", "endpoint_id", "event_id", "event_type", "mode", "object_id", "created_after", "created_before"}
    | {"as_of", "but_delivered"}
)
"""The conditions of a filter that apply to events and endpoints, not to deliveries."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a replay goes: deliveries a second in all and to each endpoint, how many go first to each, and where to.

    None means no limit, and no canary.
    """

    rate: float | None = None
    rate_per_endpoint: float | None = None
    canary: int | None = None
    goes_to: GoesTo = "same"


def parse_destination(text: str, *, pointer: str = "/to") -> GoesTo:
    """Parses where a replay goes to: `same`, `matching` or an endpoint's id. Raises InvalidInput."""
    if text in ("same", "matching"):
        return text  # type: ignore[return-value]
    try:
        return parse_id("ep", text)
    except InvalidInput as error:
        raise InvalidInput(pointer, repr(text), "same, matching, or the id of an endpoint: ep_…") from error


def format_destination(destination: GoesTo) -> str:
    """Where a replay goes to, as `parse_destination` reads it."""
    return format_id("ep", destination) if isinstance(destination, UUID) else destination


_NAMES: Final = {"states": "status", "target_url": "url"}


def filter_of_events(chosen: Filter, *, include_delivered: bool = False) -> Filter:
    """The filter of a replay to the endpoints that match now.

    Raises InvalidInput for a condition on deliveries: events without a matching endpoint have none.
    """
    for field in fields(Filter):
        if field.name not in _EVENTS_ONLY and getattr(chosen, field.name) != field.default:
            name = _NAMES.get(field.name, field.name)
            raise InvalidInput(
                f"/{name}",
                "a condition on deliveries",
                "conditions on events where to is matching: tenant_id, endpoint_id, event_id, event_type, mode, "
                "object_id, created_after, created_before, include_delivered",
            )
    return replace(chosen, but_delivered=not include_delivered)


DEFAULT_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done now, and how long that would take; `filter` chooses nothing that came later."""

    kind: Kind
    filter: Filter
    summary: Summary
    estimated_s: float
    options: Options


def preview(
    connection: Connection,
    chosen: Filter,
    *,
    kind: Kind = "replay",
    options: Options = DEFAULT_OPTIONS,
    own: UUID | None = None,
    now: datetime | None = None,
) -> Preview:
    """What a replay or a cancellation of the filter would do, and the filter with the instant frozen.

    Raises NotFound where it goes to an endpoint that is not there, or not of the tenant `own`, if given.
    """
    if isinstance(options.goes_to, UUID):
        register.find(connection, options.goes_to, tenant_id=own)
    summary = _summarise(connection, chosen, kind, options, now)
    estimated_s = summary.count / min(options.rate or FASTEST, FASTEST)
    if kind == "replay":
        estimated_s = max(estimated_s, summary.longest_s, summary.most / (options.rate_per_endpoint or FASTEST))
    return Preview(kind, replace(chosen, as_of=summary.at), summary, estimated_s, options)


def _summarise(connection: Connection, chosen: Filter, kind: Kind, options: Options, now: datetime | None) -> Summary:
    if kind == "replay":
        return originals.summarise(connection, chosen, goes_to=options.goes_to, now=now)
    live = log.summarise_live(connection, chosen, now=now)
    return Summary(
        count=live.count,
        oldest=live.oldest,
        newest=live.newest,
        already_delivered=live.already_delivered,
        endpoints=0,
        endpoints_disabled=live.endpoints_disabled,
        longest_s=live.longest_s,
        most=0,
        payload_gone=0,
        not_visible=0,
        at=live.at,
        in_flight=live.in_flight,
    )


def filter_to_stored(chosen: Filter) -> dict[str, Any]:
    """The conditions of a filter as they are stored, in JSON's types."""
    given = {field.name: value for field in fields(Filter) if (value := getattr(chosen, field.name)) != field.default}
    plain: dict[str, Any] = orjson.loads(to_json(given))
    return plain


def filter_from_stored(stored: dict[str, Any]) -> Filter:
    """The filter that `filter_to_stored` wrote."""
    values = dict(stored)
    for name in ("delivery_id", "tenant_id", "endpoint_id", "event_id", "replay_id"):
        if name in values:
            values[name] = UUID(values[name])
    for name in ("created_after", "created_before", "ended_after", "ended_before", "as_of"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "mode" in values:
        values["mode"] = Mode(values["mode"])
    if "states" in values:
        values["states"] = tuple(DeliveryState(state) for state in values["states"])
    if "delivery_ids" in values:
        values["delivery_ids"] = tuple(map(UUID, values["delivery_ids"]))
    return Filter(**values)
