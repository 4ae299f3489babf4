"""`dispatcher sender-addresses`: where deliveries come from, for receivers' allow lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatcher.cli import target
from dispatcher.cli.output import output_option, print_json, print_table

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.group()
def sender_addresses() -> None:
    """Show the addresses that deliveries come from."""


@sender_addresses.command("list")
@output_option
def list_(output: Output) -> None:
    """List the addresses that deliveries come from.

    They are what DISPATCHER_EGRESS_ADDRESSES states, for the allow lists of receivers.
    """
    with target.client() as client:
        found = client.sender_addresses()["data"]
    if output == "json":
        print_json({"data": found})
        return
    caption = "" if found else "No address is stated: see DISPATCHER_EGRESS_ADDRESSES."
    print_table(["address"], [(one["address"],) for one in found], caption=caption)
