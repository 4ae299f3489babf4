"""`dispatcher audit-log`: who changed what."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import AnyId, Id
from dispatcher.cli.output import output_option, print_json, print_table
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import AuditEntry


@click.group()
def audit_log() -> None:
    """Show who changed what."""


@audit_log.command("list")
@click.option("--object", "object_", type=AnyId(), help="Only changes of this object, by its id or its name.")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only changes of this tenant's objects.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many.")
@output_option
def list_(object_: str | None, tenant_id: UUID | None, limit: int, output: Output) -> None:
    """List changes, the newest first.

    --output json shows each object before and after the change.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        entries = client.audit_log.iterate(object=object_, tenant_id=tenant, limit=min(limit, 1000))
        found = list(islice(entries, limit))
    if output == "json":
        print_json({"data": found})
        return
    print_table(
        ["at", "actor", "action", "object", "changed"],
        [(one["at"], one["actor"], one["action"], one["object"], _changed(one)) for one in found],
        caption="" if found else "No change is in the log.",
    )


def _changed(entry: AuditEntry) -> str:
    """The names of what differs between before and after; nothing for an object that was created or deleted."""
    before, after = entry["before"], entry["after"]
    if before is None or after is None:
        return ""
    return ", ".join(name for name in {**before, **after} if before.get(name) != after.get(name))
