"""`dispatcher erasures`: what was erased by `dispatcher erase`, and how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.erase import print_erasure
from dispatcher.cli.listing import Column, Table, limit_options, print_page, take
from dispatcher.cli.output import output_option, print_json
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import Erasure


@click.group()
def erasures() -> None:
    """Show erasures and their progress.

    `dispatcher erase` starts one.
    """


ERASURES: Final[Table[Erasure]] = Table(
    "Erasure",
    (
        Column("erasure", "id", kind="id"),
        Column("created", "created_at", kind="time"),
        Column("status", "status"),
        Column("object", "object_id", least=9),
        Column("tenant", "tenant_id", lambda one: one["tenant_id"] or "all", kind="id"),
        Column("events", "events"),
        Column("by", "created_by", kind="id", where="room"),
        Column("reason", "reason", least=8),
    ),
    empty="Nothing was erased.",
)


@erasures.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only those of this tenant's events.")
@limit_options(50, most=10_000)
@output_option
def list_(tenant_id: UUID | None, limit: int, cursor: str | None, output: Output) -> None:
    """List erasures, the newest first."""
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        page = take(client.erasures.list, limit, cursor, tenant_id=tenant)
    print_page(ERASURES, page, output)


@erasures.command()
@click.argument("erasure_id", type=Id("ers"))
@output_option
def show(erasure_id: UUID, output: Output) -> None:
    """Show an erasure and its progress."""
    with target.client() as client:
        erasure = client.erasures.get(format_id("ers", erasure_id))
    if output == "json":
        print_json(erasure)
        return
    print_erasure(erasure)
