"""`dispatcher replay`: new deliveries of old events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.deliveries import filter_options
from dispatcher.cli.output import console, counted, output_option, print_fields, print_json, print_line
from dispatcher.errors import NotFound
from dispatcher.flow import replay as flow
from dispatcher.ids import format_id
from dispatcher.store import log, replays

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


PATIENCE_S: Final = 10
"""A scheduler replays a batch of 1,000 in well under a second, and looks every second."""


@click.group()
def replay() -> None:
    """Send again what failed."""


@replay.command()
@filter_options
@click.option("--dry-run", is_flag=True, help="Count what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `replay status` tells how far it is.")
@output_option
def start(chosen: log.Filter, dry_run: bool, yes: bool, no_wait: bool, output: Output) -> None:
    """Replay the ended deliveries that the options choose; without --status, those that failed.

    Each gets the whole schedule again, with the same webhook-id. A delivery that was replayed before is left out.
    """
    chosen = flow.of_failed(chosen)
    with target.database() as (_, connection):
        count = flow.count(connection, chosen)
    if dry_run:
        print_line(f"{counted(count, 'delivery', 'deliveries')} would be replayed")
        return
    if not yes and count:
        click.confirm(f"Replay {counted(count, 'delivery', 'deliveries')}?", abort=True)
    with target.database() as (settings, connection):
        replay_id = flow.start(connection, chosen)
    target.ring(settings)
    if no_wait:
        print_line(format_id("rpl", replay_id))
        return
    _watch(replay_id, count)
    _print(replay_id, output)


@replay.command()
@click.argument("replay_id", type=Id("rpl"))
@output_option
def status(replay_id: UUID, output: Output) -> None:
    """How far a replay is."""
    _print(replay_id, output)


def _print(replay_id: UUID, output: Output) -> None:
    with target.database() as (_, connection):
        found = replays.find(connection, replay_id)
    if found is None:
        raise NotFound(f"there is no replay {format_id('rpl', replay_id)}")
    values = {
        "id": format_id("rpl", found.id),
        "status": found.state,
        "replayed": found.replayed,
        "created_at": found.created_at,
        "ended_at": found.ended_at,
    }
    if output == "json":
        print_json(values)
        return
    print_fields(list(values.items()))


def _watch(replay_id: UUID, count: int) -> None:
    """Waits until the scheduler has made all the new deliveries."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(),
        disable=not sys.stdout.isatty(),
        transient=True,
    )
    with target.opened() as (_, engine), progress:
        task = progress.add_task("replaying", total=count)
        moved_at, before = time.monotonic(), -1
        while True:
            with engine.connect() as connection:
                found = replays.find(connection, replay_id)
            if found is None or found.state != "running":
                break
            if found.replayed != before:
                moved_at, before = time.monotonic(), found.replayed
            elif time.monotonic() - moved_at > PATIENCE_S:
                print_line("nothing moves: is a scheduler running? The replay goes on as soon as one does.")
                return
            progress.update(task, description=f"{found.replayed} of {count} replayed")
            time.sleep(0.2)
