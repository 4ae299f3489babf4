"""`dispatcher prune`: lets go of what is past its retention, now rather than within minutes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcher import wiring
from dispatcher.cli import archive, machine
from dispatcher.cli.output import counted, instant, output_option, print_json, print_line, print_table, progress_bar
from dispatcher.clock import SYSTEM
from dispatcher.flow import retention
from dispatcher.store import retention as store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from dispatcher.cli.output import Output
    from dispatcher.flow.retention import Planned, Policy


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--export",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write what goes into this folder first; what cannot be written does not go.",
)
@output_option
def prune(*, dry_run: bool, folder: Path | None, output: Output) -> None:
    """Delete data that is past its retention.

    Days that are past their retention are dropped, and payloads and answers that are past theirs. The scheduler does
    the same, a partition a minute. A producer's transaction that stays open keeps it from going on: it gives up after
    two seconds, and what was done until then stays done.
    """
    with machine.opened() as (settings, engine):
        policy = wiring.retention_policy(settings)
        with engine.begin() as connection:
            planned = retention.plan(connection, policy)
        if not dry_run:
            _prune(engine, policy, [one for one in planned if one.action != "keep"], folder)
    if output == "json":
        print_json({"data": [_form(one) for one in planned]})
        return
    print_table(
        ["partition", "what", "rows", "bytes", "live deliveries", "oldest"],
        [
            (
                one.partition.name,
                one.action,
                one.partition.rows,
                one.partition.size,
                one.living.deliveries,
                one.living.oldest,
            )
            for one in planned
        ],
        caption="Rows are an estimate." if planned else "There is no partition.",
    )
    due = sum(one.action != "keep" for one in planned)
    print_line(f"{counted(due, 'partition')} {'would be' if dry_run else ''} changed".replace("  ", " "))


def _prune(engine: Engine, policy: Policy, due: Sequence[Planned], folder: Path | None) -> None:
    with progress_bar(sys.stderr) as progress:
        task = progress.add_task("", total=len(due))
        left = {one.partition.name for one in due}
        while True:
            with engine.begin() as connection:
                planned = [one for one in retention.plan(connection, policy) if one.action != "keep"]
                if not planned:
                    break
                progress.update(task, description=planned[0].partition.name)
                if folder is not None:
                    for one in _together(planned):
                        if one.partition.cursor is None:
                            store.lock(connection, one.partition)
                            archive.write(_path(folder, one), store.rows_of(connection, one.partition))
                done = retention.step(connection, policy, planned=planned)
            left -= {one.partition.name for one in done if one.partition.cursor is None}
            progress.update(task, completed=len(due) - len(left))
        if folder is None:
            more = True
            while more:
                with engine.begin() as connection:
                    more = retention.sweep(connection, policy)


def _together(planned: list[Planned]) -> list[Planned]:
    """What one step does: all of a day that is dropped, or one partition."""
    first = planned[0]
    if first.action != "drop":
        return [first]
    return [one for one in planned if one.partition.day == first.partition.day]


def _path(folder: Path, one: Planned) -> Path:
    stamp = f"{SYSTEM.now():%Y%m%dT%H%M%SZ}"
    return folder / f"{one.partition.name}.{one.action.replace(' ', '-')}.{stamp}.jsonl.gz"


def _form(one: Planned) -> dict[str, object]:
    return {
        "partition": one.partition.name,
        "action": one.action,
        "rows": one.partition.rows,
        "bytes": one.partition.size,
        "live_deliveries": one.living.deliveries,
        "oldest_live": None if one.living.oldest is None else instant(one.living.oldest),
    }
