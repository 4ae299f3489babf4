"""`dispatcher replay`: new deliveries of old events."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.deliveries import ago, filter_options, query_of
from dispatcher.cli.output import console, counted, output_option, print_fields, print_json, print_line
from dispatcher.flow.replay import of_failed
from dispatcher.ids import format_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dispatcher.cli.output import Command, Output
    from dispatcher.client import Client
    from dispatcher.client.types import NewReplay, Preview, Replay, ReplayPreview
    from dispatcher.store import log

PATIENCE_S: Final = 10
"""A scheduler looks every second, and replays a batch of 1,000 in well under one."""


@click.group()
def replay() -> None:
    """Send again what failed."""


def _choice_options(command: Command) -> Command:
    """Adds the options that choose what to replay, passed as `chosen`, `include_delivered` and `rate`."""
    options: list[Callable[[Any], Any]] = [
        click.option("--include-delivered", is_flag=True, help="Also what has been delivered."),
        click.option("--rate", type=click.FloatRange(0.01, 10_000), help="Deliveries a second, at most."),
    ]
    for option in reversed(options):
        command = option(command)
    return filter_options(command)


def query(chosen: log.Filter, *, include_delivered: bool = False, rate: float | None = None) -> ReplayPreview:
    """The choice as the API has it. Raises InvalidInput for live states."""
    of_failed(chosen)
    found = cast("ReplayPreview", query_of(replace(chosen, undelivered=False)))
    if chosen.undelivered:
        found["undelivered"] = True
    if include_delivered:
        found["include_delivered"] = True
    found["rate_per_second"] = rate
    return found


@replay.command()
@_choice_options
@output_option
def preview(chosen: log.Filter, include_delivered: bool, rate: float | None, output: Output) -> None:
    """What a replay would do now. Within an hour `replay start --token` does exactly that."""
    with target.client() as client:
        found = client.replays.preview(**query(chosen, include_delivered=include_delivered, rate=rate))
    if output == "json":
        print_json(found)
        return
    _print_preview(found)
    print_fields([("token", found["preview_token"]), ("valid until", found["expires_at"])])


def _print_preview(found: Preview) -> None:
    disabled = counted(found["endpoints_disabled"], "endpoint")
    print_fields(
        [
            ("deliveries", found["count"]),
            *([("oldest", found["oldest"]), ("newest", found["newest"])] if found["count"] else []),
            *([("delivered since", found["already_delivered"])] if found["already_delivered"] else []),
            *([("will wait", f"{disabled} disabled")] if found["endpoints_disabled"] else []),
            ("takes", f"{ago(found['estimated_seconds'])} at least"),
        ]
    )


@replay.command()
@_choice_options
@click.option("--token", help="Of a preview: exactly what it showed, instead of a choice.")
@click.option("--dry-run", is_flag=True, help="Count what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `replay status` tells how far it is.")
@output_option
def start(
    chosen: log.Filter,
    include_delivered: bool,
    rate: float | None,
    token: str | None,
    dry_run: bool,
    yes: bool,
    no_wait: bool,
    output: Output,
) -> None:
    """Replay the ended deliveries that the options choose; without --status, those that failed.

    Each gets the whole schedule again, with the same webhook-id. A delivery that was replayed before is left out.
    """
    asked = query(chosen, include_delivered=include_delivered, rate=rate)
    if token is not None and (dry_run or any(value for name, value in asked.items() if name != "rate_per_second")):
        raise click.UsageError("found --token and a choice; allowed: --token alone, with --rate")
    with target.client() as client:
        if token is None:
            found = client.replays.preview(**asked)
            number = counted(found["count"], "delivery", "deliveries")
            if dry_run:
                print_line(f"{number} would be replayed")
                return
            if not yes and found["count"]:
                _print_preview(found)
                click.confirm(f"Replay {number}?", abort=True)
            token = found["preview_token"]
        wanted: NewReplay = {"preview_token": token, "rate_per_second": rate}
        _follow(client, client.replays.create(**wanted), no_wait=no_wait, output=output)


def _follow(client: Client, started: Replay, *, no_wait: bool, output: Output) -> None:
    if no_wait:
        print_line(started["id"])
        return
    _watch(client, started)
    _print(client.replays.get(started["id"]), output)


_replay_id = click.argument("replay_id", type=Id("rpl"))


@replay.command()
@_replay_id
@output_option
def status(replay_id: UUID, output: Output) -> None:
    """How far a replay, or a cancellation, is."""
    with target.client() as client:
        _print(client.replays.get(format_id("rpl", replay_id)), output)


@replay.command()
@_replay_id
@output_option
def pause(replay_id: UUID, output: Output) -> None:
    """Have it rest until it is resumed."""
    with target.client() as client:
        _print(client.replays.pause(format_id("rpl", replay_id)), output)


@replay.command()
@_replay_id
@output_option
def resume(replay_id: UUID, output: Output) -> None:
    """Have it go on."""
    with target.client() as client:
        _print(client.replays.resume(format_id("rpl", replay_id)), output)


@replay.command()
@_replay_id
@output_option
def cancel(replay_id: UUID, output: Output) -> None:
    """End it; what it has made stays."""
    with target.client() as client:
        _print(client.replays.cancel(format_id("rpl", replay_id)), output)


def _print(found: Replay, output: Output) -> None:
    if output == "json":
        print_json(found)
        return
    done, total = found["replayed"], found["total"]
    print_fields(
        [
            ("id", found["id"]),
            ("status", found["status"]),
            ("replayed" if found["kind"] == "replay" else "cancelled", _of(done, total)),
            *([("a second", f"{found['rate_per_second']:g}")] if found["rate_per_second"] is not None else []),
            ("created_at", found["created_at"]),
            *([("ended_at", found["ended_at"])] if found["ended_at"] else []),
        ]
    )


def _of(done: int, total: int | None) -> str:
    return str(done) if total in (None, done) else f"{done} of {total}"


def _watch(client: Client, started: Replay) -> None:
    """Waits until the scheduler has made all the new deliveries."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(),
        disable=not sys.stdout.isatty(),
        transient=True,
    )
    with progress:
        task = progress.add_task("replaying", total=started["total"])
        moved_at, before = time.monotonic(), -1
        while (found := client.replays.get(started["id"]))["status"] == "running":
            if found["replayed"] != before:
                moved_at, before = time.monotonic(), found["replayed"]
            elif time.monotonic() - moved_at > PATIENCE_S + 1 / (found["rate_per_second"] or 1):
                print_line("nothing moves: is a scheduler running? The replay goes on as soon as one does.")
                return
            progress.update(task, description=f"{_of(found['replayed'], found['total'])} replayed")
            time.sleep(0.2)
