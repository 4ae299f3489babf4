"""The command line: `dispatcher noun verb`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from dispatcher import __version__, renamed
from dispatcher.cli import plain
from dispatcher.cli.commands import COMMANDS, SECTIONS, Group
from dispatcher.errors import DispatcherError

# httpx imports its own command line, with all of rich and pygments, where these are installed; no command of ours uses
# it. With this entry the import fails, which httpx expects of an installation without them.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

EXIT_CODES: Final = (
    ("0", "The command did what it says."),
    ("1", "It failed, was refused or aborted; or what it checked is not right."),
    ("2", "The command line, a setting or the input is wrong."),
)
"""Every exit code, and what it means."""


class _Root(Group):
    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """Run a command. Here, not in `main` below, so that help texts and usage errors are covered too."""
        plain.set_up()
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **options)
        try:
            code = super().main(args, standalone_mode=False, **options)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = error.exit_code
            hint = renamed.hint(error.option_name, renamed.OPTIONS) if isinstance(error, click.NoSuchOption) else ""
            _tell(f"{error.message.rstrip('.')}: {hint}" if hint else error.format_message())
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(f"See `{error.ctx.command_path} --help`.", err=True)
        except click.Abort:
            code = 1
            _tell("aborted")
        sys.exit(code if isinstance(code, int) else 0)

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        for section in SECTIONS:
            yield section.capitalize(), [name for name, row in self.rows.items() if row.section == section]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


@click.group("dispatcher", cls=_Root, rows=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Dispatcher: a durable webhook sender for payment platforms.

    `up` runs everything on this machine. Commands that the HTTP API has go to the system that DISPATCHER_API_URL
    names, with the key DISPATCHER_API_KEY; without it to the `up` that runs on the data directory, DISPATCHER_DATA_DIR.
    Wherever a command takes an id, its first characters are enough if no other id begins with them; a tenant's name is
    as good as its id.

    Commands of this machine (up, api, worker, scheduler, migrate, doctor, prune, audit verify, tenants retention,
    signing-keys generate, import, rotate and retire) work on the database that DISPATCHER_DATABASE_URL names or,
    without it, on the one that `up` runs. Where DISPATCHER_API_URL is set they refuse, with exit code 2.

    For when the API is down and the database is there, the commands that read, and deliveries retry and cancel,
    endpoints enable and disable, pause, unpause, keys create and revoke take --direct: it works on that database, and
    says on stderr which one it is.
    """


def main() -> None:
    """Run the command that `sys.argv` names, and exit with one of EXIT_CODES."""
    try:
        cli(prog_name="dispatcher")
    except DispatcherError as error:
        _tell(str(error))
        sys.exit(2 if error.code in {"CONFIGURATION", "INVALID_INPUT"} else 1)
    except UnicodeEncodeError as error:
        text = ascii(error.object[error.start : error.end])[:80]
        _tell(f"found {text}, which is not Unicode text; allowed: UTF-8, see PYTHONUTF8=1")
        sys.exit(2)
    except Exception as error:
        # An error of the database can only come from a command that has imported SQLAlchemy.
        exceptions = sys.modules.get("sqlalchemy.exc")
        if exceptions is None or not isinstance(error, exceptions.DBAPIError):
            raise
        from dispatcher import wiring  # likewise

        _tell(str(wiring.unavailable(error)))
        sys.exit(1)


def _tell(message: str) -> None:
    """Every error of every command, in one form."""
    click.echo(f"dispatcher: {message}", err=True)
