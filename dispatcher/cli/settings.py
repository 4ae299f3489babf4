"""`dispatcher config`: what the settings are, and what is wrong with them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dispatcher import config as config_
from dispatcher import wiring
from dispatcher.cli.output import output_option, print_json, print_table
from dispatcher.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.cli.output import Output
    from dispatcher.config import Settings
    from dispatcher.errors import Problem


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
    settings = config_.load()
    problems: list[Problem] = []
    checks: list[Callable[[Settings], object]] = [wiring.catalog]
    if settings.secret_keys is not None:
        checks.append(wiring.keyring)
    for one in checks:
        try:
            one(settings)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    click.echo("the settings and the data files are right")
