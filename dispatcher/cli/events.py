"""`dispatcher events`: what happened."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast
from uuid import UUID

import click
import orjson

from dispatcher.cli import target
from dispatcher.cli.arguments import Id, Since
from dispatcher.cli.deliveries import DELIVERIES
from dispatcher.cli.listing import Column, Table, limit_options, print_page, print_rows, take
from dispatcher.cli.output import (
    counted,
    output_option,
    print_fields,
    print_json,
    print_line,
    print_table,
    progress_bar,
    styled,
    visible,
)
from dispatcher.client import ForeignAnswer, TooMany, Unavailable, Unreachable
from dispatcher.ids import format_id, uuid7
from dispatcher.model import json_text
from dispatcher.model.event import METHODS, Mode, validate
from dispatcher.model.parse import parse_event, read_line, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.shapes import BatchItem, Delivery, Event, NewEvent

_UNKNOWN: Final = (Unreachable, Unavailable, TooMany, ForeignAnswer, KeyboardInterrupt)
"""After these nobody knows whether what was sent last was accepted."""

_SHOWN: Final = 20
"""Lines that were refused, on stderr; JSON has all of them."""

_STYLES: Final = {
    "matched": "green",
    "filtered": "",
    "overridden_by_target": "",
    "not_registered_yet": "",
    "deleted": "",
}


@click.group()
def events() -> None:
    """Send events, and show where they went."""


@events.command()
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--event-type", help="Send SOURCE as the payload of one event of this type.")
@click.option("--object-id", help="With --event-type: the payment or order that the event is about.")
@click.option("--idempotency-key", help="The same sent again under this key makes no second event, for 24 hours.")
@click.option("--target", "--url", "url", help="With --event-type: send it to this URL, not to the tenant's endpoints.")
@click.option("--method", type=click.Choice(METHODS), help="With --target; by default the profile's first one.")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Whose, where a line names none.")
@click.option("--dry-run", is_flag=True, help="Check every line and send nothing.")
@output_option
def send(
    source: BinaryIO,
    event_type: str | None,
    object_id: str | None,
    idempotency_key: str | None,
    url: str | None,
    method: str | None,
    tenant_id: UUID | None,
    dry_run: bool,
    output: Output,
) -> None:
    """Send events from a file.

    SOURCE is a file, or - for standard input. One JSON object a line: {"type": "payment.completed", "payload": {…}},
    with the fields of POST /v1/events. With --event-type, SOURCE is the payload of a single event. Committed in batches
    of 1,000: after an error, what was printed as accepted is accepted. The error names the --idempotency-key under
    which the same can be sent again: nothing of it is accepted twice.
    """
    if method is not None and url is None:
        raise click.UsageError("--method goes with --target")
    if event_type is not None:
        found = iter([(1, _one(source, event_type, object_id, url, method))])
    else:
        if (object_id, url) != (None, None):
            raise click.UsageError("--object-id and --target go with --event-type; lines carry their own")
        found = _lines(source)
    if dry_run:
        checked = sum(1 for _ in found)
        print_line(f"checked {counted(checked, 'event')}, all right; nothing was sent")
        return
    key = idempotency_key or f"cli-{uuid7()}"
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    sent = Sent()
    try:
        with target.client() as client:
            if event_type is None:
                sent.send(client, found, key, tenant)
            else:
                sent.send_one(client, next(found)[1], key, tenant)
    except BaseException as error:
        if sent.items:
            sent.report(output)
        if sent.items or isinstance(error, _UNKNOWN):
            click.echo(f"dispatcher: to send the same again, and nothing twice: --idempotency-key {key}", err=True)
        raise
    sent.report(output)
    if sent.refused:
        click.get_current_context().exit(1)


def _one(
    source: BinaryIO, event_type: str, object_id: str | None, url: str | None, method: str | None
) -> dict[str, Any]:
    """The event whose payload SOURCE is."""
    payload = source.read().strip(b" \t\r\n")
    json_text.check(payload, "SOURCE")
    values: dict[str, Any] = {"type": event_type, "payload": payload, "object_id": object_id}
    if url is not None:
        values["target"] = {"url": url, "method": method}
    validate(parse_event(values))
    return values


def _lines(source: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events of a file with the numbers of their lines, each checked when it is read."""
    for number, line in enumerate(source, 1):
        if line.strip():
            yield number, read_line(line, number)


@dataclass(slots=True)
class Sent:
    """What became of the events that were sent so far, and the numbers of the lines that were read."""

    items: list[BatchItem] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    @property
    def refused(self) -> list[tuple[int, BatchItem]]:
        """What the API refused, with the numbers of its lines."""
        return [(line, item) for line, item in zip(self.lines, self.items, strict=False) if item["status"] == "failed"]

    def send(
        self, client: Client, found: Iterator[tuple[int, dict[str, Any]]], key: str, tenant_id: str | None
    ) -> None:
        """Sends all of them, in batches."""
        progress = progress_bar(sys.stdout)

        def events() -> Iterator[dict[str, Any]]:
            for line, event in found:
                self.lines.append(line)
                yield event

        with progress:
            task = progress.add_task("sending", total=None)

            def accepted(batch: list[BatchItem]) -> None:
                self.items += batch
                progress.update(task, completed=len(self.items))

            client.events.create_many(events(), tenant_id=tenant_id, on_batch=accepted, idempotency_key=key)

    def send_one(self, client: Client, event: dict[str, Any], key: str, tenant_id: str | None) -> None:
        """Sends one by itself. Raises ApiError where it is refused."""
        asked = cast("NewEvent", event | {"tenant_id": tenant_id, "idempotency_key": key})
        made = client.events.create(**asked)
        status: Literal["accepted", "duplicate"] = "duplicate" if made["duplicate"] else "accepted"
        self.lines.append(1)
        self.items.append(
            {"index": 0, "status": status, "id": made["id"], "deliveries": made["deliveries"], "error": None}
        )

    def report(self, output: Output) -> None:
        """Prints what was accepted, and on stderr what was refused."""
        for line, item in self.refused[:_SHOWN]:
            assert item["error"] is not None
            click.echo(visible(f"dispatcher: line {line}: {item['error']['detail']}"), err=True)
        if (more := len(self.refused) - _SHOWN) > 0:
            click.echo(f"dispatcher: and {more} more", err=True)
        if output == "json":
            print_json({"data": [_shown(line, item) for line, item in zip(self.lines, self.items, strict=False)]})
            return
        new = [one for one in self.items if one["status"] == "accepted"]
        before = sum(one["status"] == "duplicate" for one in self.items)
        unmatched = sum(one["deliveries"] == 0 for one in new)
        refused = f", {len(self.refused)} refused" if self.refused else ""
        print_line(
            f"{counted(len(new), 'event')} accepted, "
            f"{counted(sum(one['deliveries'] or 0 for one in new), 'delivery', 'deliveries')}, "
            f"{before} sent before, {unmatched} that no endpoint wants{refused}"
        )
        if len(self.items) == 1 and self.items[0]["id"] is not None:
            print_line(self.items[0]["id"])


def _shown(line: int, item: BatchItem) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": item["id"],
        "duplicate": item["status"] == "duplicate",
        "deliveries": item["deliveries"],
    }
    return shown if item["error"] is None else {**shown, "line": line, "error": item["error"]}


EVENTS: Final[Table[Event]] = Table(
    "Event",
    (
        Column("event", "id", kind="id"),
        Column("accepted", "created_at", kind="time"),
        Column("mode", "mode", short=lambda one: None if one["mode"] == "live" else one["mode"]),
        Column("type", "type", least=10, keep="end"),
        Column("object", "object_id", least=9),
        Column("deliveries", "deliveries"),
        Column("tenant", "tenant_id", kind="id", where="room"),
    ),
    empty="No event matches.",
)


@events.command("list")
@click.option("--event-type", help="Of this type.")
@click.option("--object-id", help="The payment, order or refund that the event is about.")
@click.option("--mode", type=click.Choice(list(map(str, Mode))))
@click.option("--tenant", "tenant_id", type=Id("ten"))
@click.option("--since", type=Since(), help="Accepted after: 24h, or an instant.")
@click.option("--until", type=Since(), help="Accepted before.")
@limit_options(50, most=10_000)
@output_option
def list_(
    event_type: str | None,
    object_id: str | None,
    mode: Literal["live", "test"] | None,
    tenant_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: str | None,
    output: Output,
) -> None:
    """List events, the newest first.

    Listed are those that all the given options choose.
    """
    with target.client() as client:
        page = take(
            client.events.list,
            limit,
            cursor,
            event_type=event_type,
            object_id=object_id,
            mode=mode,
            tenant_id=None if tenant_id is None else format_id("ten", tenant_id),
            created_after=since,
            created_before=until,
        )
    print_page(EVENTS, page, output)


@events.command()
@click.argument("event_id", type=Id("evt"))
@output_option
def explain(event_id: UUID, output: Output) -> None:
    """Explain where an event went, and why.

    For each endpoint of its tenant and above, it names the rule that decided. The rules are those of the moment at
    which the event was accepted.
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
                endpoint["endpoint_id"],
                styled(endpoint["verdict"], _STYLES.get(endpoint["verdict"], "yellow")),
                endpoint["rule"],
                delivery and delivery["id"],
                delivery and (delivery["held"] or delivery["status"]),
                delivery and delivery["next_attempt_at"],
                endpoint["url"],
            )
            for endpoint in explained["endpoints"]
            for delivery in [endpoint["delivery"]]
        ],
        caption="" if explained["endpoints"] else "The tenant, and those above it, never had an endpoint.",
    )


def _matched(endpoints: int) -> str:
    if not endpoints:
        return "none: no endpoint wanted it when it was accepted"
    return f"{counted(endpoints, 'endpoint')} when it was accepted"


def _number_of(deliveries: list[Delivery]) -> str:
    """How many there are, and how many of them are replays."""
    replays = sum(delivery["replay_of"] is not None for delivery in deliveries)
    return f"{len(deliveries)}, {counted(replays, 'replay')} among them" if replays else str(len(deliveries))


@events.command()
@click.argument("event_id", type=Id("evt"))
@output_option
def show(event_id: UUID, output: Output) -> None:
    """Show an event and its deliveries."""
    id_ = format_id("evt", event_id)
    with target.client() as client:
        text = client.events.text(id_)
        deliveries = list(client.deliveries.iterate(event_id=id_, limit=1000))
    if output == "json":
        print_json(orjson.loads(text) | {"deliveries": deliveries})
        return
    event: Any = read_object(text.encode())
    payload = event["payload"].decode() if event["payload_gone"] is None else f"gone: {event['payload_gone']}"
    print_fields(
        [
            ("event", event["id"]),
            ("type", event["type"]),
            ("object", event["object_id"]),
            ("tenant", event["tenant_id"]),
            ("mode", event["mode"]),
            ("accepted", event["created_at"]),
            ("matched", _matched(event["deliveries"])),
            ("deliveries", _number_of(deliveries)),
            ("payload", payload),
        ]
    )
    if deliveries:
        print_line("")
        print_rows(DELIVERIES, deliveries)
