"""`dispatcher events`: what happened."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal
from uuid import UUID

import click
import orjson
from rich.text import Text

from dispatcher.api import forms
from dispatcher.cli import target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.output import (
    console,
    counted,
    output_option,
    print_fields,
    print_json,
    print_line,
    print_table,
    progress_bar,
)
from dispatcher.errors import NotFound
from dispatcher.flow.enqueue import CHUNK, Accepted, enqueue
from dispatcher.flow.parse import parse_event, parse_line
from dispatcher.ids import DEFAULT_TENANT, format_id
from dispatcher.model.event import METHODS, Mode
from dispatcher.store import log
from dispatcher.store.search import search
from dispatcher.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.cli.output import Output
    from dispatcher.model.event import Event

_STYLES: Final = {
    "matched": "green",
    "filtered": "",
    "overridden_by_target": "",
    "not_registered_yet": "",
    "deleted": "",
}


@click.group()
def events() -> None:
    """Emit events and see where they went."""


@events.command()
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--type", "event_type", help="Send SOURCE as the payload of one event of this type.")
@click.option("--object-id", help="With --type: the payment or order that the event is about.")
@click.option("--idempotency-key", help="With --type: sending it again under this key makes no second event.")
@click.option("--target", "--url", "url", help="With --type: send it to this URL, not to the tenant's endpoints.")
@click.option("--method", type=click.Choice(METHODS), help="With --target; by default the profile's first one.")
@click.option("--tenant", "tenant_id", type=Id("ten"), default=DEFAULT_TENANT, help="Whose, where a line names none.")
@click.option("--dry-run", is_flag=True, help="Check every line and send nothing.")
@output_option
def send(
    source: BinaryIO,
    event_type: str | None,
    object_id: str | None,
    idempotency_key: str | None,
    url: str | None,
    method: str | None,
    tenant_id: UUID,
    dry_run: bool,
    output: Output,
) -> None:
    """Send events from SOURCE, a file or - for standard input.

    One JSON object a line: {"type": "payment.completed", "payload": {…}}, with the fields of POST /v1/events. With
    --type, SOURCE is the payload of a single event. Committed in batches of 1,000: after an error, what was printed
    as accepted is accepted, and sending it again is safe where the lines carry ids or keys.
    """
    if method is not None and url is None:
        raise click.UsageError("--method goes with --target")
    if event_type is not None:
        try:
            payload = source.read().strip(b" \t\r\n")
            orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise click.UsageError(f"SOURCE: found no JSON ({error}); allowed: any JSON value") from error
        values: dict[str, Any] = {
            "type": event_type,
            "payload": payload,
            "object_id": object_id,
            "idempotency_key": idempotency_key,
        }
        if url is not None:
            values["target"] = {"url": url, "method": method}
        found: Iterator[Event] = iter([parse_event(values, tenant_id=tenant_id)])
    else:
        if (object_id, idempotency_key, url) != (None, None, None):
            raise click.UsageError("--object-id, --idempotency-key and --target go with --type; lines carry their own")
        lines = ((n, line) for n, line in enumerate(source, 1) if line.strip())
        found = (parse_line(line, n, tenant_id=tenant_id) for n, line in lines)
    if dry_run:
        checked = sum(1 for _ in found)
        print_line(f"checked {counted(checked, 'event')}, all right; nothing was sent")
        return
    accepted: list[Accepted] = []
    try:
        _send(found, accepted)
    except BaseException:
        if accepted:
            _report(accepted, output)
        raise
    _report(accepted, output)


def _report(accepted: list[Accepted], output: Output) -> None:
    if output == "json":
        print_json(
            {"data": [{"id": str(one), "duplicate": one.duplicate, "deliveries": one.fanout} for one in accepted]}
        )
        return
    new = [one for one in accepted if not one.duplicate]
    unmatched = sum(1 for one in new if one.fanout == 0)
    print_line(
        f"{counted(len(new), 'event')} accepted, "
        f"{counted(sum(one.fanout or 0 for one in new), 'delivery', 'deliveries')}, "
        f"{len(accepted) - len(new)} sent before, {unmatched} that no endpoint wants"
    )
    if len(accepted) == 1:
        print_line(str(accepted[0]))


def _send(found: Iterator[Event], accepted: list[Accepted]) -> None:
    """Appends to `accepted` what is committed, so that the caller has it after an error too."""
    progress = progress_bar(console())
    with target.opened() as (settings, engine), progress, engine.connect() as connection:
        wakeup = Wakeup(settings.broker_url)
        task = progress.add_task("sending", total=None)
        while batch := list(islice(found, CHUNK)):
            with connection.begin():
                accepted += enqueue(connection, batch)
            wakeup.ring()
            progress.update(task, completed=len(accepted))


@events.command("list")
@click.option("--event-type", help="Of this type.")
@click.option("--object", "object_id", help="The payment, order or refund that the event is about.")
@click.option("--mode", type=click.Choice(list(map(str, Mode))))
@click.option("--tenant", "tenant_id", type=Id("ten"))
@click.option("--since", type=Since(), help="Accepted after: 24h, or an instant.")
@click.option("--until", type=Since(), help="Accepted before.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@output_option
def list_(
    event_type: str | None,
    object_id: str | None,
    mode: Literal["live", "test"] | None,
    tenant_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    output: Output,
) -> None:
    """The newest events that all the given options choose."""
    with target.client() as client:
        found = client.events.list(
            limit=limit,
            event_type=event_type,
            object_id=object_id,
            mode=mode,
            tenant_id=None if tenant_id is None else format_id("ten", tenant_id),
            created_after=since,
            created_before=until,
        )["data"]
    if output == "json":
        print_json({"data": found})
        return
    print_table(
        ["event", "accepted", "type", "object", "mode", "deliveries"],
        [
            (one["id"], one["created_at"], one["type"], one["object_id"], one["mode"], one.get("deliveries"))
            for one in found
        ],
        caption="" if found else "No event matches.",
    )


@events.command()
@click.argument("event_id", type=Id("evt"))
@output_option
def explain(event_id: UUID, output: Output) -> None:
    """Why an event went where it went: for each endpoint of its tenant and above, the rule that decided.

    The rules are those of the moment at which the event was accepted.
    """
    with target.client() as client:
        explained = client.events.explain(format_id("evt", event_id))
    if output == "json":
        print_json(explained)
        return
    print_table(
        ["endpoint", "verdict", "rule", "delivery", "status", "next attempt", "url"],
        [
            (
                one["endpoint_id"],
                Text(one["verdict"], style=_STYLES.get(one["verdict"], "yellow")),
                one["rule"],
                (one["delivery"] or {}).get("id"),
                (one["delivery"] or {}).get("held") or (one["delivery"] or {}).get("status"),
                (one["delivery"] or {}).get("next_attempt_at"),
                one["url"],
            )
            for one in explained["endpoints"]
        ],
        caption="" if explained["endpoints"] else "The tenant, and those above it, never had an endpoint.",
    )


@events.command()
@click.argument("event_id", type=Id("evt"))
@output_option
def show(event_id: UUID, output: Output) -> None:
    """One event and its deliveries."""
    with target.database() as (_, connection):
        event = log.find_event(connection, event_id)
        if event is None:
            raise NotFound(f"there is no event {format_id('evt', event_id)}")
        deliveries = search(connection, log.Filter(event_id=event_id), limit=1000)
    if output == "json":
        print_json(
            {
                "id": format_id("evt", event.id),
                "tenant_id": format_id("ten", event.tenant_id),
                "type": event.type,
                "mode": event.mode,
                "object_id": event.object_id,
                "created_at": event.created_at,
                "payload": None if event.payload is None else orjson.loads(event.payload),
                "payload_gone": event.payload_gone,
                "deliveries": [forms.delivery(one) for one in deliveries],
            }
        )
        return
    print_fields(
        [
            ("event", format_id("evt", event.id)),
            ("type", event.type),
            ("object", event.object_id),
            ("mode", event.mode),
            ("accepted", event.created_at),
            ("deliveries", f"{event.fanout}" if event.fanout else "none: no endpoint wanted it when it was accepted"),
            (
                "payload",
                f"gone: {event.payload_gone}" if event.payload is None else event.payload.decode(errors="replace"),
            ),
        ]
    )
    if deliveries:
        print_line("")
        print_table(
            ["delivery", "status", "attempts", "next attempt", "url"],
            [(format_id("dlv", one.id), one.state, one.attempts, one.due_at, one.url) for one in deliveries],
        )
