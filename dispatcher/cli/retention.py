"""`dispatcher tenants retention`: how long one tenant's data is kept, on the database of this machine's system."""

from __future__ import annotations

from uuid import UUID

import click

from dispatcher import wiring
from dispatcher.cli import machine, target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import print_fields
from dispatcher.flow import retention as flow

_DAYS = click.IntRange(1, 3650)


@click.command()
@click.argument("tenant_id", type=Id("ten"))
@click.option("--payloads", type=_DAYS, help="Days; by default as long as the installation.")
@click.option("--responses", type=_DAYS, help="Days; by default as long as the installation.")
@click.option("--metadata", type=_DAYS, help="Days; by default as long as the installation.")
def retention(tenant_id: UUID, payloads: int | None, responses: int | None, metadata: int | None) -> None:
    """Set how long a tenant's data is kept.

    Less may be kept of it than of others; what no option names is kept as long as the installation's.
    """
    with machine.database() as (settings, connection):
        flow.keep_less(
            connection,
            tenant_id,
            wiring.retention_policy(settings),
            payloads=payloads,
            responses=responses,
            metadata=metadata,
            by=target.actor(),
        )
    print_fields([("payloads", payloads), ("responses", responses), ("metadata", metadata)])
