"""`dispatcher deliveries`: the delivery log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from uuid import UUID

import click
from rich.text import Text

from dispatcher.cli import target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.output import (
    counted,
    instant,
    output_option,
    print_fields,
    print_json,
    print_line,
    print_table,
    visible,
)
from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.store import log

if TYPE_CHECKING:
    from dispatcher.cli.output import Command, Output
    from dispatcher.client import Client
    from dispatcher.client.types import Attempt, Delivery, DeliveryFilter, DeliveryStatus

COLOURS: Final = {
    DeliveryState.WAITING: "yellow",
    DeliveryState.IN_FLIGHT: "cyan",
    DeliveryState.DELIVERED: "green",
    DeliveryState.EXHAUSTED: "red",
    DeliveryState.REJECTED: "red",
    DeliveryState.EXPIRED: "red",
    DeliveryState.CANCELLED: "magenta",
}

_FOLLOWED: Final = 200

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


def query_of(chosen: log.Filter) -> DeliveryFilter:
    """The same choice as the API has it: several states with commas between."""
    states = chosen.states
    if chosen.undelivered:
        states = tuple(one for one in states or tuple(DeliveryState) if one is not DeliveryState.DELIVERED)
    found: DeliveryFilter = {
        "status": cast("DeliveryStatus", ",".join(states)) if states else None,
        "tenant_id": None if chosen.tenant_id is None else format_id("ten", chosen.tenant_id),
        "endpoint_id": None if chosen.endpoint_id is None else format_id("ep", chosen.endpoint_id),
        "event_id": None if chosen.event_id is None else format_id("evt", chosen.event_id),
        "event_type": chosen.event_type,
        "object_id": chosen.object_id,
        "outcome": chosen.outcome,
        "created_after": None if chosen.created_after is None else instant(chosen.created_after),
        "created_before": None if chosen.created_before is None else instant(chosen.created_before),
    }
    return found


def _newest(client: Client, chosen: log.Filter, limit: int) -> Iterator[Delivery]:
    if chosen.undelivered and chosen.states == (DeliveryState.DELIVERED,):
        return iter(())  # which the API would take for any
    return islice(client.deliveries.iterate(**query_of(chosen), limit=min(limit, 1000)), limit)


def _status(one: Delivery) -> Text:
    return Text(one["status"], style=COLOURS[DeliveryState(one["status"])])


def _outcome(attempt: Attempt) -> str:
    return attempt["outcome"] if attempt["outcome_known"] else f"{attempt['outcome']}, perhaps received"


def _why(one: Delivery) -> str:
    if one["status"] == "delivered":
        return ""
    return one["status_reason"] or ("" if one["attempt_count"] else "not attempted yet")


def _next(one: Delivery) -> str:
    if one["next_attempt_at"] is None:
        return ""
    wait_s = (datetime.fromisoformat(one["next_attempt_at"]) - SYSTEM.now()).total_seconds()
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


@deliveries.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@output_option
def list_(chosen: log.Filter, limit: int, output: Output) -> None:
    """The newest deliveries that all the given options choose."""
    with target.client() as client:
        found = list(_newest(client, chosen, limit))
    if output == "json":
        print_json({"data": found})
        return
    now = SYSTEM.now()
    print_table(
        ["delivery", "age", "status", "tries", "event type", "object", "why", "next try"],
        [
            (
                one["id"],
                ago((now - datetime.fromisoformat(one["created_at"])).total_seconds()),
                _status(one),
                one["attempt_count"],
                one["event_type"],
                one["object_id"],
                _why(one),
                _next(one),
            )
            for one in found
        ],
        caption="" if found else "No delivery matches. `dispatcher events show` tells whether an event matched nobody.",
    )


@deliveries.command()
@click.argument("delivery_id", type=Id("dlv"))
@output_option
def show(delivery_id: UUID, output: Output) -> None:
    """One delivery with every attempt: what was sent, what came back, what was decided."""
    with target.client() as client:
        one = client.deliveries.get(format_id("dlv", delivery_id))
        attempts = client.deliveries.attempts(one["id"])["data"]
    if output == "json":
        print_json({**one, "attempts": attempts})
        return
    print_fields(
        [
            ("delivery", one["id"]),
            ("status", _status(one)),
            *([("why", _why(one))] if _why(one) else []),
            ("event", f"{one['event_id']}  {one['event_type']}"),
            *([("object", one["object_id"])] if one["object_id"] else []),
            ("endpoint", f"{one['endpoint_id']}  {one['url']}"),
            ("schedule", f"{one['schedule']['name']} (version {one['schedule']['version']})"),
            ("created", one["created_at"]),
            *([("next attempt", f"{_second(one['next_attempt_at'])}, {_next(one)}")] if one["next_attempt_at"] else []),
            *([("ended", one["ended_at"])] if one["ended_at"] else []),
            *([("replay of", one["replay_of"])] if one["replay_of"] else []),
        ]
    )
    print_line("")
    print_table(
        ["#", "started", "took", "outcome", "status", "from", "decision", "error"],
        [
            (
                attempt["number"],
                attempt["started_at"],
                f"{attempt['duration_ms']:,.0f} ms",
                Text(_outcome(attempt), style="green" if attempt["outcome"] == "ok" else "red"),
                attempt["status_code"],
                attempt["peer_ip"],
                attempt["decision"],
                attempt["error"],
            )
            for attempt in attempts
        ],
        caption="" if attempts else "No attempt has been made.",
    )
    if attempts:
        _print_exchange(attempts[-1])


def _second(at: str) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S} UTC"


def _print_exchange(last: Attempt) -> None:
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
@filter_options
@click.option("--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds.")
@output_option
def tail(chosen: log.Filter, interval: float, output: Output) -> None:
    """Follow deliveries until Ctrl-C: a line for each new one, and whenever one moves; of the newest 200.

    With --output json, one object a line.
    """
    seen: dict[str, Delivery] | None = None
    with target.client() as client:
        while True:
            found = list(_newest(client, chosen, _FOLLOWED))
            for one in [] if seen is None else moved(seen, found):
                _print_moved(one, output)
            seen = {one["id"]: one for one in found}
            time.sleep(interval)


def moved(seen: dict[str, Delivery], found: list[Delivery]) -> list[Delivery]:
    """Those of `found`, the newest first, that are new or not as they were seen; the oldest first."""
    return [one for one in reversed(found) if seen.get(one["id"]) != one]


def _print_moved(one: Delivery, output: Output) -> None:
    if output == "json":
        click.echo(json.dumps(one))
        return
    why, at = _why(one), _next(one)
    rest = [one["event_type"], one["object_id"] or "", f"try {one['attempt_count']}", why, f"next {at}" if at else ""]
    print_line(" ".join([f"{SYSTEM.now():%H:%M:%S}", one["id"], f"{one['status']:<9}", *filter(None, rest)]))


@deliveries.command()
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=Id("dlv"))
@filter_options
@click.option("--dry-run", is_flag=True, help="Tell what would be retried, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retry(delivery_ids: tuple[UUID, ...], chosen: log.Filter, dry_run: bool, yes: bool) -> None:
    """Attempt deliveries now: a waiting one at once, an ended one again from the start of its schedule.

    By their ids, or by options, which start a replay of the ended ones that they choose.
    """
    with target.client() as client:
        if not _by_id(delivery_ids, chosen):
            _over_many(client, "replay", chosen, dry_run=dry_run, yes=yes)
            return
        for id_ in (format_id("dlv", one) for one in delivery_ids):
            if dry_run:
                print_line(f"{id_} is {client.deliveries.get(id_)['status']}")
                continue
            made = client.deliveries.retry(id_)
            print_line(f"{made['id']} is due now" + ("" if made["id"] == id_ else ", a replay"))


@deliveries.command()
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=Id("dlv"))
@filter_options
@click.option("--reason", default="cancelled by an operator", show_default=True, help="Of those named by id.")
@click.option("--dry-run", is_flag=True, help="Tell what would be cancelled, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(delivery_ids: tuple[UUID, ...], chosen: log.Filter, reason: str, dry_run: bool, yes: bool) -> None:
    """End waiting deliveries without sending them: by their ids, or all that the options choose."""
    with target.client() as client:
        if not _by_id(delivery_ids, chosen):
            _over_many(client, "cancel", chosen, dry_run=dry_run, yes=yes)
            return
        for id_ in (format_id("dlv", one) for one in delivery_ids):
            if dry_run:
                print_line(f"{id_} is {client.deliveries.get(id_)['status']}")
                continue
            client.deliveries.cancel(id_, reason=reason)
            print_line(f"{id_} is cancelled")


def _by_id(delivery_ids: tuple[UUID, ...], chosen: log.Filter) -> bool:
    """Whether deliveries are named by their ids. Raises UsageError for ids and options, and for neither."""
    if bool(delivery_ids) == (chosen != log.Filter()):
        found = "both" if delivery_ids else "nothing"
        raise click.UsageError(f"found {found}; allowed: ids of deliveries, or options that choose some")
    return bool(delivery_ids)


def _over_many(
    client: Client, verb: Literal["replay", "cancel"], chosen: log.Filter, *, dry_run: bool, yes: bool
) -> None:
    """Counts what is chosen, asks, and starts the work over it."""
    resource = client.replays if verb == "replay" else client.cancellations
    query = query_of(chosen)
    if chosen.undelivered and not chosen.states:  # what lives is not replayed, what has ended not cancelled
        undelivered = (*FAILED, DeliveryState.CANCELLED)
        query["status"] = cast("DeliveryStatus", ",".join(undelivered)) if verb == "replay" else None
    preview = resource.preview(**query)
    number = counted(preview["count"], "delivery", "deliveries")
    if dry_run or not preview["count"]:
        print_line(f"{number} would be {'replayed' if verb == 'replay' else 'cancelled'}")
        return
    if not yes:
        click.confirm(f"{verb.capitalize()} {number}?", abort=True)
    started = resource.create(**query, preview_token=preview["preview_token"])
    print_line(f"{started['id']} is {started['status']}, over {number}")
