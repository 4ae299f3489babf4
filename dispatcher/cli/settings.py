"""`dispatcher config`: what the settings are, and what is wrong with them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dispatcher import config as config_
from dispatcher import wiring
from dispatcher.cli.output import output_option, print_json, print_table

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command()
@output_option
def show(output: Output) -> None:
    """Every setting with its value and source; secrets are masked."""
    shown = config_.show(config_.load())
    if output == "json":
        print_json({"data": [asdict(setting) for setting in shown]})
        return
    print_table(
        ["setting", "value", "source", "about"], [(one.variable, one.value, one.source, one.about) for one in shown]
    )


@config.command()
def check() -> None:
    """Exit 0 if the settings and data files are right; else print every error at once."""
    wiring.profiles(config_.load())  # which reads the schedules too
    click.echo("the settings and the data files are right")
