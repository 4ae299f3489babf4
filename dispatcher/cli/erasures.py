"""`dispatcher erasures`: what was erased by `dispatcher erase`, and how far that is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import output_option, print_fields, print_json, print_table
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.group()
def erasures() -> None:
    """Show erasures and their progress.

    `dispatcher erase` starts one.
    """


@erasures.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only those of this tenant's events.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many.")
@output_option
def list_(tenant_id: UUID | None, limit: int, output: Output) -> None:
    """List erasures, the newest first."""
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        found = list(islice(client.erasures.iterate(tenant_id=tenant, limit=min(limit, 1000)), limit))
    if output == "json":
        print_json({"data": found})
        return
    print_table(
        ["id", "created", "status", "object", "tenant", "events", "by", "reason"],
        [
            (
                one["id"],
                one["created_at"],
                one["status"],
                one["object_id"],
                one["tenant_id"] or "all",
                one["events"],
                one["created_by"],
                one["reason"],
            )
            for one in found
        ],
        caption="" if found else "Nothing was erased.",
    )


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
    print_fields([(name.replace("_", " "), value) for name, value in erasure.items() if value is not None])
