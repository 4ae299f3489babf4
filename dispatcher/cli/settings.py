"""`dispatcher config`: what the settings are, and what is wrong with them."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dispatcher import config as config_
from dispatcher.cli import preflight
from dispatcher.cli.output import output_option, print_json, print_table
from dispatcher.errors import ConfigurationError
from dispatcher.model.access import API_URL

if TYPE_CHECKING:
    from dispatcher.cli.output import Output


@click.group()
def config() -> None:
    """Show or check the settings."""


@config.command()
@output_option
def show(output: Output) -> None:
    """Show every setting, its value and source.

    Secrets are masked.
    """
    shown = config_.show(config_.load())
    if output == "json":
        print_json({"data": [asdict(setting) for setting in shown]})
        return
    print_table(
        ["setting", "value", "source", "about"], [(one.variable, one.value, one.source, one.about) for one in shown]
    )


@config.command()
def check() -> None:
    """Check all that `up` checks at its start.

    It checks settings, schedules, profiles, keys, the data directory, the port, the embedded servers' programs, the
    database and the broker that are named. It prints every error, one line each, and exits with 2. It makes and changes
    nothing. Where DISPATCHER_API_URL names another system, `up` does not run here, and only settings and files are
    checked.
    """
    elsewhere = bool(os.environ.get(API_URL))
    try:
        preflight.settings(files_only=elsewhere)
    except preflight.Refused as error:
        error.code = ConfigurationError.code
        raise
    click.echo("the settings and the data files are right" + ("" if elsewhere else ", and `up` can start"))
