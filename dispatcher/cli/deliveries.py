"""`dispatcher deliveries`: the delivery log."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click
from rich.text import Text

from dispatcher.api import forms
from dispatcher.cli import target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.output import output_option, print_fields, print_json, print_line, print_table, visible
from dispatcher.clock import SYSTEM
from dispatcher.errors import Conflict, NotFound
from dispatcher.flow import replay
from dispatcher.ids import format_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.store import deliveries as store
from dispatcher.store import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Command, Output
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery

COLOURS: Final = {
    DeliveryState.WAITING: "yellow",
    DeliveryState.IN_FLIGHT: "cyan",
    DeliveryState.DELIVERED: "green",
    DeliveryState.EXHAUSTED: "red",
    DeliveryState.REJECTED: "red",
    DeliveryState.EXPIRED: "red",
    DeliveryState.CANCELLED: "magenta",
}

_STATUSES: Final = [*map(str, DeliveryState), "failed"]


@click.group()
def deliveries() -> None:
    """Where is my notification?"""


def filter_options(command: Command) -> Command:
    """Adds the options that choose deliveries, passed as `chosen`."""
    options: list[Callable[[Any], Any]] = [
        click.option(
            "--status",
            multiple=True,
            type=click.Choice(_STATUSES),
            help="May be repeated; failed is " + ", ".join(FAILED),
        ),
        click.option("--undelivered", is_flag=True, help="Whatever has not been delivered."),
        click.option("--endpoint", "endpoint_id", type=Id("ep")),
        click.option("--event", "event_id", type=Id("evt")),
        click.option("--event-type"),
        click.option("--object", "object_id", help="The payment, order or refund that the event is about."),
        click.option("--tenant", "tenant_id", type=Id("ten")),
        click.option("--outcome", help="Of the last attempt, such as http_4xx or dns."),
        click.option("--since", type=Since(), help="Created after: 24h, or an instant."),
        click.option("--until", type=Since(), help="Created before."),
    ]

    def choosing(
        *args: Any,
        status: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        undelivered: bool,
        endpoint_id: UUID | None,
        event_id: UUID | None,
        event_type: str | None,
        object_id: str | None,
        tenant_id: UUID | None,
        outcome: str | None,
        **kwargs: Any,
    ) -> Any:
        states: list[DeliveryState] = []
        for one in status:
            states += FAILED if one == "failed" else [DeliveryState(one)]
        chosen = log.Filter(
            states=tuple(dict.fromkeys(states)),
            undelivered=undelivered,
            endpoint_id=endpoint_id,
            event_id=event_id,
            event_type=event_type,
            object_id=object_id,
            tenant_id=tenant_id,
            outcome=outcome,
            created_after=since,
            created_before=until,
        )
        return command(*args, chosen=chosen, **kwargs)

    choosing.__name__, choosing.__doc__ = command.__name__, command.__doc__
    choosing.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    decorated: Any = choosing
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _status(one: LoggedDelivery) -> Text:
    return Text(one.state, style=COLOURS[one.state])


def _outcome(attempt: LoggedAttempt) -> str:
    return attempt.outcome if attempt.outcome_known else f"{attempt.outcome}, perhaps received"


def _why(one: LoggedDelivery) -> str:
    if one.state is DeliveryState.DELIVERED:
        return ""
    return one.held or one.reason or ("" if one.attempts else "not attempted yet")


@deliveries.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@output_option
def list_(chosen: log.Filter, limit: int, output: Output) -> None:
    """The newest deliveries that all the given options choose."""
    with target.database() as (_, connection):
        found = log.search(connection, chosen, limit=limit)
    if output == "json":
        print_json({"data": [forms.delivery(one) for one in found]})
        return
    print_table(
        ["delivery", "age", "status", "tries", "event type", "object", "why", "next try"],
        [
            (
                format_id("dlv", one.id),
                ago((SYSTEM.now() - one.created_at).total_seconds()),
                _status(one),
                one.attempts,
                one.event_type,
                one.object_id,
                _why(one),
                _next(one),
            )
            for one in found
        ],
        caption="" if found else "No delivery matches. `dispatcher events show` tells whether an event matched nobody.",
    )


def _next(one: LoggedDelivery) -> str:
    if one.due_at is None or one.state is not DeliveryState.WAITING or one.held is not None:
        return ""
    wait_s = (one.due_at - SYSTEM.now()).total_seconds()
    return "now" if wait_s <= 0 else f"in {ago(wait_s)}"


def ago(seconds: float) -> str:
    """A span in its two largest units.

    >>> ago(7384)
    '2h 3m'
    """
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


@deliveries.command()
@click.argument("delivery_id", type=Id("dlv"))
@output_option
def show(delivery_id: UUID, output: Output) -> None:
    """One delivery with every attempt: what was sent, what came back, what was decided."""
    with target.database() as (_, connection):
        one = log.find(connection, delivery_id)
        if one is None:
            raise NotFound(f"there is no delivery {format_id('dlv', delivery_id)}")
        attempts = log.attempts(connection, delivery_id)
    if output == "json":
        print_json(forms.delivery(one) | {"attempts": [forms.attempt(attempt) for attempt in attempts]})
        return
    print_fields(
        [
            ("delivery", format_id("dlv", one.id)),
            ("status", _status(one)),
            *([("why", _why(one))] if _why(one) else []),
            ("event", f"{format_id('evt', one.event_id)}  {one.event_type}"),
            *([("object", one.object_id)] if one.object_id else []),
            ("endpoint", f"{format_id('ep', one.endpoint_id)}  {one.url}"),
            ("schedule", f"{one.schedule} (version {one.schedule_version[:12]})"),
            ("created", one.created_at),
            *([("next attempt", f"{one.due_at:%Y-%m-%d %H:%M:%S} UTC, {_next(one)}")] if _next(one) else []),
            *([("ended", one.ended_at)] if one.ended_at else []),
            *([("replay of", format_id("dlv", one.replay_of))] if one.replay_of else []),
        ]
    )
    print_line("")
    print_table(
        ["#", "started", "took", "outcome", "status", "from", "decision", "error"],
        [
            (
                attempt.number,
                attempt.started_at,
                f"{attempt.duration_ms:,.0f} ms",
                Text(_outcome(attempt), style="green" if attempt.outcome == "ok" else "red"),
                attempt.status_code,
                attempt.peer_ip,
                attempt.decision,
                attempt.error,
            )
            for attempt in attempts
        ],
        caption="" if attempts else "No attempt has been made.",
    )
    if attempts:
        last = forms.attempt(attempts[-1])
        print_line("")
        print_line("last request", style="bold")
        print_line(f"{last['request']['method']} {last['request']['url']}")
        for name, value in last["request"]["headers"]:
            print_line(f"{name}: {value}")
        print_line("")
        print_line("last answer", style="bold")
        for name, value in last["response"]["headers"]:
            print_line(f"{name}: {value}")
        body = last["response"]["body"]
        if body:
            print_line(re.sub(r"^", "  ", visible(body[:2000]), flags=re.MULTILINE))
        if last["response"]["body_truncated"]:
            print_line(f"(the body ended as {last['response']['body_end']})")


@deliveries.command()
@click.argument("delivery_id", type=Id("dlv"))
def retry(delivery_id: UUID) -> None:
    """Attempt one delivery now: a waiting one at once, an ended one again from the start of its schedule."""
    with target.database() as (settings, connection):
        if log.find(connection, delivery_id) is None:
            raise NotFound(f"there is no delivery {format_id('dlv', delivery_id)}")
        made = replay.retry(connection, delivery_id)
    if made is None:
        raise Conflict("it is in flight, was replayed before, or its endpoint is deleted; nothing was changed")
    target.ring(settings)
    print_line(f"{format_id('dlv', made)} is due now" + ("" if made == delivery_id else ", a replay"))


@deliveries.command()
@click.argument("delivery_id", type=Id("dlv"))
@click.option("--reason", default="cancelled by an operator", show_default=True)
def cancel(delivery_id: UUID, reason: str) -> None:
    """End one waiting delivery without sending it."""
    with target.database() as (_, connection):
        if log.find(connection, delivery_id) is None:
            raise NotFound(f"there is no delivery {format_id('dlv', delivery_id)}")
        done = store.cancel(connection, delivery_id, reason)
    if not done:
        raise Conflict("it is in flight or has ended; nothing was changed")
    print_line(f"{format_id('dlv', delivery_id)} is cancelled")
