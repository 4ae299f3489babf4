"""`dispatcher deliveries advance`: the ladder of a test delivery, walked by hand."""

from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import print_line
from dispatcher.cli.reasons import reason_of
from dispatcher.cli.trigger import attempt_line
from dispatcher.clock import SYSTEM
from dispatcher.ids import format_id
from dispatcher.model.duration import parse_duration

if TYPE_CHECKING:
    from dispatcher.client import Client
    from dispatcher.shapes import Delivery

POLL_S: Final = 0.2


@click.command()
@click.argument("delivery_id", type=Id("dlv"))
@click.option("--to-the-end", is_flag=True, help="Repeat it until the delivery has ended.")
@click.option("--timeout", default="60s", show_default=True, help="How long to wait for each attempt.")
def advance(delivery_id: UUID, to_the_end: bool, timeout: str) -> None:
    """Send a test delivery's next attempt now.

    The attempt is made, recorded and decided about as every other; only its wait is left out. Each line shows one, and
    below it when the next one is due by the schedule. Deliveries of live mode are refused.
    """
    try:
        patience_s = parse_duration(timeout).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    id_ = format_id("dlv", delivery_id)
    with target.client() as client:
        known = {attempt["id"] for attempt in client.deliveries.attempts(id_)["data"]}
        while True:
            client.deliveries.advance(id_)
            delivery = _follow(client, id_, known, patience_s)
            if delivery["status"] != "waiting":
                break
            print_line(f"  by the schedule, the next attempt is due at {delivery['next_attempt_at']}")
            if not to_the_end:
                return
    reason = f": {words}" if (words := reason_of(delivery)) else ""
    print_line(f"{id_} is {delivery['status']}{reason}")


def _follow(client: Client, delivery_id: str, known: set[str], patience_s: float) -> Delivery:
    """Prints the attempts that are made until the delivery waits again or has ended; returns it as it then is.

    Raises ClickException if none is made in time.
    """
    until_s = SYSTEM.monotonic() + patience_s
    while True:
        made = client.deliveries.attempts(delivery_id)["data"]
        delivery = client.deliveries.get(delivery_id)  # read after the attempts, so at least as new
        new = [attempt for attempt in made if attempt["id"] not in known]
        for attempt in new:
            print_line(attempt_line(delivery, attempt))
            known.add(attempt["id"])
        if delivery["status"] not in {"waiting", "in_flight"} or (new and delivery["status"] == "waiting"):
            return delivery
        if SYSTEM.monotonic() >= until_s:
            reason = f" ({words})" if (words := reason_of(delivery)) else ""
            raise click.ClickException(
                f"no attempt of {delivery_id} was recorded within {patience_s:g} s: it is {delivery['status']}{reason}."
                " `dispatcher doctor` tells whether workers run."
            )
        sleep(POLL_S)
