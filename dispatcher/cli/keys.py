"""`dispatcher keys`: what authenticates calls to the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.listing import Column, Table, limit_options, print_page, take
from dispatcher.cli.output import note_secret, output_option, print_fields, print_json, print_line
from dispatcher.ids import format_id
from dispatcher.model.access import Scope

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.shapes import Key


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
    else:
        shown = {**key, "scopes": ", ".join(key["scopes"])}
        print_fields([(field, value) for field, value in shown.items() if value is not None])
    note_secret("key")


KEYS: Final[Table[Key]] = Table(
    "Key",
    (
        Column("key", "id", kind="id"),
        Column("name", "name", least=8),
        Column("tenant", "tenant_id", lambda one: one["tenant_id"] or "operator", kind="id"),
        Column("scopes", "scopes", lambda one: ", ".join(one["scopes"]), least=10),
        Column("limit/s", "rate_limit"),
        Column("used", "last_used_at", kind="time"),
        Column("revoked", "revoked_at", kind="time"),
        Column("created", "created_at", kind="time", where="room"),
    ),
    empty="There are no keys.",
)


@keys.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only those of one tenant.")
@limit_options(100, most=10_000)
@output_option
def list_(tenant_id: UUID | None, limit: int, cursor: str | None, output: Output) -> None:
    """List API keys, the newest first.

    Revoked ones are listed too.
    """
    tenant = None if tenant_id is None else format_id("ten", tenant_id)
    with target.client() as client:
        page = take(client.keys.list, limit, cursor, tenant_id=tenant)
    print_page(KEYS, page, output)


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
