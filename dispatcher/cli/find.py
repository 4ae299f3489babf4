"""`dispatcher find`: anything by any id, object or URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

import click

from dispatcher.cli import target
from dispatcher.cli.listing import Column, Table, place, print_page
from dispatcher.cli.output import output_option
from dispatcher.cli.reasons import reason_of

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import Delivery, Found


def _summary(one: Found) -> str:
    """One line of it. A delivery's has the reason in people's words, which the API's summary has not."""
    if one["kind"] != "delivery":
        return one["summary"]
    delivery = cast("Delivery", one["object"])
    reason = reason_of(delivery)
    went = f"{delivery['event_type']} to {place(delivery['url'])}: {delivery['status']}"
    return f"{went} ({reason})" if reason else went


FOUND: Final[Table[Found]] = Table(
    "Found",
    (
        Column("kind", "kind"),
        Column("id", "id", kind="id"),
        Column("what", "summary", _summary, least=20),
    ),
    empty="Nothing is called so.",
)


@click.command()
@click.argument("anything")
@click.option("--mode", type=click.Choice(["live", "test"]), help="Only events, deliveries and attempts of this mode.")
@output_option
def find(anything: str, mode: Literal["live", "test"] | None, output: Output) -> None:
    """Find anything by an id, object, URL or host.

    An id may be shortened to its first characters. The object is the payment, order or refund that events are about.
    Shown are the newest 50 of each kind.
    """
    with target.client() as client:
        page = client.find(anything, mode=mode)
    print_page(FOUND, page, output)
