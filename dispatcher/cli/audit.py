"""`dispatcher audit`: whether what the log says can be true."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from dispatcher.cli import machine
from dispatcher.cli.arguments import Since
from dispatcher.cli.output import counted, output_option, print_json, print_line, print_table, progress_bar
from dispatcher.clock import SYSTEM
from dispatcher.flow import audit as flow

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dispatcher.cli.output import Output
    from dispatcher.flow.audit import Day, Verified, Violation


@click.group()
def audit() -> None:
    """Check the log's integrity."""


@audit.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="One day, in UTC.")
@click.option("--since", type=Since(), help="What was created since: 24h, or an instant. 24h by default.")
@click.option("--all", "everything", is_flag=True, help="All that is kept.")
@output_option
def verify(day: datetime | None, since: datetime | None, everything: bool, output: Output) -> None:
    """Check that every event has its deliveries.

    And that every delivery has exactly one state. Day by day, each from one snapshot, beside live traffic; it changes
    nothing. The numbers are those of docs/invariants.md. Exits with 1 where anything is violated.
    """
    if sum((day is not None, since is not None, everything)) > 1:
        raise click.UsageError("found several; allowed: one of --day, --since and --all")
    if day is not None:
        start = day.replace(tzinfo=UTC)
        bounds: dict[str, datetime] = {"since": start, "until": start + timedelta(days=1)}
    elif everything:
        bounds = {}
    else:
        bounds = {"since": since or SYSTEM.now() - timedelta(days=1)}
    with machine.opened() as (_, engine):
        with engine.begin() as connection:
            days = flow.days(connection, **bounds)
        verified = _verify(engine, days)
        with engine.begin() as connection:
            now = flow.verify_now(connection)
    checks = flow.together([*(one.checks for one in verified), now])
    violated = sum(one.count for one in checks)
    if output == "json":
        print_json(_form(verified, checks, violated))
    else:
        _print(verified, checks, violated)
    if violated:
        sys.exit(1)


def _verify(engine: Engine, days: list[Day]) -> list[Verified]:
    """Each day in a transaction of its own, so that no snapshot is held for long."""
    found: list[Verified] = []
    with progress_bar(sys.stderr) as progress:
        task = progress.add_task("", total=len(days))
        for day in days:
            progress.update(task, description=f"{day.day}")
            with engine.begin() as connection:
                found.append(flow.verify_day(connection, day))
            progress.advance(task)
    return found


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _print(verified: list[Verified], checks: tuple[Violation, ...], violated: int) -> None:
    print_table(
        ["day", "events", "unmatched", "expected", "live", "ended", "replays", "attempts", "unknown"],
        [
            (
                one.day,
                one.counts.events,
                one.counts.unmatched,
                one.counts.expected,
                _states(one.counts.live) or "0",
                _states(one.counts.ended) or "0",
                one.counts.replays,
                one.counts.attempts,
                one.counts.unknown,
            )
            for one in verified
        ],
        caption="" if verified else "Nothing was created then; what lives now was looked at.",
    )
    print_line("")
    print_table(
        ["", "invariant", "violated by", "found", "such as"],
        [
            (
                Text("✗", style="bold red") if one.count else Text("✓", style="green"),
                one.invariant,
                one.what,
                one.count,
                "; ".join(one.examples),
            )
            for one in checks
        ],
    )
    print_line("")
    print_line(
        f"✗ {counted(violated, 'violation')}" if violated else "✓ no violation",
        style="bold red" if violated else "green",
    )


def _form(verified: list[Verified], checks: tuple[Violation, ...], violated: int) -> dict[str, Any]:
    return {
        "violations": violated,
        "days": [
            {
                "day": str(one.day),
                **asdict(one.counts),
                "checks": [_check(each) for each in one.checks if each.count],
            }
            for one in verified
        ],
        "checks": [_check(one) for one in checks],
    }


def _check(one: Violation) -> dict[str, Any]:
    return {"ok": not one.count, **asdict(one)}
