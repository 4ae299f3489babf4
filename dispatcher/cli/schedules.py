"""`dispatcher schedules`: what the retry schedules are, those of a system by their names, those of files by paths."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dispatcher.cli import target
from dispatcher.cli.datafiles import directories, directory_option, is_path, print_report
from dispatcher.cli.listing import Column, Table, print_page
from dispatcher.cli.output import Output, counted, instant, output_option, print_fields, print_json, print_table
from dispatcher.client import NotFound
from dispatcher.clock import SYSTEM
from dispatcher.datafile import unknown
from dispatcher.retry import (
    RetrySchedule,
    format_duration,
    lint,
    load_schedule,
    parse_duration,
    preview,
    shipped_schedules_dir,
    simulate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.shapes import Schedule


schedules_dir_option = directory_option("schedules")


@click.group()
def schedules() -> None:
    """Show, check or simulate retry schedules."""


SCHEDULES: Final[Table[Schedule]] = Table(
    "Schedule",
    (
        Column("name", "name"),
        Column("attempts", "attempts"),
        Column("over", "total_s", lambda one: clock_time(_schedule(one).total)),
        Column("waits", "waits", lambda one: _waits(_schedule(one)), least=10),
    ),
    empty="There are no schedules.",
)


@schedules.command("list")
@output_option
def list_(output: Output) -> None:
    """List the schedules.

    Listed are those that endpoints may name.
    """
    with target.client() as client:
        page = client.schedules.list()
    print_page(SCHEDULES, page, output)


@schedules.command()
@click.argument("name")
@output_option
def show(name: str, output: Output) -> None:
    """Show a schedule.

    NAME is a schedule of the system, or the path of a file, for which no system is asked.
    """
    schedule = _find(name)
    if output == "json":
        print_json(as_json(schedule))
        return
    print_fields(
        [
            ("name", schedule.name),
            ("description", schedule.description),
            ("source", schedule.source),
            ("relative to", schedule.relative_to),
            ("waits", _waits(schedule)),
            ("attempts", schedule.attempts),
            ("over", f"{clock_time(schedule.total)} ({format_duration(schedule.total)})"),
            ("jitter", f"{schedule.jitter:g}"),
            ("version", schedule.version),
        ]
    )


@schedules.command("lint")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@output_option
@schedules_dir_option
@click.pass_context
def lint_(context: click.Context, files: tuple[Path, ...], output: Output, schedules_dir: Path | None) -> None:
    """Check schedule files.

    FILES may be directories; without any, all that this installation would load is checked. An error ends in exit code
    1, a warning does not.
    """
    paths = files or directories(shipped_schedules_dir(), schedules_dir)
    context.exit(print_report(lint(*paths), output))


@schedules.command("preview")
@click.argument("name")
@click.option("--start", metavar="RFC3339", help="When attempt 1's wait begins, as 2026-01-31T12:00:00Z; default now.")
@click.option("--seed", type=int, help="Also show the times that one draw of the jitter gives; repeatable by its seed.")
@output_option
def preview_(name: str, start: str | None, seed: int | None, output: Output) -> None:
    """Preview the attempts of a schedule.

    It shows when each attempt of NAME (or of a file) would start, if every one failed at once.
    """
    schedule = _find(name)
    start_at = SYSTEM.now().replace(microsecond=0) if start is None else _parse_start(start)
    planned = preview(schedule)
    drawn = [None] * len(planned) if seed is None else _draw(schedule, seed)
    try:
        rows = [
            {
                "number": attempt.number,
                "wait_s": attempt.wait.total_seconds(),
                "offset_s": attempt.earliest.total_seconds(),
                "latest_offset_s": attempt.latest.total_seconds(),
                "at": start_at + attempt.earliest,
                "latest_at": start_at + attempt.latest,
                **({} if offset is None else {"drawn_offset_s": offset.total_seconds(), "drawn_at": start_at + offset}),
            }
            for attempt, offset in zip(planned, drawn, strict=True)
        ]
    except OverflowError as error:
        raise click.BadParameter("the schedule would run past the year 9999", param_hint="--start") from error
    last = planned[-1]
    if output == "json":
        print_json(
            {
                "name": schedule.name,
                "version": schedule.version,
                "relative_to": schedule.relative_to,
                "jitter": schedule.jitter,
                "start": start_at,
                "attempts": rows,
                "total_s": last.earliest.total_seconds(),
                "latest_total_s": last.latest.total_seconds(),
                "assumes": _assumption(schedule),
            }
        )
        return
    columns = ["attempt", "wait", "after start", *(["latest"] if schedule.jitter else []), "at"]
    if seed is not None:
        columns.append("drawn")
    table = []
    for attempt, offset, row in zip(planned, drawn, rows, strict=True):
        cells: list[object] = [attempt.number, format_duration(attempt.wait), clock_time(attempt.earliest)]
        if schedule.jitter:
            cells.append(clock_time(attempt.latest))
        cells.append(row["at"])
        if offset is not None:
            cells.append(clock_time(offset))
        table.append(cells)
    total = f"{schedule.name}: {counted(len(planned), 'attempt')} over {clock_time(last.earliest)}"
    if schedule.jitter:
        total += f", with the most jitter ({schedule.jitter:g}) {clock_time(last.latest)}"
    print_table(columns, table, caption=f"{total}, from {instant(start_at)}.\n{_assumption(schedule)}")


@schedules.command("simulate")
@click.argument("name")
@click.option(
    "--down",
    multiple=True,
    metavar="FROM..TO",
    help="When the receiver fails, as durations after the event: 0s..3h; may be repeated.",
)
@click.option("--attempt-duration", "takes", default="0s", show_default=True, help="How long a failing attempt takes.")
@click.option("--start", metavar="RFC3339", help="When the event is accepted; default now.")
@output_option
def simulate_(name: str, down: tuple[str, ...], takes: str, start: str | None, output: Output) -> None:
    """Simulate a schedule during an outage.

    It shows what NAME (or a file) makes of an outage of the receiver: each attempt, how it ends, and how late.
    """
    schedule = _find(name)
    start_at = SYSTEM.now().replace(microsecond=0) if start is None else _parse_start(start)
    done = simulate(schedule, [_span(one) for one in down], takes=_duration(takes, "--attempt-duration"))
    try:
        rows = [
            {
                "number": one.number,
                "offset_s": one.offset.total_seconds(),
                "at": start_at + one.offset,
                "ok": one.ok,
            }
            for one in done.attempts
        ]
    except OverflowError as error:
        raise click.BadParameter("the schedule would run past the year 9999", param_hint="--start") from error
    if output == "json":
        print_json(
            {
                "name": schedule.name,
                "version": schedule.version,
                "start": start_at,
                "attempts": rows,
                "ended": done.ended,
                "reason": done.reason,
                "delay_s": done.delay.total_seconds(),
            }
        )
        return
    tried = counted(len(rows), "attempt")
    late = f"{clock_time(done.delay)} after the event"
    print_table(
        ["attempt", "after start", "at", "answer"],
        [
            (one.number, clock_time(one.offset), row["at"], "ok" if one.ok else "fails")
            for one, row in zip(done.attempts, rows, strict=True)
        ],
        caption=f"{schedule.name}: {done.ended} by {tried}, {late}.",
    )


def _span(text: str) -> tuple[timedelta, timedelta]:
    begin, dots, end = text.partition("..")
    span = _duration(begin, "--down"), _duration(end, "--down")
    if not dots or span[0] >= span[1]:
        raise click.BadParameter(f"{text!r} is not a span such as 0s..3h", param_hint="--down")
    return span


def _duration(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def clock_time(duration: timedelta) -> str:
    """Hours, minutes and seconds, the hours beyond 24 too; a fraction where there is one, to the millisecond.

    >>> clock_time(timedelta(days=1, hours=3, minutes=35, seconds=5))
    '27:35:05'
    """
    ms = round(duration / timedelta(milliseconds=1))
    hours, rest = divmod(ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, fraction = divmod(rest, 1_000)
    return f"{hours:02}:{minutes:02}:{seconds:02}" + (f".{fraction:03}" if fraction else "")


def _find(name: str) -> RetrySchedule:
    """The schedule that NAME names: a file by its path, else the system's."""
    if is_path(name):
        return load_schedule(Path(name)).schedule
    with target.client() as client:
        try:
            return _schedule(client.schedules.get(name))
        except NotFound as error:
            raise unknown("schedule", name, [one["name"] for one in client.schedules.list()["data"]]) from error


def _schedule(found: Schedule) -> RetrySchedule:
    """The schedule that the API described."""
    return RetrySchedule(
        name=found["name"],
        waits=tuple(timedelta(seconds=wait_s) for wait_s in found["waits_s"]),
        relative_to=found["relative_to"],
        jitter=found["jitter"],
        description=found["description"] or "",
        source=found["source"] or "",
    )


def _waits(schedule: RetrySchedule) -> str:
    return ("at " if schedule.from_first_attempt else "") + " ".join(map(format_duration, schedule.waits))


def as_json(schedule: RetrySchedule) -> Schedule:
    """A schedule as the API describes it."""
    return {
        "name": schedule.name,
        "description": schedule.description or None,
        "source": schedule.source or None,
        "version": schedule.version,
        "relative_to": schedule.relative_to,
        "waits": [format_duration(wait) for wait in schedule.waits],
        "waits_s": [wait.total_seconds() for wait in schedule.waits],
        "jitter": schedule.jitter,
        "attempts": schedule.attempts,
        "total_s": schedule.total.total_seconds(),
    }


def _assumption(schedule: RetrySchedule) -> str:
    if schedule.from_first_attempt:
        return (
            "Failures are taken to need no time; waits count from the start of attempt 1, so an attempt is late only "
            "if the one before it ends later than that."
        )
    return (
        "Failures are taken to need no time; waits count from the previous failure, so an attempt really starts later "
        "by what all attempts before it took."
    )


def _draw(schedule: RetrySchedule, seed: int) -> list[timedelta]:
    """The offset of each attempt with jitter drawn from `seed`."""
    uniform: Callable[[float, float], float] = random.Random(seed).uniform  # noqa: S311 - no secret is drawn
    offsets, before = [], timedelta(0)
    for number in range(1, schedule.attempts + 1):
        delay = timedelta(seconds=schedule.delay_s(number, uniform))
        before = delay if schedule.from_first_attempt else before + delay
        # Rounded up, as a time for people must not be early either.
        offsets.append(-(-before // timedelta(milliseconds=1)) * timedelta(milliseconds=1))
    return offsets


def _parse_start(text: str) -> datetime:
    try:
        start_at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time like 2026-01-31T12:00:00Z", param_hint="--start") from error
    if start_at.tzinfo is None:
        raise click.BadParameter(f"{text!r} names no zone; end it in Z for UTC", param_hint="--start")
    try:
        return start_at.astimezone(UTC)
    except OverflowError as error:
        raise click.BadParameter(f"{text!r} is out of range", param_hint="--start") from error
