"""`dispatcher pause` and `dispatcher unpause`: hold deliveries, and let them go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.listing import PAGE, Column, Table, print_page, whole
from dispatcher.cli.output import output_option, print_fields, print_json, print_line
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Command, Output
    from dispatcher.shapes import Pause, PauseScope


def _narrow_options(command: Command) -> Command:
    """Adds what names the scope of a pause, passed as `tenant_id`, `endpoint_id`, `event_type` and `mode`."""
    options: list[Callable[[Any], Any]] = [
        click.option("--tenant", "tenant_id", type=Id("ten"), help="Only what is sent for it."),
        click.option("--endpoint", "endpoint_id", type=Id("ep"), help="Only what is sent to it."),
        click.option("--event-type", help="Only events of this type, or payment.* for a family."),
        click.option("--mode", type=click.Choice(["live", "test"]), help="Only real events, or those of a sandbox."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _scope(
    everything: str | None,
    tenant_id: UUID | None,
    endpoint_id: UUID | None,
    event_type: str | None,
    mode: Literal["live", "test"] | None,
) -> PauseScope:
    """What the options name. Raises UsageError for nothing, or for all and something."""
    scope: PauseScope = {}
    if tenant_id is not None:
        scope["tenant_id"] = format_id("ten", tenant_id)
    if endpoint_id is not None:
        scope["endpoint_id"] = format_id("ep", endpoint_id)
    if event_type is not None:
        scope["event_type"] = event_type
    if mode is not None:
        scope["mode"] = mode
    if bool(scope) == (everything is not None):
        found = "all and an option" if scope else "nothing"
        raise click.UsageError(
            f"found {found}; allowed: all, or at least one of --tenant, --endpoint, --event-type, --mode"
        )
    if everything is not None:
        scope["all"] = True
    return scope


@click.command()
@click.argument("everything", metavar="[all]", required=False, type=click.Choice(["all"]))
@_narrow_options
@click.option("--reason", help="Shown with what waits.")
@click.option("--list", "lists", is_flag=True, help="Show what is paused, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before everything is held.")
@output_option
def pause(
    everything: str | None,
    tenant_id: UUID | None,
    endpoint_id: UUID | None,
    event_type: str | None,
    mode: Literal["live", "test"] | None,
    reason: str | None,
    lists: bool,
    yes: bool,
    output: Output,
) -> None:
    """Pause deliveries.

    All of them, or those that match every option, wait until `unpause`. After 7 days they expire, and are not sent.
    """
    if lists:
        _list(output)
        return
    scope = _scope(everything, tenant_id, endpoint_id, event_type, mode)
    if (everything is not None or scope == {"mode": "live"}) and not yes:
        what = "delivery" if everything is not None else "live delivery"
        click.confirm(f"Hold every {what} of every tenant, or of the key's tenant if it has one?", abort=True)
    with target.client() as client:
        made = client.pauses.create(**scope, reason=reason)
    if output == "json":
        print_json(made)
        return
    print_fields([(name, value) for name, value in made.items() if value is not None])


class _Ended(click.ParamType[Any]):
    """What `unpause` takes besides options: `all`, or a pause's id."""

    name = "pause"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for anything else."""
        if value == "all" or not isinstance(value, str):
            return value
        if not value.startswith("pau_"):
            self.fail(f"found {value!r}; allowed: all, or the id of a pause", param, ctx)
        return Id("pau").convert(value, param, ctx)


@click.command()
@click.argument("pause", metavar="[all|PAUSE_ID]", required=False, type=_Ended())
@_narrow_options
def unpause(
    pause: str | UUID | None,
    tenant_id: UUID | None,
    endpoint_id: UUID | None,
    event_type: str | None,
    mode: Literal["live", "test"] | None,
) -> None:
    """Unpause deliveries.

    This ends the pause with this id, or the pause of exactly this scope; what it held is sent.
    """
    if isinstance(pause, UUID):
        if any(narrow is not None for narrow in (tenant_id, endpoint_id, event_type, mode)):
            raise click.UsageError("found the id of a pause and an option; allowed: one of the two")
        with target.client() as client:
            client.pauses.delete(format_id("pau", pause))
    else:
        scope = _scope(pause, tenant_id, endpoint_id, event_type, mode)
        with target.client() as client:
            client.pauses.delete_scope(**scope)
    print_line("unpaused")


def holds(
    pause: Pause, *, tenant_id: str, endpoint_id: str, event_type: str | None = None, mode: str | None = None
) -> bool:
    """Whether a pause holds deliveries of the tenant to the endpoint; without a type or mode, some of them at least."""
    if mode is not None and pause["mode"] not in (None, mode):
        return False
    if pause["tenant_id"] not in (None, tenant_id) or pause["endpoint_id"] not in (None, endpoint_id):
        return False
    held = pause["event_type"]
    if held is None or event_type is None:
        return True
    return event_type.startswith(held.removesuffix("*")) if held.endswith(".*") else event_type == held


def _what(one: Pause) -> str | None:
    """Says "everything" of a pause without a condition, whose other columns are empty."""
    return None if one["tenant_id"] or one["endpoint_id"] or one["event_type"] or one["mode"] else "everything"


PAUSES: Final[Table[Pause]] = Table(
    "Pause",
    (
        Column("pause", "id", kind="id"),
        Column("since", "created_at", kind="time"),
        Column("what", "id", _what),
        Column("tenant", "tenant_id", kind="id"),
        Column("endpoint", "endpoint_id", kind="id"),
        Column("type", "event_type", least=10),
        Column("mode", "mode"),
        Column("by", "created_by", kind="id", where="room"),
        Column("reason", "reason", least=8),
    ),
    empty="Nothing is paused.",
)


def _list(output: Output) -> None:
    with target.client() as client:
        page = whole(list(client.pauses.iterate(limit=PAGE)))
    print_page(PAUSES, page, output)
