"""The commands of the command line: where each is defined, and its line in the help.

A command's module is imported when the command is used. The help of a group and shell completion read this table and
import no module of a command: `dispatcher --help` takes a twentieth of a second, all modules together take one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SUMMARY: Final = 45
"""Characters of a summary: longer ones do not fit into 80 columns beside the longest names."""

SECTIONS: Final = ("run", "inspect", "act", "register", "files", "keys")
"""The sections of the root's help, in this order."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where a command is defined, below `dispatcher.cli`; its section of the root's help; what it does.

    The module's name for the command is the command's last word, `import_` for `import`.
    """

    module: str
    section: str
    summary: str


COMMANDS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "up": Row("processes", "run", "Run the whole system on this machine."),
        "api": Row("services", "run", "Run the HTTP API."),
        "worker": Row("services", "run", "Run a worker process."),
        "scheduler": Row("services", "run", "Run a scheduler process."),
        "migrate": Row("processes", "run", "Migrate the database's schema."),
        "find": Row("find", "inspect", "Find anything by an id, object, URL or host."),
        "events": Row("events", "inspect", "Send events, and show where they went."),
        "deliveries": Row("deliveries", "inspect", "Show, retry, cancel or export deliveries."),
        "stats": Row("statistics", "inspect", "Show success rates and latencies."),
        "audit": Row("audit", "inspect", "Check the log's integrity."),
        "doctor": Row("doctor", "inspect", "Diagnose the system of this machine."),
        "replay": Row("replay", "act", "Preview, start or steer a replay."),
        "pause": Row("pauses", "act", "Pause deliveries."),
        "unpause": Row("pauses", "act", "Unpause deliveries."),
        "erase": Row("erase", "act", "Erase the payloads of an object's events."),
        "prune": Row("prune", "act", "Delete data that is past its retention."),
        "trigger": Row("trigger", "act", "Send a sample event."),
        "listen": Row("listen", "act", "Show new events, and forward them."),
        "endpoints": Row("endpoints", "register", "Register, change or test endpoints."),
        "tenants": Row("tenants", "register", "Create or change tenants."),
        "config": Row("settings", "files", "Show or check the settings."),
        "schedules": Row("schedules", "files", "Show, check or simulate retry schedules."),
        "profiles": Row("profiles", "files", "Show or check provider profiles."),
        "keys": Row("keys", "keys", "Create or revoke API keys."),
        "signing-keys": Row("signing_keys", "keys", "Create, publish or retire signing keys."),
        "sign": Row("signatures", "keys", "Sign a body as the platform does."),
        "verify": Row("signatures", "keys", "Verify a signed body."),
    }
)
"""Every command of the root, section by section in the order of its help."""

BELOW: Final[Mapping[str, Mapping[str, Row]]] = MappingProxyType(
    {
        "deliveries": {
            "export": Row("export", "", "Export deliveries as CSV or JSON lines."),
            "tail": Row("tail", "", "Follow the delivery log."),
        },
        "signing-keys": {
            "generate": Row("signing_key_changes", "", "Generate a signing key."),
            "import": Row("signing_key_changes", "", "Import a private key."),
            "rotate": Row("signing_key_changes", "", "Replace the signing key of a kind."),
            "retire": Row("signing_key_changes", "", "Retire a signing key at once."),
        },
        "tenants": {
            "retention": Row("retention", "", "Set how long a tenant's data is kept."),
        },
    }
)
"""Commands of a group that are defined in another module than the group, by the group's name."""


class Commands(MutableMapping[str, click.Command]):
    """The commands of a group by their names; one that has a row is imported when it is looked up."""

    def __init__(self, group: str, rows: Mapping[str, Row]) -> None:
        self._prefix = f"{group} " if group else ""
        self._rows = rows
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module = importlib.import_module(f"dispatcher.cli.{self._rows[name].module}")
            command: click.Command = getattr(module, "import_" if name == "import" else name.replace("-", "_"))
            self._loaded[name] = command
            from dispatcher.cli import verbs  # a group's help does without it

            for verb, leaf in _leaves(command, self._prefix + name):
                verbs.install(verb, leaf)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._rows, *self._loaded)))

    def __len__(self) -> int:
        return len(self._rows.keys() | self._loaded.keys())

    @property
    def loaded(self) -> Mapping[str, click.Command]:
        """Those that are imported."""
        return self._loaded


def _leaves(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    """Every imported command at or below `command` that does something, by its words."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    below = command.commands.loaded if isinstance(command.commands, Commands) else command.commands
    for name, command_below in below.items():
        yield from _leaves(command_below, f"{words} {name}")


class Group(click.Group):
    """A group of commands, some of which are imported when they are used: the rows of `BELOW`, or those given."""

    def __init__(self, name: str, rows: Mapping[str, Row] | None = None, **options: Any) -> None:
        self.rows = BELOW[name] if rows is None else rows
        super().__init__(name, commands=Commands("" if rows is COMMANDS else name, self.rows), **options)

    def summary(self, name: str) -> str:
        """What a command does, in a sentence; a command that has a row is not imported for it."""
        return self.rows[name].summary if name in self.rows else self.commands[name].get_short_help_str(MAX_SUMMARY)

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """The sections of the help: a title and the names of commands."""
        yield "Commands", sorted(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the sections, with one column of names as wide as the longest in all of them."""
        widest = max(map(len, self.commands))
        for title, names in self.sections():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), self.summary(name)) for name in names])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of commands that begin so, then what click completes for every command."""
        names = [name for name in sorted(self.commands) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self.summary(name)) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)
