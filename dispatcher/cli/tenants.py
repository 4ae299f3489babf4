"""`dispatcher tenants`: who owns endpoints and events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.commands import Group
from dispatcher.cli.listing import Column, Table, limit_options, print_page, take
from dispatcher.cli.output import note_secret, output_option, print_fields, print_json
from dispatcher.ids import format_id
from dispatcher.model.duration import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.cli.output import Output
    from dispatcher.shapes import Tenant


@click.group(cls=Group)
def tenants() -> None:
    """Create or change tenants.

    Tenants keep those apart who own endpoints and events.
    """


def _print(tenant: Mapping[str, Any], output: Output) -> None:
    if output == "json":
        print_json(tenant)
        return
    print_fields([(name, value) for name, value in tenant.items() if value is not None])


_tenant_id = click.argument("tenant_id", type=Id("ten"))


@tenants.command()
@click.argument("name")
@click.option("--parent", "parent_id", type=Id("ten"), help="Whose endpoints also receive its events.")
@click.option("--profile", help="That of endpoints which name none.  [default: the installation's]")
@output_option
def create(name: str, parent_id: UUID | None, profile: str | None, output: Output) -> None:
    """Create a tenant.

    The secret that signs deliveries to its events' own targets is shown this once.
    """
    asked: dict[str, Any] = {"name": name, "profile": profile}
    if parent_id is not None:
        asked["parent_id"] = format_id("ten", parent_id)
    with target.client() as client:
        tenant = client.tenants.create(**asked)
    _print(tenant, output)
    note_secret()


TENANTS: Final[Table[Tenant]] = Table(
    "Tenant",
    (
        Column("tenant", "id", kind="id"),
        Column("name", "name", least=12),
        Column("profile", "profile", least=8),
        Column("parent", "parent_id", kind="id"),
        Column("created", "created_at", kind="time"),
    ),
    empty="There are no tenants.",
)


@tenants.command("list")
@limit_options(100, most=10_000)
@output_option
def list_(limit: int, cursor: str | None, output: Output) -> None:
    """List tenants, the newest first."""
    with target.client() as client:
        page = take(client.tenants.list, limit, cursor)
    print_page(TENANTS, page, output)


@tenants.command()
@_tenant_id
@output_option
def show(tenant_id: UUID, output: Output) -> None:
    """Show a tenant."""
    with target.client() as client:
        tenant = client.tenants.get(format_id("ten", tenant_id))
    _print(tenant, output)


@tenants.command("rotate-secret")
@_tenant_id
@click.option("--overlap", default="24h", show_default=True, help="How long the old secret signs beside the new one.")
@output_option
def rotate_secret(tenant_id: UUID, overlap: str, output: Output) -> None:
    """Replace a tenant's secret.

    The new secret is shown this once.
    """
    try:
        kept: timedelta = parse_duration(overlap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overlap") from error
    with target.client() as client:
        tenant = client.tenants.rotate_secret(format_id("ten", tenant_id), overlap_s=kept.total_seconds())
    _print(tenant, output)
    note_secret()
