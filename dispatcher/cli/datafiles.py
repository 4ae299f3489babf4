"""What the commands about data files have in common: where the files are, where one comes from, how lint reports."""

from __future__ import annotations

from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.output import Command, Output, counted, print_json, print_line
from dispatcher.errors import DispatcherError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.datafile import DataFile, LintReport


def directory_option(kind: str) -> Callable[[Command], Command]:
    """Add `--KIND-dir`, passed as `KIND_dir`, and say what is wrong with the files in it as an error."""

    def add(command: Command) -> Command:
        @wraps(command)
        def reporting(*args: Any, **kwargs: Any) -> Any:
            try:
                return command(*args, **kwargs)
            except DispatcherError as error:
                raise click.ClickException(str(error)) from error

        option = click.option(
            f"--{kind}-dir",
            type=click.Path(path_type=Path),
            envvar=f"DISPATCHER_{kind.upper()}_DIR",
            show_envvar=True,
            help=f"A directory of {kind} beside the shipped ones; a file of the same name replaces a shipped one.",
        )
        return option(reporting)  # type: ignore[return-value]  # wraps keeps the signature, which mypy cannot see

    return add


def directories(shipped: Path, mine: Path | None) -> tuple[Path, ...]:
    """Those to load: the shipped one, and the operator's where there is one."""
    return (shipped,) if mine is None else (shipped, mine)


def is_path(name: str) -> bool:
    """Whether an argument is the path of a file: the name of a data file holds neither a slash nor a dot."""
    return "/" in name or name.endswith(".toml")


def origin(file: DataFile) -> str:
    """Where a data file comes from, for people."""
    if file.shipped:
        return "shipped"
    return f"{file.path}, replacing the shipped one" if file.replaces else str(file.path)


def print_report(report: LintReport, output: Output) -> int:
    """Print what lint found. Returns the exit code: an error is 1, a warning is not."""
    if output == "json":
        print_json(
            {
                "files": report.files,
                "errors": [asdict(problem) for problem in report.problems],
                "warnings": [asdict(warning) for warning in report.warnings],
            }
        )
    else:
        for problem in report.problems:
            print_line(f"error: {problem}", style="red")
        for warning in report.warnings:
            print_line(f"warning: {warning}", style="yellow")
        counts = (
            counted(report.files, "file"),
            counted(len(report.problems), "error"),
            counted(len(report.warnings), "warning"),
        )
        print_line(", ".join(counts))
    return 1 if report.problems else 0
