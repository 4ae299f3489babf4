"""`dispatcher erase`: what events of one object said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcher.api import forms
from dispatcher.cli import archive, target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import counted, output_option, print_fields, print_json, print_line
from dispatcher.clock import SYSTEM
from dispatcher.flow import erase as flow
from dispatcher.store import erasures as store

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.cli.output import Output


@click.command()
@click.argument("object_id")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only this tenant's events; by default every tenant's.")
@click.option("--reason", help="Why, for the audit log.")
@click.option(
    "--export", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write what goes to this .jsonl.gz first."
)
@click.option("--dry-run", is_flag=True, help="Only say what there is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def erase(
    object_id: str,
    tenant_id: UUID | None,
    reason: str | None,
    path: Path | None,
    *,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> None:
    """Erase the payloads of all events of OBJECT_ID, and the answers to their attempts. It cannot be undone.

    Deliveries that wait are cancelled. Hashes, outcomes and times stay. What is in flight ends as it ends; the
    scheduler erases then what it was answered.
    """
    with target.opened() as (_, engine):
        with engine.begin() as connection:
            found = flow.preview(connection, object_id, tenant_id=tenant_id)
        said = (
            f"{counted(found.events, 'event')}, {found.payloads} of them with a payload, "
            f"and {counted(found.live_deliveries, 'live delivery', 'live deliveries')}"
        )
        if dry_run:
            if output == "json":
                print_json(
                    {"events": found.events, "payloads": found.payloads, "live_deliveries": found.live_deliveries}
                )
            else:
                print_line(f"{said} would be erased")
            return
        if not yes:
            click.confirm(f"Erase {said}?", abort=True)
        if path is not None:
            with engine.begin() as connection:
                archive.write(path, store.rows_of(connection, object_id, tenant_id, created_at=SYSTEM.now()))
        with engine.begin() as connection:
            one = flow.start(connection, object_id, by=target.actor(), tenant_id=tenant_id, reason=reason)
        while not one.passes:
            with engine.begin() as connection:
                one = flow.step(connection, only=one.id) or flow.find(connection, one.id)
    if output == "json":
        print_json(forms.erasure(one))
        return
    print_fields([(name.replace("_", " "), value) for name, value in forms.erasure(one).items()])
