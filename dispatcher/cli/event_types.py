"""`dispatcher event-types`: the catalogue of event types, and the schemas that their payloads must meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
import orjson

from dispatcher.cli import target
from dispatcher.cli.listing import Column, Table, print_page
from dispatcher.cli.output import output_option, print_fields, print_json, print_line
from dispatcher.client import NotFound
from dispatcher.model import json_text

if TYPE_CHECKING:
    from dispatcher.cli.output import Output
    from dispatcher.client import Client
    from dispatcher.shapes import EventType


@click.group()
def event_types() -> None:
    """Describe event types, or set their schemas."""


_name = click.argument("name", metavar="TYPE")


def _print(event_type: EventType, output: Output) -> None:
    if output == "json":
        print_json(event_type)
        return
    values = {**event_type, "profiles": ", ".join(event_type["profiles"])}
    if event_type["schema"] is not None:
        values["schema"] = orjson.dumps(event_type["schema"]).decode()
    print_fields([(name.replace("_", " "), value) for name, value in values.items() if value not in (None, "")])


def _schema(one: EventType) -> str:
    return "no" if one["schema"] is None else "refused" if one["schema_refusal"] is not None else "yes"


EVENT_TYPES: Final[Table[EventType]] = Table(
    "EventType",
    (
        Column("type", "name", least=16),
        Column("description", "description", least=11, share=3),
        Column("schema", "schema", _schema),
        Column("profiles", "profiles", lambda one: ", ".join(one["profiles"]), least=8),
        Column("updated", "updated_at", kind="time"),
    ),
    empty="No event type is described, and no profile names one.",
)


@event_types.command("list")
@output_option
def list_(output: Output) -> None:
    """List the event types.

    Listed are those that were described here, and those that profiles name.
    """
    with target.client() as client:
        page = client.event_types.list()
    print_page(EVENT_TYPES, page, output)


@event_types.command()
@_name
@output_option
def show(name: str, output: Output) -> None:
    """Show an event type."""
    with target.client() as client:
        event_type = client.event_types.get(name)
    _print(event_type, output)


@event_types.command()
@_name
@click.option("--description", help="What has happened, for people.")
@click.option("--schema", "source", type=click.File("rb"), help="A JSON Schema in a file, or - for standard input.")
@click.option("--no-schema", is_flag=True, help="Remove the schema: payloads are not checked any more.")
@output_option
def put(name: str, description: str | None, source: BinaryIO | None, no_schema: bool, output: Output) -> None:
    """Create or change an event type.

    With a schema, events of TYPE whose payload does not meet it are refused from now on. If TYPE exists, it keeps what
    no option gives. An empty description removes it.
    """
    if source is not None and no_schema:
        raise click.UsageError("found --schema and --no-schema; allowed: one of the two")
    schema: Any = None if source is None else json_text.read(source.read(), "--schema")
    with target.client() as client:
        if (source is None and not no_schema) or description is None:
            before = _described(client, name)
            schema = before["schema"] if before and source is None and not no_schema else schema
            description = before["description"] if before and description is None else description
        event_type = client.event_types.put(name, description=description or None, schema=schema)
    _print(event_type, output)


def _described(client: Client, name: str) -> EventType | None:
    """The type as it is; None where nobody has described it."""
    try:
        return client.event_types.get(name)
    except NotFound:
        return None


@event_types.command()
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete an event type.

    Payloads of its events are not checked any more.
    """
    if not yes:
        click.confirm(f"Delete {name}? Payloads of its events are not checked any more.", abort=True)
    with target.client() as client:
        client.event_types.delete(name)
    print_line(f"deleted {name}")
