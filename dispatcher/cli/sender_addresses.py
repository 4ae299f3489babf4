"""`dispatcher sender-addresses`: where deliveries come from, for receivers' allow lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from dispatcher.cli import target
from dispatcher.cli.listing import Column, Table, print_page
from dispatcher.cli.output import output_option

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import SenderAddress


@click.group()
def sender_addresses() -> None:
    """Show the addresses that deliveries come from."""


ADDRESSES: Final[Table[SenderAddress]] = Table(
    "SenderAddress",
    (Column("address", "address"),),
    empty="No address is stated: see DISPATCHER_EGRESS_ADDRESSES.",
)


@sender_addresses.command("list")
@output_option
def list_(output: Output) -> None:
    """List the addresses that deliveries come from.

    They are what DISPATCHER_EGRESS_ADDRESSES states, for the allow lists of receivers.
    """
    with target.client() as client:
        page = client.sender_addresses()
    print_page(ADDRESSES, page, output)
