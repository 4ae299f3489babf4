"""`dispatcher deliveries`: the delivery log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import click

from dispatcher.cli import sheet, story, target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.commands import Group
from dispatcher.cli.listing import PAGE, Column, Table, limit_options, print_more, print_page, take, whole
from dispatcher.cli.output import (
    counted,
    instant,
    output_choice,
    output_option,
    print_json,
    print_line,
    styled,
)
from dispatcher.cli.reasons import reason_of
from dispatcher.cli.story import COLOURS
from dispatcher.clock import SYSTEM
from dispatcher.errors import Forbidden
from dispatcher.ids import format_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.model.event import Mode
from dispatcher.model.filter import Filter

if TYPE_CHECKING:
    from rich.text import Text

    from dispatcher.cli.output import Command, Output
    from dispatcher.cli.sheet import Format
    from dispatcher.client import Client
    from dispatcher.shapes import Delivery, DeliveryFilter, Page

_STATUSES: Final = [*map(str, DeliveryState), "failed"]


@click.group(cls=Group)
def deliveries() -> None:
    """Show, retry, cancel or export deliveries."""


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
        click.option("--mode", type=click.Choice(list(map(str, Mode))), help="Real events, or those of a sandbox."),
        click.option("--object-id", help="The payment, order or refund that the event is about."),
        click.option("--tenant", "tenant_id", type=Id("ten")),
        click.option("--host", help="Where the endpoint is."),
        click.option("--outcome", help="Of the last attempt, such as http_4xx or dns."),
        click.option("--http-status", "status_code", type=click.IntRange(0, 99_999), help="Of the last attempt."),
        click.option("--attempts-min", type=click.IntRange(0, 100), help="At least so many."),
        click.option("--attempts-max", type=click.IntRange(0, 100), help="At most so many."),
        click.option("--error", help="Words of the last attempt's error."),
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
        mode: str | None,
        object_id: str | None,
        tenant_id: UUID | None,
        host: str | None,
        outcome: str | None,
        status_code: int | None,
        attempts_min: int | None,
        attempts_max: int | None,
        error: str | None,
        **kwargs: Any,
    ) -> Any:
        states: list[DeliveryState] = []
        for one in status:
            states += FAILED if one == "failed" else [DeliveryState(one)]
        chosen = Filter(
            states=tuple(dict.fromkeys(states)),
            undelivered=undelivered,
            endpoint_id=endpoint_id,
            event_id=event_id,
            event_type=event_type,
            mode=None if mode is None else Mode(mode),
            object_id=object_id,
            tenant_id=tenant_id,
            host=host,
            outcome=outcome,
            status_code=status_code,
            attempts_min=attempts_min,
            attempts_max=attempts_max,
            error=error,
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


def query_of(chosen: Filter) -> DeliveryFilter:
    """The same choice as the API has it: several states with commas between."""
    states = chosen.states
    if chosen.undelivered:
        states = tuple(one for one in states or tuple(DeliveryState) if one is not DeliveryState.DELIVERED)
    found: DeliveryFilter = {
        "status": ",".join(states) if states else None,
        "tenant_id": None if chosen.tenant_id is None else format_id("ten", chosen.tenant_id),
        "endpoint_id": None if chosen.endpoint_id is None else format_id("ep", chosen.endpoint_id),
        "event_id": None if chosen.event_id is None else format_id("evt", chosen.event_id),
        "event_type": chosen.event_type,
        "mode": None if chosen.mode is None else chosen.mode.value,
        "object_id": chosen.object_id,
        "host": chosen.host,
        "outcome": chosen.outcome,
        "status_code": chosen.status_code,
        "attempts_min": chosen.attempts_min,
        "attempts_max": chosen.attempts_max,
        "error": chosen.error,
        "created_after": None if chosen.created_after is None else instant(chosen.created_after),
        "created_before": None if chosen.created_before is None else instant(chosen.created_before),
    }
    return found


def _chosen(
    client: Client, chosen: Filter, limit: int, cursor: str | None, sort: Literal["newest", "oldest"]
) -> Page[Delivery]:
    if chosen.undelivered and chosen.states == (DeliveryState.DELIVERED,):
        return whole([])  # which the API would take for any
    return take(client.deliveries.list, limit, cursor, **query_of(chosen), sort=sort)


def _status(one: Delivery) -> Text:
    return styled(one["status"], COLOURS[DeliveryState(one["status"])])


def _next(one: Delivery) -> str:
    """When the next attempt is due; empty before the first one, which is due at once."""
    if one["next_attempt_at"] is None or not one["attempt_count"]:
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


DELIVERIES: Final[Table[Delivery]] = Table(
    "Delivery",
    (
        Column("delivery", "id", kind="id"),
        Column("time", "created_at", kind="time"),
        Column("status", "status", _status),
        Column("mode", "mode", short=lambda one: None if one["mode"] == "live" else one["mode"]),
        Column("#", "attempt_count"),
        Column("type", "event_type", least=9, keep="end"),
        Column("object", "object_id", least=7, share=3),
        Column("url", "url", kind="url", least=9, after="object_id", share=3),
        Column("next", "next_attempt_at", short=_next, where="room"),
        Column("event", "event_id", kind="id", where="pipe"),
        Column("endpoint", "endpoint_id", kind="id", where="pipe"),
        Column("reason", "status_reason", reason_of, least=9, share=3),
    ),
    empty="No delivery matches. `dispatcher events show` tells whether an event matched nobody.",
)
"""The columns of every list of deliveries."""


@deliveries.command("list")
@filter_options
@limit_options(50, most=10_000)
@click.option("--sort", type=click.Choice(["newest", "oldest"]), default="newest", help="Which come first.")
@output_choice("table", "json", *sheet.FORMATS)
def list_(
    chosen: Filter, limit: int, cursor: str | None, sort: Literal["newest", "oldest"], output: Output | Format
) -> None:
    """List deliveries, the newest first.

    Listed are those that all the given options choose.
    """
    with target.client() as client:
        page = _chosen(client, chosen, limit, cursor, sort)
    if output == "table" or output == "json":  # noqa: PLR1714 - mypy narrows only this
        print_page(DELIVERIES, page, output)
        return
    sheet.write(page["data"], output, sys.stdout)
    print_more(page)


@deliveries.command()
@click.argument("delivery_id", type=Id("dlv"))
@click.option("--curl", "part", flag_value="curl", help="Only the command that repeats the last attempt.")
@click.option("--body", "part", flag_value="body", help="Only the body, byte by byte.")
@click.option("--verify", "part", flag_value="verify", help="Only the commands that check its signatures.")
@output_option
def show(delivery_id: UUID, part: Literal["curl", "body", "verify"] | None, output: Output) -> None:
    """Show a delivery and its attempts.

    It says where the delivery is and why, what each attempt means, and what comes next.
    """
    if part is not None and output == "json":
        raise click.UsageError(f"found --output json and --{part}; allowed: one of the two")
    with target.client() as client:
        told = client.deliveries.story(format_id("dlv", delivery_id))
    match part:
        case "curl":
            story.print_curl(told)
        case "body":
            story.print_body(told)
        case "verify":
            story.print_checks(told)
        case None if output == "json":
            print_json(told)
        case None:
            story.show(told, SYSTEM.now())


@deliveries.command()
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=Id("dlv"))
@filter_options
@click.option("--dry-run", is_flag=True, help="Tell what would be retried, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retry(delivery_ids: tuple[UUID, ...], chosen: Filter, dry_run: bool, yes: bool) -> None:
    """Retry deliveries now.

    A waiting delivery is attempted at once, an ended one again from the start of its schedule. Name deliveries by
    their ids, or choose ended ones by options, which starts a replay of them.
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
            print_line(f"{made['id']} {_due(client, made)}" + ("" if made["id"] == id_ else ", a replay"))


def _due(client: Client, delivery: Delivery) -> str:
    """What a delivery that was made due does now: it is due, or waits for what holds it."""
    if delivery["status"] != "waiting" or delivery["next_attempt_at"] is not None:
        return "is due now"
    reason = delivery["status_reason"]
    if reason is None or not reason.startswith("paused"):
        return f"waits: {reason}"
    from dispatcher.cli.pauses import holds  # a command's module, which the others do without

    try:
        pauses = list(client.pauses.iterate(limit=PAGE))
    except Forbidden:  # a key that may retry need not be one that may list pauses
        pauses = []
    held_by = [
        pause["id"]
        for pause in reversed(pauses)
        if holds(
            pause,
            tenant_id=delivery["tenant_id"],
            endpoint_id=delivery["endpoint_id"],
            event_type=delivery["event_type"],
            mode=delivery["mode"],
        )
    ]
    return f"waits for the end of {' and '.join(held_by) or 'a pause'}: {reason}"


@deliveries.command()
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=Id("dlv"))
@filter_options
@click.option("--reason", default="cancelled by an operator", show_default=True, help="Of those named by id.")
@click.option("--dry-run", is_flag=True, help="Tell what would be cancelled, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(delivery_ids: tuple[UUID, ...], chosen: Filter, reason: str, dry_run: bool, yes: bool) -> None:
    """Cancel waiting deliveries.

    They end without being sent. Name them by their ids, or choose them by options.
    """
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


def _by_id(delivery_ids: tuple[UUID, ...], chosen: Filter) -> bool:
    """Whether deliveries are named by their ids. Raises UsageError for ids and options, and for neither."""
    if bool(delivery_ids) == (chosen != Filter()):
        found = "both" if delivery_ids else "nothing"
        raise click.UsageError(f"found {found}; allowed: ids of deliveries, or options that choose some")
    return bool(delivery_ids)


def _over_many(client: Client, verb: Literal["replay", "cancel"], chosen: Filter, *, dry_run: bool, yes: bool) -> None:
    """Counts what is chosen, asks, and starts the work over it."""
    resource = client.replays if verb == "replay" else client.cancellations
    query = query_of(chosen)
    if chosen.undelivered and not chosen.states:  # what lives is not replayed, what has ended not cancelled
        undelivered = (*FAILED, DeliveryState.CANCELLED)
        query["status"] = ",".join(undelivered) if verb == "replay" else None
    preview = resource.preview(**query)
    number = counted(preview["count"], "delivery", "deliveries")
    if dry_run or not preview["count"]:
        print_line(f"{number} would be {'replayed' if verb == 'replay' else 'cancelled'}")
        return
    if not yes:
        click.confirm(f"{verb.capitalize()} {number}?", abort=True)
    started = resource.create(**query, preview_token=preview["preview_token"])
    print_line(f"{started['id']} is {started['status']}, over {number}")
