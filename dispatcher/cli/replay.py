"""`dispatcher replay`: new deliveries of old events."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.deliveries import ago, filter_options, query_of
from dispatcher.cli.listing import Column, Table, limit_options, print_page, print_rows, take, whole
from dispatcher.cli.output import console, counted, output_option, print_fields, print_json, print_line
from dispatcher.ids import format_id
from dispatcher.model.filter import Filter, of_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Command, Output
    from dispatcher.client import Client
    from dispatcher.shapes import Preview, PreviewedEndpoint, Replay, ReplayEndpoint, ReplayPreview, ReplayProgress

PATIENCE_S: Final = 10
"""A scheduler looks every second, and replays a batch of 1,000 in well under one."""


@click.group()
def replay() -> None:
    """Preview, start or steer a replay."""


def _choice_options(command: Command) -> Command:
    """Adds the options that choose what to replay and how, passed as `chosen`, `include_delivered` and `how`."""
    options: list[Callable[[Any], Any]] = [
        click.option("--include-delivered", is_flag=True, help="Also what has been delivered."),
        click.option("--rate", type=click.FloatRange(0.01, 10_000), help="Deliveries a second, at most."),
        click.option(
            "--rate-per-endpoint", type=click.FloatRange(0.01, 10_000), help="Deliveries a second to each endpoint."
        ),
        click.option(
            "--canary", type=click.IntRange(1, 100), help="So many of each endpoint go first; all fail: it stops."
        ),
        click.option(
            "--to", metavar="same|matching|ep_…", help="Where to: as before, those that want it today, or one endpoint."
        ),
    ]

    @functools.wraps(command)
    def with_options(
        *args: Any,
        rate: float | None,
        rate_per_endpoint: float | None,
        canary: int | None,
        to: str | None,
        **values: Any,
    ) -> Any:
        how = {"rate_per_second": rate, "rate_per_endpoint": rate_per_endpoint, "canary": canary, "to": to}
        return command(*args, how=how, **values)

    made: Command = with_options  # type: ignore[assignment]
    for option in reversed(options):
        made = option(made)
    return filter_options(made)


def query(chosen: Filter, how: dict[str, Any], *, include_delivered: bool = False) -> ReplayPreview:
    """The choice as the API has it. Raises InvalidInput for live states."""
    of_failed(chosen)
    found = cast("ReplayPreview", query_of(replace(chosen, undelivered=False)))
    if chosen.undelivered:
        found["undelivered"] = True
    if include_delivered:
        found["include_delivered"] = True
    return cast("ReplayPreview", {**found, **how})


@replay.command()
@_choice_options
@output_option
def preview(chosen: Filter, include_delivered: bool, how: dict[str, Any], output: Output) -> None:
    """Preview a replay.

    It shows what a replay would do now. Within an hour `replay start --token` does exactly that.
    """
    with target.client() as client:
        found = client.replays.preview(**query(chosen, how, include_delivered=include_delivered))
    if output == "json":
        print_json(found)
        return
    _print_preview(found)
    print_fields([("token", found["preview_token"]), ("valid until", found["expires_at"])])


def _print_preview(found: Preview) -> None:
    disabled = counted(found["endpoints_disabled"], "endpoint")
    rates = [
        *([f"{found['rate_per_second']:g} a second"] if found["rate_per_second"] else []),
        *([f"{found['rate_per_endpoint']:g} a second to each endpoint"] if found["rate_per_endpoint"] else []),
    ]
    print_fields(
        [
            ("deliveries", found["count"]),
            *([("oldest", found["oldest"]), ("newest", found["newest"])] if found["count"] else []),
            *([("delivered since", found["already_delivered"])] if found["already_delivered"] else []),
            *([("payload gone", f"{found['payload_gone']}, left out")] if found["payload_gone"] else []),
            *([("of others", f"{found['not_visible']}, left out")] if found["not_visible"] else []),
            *([("will wait", f"{disabled} disabled")] if found["endpoints_disabled"] else []),
            *([("to", found["to"])] if found["to"] != "same" else []),
            *([("rate", ", ".join(rates))] if rates else []),
            *([("canary", f"{found['canary']} of each endpoint")] if found["canary"] else []),
            ("takes", f"{ago(found['estimated_seconds'])} at least"),
        ]
    )
    if found["endpoints"]:
        print_line("")
        print_rows(PREVIEWED_ENDPOINTS, found["endpoints"])
        print_line("")


PREVIEWED_ENDPOINTS: Final[Table[PreviewedEndpoint]] = Table(
    "PreviewedEndpoint",
    (
        Column("endpoint", "endpoint_id", kind="id"),
        Column("deliveries", "count"),
        Column("delivered", "already_delivered"),
        Column("status", "disabled", lambda one: "disabled" if one["disabled"] else None),
        Column("url", "url", kind="url", least=12),
    ),
    empty="It has no endpoint.",
)


@replay.command()
@_choice_options
@click.option("--all", "everything", is_flag=True, help="All that failed; with --yes, it or a condition is needed.")
@click.option("--token", help="Of a preview: exactly what it showed, instead of a choice.")
@click.option("--dry-run", is_flag=True, help="Count what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `replay status` tells how far it is.")
@click.option("--follow", is_flag=True, help="Stay until all that it makes has ended; Ctrl-C leaves it running.")
@output_option
def start(
    chosen: Filter,
    include_delivered: bool,
    how: dict[str, Any],
    everything: bool,
    token: str | None,
    dry_run: bool,
    yes: bool,
    no_wait: bool,
    follow: bool,
    output: Output,
) -> None:
    """Start a replay.

    Replayed are the ended deliveries that the options choose; without --status, those that failed. Each gets the whole
    schedule again, with the same webhook-id. A delivery that was replayed before is left out.
    """
    if everything and (token is not None or chosen != Filter()):
        raise click.UsageError("found --all and a choice; allowed: one of the two")
    if yes and not everything and token is None and chosen == Filter():
        raise click.UsageError("found --yes and no condition; allowed: at least one condition, or --all for all failed")
    asked = query(chosen, how, include_delivered=include_delivered)
    if token is not None and (dry_run or any(asked.values())):
        raise click.UsageError("found --token and a choice; allowed: --token alone, which has what was previewed")
    with target.client() as client:
        if token is None:
            found = client.replays.preview(**asked)
            number = counted(found["count"], "delivery", "deliveries")
            if dry_run:
                print_line(f"{number} would be replayed")
                if found["endpoints"]:
                    print_rows(PREVIEWED_ENDPOINTS, found["endpoints"])
                return
            if not yes and found["count"]:
                _print_preview(found)
                click.confirm(f"Replay {number}?", abort=True)
            token = found["preview_token"]
        started = client.replays.create(preview_token=token)
        if no_wait:
            print_line(started["id"])
            return
        _watch(client, started["id"], to_the_end=follow)
        _print(client.replays.get(started["id"]), output)


_replay_id = click.argument("replay_id", type=Id("rpl"))


REPLAY_ENDPOINTS: Final[Table[ReplayEndpoint]] = Table(
    "ReplayEndpoint",
    (
        Column("endpoint", "endpoint_id", kind="id"),
        Column("status", "status"),
        Column("made", "processed", lambda one: _of(one["processed"], one["total"])),
        Column("delivered", "delivered"),
        Column("failed", "failed"),
        Column("waiting", "waiting"),
        Column("url", "url", kind="url", least=8),
        Column("reason", "status_reason", least=6),
    ),
    empty="It has no endpoint yet.",
)


@replay.command()
@_replay_id
@output_option
@click.option("--endpoints", "by_endpoint", is_flag=True, help="Endpoint by endpoint, and what each waits for.")
@click.option("--follow", is_flag=True, help="Stay until all that it makes has ended; Ctrl-C leaves it running.")
def status(replay_id: UUID, output: Output, by_endpoint: bool, follow: bool) -> None:
    """Show a replay's progress.

    Or that of a cancellation.
    """
    id_ = format_id("rpl", replay_id)
    with target.client() as client:
        if follow:
            _watch(client, id_, to_the_end=True)
        if not by_endpoint:
            _print(client.replays.get(id_), output)
            return
        print_page(REPLAY_ENDPOINTS, whole(list(client.replays.iterate_endpoints(id_))), output)


REPLAYS: Final[Table[Replay]] = Table(
    "Replay",
    (
        Column("replay", "id", kind="id"),
        Column("created", "created_at", kind="time"),
        Column("kind", "kind"),
        Column("status", "status"),
        Column("done", "processed", lambda one: _of(one["processed"], one["total"])),
        Column("to", "to", kind="id", where="room", short=lambda one: None if one["to"] == "same" else one["to"]),
        Column("by", "created_by", kind="id", where="room"),
        Column("reason", "status_reason", least=8),
    ),
    empty="There are no replays or cancellations.",
)


@replay.command("list")
@limit_options(20, most=10_000)
@output_option
def list_(limit: int, cursor: str | None, output: Output) -> None:
    """List replays and cancellations.

    The newest come first.
    """
    with target.client() as client:
        page = take(client.replays.list, limit, cursor)
    print_page(REPLAYS, page, output)


@replay.command()
@_replay_id
@output_option
def pause(replay_id: UUID, output: Output) -> None:
    """Pause a replay.

    It makes no more deliveries until it is resumed.
    """
    with target.client() as client:
        _print(client.replays.pause(format_id("rpl", replay_id)), output)


@replay.command()
@_replay_id
@output_option
def resume(replay_id: UUID, output: Output) -> None:
    """Resume a paused replay."""
    with target.client() as client:
        _print(client.replays.resume(format_id("rpl", replay_id)), output)


@replay.command()
@_replay_id
@output_option
def cancel(replay_id: UUID, output: Output) -> None:
    """Cancel a replay.

    The deliveries that it has made stay.
    """
    with target.client() as client:
        _print(client.replays.cancel(format_id("rpl", replay_id)), output)


def _print(found: Replay | ReplayProgress, output: Output) -> None:
    if output == "json":
        print_json(found)
        return
    fields: list[tuple[str, object]] = [
        ("id", found["id"]),
        ("status", found["status"]),
        *([("because", found["status_reason"])] if found["status_reason"] else []),
        ("replayed" if found["kind"] == "replay" else "cancelled", _of(found["processed"], found["total"])),
    ]
    if found["kind"] == "replay" and "delivered" in found:
        shown = cast("ReplayProgress", found)
        fields += [(name, shown[name]) for name in ("delivered", "failed", "waiting")]
        if shown["current_rate"] is not None:
            fields.append(("now", f"{shown['current_rate']:g} a second"))
        if shown["estimated_end"]:
            fields.append(("all made at", shown["estimated_end"]))
    fields += [
        *([("a second", f"{found['rate_per_second']:g}")] if found["rate_per_second"] is not None else []),
        *([("each", f"{found['rate_per_endpoint']:g} a second")] if found["rate_per_endpoint"] is not None else []),
        *([("canary", found["canary"])] if found["canary"] is not None else []),
        *([("to", found["to"])] if found["to"] != "same" else []),
        ("created_at", found["created_at"]),
        *([("ended_at", found["ended_at"])] if found["ended_at"] else []),
    ]
    print_fields(fields)


def _of(done: int, total: int | None) -> str:
    return str(done) if total in (None, done) else f"{done} of {total}"


def _watch(client: Client, replay_id: str, *, to_the_end: bool) -> None:
    """Waits until the scheduler has made all the new deliveries; to the end: until they have ended, too."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        BarColumn(20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(),
        disable=not sys.stdout.isatty(),
        transient=True,
    )
    try:
        with progress:
            task = progress.add_task("replaying", total=1)
            moved_at, before = time.monotonic(), (-1, -1)
            while (found := client.replays.get(replay_id))["status"] == "running" or (to_the_end and found["waiting"]):
                if found["status"] in ("paused", "cancelled"):
                    return
                ended = found["delivered"] + found["failed"]
                if (found["processed"], ended) != before:
                    moved_at, before = time.monotonic(), (found["processed"], ended)
                elif not to_the_end and time.monotonic() - moved_at > PATIENCE_S + 1 / _slowest(found):
                    why = found["status_reason"] or "is a scheduler running? The replay goes on as soon as one does"
                    print_line(f"nothing moves: {why}.")
                    return
                total = max(1, found["total"] or found["processed"])
                done = ended if to_the_end else found["processed"]
                progress.update(task, completed=done, total=total, description=_told(found))
                time.sleep(0.2)
    except KeyboardInterrupt:
        print_line(f"it goes on without you: dispatcher replay status {replay_id}")


def _slowest(found: Replay) -> float:
    return min(found["rate_per_second"] or 1, found["rate_per_endpoint"] or 1)


def _told(found: ReplayProgress) -> str:
    left = (found["total"] or 0) - found["processed"] + found["waiting"]
    told = f"{found['delivered']} delivered, {found['failed']} failed, {left} left"
    if found["estimated_end"] and found["current_rate"]:
        seconds = max(0, (found["total"] or 0) - found["processed"]) / found["current_rate"]
        return f"{told}, made in {ago(seconds)}"
    return f"{told}: {found['status_reason']}" if found["status_reason"] else told
