"""`dispatcher endpoints`: registered URLs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dispatcher import wiring
from dispatcher.api import forms
from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import counted, output_option, print_fields, print_json, print_line, print_table
from dispatcher.flow import register
from dispatcher.ids import DEFAULT_TENANT, format_id
from dispatcher.retry import parse_duration
from dispatcher.store import endpoints as store

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.config import Settings
    from dispatcher.model.endpoint import Endpoint


@click.group()
def endpoints() -> None:
    """Register URLs, and change what is sent to them."""


def _print(endpoint: Endpoint, output: Output, **more: object) -> None:
    values = forms.endpoint(endpoint) | more
    if output == "json":
        print_json(values)
        return
    if values["event_types"] is None:
        values["event_types"] = "all"
    else:
        values["event_types"] = ", ".join(values["event_types"])
    print_fields([(name, value) for name, value in values.items() if value not in (None, {})])


def _register(settings: Settings) -> register.Register:
    return wiring.register(settings)


_endpoint_id = click.argument("endpoint_id", type=Id("ep"))


@endpoints.command()
@click.argument("url")
@click.option("--tenant", "tenant_id", type=Id("ten"), default=DEFAULT_TENANT, help="Whose it is.")
@click.option("--name")
@click.option("--description")
@click.option(
    "--event-type", "event_types", multiple=True, help="A type, or payment.*; may be repeated. All by default."
)
@click.option("--schedule", default=register.DEFAULT_SCHEDULE, show_default=True)
@click.option("--max-in-flight", type=click.IntRange(1, 1000), default=64, show_default=True)
@output_option
def create(
    url: str,
    tenant_id: UUID,
    name: str | None,
    description: str | None,
    event_types: tuple[str, ...],
    schedule: str,
    max_in_flight: int,
    output: Output,
) -> None:
    """Register URL. Its signing secret is shown this once."""
    with target.database() as (settings, connection):
        endpoint, secret = _register(settings).create(
            connection,
            register.NewEndpoint(
                url=url,
                tenant_id=tenant_id,
                name=name,
                description=description,
                event_types=event_types or None,
                schedule=schedule,
                max_in_flight=max_in_flight,
            ),
        )
    _print(endpoint, output, secret=secret.reveal_whsec())


@endpoints.command("list")
@click.option("--tenant", "tenant_id", type=Id("ten"))
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@output_option
def list_(tenant_id: UUID | None, limit: int, output: Output) -> None:
    """The endpoints, the newest first."""
    with target.database() as (_, connection):
        found = store.list_(connection, tenant_id=tenant_id, limit=limit)
    if output == "json":
        print_json({"data": [forms.endpoint(endpoint) for endpoint in found]})
        return
    print_table(
        ["id", "status", "event types", "schedule", "url"],
        [
            (
                format_id("ep", one.id),
                one.status if one.status_reason is None else f"{one.status}: {one.status_reason}",
                ", ".join(one.event_types) if one.event_types else "all",
                one.schedule,
                one.url,
            )
            for one in found
        ],
    )


@endpoints.command()
@_endpoint_id
@output_option
def show(endpoint_id: UUID, output: Output) -> None:
    """One endpoint."""
    with target.database() as (_, connection):
        endpoint = register.find(connection, endpoint_id)
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@output_option
def enable(endpoint_id: UUID, output: Output) -> None:
    """Send to it again, what was held meanwhile first."""
    with target.database() as (_, connection):
        endpoint = register.enable(connection, endpoint_id)
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@click.option("--reason", default="disabled by an operator", show_default=True)
@output_option
def disable(endpoint_id: UUID, reason: str, output: Output) -> None:
    """Hold its deliveries: they wait, for 7 days at most, until it is enabled."""
    with target.database() as (_, connection):
        endpoint = register.disable(connection, endpoint_id, reason)
    _print(endpoint, output)


@endpoints.command()
@_endpoint_id
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(endpoint_id: UUID, yes: bool) -> None:
    """Delete it and cancel what waits for it; the log stays."""
    if not yes:
        click.confirm(f"Delete {format_id('ep', endpoint_id)} and cancel what waits for it?", abort=True)
    with target.database() as (_, connection):
        cancelled = register.delete(connection, endpoint_id)
    print_line(f"deleted; {counted(cancelled, 'waiting delivery', 'waiting deliveries')} cancelled")


@endpoints.command("rotate-secret")
@_endpoint_id
@click.option("--overlap", default="24h", show_default=True, help="How long the old secret signs beside the new one.")
@output_option
def rotate_secret(endpoint_id: UUID, overlap: str, output: Output) -> None:
    """Give it a new signing secret, shown this once."""
    try:
        kept: timedelta = parse_duration(overlap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overlap") from error
    with target.database() as (settings, connection):
        secret = _register(settings).rotate_secret(connection, endpoint_id, overlap=kept)
        endpoint = register.find(connection, endpoint_id)
    _print(endpoint, output, secret=secret.reveal_whsec())
