"""`dispatcher find`: anything by any id, object or URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatcher.cli import target
from dispatcher.cli.output import output_option, print_json, print_table

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.command()
@click.argument("anything")
@output_option
def find(anything: str, output: Output) -> None:
    """Find anything by an id, object, URL or host.

    The object is the payment, order or refund that events are about. Shown are the newest 50 of each kind.
    """
    with target.client() as client:
        found = client.find(anything)["data"]
    if output == "json":
        print_json({"data": found})
        return
    print_table(
        ["kind", "id", "what"],
        [(one["kind"], one["id"], one["summary"]) for one in found],
        caption="" if found else "Nothing is called so.",
    )
