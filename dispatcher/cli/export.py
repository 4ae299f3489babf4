"""`dispatcher deliveries export`: the delivery log as a file, however long it is."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import sheet, target
from dispatcher.cli.deliveries import filter_options, query_of
from dispatcher.cli.output import counted
from dispatcher.model.delivery import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from dispatcher.cli.sheet import Format
    from dispatcher.model.filter import Filter
    from dispatcher.shapes import Delivery

_PAGE: Final = 1000
_SAY_EVERY: Final = 500


@click.command()
@filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice(sheet.FORMATS),
    help="What to write; by default what the file's name ends with, else csv.",
)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here instead of standard output; what is there is replaced once all is written.",
)
def export(chosen: Filter, form: Format | None, path: Path | None) -> None:
    """Export deliveries as CSV or JSON lines.

    Written are all that the given options choose, the newest first. However many there are, they are read and written a
    page at a time, each as it is at that moment. In a CSV, a cell that a spreadsheet would take for a formula has an
    apostrophe before it. What URLs have behind their ? is left out.
    """
    if chosen.undelivered and chosen.states == (DeliveryState.DELIVERED,):
        raise click.UsageError("found --undelivered and --status delivered; allowed: one of the two")
    form = form or _form_of(path)
    with target.client() as client:
        found = client.deliveries.iterate(**query_of(chosen), limit=_PAGE)
        if path is None:
            sheet.write(found, form, sys.stdout)
            return
        with replacing(path) as file, _progress() as tell:
            count = sheet.write(found, form, file, each=tell)
    click.echo(f"{counted(count, 'delivery', 'deliveries')} written to {path}", err=True)


def _form_of(path: Path | None) -> Format:
    return "jsonl" if path is not None and path.suffix in {".jsonl", ".ndjson"} else "csv"


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file, for its owner's eyes only, that takes the place of what is at `path` once it is whole; else it is gone.

    Raises ClickException where it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(handle, "w", encoding="utf-8", errors="replace", newline="") as file:  # noqa: PTH123 - it is open
            yield file
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _progress() -> Iterator[Any]:
    """Shows how far it is, on a terminal; how many there will be is not known before they were read."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} deliveries, back to {task.fields[at]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=None, at="now")
        count = 0

        def tell(one: Delivery) -> None:
            nonlocal count
            count += 1
            if count % _SAY_EVERY == 0:
                progress.update(task, completed=count, at=one["created_at"][:19])

        yield tell
