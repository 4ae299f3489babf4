"""The command line: `dispatcher noun verb`."""

from __future__ import annotations

import sys
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from dispatcher import __version__, wiring
from dispatcher.cli import (
    audit,
    deliveries,
    doctor,
    endpoints,
    events,
    export,
    plain,
    processes,
    replay,
    settings,
    tail,
    verbs,
)
from dispatcher.cli.arguments import suggest_choices
from dispatcher.cli.erase import erase
from dispatcher.cli.find import find
from dispatcher.cli.keys import keys
from dispatcher.cli.listen import listen
from dispatcher.cli.pauses import pause, unpause
from dispatcher.cli.profiles import profiles
from dispatcher.cli.prune import prune
from dispatcher.cli.schedules import schedules
from dispatcher.cli.signatures import sign, verify
from dispatcher.cli.signing_keys import signing_keys
from dispatcher.cli.statistics import stats
from dispatcher.cli.tenants import tenants
from dispatcher.cli.trigger import trigger
from dispatcher.errors import DispatcherError


class _Root(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command. Here, not in `main` below, so that help texts and usage errors are covered too."""
        plain.set_up()
        return super().main(*args, **kwargs)


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Dispatcher: a durable webhook sender for payment platforms.

    `up` runs everything on this machine. Commands that the HTTP API has go to the system that DISPATCHER_API_URL
    names, with the key DISPATCHER_API_KEY; without it to the `up` that runs on the data directory, DISPATCHER_DATA_DIR.

    Commands of this machine (up, api, worker, scheduler, migrate, doctor, prune, audit verify, tenants retention,
    signing-keys generate, import, rotate and retire) work on the database that DISPATCHER_DATABASE_URL names or,
    without it, on the one that `up` runs. Where DISPATCHER_API_URL is set they refuse, with exit code 2.

    For when the API is down and the database is there, the commands that read, and deliveries retry and cancel,
    endpoints enable and disable, pause, unpause, keys create and revoke take --direct: it works on that database, and
    says on stderr which one it is.

    Exit codes: 0 ok, 1 failed, 2 usage or configuration.
    """


cli.add_command(processes.up)
cli.add_command(processes.api)
cli.add_command(processes.worker)
cli.add_command(processes.scheduler)
cli.add_command(processes.migrate)
cli.add_command(settings.config)
cli.add_command(endpoints.endpoints)
cli.add_command(find)
cli.add_command(audit.audit)
cli.add_command(doctor.doctor)
cli.add_command(prune)
cli.add_command(erase)
cli.add_command(pause)
cli.add_command(unpause)
cli.add_command(events.events)
cli.add_command(deliveries.deliveries)
deliveries.deliveries.add_command(export.export)
deliveries.deliveries.add_command(tail.tail)
cli.add_command(replay.replay)
cli.add_command(stats)
cli.add_command(tenants)
cli.add_command(keys)
cli.add_command(schedules)
cli.add_command(profiles)
cli.add_command(signing_keys)
cli.add_command(sign)
cli.add_command(verify)
cli.add_command(trigger)
cli.add_command(listen)
verbs.install(cli)
suggest_choices(cli)


def main() -> None:
    """Exit codes: 0 ok, 1 failed, 2 usage or configuration."""
    try:
        cli(standalone_mode=True)
    except DispatcherError as error:
        click.echo(f"dispatcher: {error}", err=True)
        sys.exit(2 if error.code in {"CONFIGURATION", "INVALID_INPUT"} else 1)
    except UnicodeEncodeError as error:
        found = ascii(error.object[error.start : error.end])[:80]
        click.echo(f"dispatcher: found {found}, which is not Unicode text; allowed: UTF-8, see PYTHONUTF8=1", err=True)
        sys.exit(2)
    except DBAPIError as error:
        click.echo(f"dispatcher: {wiring.unavailable(error)}", err=True)
        sys.exit(1)
