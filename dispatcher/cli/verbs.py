"""Which system each command works on: the one table that the commands, their help and their tests share.

A command goes to a system through its HTTP API, or works on the system of this machine, or touches no system at all.
Every command has an entry here; one without it cannot be loaded.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli.arguments import suggest_choices
from dispatcher.cli.examples import EXAMPLES
from dispatcher.errors import DispatcherError
from dispatcher.model.access import API_URL

if TYPE_CHECKING:
    from collections.abc import Callable


VERB: Final = "dispatcher.verb"
"""In a click context's `meta`: the words of the command."""

DIRECT: Final = "dispatcher.direct"
"""The same: whether --direct was given."""


class WrongSystem(DispatcherError):
    """The command has no system to work on, or two of them; nothing was done."""

    code = "CONFIGURATION"


class Reach(Enum):
    """How far a command reaches."""

    API = "the system that DISPATCHER_API_URL names or, without it, the `up` of this machine, through its API"
    DIRECT = "the same; with --direct the database itself, past the API"
    MACHINE = "the system of this machine; refused where DISPATCHER_API_URL names one"
    TOOL = "no system"


def _table(verbs: Mapping[Reach, str]) -> Mapping[str, Reach]:
    return MappingProxyType({verb.strip(): reach for reach, text in verbs.items() for verb in text.split(",")})


VERBS: Final = _table(
    {
        Reach.MACHINE: (
            "up, api, worker, scheduler, migrate, doctor, prune, audit verify, tenants retention, "
            "signing-keys generate, signing-keys import, signing-keys rotate, signing-keys retire"
        ),
        Reach.TOOL: "config show, config check, sign, verify, schedules lint, profiles lint",
        Reach.API: (
            "erase, trigger, listen, events send, "
            "endpoints create, endpoints import, endpoints update, endpoints delete, endpoints ping, "
            "endpoints rotate-secret, endpoints recover, "
            "replay start, replay pause, replay resume, replay cancel, "
            "tenants create, tenants rotate-secret"
        ),
        # What an operator needs whose API is down: to see, and to stop or repeat what is under way.
        Reach.DIRECT: (
            "find, stats, events list, events show, events explain, "
            "deliveries list, deliveries show, deliveries export, deliveries tail, "
            "deliveries retry, deliveries cancel, pause, unpause, "
            "endpoints list, endpoints show, endpoints stats, endpoints enable, endpoints disable, "
            "replay preview, replay list, replay status, tenants list, tenants show, "
            "keys list, keys create, keys revoke, "
            "schedules list, schedules show, schedules preview, schedules simulate, profiles list, profiles show, "
            "signing-keys list, signing-keys export-jwks"
        ),
    }
)
"""Every command by its words. A schedule or a profile that is named by the path of its file touches no system."""


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command below `command` that does something, by its words; all of them are imported."""
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*words, name))


def install(verb: str, command: click.Command) -> None:
    """Complete a command that was loaded: where it works, by the table; its example; the nearest word for a wrong one.

    Raises LookupError for a command without an entry.
    """
    if verb not in VERBS:
        raise LookupError(f"dispatcher.cli.verbs.VERBS does not say which system `{verb}` works on")
    reach = VERBS[verb]
    assert command.callback is not None
    command.callback = _kept(verb, reach, command.callback)
    if reach is Reach.DIRECT:
        command.params.append(_direct_option())
    suggest_choices(command)
    command.epilog = "\b\nExample:\n  " + " ".join(("dispatcher", verb, EXAMPLES[verb])).rstrip()


def _direct_option() -> click.Option:
    return click.Option(
        ["--direct"],
        is_flag=True,
        expose_value=False,
        callback=_note_direct,
        help="Go past the API to the database: for when the API is down.",
    )


def _note_direct(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[DIRECT] = value


def _kept(verb: str, reach: Reach, callback: Callable[..., Any]) -> Callable[..., Any]:
    """The command's function, which first sees to it that the command does not work on another system than meant."""

    @functools.wraps(callback)
    def run(*args: Any, **kwargs: Any) -> Any:
        meta = click.get_current_context().meta
        meta[VERB] = verb
        if os.environ.get(API_URL):
            if reach is Reach.MACHINE:
                raise WrongSystem(
                    f"`dispatcher {verb}` works on the system of the machine that it runs on, and {API_URL} names "
                    f"another one: run it on a machine of that system, or without {API_URL}"
                )
            if meta.get(DIRECT):
                raise WrongSystem(
                    f"--direct and {API_URL} name two systems: `dispatcher {verb}` works on a database without "
                    f"{API_URL}, or on that API without --direct"
                )
        return callback(*args, **kwargs)

    return run
