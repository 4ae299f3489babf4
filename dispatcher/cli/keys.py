"""`dispatcher keys`: what authenticates calls to the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import output_option, print_fields, print_json, print_line, print_table
from dispatcher.ids import format_id
from dispatcher.model.access import Scope

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.group()
def keys() -> None:
    """Create or revoke API keys."""


@keys.command()
@click.argument("name")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="For whom it may act; without it, it is an operator's.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="What it may do; may be repeated.  [default: admin]",
)
@click.option("--rate-limit", type=click.FloatRange(0.01, 100_000), help="Requests a second.  [default: no limit]")
@output_option
def create(
    name: str, tenant_id: UUID | None, scopes: tuple[str, ...], rate_limit: float | None, output: Output
) -> None:
    """Create an API key.

    The key and its signing secret are shown this once.
    """
    asked: dict[str, Any] = {"name": name, "scopes": list(scopes) or None, "rate_limit": rate_limit}
    if tenant_id is not None:
        asked["tenant_id"] = format_id("ten", tenant_id)
    with target.client() as client:
        key = client.keys.create(**asked)
    if output == "json":
        print_json(key)
        return
    shown = {**key, "scopes": ", ".join(key["scopes"])}
    print_fields([(field, value) for field, value in shown.items() if value is not None])


@keys.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only those of one tenant.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@output_option
def list_(tenant_id: UUID | None, limit: int, output: Output) -> None:
    """List API keys, the newest first.

    Revoked ones are listed too.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        found = client.keys.list(tenant_id=tenant, limit=limit)["data"]
    if output == "json":
        print_json({"data": found})
        return
    print_table(
        ["id", "name", "tenant", "scopes", "rate limit", "last used", "revoked"],
        [
            (
                one["id"],
                one["name"],
                one["tenant_id"] or "operator",
                ", ".join(one["scopes"]),
                one["rate_limit"],
                one["last_used_at"] or "never",
                one["revoked_at"],
            )
            for one in found
        ],
    )


@keys.command()
@click.argument("key_id", type=Id("key"))
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(key_id: UUID, yes: bool) -> None:
    """Revoke an API key.

    It is refused from the next request on.
    """
    name = format_id("key", key_id)
    if not yes:
        click.confirm(f"Revoke {name}? Whoever uses it can do nothing from then on.", abort=True)
    with target.client() as client:
        client.keys.revoke(name)
    print_line(f"revoked {name}")
