"""What the commands about data files have in common: where the files are, and how lint reports."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcher.cli.output import Command, Output, counted, print_json, print_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.datafile import LintReport


def directory_option(kind: str) -> Callable[[Command], Command]:
    """Add `--KIND-dir`, passed as `KIND_dir`."""
    return click.option(
        f"--{kind}-dir",
        type=click.Path(path_type=Path),
        envvar=f"DISPATCHER_{kind.upper()}_DIR",
        show_envvar=True,
        help=f"A directory of {kind} beside the shipped ones; a file of the same name replaces a shipped one.",
    )


def directories(shipped: Path, mine: Path | None) -> tuple[Path, ...]:
    """Those to load: the shipped one, and the operator's where there is one."""
    return (shipped,) if mine is None else (shipped, mine)


def is_path(name: str) -> bool:
    """Whether an argument is the path of a file: the name of a data file holds neither a slash nor a dot."""
    return "/" in name or name.endswith(".toml")


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
