"""Completes a command that is loaded: with the system that it works on, and with its example."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli import short_ids
from dispatcher.cli.arguments import accept_old_names, suggest_choices
from dispatcher.cli.commands import VERBS, Reach
from dispatcher.errors import DispatcherError
from dispatcher.model.access import API_URL

if TYPE_CHECKING:
    from collections.abc import Callable


VERB: Final = "dispatcher.verb"
"""In a click context's `meta`: the words of the command."""

DIRECT: Final = "dispatcher.direct"
"""The same: whether --direct was given."""

CLIENT: Final = "dispatcher.client"
"""The same: the client that is open already, because an id was shortened."""


class WrongSystem(DispatcherError):
    """The command has no system to work on, or two of them; nothing was done."""

    code = "CONFIGURATION"


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
        raise LookupError(f"dispatcher.cli.commands.VERBS does not say which system `{verb}` works on")
    reach, example = VERBS[verb].reach, VERBS[verb].example
    assert command.callback is not None
    command.callback = _kept(verb, reach, command.callback)
    if reach is Reach.DIRECT:
        command.params.append(_direct_option())
    suggest_choices(command)
    accept_old_names(command)
    command.epilog = f"\b\nExample:\n  dispatcher {verb} {example}".rstrip()


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
        if not short_ids.any_short(kwargs):
            return callback(*args, **kwargs)
        if reach is Reach.MACHINE:
            from dispatcher.cli import machine

            with machine.local_client(verb) as client:
                kwargs = short_ids.resolve(client, kwargs)
            return callback(*args, **kwargs)
        from dispatcher.cli import (
            target,
        )  # it imports the client, which a command without anything to ask does not need

        with target.client() as client:
            meta[CLIENT] = client
            return callback(*args, **short_ids.resolve(client, kwargs))

    return run
