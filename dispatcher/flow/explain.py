"""Why an event went where it went: for each endpoint that could have heard it, the rule that decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import Verdict
from dispatcher.model.filter import Filter
from dispatcher.store import event_log
from dispatcher.store.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.store.event_log import Hearer
    from dispatcher.store.log import LoggedDelivery, LoggedEvent

_MANY = 100_000
"""Deliveries of one event, its replays among them: more than there can be."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One endpoint: the verdict, and as a sentence the rule behind it. `delivery` is the latest one, if any."""

    endpoint_id: UUID
    url: str
    tenant_id: UUID
    verdict: Verdict
    rule: str
    delivery: LoggedDelivery | None


def explain(connection: Connection, event: LoggedEvent, *, now: datetime, only: UUID | None = None) -> list[Explained]:
    """Each endpoint of the event's tenant and of those above it, by its id; `only` those of one tenant.

    The rules are those of the moment at which the event was accepted, from the endpoints' history. That an endpoint
    was chosen is told by the delivery itself.
    """
    latest: dict[UUID, LoggedDelivery] = {}
    for delivery in search(connection, Filter(event_id=event.id), limit=_MANY):  # the newest first
        latest.setdefault(delivery.endpoint_id, delivery)
    hearers = event_log.hearers(connection, event, only=only)
    had_target = any(one.is_implicit for one in hearers)
    return [_explain(one, event, latest.get(one.id), had_target=had_target, now=now) for one in hearers]


def _explain(
    one: Hearer, event: LoggedEvent, delivery: LoggedDelivery | None, *, had_target: bool, now: datetime
) -> Explained:
    if delivery is not None:
        verdict, rule = _of_delivery(one, event, delivery, now)
    else:
        verdict, rule = _without_delivery(one, event, had_target=had_target)
    url = one.url if delivery is None else delivery.url
    return Explained(one.id, url, one.tenant_id, verdict, rule, delivery)


def _of_delivery(one: Hearer, event: LoggedEvent, delivery: LoggedDelivery, now: datetime) -> tuple[Verdict, str]:
    if one.is_implicit:
        chosen = "the event has a target of its own"
    elif one.version is None or (pattern := matching(one.event_types, event.type)) is None:
        chosen = "it was registered, or changed, while the event was accepted"
    else:
        chosen = f"{_wanted([pattern] if pattern else None)} {event.type} (version {one.version} of the endpoint)"
    if one.status == "disabled":
        return Verdict.DISABLED, f"{chosen}; it was disabled then{_because(one.status_reason)}: the delivery was held"
    if delivery.state is DeliveryState.WAITING:
        if one.paused_at is not None:
            what = "" if one.pause_scope is None else f" of {one.pause_scope}"
            return Verdict.PAUSED, f"{chosen}; a pause{what} holds it{_because(one.pause_reason)}"
        if one.status_now == "disabled":
            return Verdict.DISABLED, f"{chosen}; it has been disabled since: the delivery is held"
        if delivery.due_at is not None and delivery.due_at <= now:
            if one.is_capped:
                return Verdict.LIMITED, f"{chosen}; as many attempts are in flight as it takes now"
            if one.rate_limit is not None:
                return Verdict.LIMITED, f"{chosen}; it takes {one.rate_limit:g} attempts a second"
    return Verdict.MATCHED, chosen


def _without_delivery(one: Hearer, event: LoggedEvent, *, had_target: bool) -> tuple[Verdict, str]:
    if one.version is None:
        return Verdict.NOT_REGISTERED_YET, f"it was registered at {one.created_at:%Y-%m-%dT%H:%M:%SZ}, after the event"
    if one.status == "deleted":
        return Verdict.DELETED, f"it was deleted at {one.changed_at:%Y-%m-%dT%H:%M:%SZ}, before the event"
    if had_target and one.tenant_id == event.tenant_id:
        return Verdict.OVERRIDDEN_BY_TARGET, "the event has a target of its own, and goes there instead"
    if matching(one.event_types, event.type) is None:
        rule = f"{_wanted(one.event_types, 'do not match')} {event.type} (version {one.version} of the endpoint)"
        return Verdict.FILTERED, rule
    return Verdict.NOT_REGISTERED_YET, (
        f"version {one.version} of the endpoint was registered while the event was accepted"
    )


def matching(patterns: Sequence[str] | None, event_type: str) -> str | None:
    """The first pattern that matches; "" where there are none, which means all; None where no pattern matches.

    >>> matching(["refund.*", "payment.*"], "payment.paid"), matching(None, "a"), matching(["payment.*"], "payment")
    ('payment.*', '', None)
    """
    if patterns is None:
        return ""
    for pattern in patterns:
        if pattern in ("*", event_type) or (pattern.endswith(".*") and event_type.startswith(pattern[:-1])):
            return pattern
    return None


def _wanted(patterns: Sequence[str] | None, verb: str = "matches") -> str:
    if patterns is None:
        return "no event_types: it hears all, also"
    if len(patterns) == 1:
        verb = verb.replace("do not", "does not")
    return f"event_types {', '.join(patterns)} {verb}"


def _because(reason: str | None) -> str:
    return "" if reason is None else f" ({reason})"
