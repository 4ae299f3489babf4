"""The commands of the command line: where each is defined, its line in the help, its system and its example.

A command goes to a system through its HTTP API, or works on the system of this machine, or touches no system at all.
`VERBS` says which; a command that is missing there cannot be loaded.

A command's module is imported when the command is used. The help of a group and shell completion read this table and
import no module of a command: `dispatcher --help` takes a twentieth of a second, all modules together take one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from enum import Enum
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
        "audit-log": Row("audit_log", "inspect", "Show who changed what."),
        "erasures": Row("erasures", "inspect", "Show erasures and their progress."),
        "sender-addresses": Row("sender_addresses", "inspect", "Show the addresses that deliveries come from."),
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
        "event-types": Row("event_types", "register", "Describe event types, or set their schemas."),
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
            "advance": Row("advance", "", "Send a test delivery's next attempt now."),
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


class Reach(Enum):
    """How far a command reaches."""

    API = "the system that DISPATCHER_API_URL names or, without it, the `up` of this machine, through its API"
    DIRECT = "the same; with --direct the database itself, past the API"
    MACHINE = "the system of this machine; refused where DISPATCHER_API_URL names one"
    TOOL = "no system"


@dataclass(frozen=True, slots=True)
class Verb:
    """How far a command reaches. Its help ends with the example: what follows `dispatcher` and the command."""

    reach: Reach
    example: str = ""


_DELIVERY: Final = "dlv_01890a5d-ac96-774b-bcce-b302099a8057"
_ENDPOINT: Final = "ep_01890a5d-ac96-774b-bcce-b302099a8057"
_ERASURE: Final = "ers_01890a5d-ac96-774b-bcce-b302099a8057"
_EVENT: Final = "evt_01890a5d-ac96-774b-bcce-b302099a8057"
_KEY: Final = "key_01890a5d-ac96-774b-bcce-b302099a8057"
_REPLAY: Final = "rpl_01890a5d-ac96-774b-bcce-b302099a8057"
_TENANT: Final = "ten_01890a5d-ac96-774b-bcce-b302099a8057"

# `--direct` is for what an operator needs whose API is down: to see, and to stop or repeat what is under way.
VERBS: Final[Mapping[str, Verb]] = MappingProxyType(
    {
        "up": Verb(Reach.MACHINE, "--port 8420"),
        "api": Verb(Reach.MACHINE),
        "worker": Verb(Reach.MACHINE),
        "scheduler": Verb(Reach.MACHINE),
        "migrate": Verb(Reach.MACHINE, "--dry-run"),
        "doctor": Verb(Reach.MACHINE),
        "prune": Verb(Reach.MACHINE, "--dry-run"),
        "audit verify": Verb(Reach.MACHINE, "--since 7d"),
        "erasures list": Verb(Reach.DIRECT),
        "erasures show": Verb(Reach.DIRECT, _ERASURE),
        "audit-log list": Verb(Reach.DIRECT, f"--object {_ENDPOINT}"),
        "event-types list": Verb(Reach.DIRECT),
        "event-types show": Verb(Reach.DIRECT, "payment.completed"),
        "event-types put": Verb(
            Reach.API, 'payment.completed --description "A payment was completed." --schema payment.json'
        ),
        "event-types delete": Verb(Reach.API, "payment.completed"),
        "sender-addresses list": Verb(Reach.DIRECT),
        "tenants create": Verb(Reach.API, "shop"),
        "tenants list": Verb(Reach.DIRECT),
        "tenants show": Verb(Reach.DIRECT, _TENANT),
        "tenants rotate-secret": Verb(Reach.API, f"{_TENANT} --overlap 48h"),
        "tenants retention": Verb(Reach.MACHINE, f"{_TENANT} --payloads 14"),
        "signing-keys list": Verb(Reach.DIRECT),
        "signing-keys export-jwks": Verb(Reach.DIRECT),
        "signing-keys generate": Verb(Reach.MACHINE, "ed25519 --signs-in 48h"),
        "signing-keys import": Verb(Reach.MACHINE, "key.pem"),
        "signing-keys rotate": Verb(Reach.MACHINE, "ed25519"),
        "signing-keys retire": Verb(Reach.MACHINE, "3f1Xz_0sT-8Yq1o2b3c4d5e6f7g8h9i0jKlMnOpQrSt"),
        "config show": Verb(Reach.TOOL),
        "config check": Verb(Reach.TOOL),
        "sign": Verb(Reach.TOOL, "body.json --secret-file secret.txt"),
        "verify": Verb(Reach.TOOL, "body.json --headers-file headers.txt --secret-file secret.txt"),
        "schedules list": Verb(Reach.DIRECT),
        "schedules show": Verb(Reach.DIRECT, "standard"),
        "schedules lint": Verb(Reach.TOOL, "schedules/mine.toml"),
        "schedules preview": Verb(Reach.DIRECT, "standard --start 2026-01-31T12:00:00Z"),
        "schedules simulate": Verb(Reach.DIRECT, "standard --down 0s..3h"),
        "profiles list": Verb(Reach.DIRECT),
        "profiles show": Verb(Reach.DIRECT, "default"),
        "profiles lint": Verb(Reach.TOOL, "profiles/mine.toml"),
        "erase": Verb(Reach.API, "pay_9 --dry-run"),
        "trigger": Verb(Reach.API, "payment.completed --wait"),
        "listen": Verb(Reach.API, "--forward-to http://localhost:3000/hook"),
        "find": Verb(Reach.DIRECT, "pay_9"),
        "stats": Verb(Reach.DIRECT, "--window 7d"),
        "pause": Verb(Reach.DIRECT, f'--endpoint {_ENDPOINT} --reason "maintenance"'),
        "unpause": Verb(Reach.DIRECT, f"--endpoint {_ENDPOINT}"),
        "events send": Verb(Reach.API, "events.jsonl"),
        "events list": Verb(Reach.DIRECT, "--object-id pay_9"),
        "events show": Verb(Reach.DIRECT, _EVENT),
        "events explain": Verb(Reach.DIRECT, _EVENT),
        "deliveries list": Verb(Reach.DIRECT, "--status failed --since 24h"),
        "deliveries show": Verb(Reach.DIRECT, _DELIVERY),
        "deliveries export": Verb(Reach.DIRECT, "--since 7d --file deliveries.csv"),
        "deliveries tail": Verb(Reach.DIRECT, "--status failed"),
        "deliveries retry": Verb(Reach.DIRECT, _DELIVERY),
        "deliveries advance": Verb(Reach.API, f"{_DELIVERY} --to-the-end"),
        "deliveries cancel": Verb(Reach.DIRECT, f"{_DELIVERY} --dry-run"),
        "endpoints create": Verb(Reach.API, "https://shop.example.com/hooks --event-type 'payment.*'"),
        "endpoints import": Verb(Reach.API, "endpoints.jsonl"),
        "endpoints update": Verb(Reach.API, f"{_ENDPOINT} --rate-limit 20"),
        "endpoints set-url": Verb(Reach.API, f"https://shop.example.com/hooks --tenant {_TENANT}"),
        "endpoints delete": Verb(Reach.API, _ENDPOINT),
        "endpoints ping": Verb(Reach.API, _ENDPOINT),
        "endpoints rotate-secret": Verb(Reach.API, f"{_ENDPOINT} --overlap 48h"),
        "endpoints recover": Verb(Reach.API, f"{_ENDPOINT} --since 24h"),
        "endpoints list": Verb(Reach.DIRECT, "--status disabled"),
        "endpoints show": Verb(Reach.DIRECT, _ENDPOINT),
        "endpoints stats": Verb(Reach.DIRECT, f"{_ENDPOINT} --window 7d"),
        "endpoints enable": Verb(Reach.DIRECT, _ENDPOINT),
        "endpoints disable": Verb(Reach.DIRECT, f'{_ENDPOINT} --reason "moves on Friday"'),
        "replay preview": Verb(Reach.DIRECT, f"--endpoint {_ENDPOINT} --since 24h"),
        "replay start": Verb(Reach.API, f"--endpoint {_ENDPOINT} --since 24h --rate 10"),
        "replay list": Verb(Reach.DIRECT),
        "replay status": Verb(Reach.DIRECT, f"{_REPLAY} --follow"),
        "replay pause": Verb(Reach.API, _REPLAY),
        "replay resume": Verb(Reach.API, _REPLAY),
        "replay cancel": Verb(Reach.API, _REPLAY),
        "keys create": Verb(Reach.DIRECT, "till --scope events:write"),
        "keys list": Verb(Reach.DIRECT),
        "keys revoke": Verb(Reach.DIRECT, _KEY),
    }
)
"""Every command by its words. A schedule or a profile that is named by the path of its file touches no system.

A test reads every example as the command line does.
"""


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
