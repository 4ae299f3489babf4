"""`dispatcher trigger`: a sample event, and what becomes of it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import timedelta
from time import sleep
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.decisions import decision_text
from dispatcher.cli.deliveries import DELIVERIES
from dispatcher.cli.listing import print_rows
from dispatcher.cli.output import counted, output_option, print_fields, print_json, print_line
from dispatcher.cli.reasons import reason_of
from dispatcher.cli.samples import sample, sample_id
from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id
from dispatcher.model.duration import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.shapes import AcceptedEvent, Attempt, Delivery, NewEvent

POLL_S: Final = 0.5

_MOST: Final = 1000
"""Deliveries of one event that are shown."""


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--payload", type=click.File("rb"), help="JSON in a file, or - for standard input, for the sample.")
@click.option("--mode", type=click.Choice(["test", "live"]), default="test", show_default=True)
@click.option("--object-id", help="The payment or order that it is about; a made-up one by default.")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Whose it is.")
@click.option("--url", help="Send it here rather than to the registered endpoints: the event's own target.")
@click.option("--method", type=click.Choice(["POST", "GET"]), help="With --url.")
@click.option("--wait/--no-wait", default=None, help="Follow the deliveries until they end; the default on a terminal.")
@click.option("--timeout", default="60s", show_default=True, help="How long to follow them.")
@click.option("--yes", is_flag=True, help="Do not ask before a live event.")
@output_option
def trigger(
    event_type: str,
    payload: BinaryIO | None,
    mode: Literal["test", "live"],
    object_id: str | None,
    tenant_id: UUID | None,
    url: str | None,
    method: Literal["POST", "GET"] | None,
    wait: bool | None,
    timeout: str,
    yes: bool,
    output: Output,
) -> None:
    """Send a sample event.

    The event is of TYPE, such as payment.completed; its deliveries are shown. With --wait it exits with 1 unless all of
    them were delivered.
    """
    if method is not None and url is None:
        raise click.UsageError("--method goes with --url")
    try:
        patience: timedelta = parse_duration(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    if mode == "live" and not yes:
        click.confirm("Send a sample as a live event, which receivers take for real?", abort=True)
    object_id = sample_id(event_type, os.urandom(4).hex()) if object_id is None else object_id
    event: NewEvent = {
        "type": event_type,
        "payload": sample(event_type, object_id=object_id, at=SYSTEM.now()) if payload is None else payload.read(),
        "mode": mode,
        "object_id": object_id,
    }
    if tenant_id is not None:
        event["tenant_id"] = format_id("ten", tenant_id)
    if url is not None:
        event["target"] = {"url": url} if method is None else {"url": url, "method": method}
    wait = sys.stdout.isatty() if wait is None else wait
    with target.client() as client:
        accepted = client.events.create(**event)
        followed = Followed(client, accepted["id"])
        followed.look()
        if output == "table":
            _print_event(accepted, followed.deliveries)
        if wait and followed.deliveries:
            until = SYSTEM.monotonic() + patience.total_seconds()
            followed.follow(until, print_line if output == "table" else lambda _: None)
        found = [dict(one) | {"attempts": followed.attempts[one["id"]]} for one in followed.deliveries]
    if output == "json":
        print_json(dict(accepted) | {"deliveries": found})
    elif wait and followed.deliveries:
        print_line(followed.summary())
    if wait and any(one["status"] != "delivered" for one in followed.deliveries):
        click.get_current_context().exit(1)


class Followed:
    """The deliveries of one event, and the attempts that were seen of each."""

    def __init__(self, client: Client, event_id: str) -> None:
        self._client = client
        self._event_id = event_id
        self._marks: dict[str, tuple[str, int]] = {}
        self.deliveries: list[Delivery] = []
        self.attempts: dict[str, list[Attempt]] = {}

    def look(self) -> list[tuple[Delivery, Attempt]]:
        """Asks how things are. Returns the attempts that were made since the last look, with their deliveries."""
        self.deliveries = self._client.deliveries.list(event_id=self._event_id, limit=_MOST)["data"]
        new: list[tuple[Delivery, Attempt]] = []
        for delivery in self.deliveries:
            seen = self.attempts.setdefault(delivery["id"], [])
            mark = (delivery["status"], delivery["attempt_count"])
            if mark == self._marks.get(delivery["id"], ("waiting", 0)):
                continue
            made = self._client.deliveries.attempts(delivery["id"])["data"]
            known = {attempt["id"] for attempt in seen}
            new += [(delivery, attempt) for attempt in made if attempt["id"] not in known]
            seen[:] = made
            self._marks[delivery["id"]] = mark
        return new

    def follow(self, until: float, tell: Callable[[str], Any]) -> None:
        """Tells of every attempt, until nothing moves any more, or until `until` of the monotonic clock."""
        new = [(delivery, attempt) for delivery in self.deliveries for attempt in self.attempts[delivery["id"]]]
        while True:
            for delivery, attempt in new:
                tell(attempt_line(delivery, attempt))
            if not self._moves() or SYSTEM.monotonic() >= until:
                return
            sleep(POLL_S)
            new = self.look()

    def _moves(self) -> bool:
        """Whether any is in flight, or will be."""
        return any(
            one["status"] == "in_flight" or (one["status"] == "waiting" and one["next_attempt_at"] is not None)
            for one in self.deliveries
        )

    def summary(self) -> str:
        """How far it is, in a sentence."""
        delivered = sum(1 for one in self.deliveries if one["status"] == "delivered")
        rest = [_rest(one) for one in self.deliveries if one["status"] != "delivered"]
        return "; ".join([f"{delivered} of {counted(len(self.deliveries), 'delivery', 'deliveries')} delivered", *rest])


def _rest(delivery: Delivery) -> str:
    reason = f", {words}" if (words := reason_of(delivery)) else ""
    when = f", next attempt at {delivery['next_attempt_at']}" if delivery["next_attempt_at"] else ""
    return f"{delivery['id']} is {delivery['status']}{reason}{when}"


def attempt_line(delivery: Delivery, attempt: Attempt) -> str:
    """An attempt and the decision about it, in a line."""
    answer = attempt["outcome"] if attempt["status_code"] is None else f"{attempt['outcome']} {attempt['status_code']}"
    error = f" ({attempt['error']})" if attempt["error"] else ""
    took = f"{attempt['duration_ms']:,.0f} ms"
    return f"attempt {attempt['number']}  {answer}{error}  {took}  {decision_text(attempt)}  {delivery['url']}"


def _print_event(accepted: AcceptedEvent, deliveries: list[Delivery]) -> None:
    print_fields(
        [
            ("event", accepted["id"]),
            ("type", accepted["type"]),
            ("mode", accepted["mode"]),
            *([("object", accepted["object_id"])] if accepted["object_id"] else []),
        ]
    )
    print_line("")
    print_rows(replace(DELIVERIES, empty="No endpoint wants it: `dispatcher events explain` tells why."), deliveries)
    if deliveries:
        print_line("")
