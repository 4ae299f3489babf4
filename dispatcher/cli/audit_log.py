"""`dispatcher audit-log`: who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import AnyId, Id
from dispatcher.cli.listing import Column, Table, limit_options, print_page, take
from dispatcher.cli.output import output_option
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import AuditEntry


@click.group()
def audit_log() -> None:
    """Show who changed what."""


def _changed(entry: AuditEntry) -> str:
    """The names of what differs between before and after; nothing for an object that was created or deleted."""
    before, after = entry["before"], entry["after"]
    if before is None or after is None:
        return ""
    return ", ".join(name for name in {**before, **after} if before.get(name) != after.get(name))


CHANGES: Final[Table[AuditEntry]] = Table(
    "AuditEntry",
    (
        Column("at", "at", kind="time"),
        Column("actor", "actor", kind="id", least=7),
        Column("action", "action", least=8),
        Column("object", "object", kind="id", least=7),
        Column("changed", "after", _changed, least=8, share=3),
    ),
    empty="No change is in the log.",
)


@audit_log.command("list")
@click.option("--object", "object_", type=AnyId(), help="Only changes of this object, by its id or its name.")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only changes of this tenant's objects.")
@limit_options(50, most=10_000)
@output_option
def list_(object_: str | None, tenant_id: UUID | None, limit: int, cursor: str | None, output: Output) -> None:
    """List changes, the newest first.

    --output json shows each object before and after the change.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        page = take(client.audit_log.list, limit, cursor, object=object_, tenant_id=tenant)
    print_page(CHANGES, page, output)
