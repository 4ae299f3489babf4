"""What the commands' arguments have in common: ids with their prefix, and times relative or absolute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from dispatcher import renamed
from dispatcher.clock import SYSTEM
from dispatcher.datafile import nearest
from dispatcher.errors import InvalidInput
from dispatcher.ids import is_short, parse_id
from dispatcher.model.duration import parse_duration

if TYPE_CHECKING:
    from dispatcher.ids import Prefix


SECRET_VARIABLE: Final = "WEBHOOK_SECRET"  # noqa: S105 - the variable's name
"""The variable that holds the signing secret of a receiver."""


@dataclass(frozen=True, slots=True)
class ShortId:
    """The first characters of an id, as they were typed. `dispatcher.cli.short_ids` finds the whole id.

    `end` are its last ones, where a list showed it without its middle. `read` makes the parameter's value of the whole
    id. `param` and `ctx` are for messages.
    """

    text: str
    read: Callable[[str], Any]
    param: click.Parameter | None
    ctx: click.Context | None
    end: str = ""


@dataclass(frozen=True, slots=True)
class TenantName:
    """A tenant's name where its id is expected. `dispatcher.cli.short_ids` finds the id. The rest is for messages."""

    text: str
    param: click.Parameter | None
    ctx: click.Context | None


def short_id(
    value: str, read: Callable[[str], Any], param: click.Parameter | None, ctx: click.Context | None
) -> ShortId | None:
    """The shortened id, if the text is one: `dlv_01890a5d`, or `dlv_01890a5d-ac96…57` as narrow lists have it."""
    start, _, end = value.replace("...", "…").partition("…")
    return ShortId(start, read, param, ctx, end) if is_short(start) else None


class Id(click.ParamType[UUID]):
    """`<prefix>_<uuid>`, as a UUID. A shortened one becomes a ShortId, until the command runs.

    A tenant's name becomes a TenantName likewise.
    """

    def __init__(self, prefix: Prefix) -> None:
        self.prefix: Prefix = prefix
        self.name = f"{prefix}_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for anything but the beginning of such an id."""
        if not isinstance(value, str):
            return value
        short = short_id(value, partial(parse_id, self.prefix), param, ctx)
        if short is not None and value.startswith(f"{self.prefix}_"):
            return short
        if self.prefix == "ten" and value and not value.startswith("ten_"):
            return TenantName(value, param, ctx)
        try:
            return parse_id(self.prefix, value)
        except InvalidInput as error:
            self.fail(f"found {error.found}; allowed: {error.allowed}, or its first characters", param, ctx)


class AnyId(click.ParamType[str]):
    """An id of any kind, or a name, as text. A shortened id becomes a ShortId, until the command runs."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leaves everything but shortened ids as it is."""
        return (short_id(value, str, param, ctx) or value) if isinstance(value, str) else value


class Choice(click.Choice[Any]):
    """One of several words; another one is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What click says, and the word that was likely meant."""
        return super().get_invalid_choice_message(value, ctx) + nearest(str(value), map(str, self.choices))


def suggest_choices(command: click.Command) -> None:
    """Give each choice of the command the nearest word: click has that for names only."""
    for parameter in command.params:
        if type(parameter.type) is click.Choice:
            parameter.type = Choice(parameter.type.choices, case_sensitive=parameter.type.case_sensitive)


def accept_old_names(command: click.Command) -> None:
    """Have each option of the command that was renamed be taken by its old name too, with a line on stderr."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for old, new in renamed.ACCEPTED_OPTIONS.items():
        if old in taken:  # where it is another option
            continue
        for parameter in command.params:
            if new in parameter.opts:
                parameter.add_to_parser = partial(_add_both, parameter.add_to_parser, parameter, old)  # type: ignore[method-assign]


def _add_both(
    add: Callable[[Any, click.Context], None],
    parameter: click.Parameter,
    old: str,
    parser: Any,
    context: click.Context,
) -> None:
    """Adds an option to click's parser by both names. The parser alone knows by which of them it was given."""
    add(parser, context)
    action = "append" if parameter.multiple else "store"
    parser.add_option(parameter, [old], dest=parameter.name, action=action, nargs=1)
    known = parser._long_opt[old]  # noqa: SLF001 - click has no other way
    process = known.process

    def announced(value: Any, state: Any) -> None:
        click.echo(f"dispatcher: {old}: {renamed.hint(old, renamed.ACCEPTED_OPTIONS)}", err=True)
        process(value, state)

    known.process = announced


class Since(click.ParamType[datetime]):
    """An instant: RFC 3339 with a zone, or a duration before now such as `24h` or `7d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter for what is neither."""
        if not isinstance(value, str):
            return value
        if re.fullmatch(r"(\d+(ms|s|m|h|d))+", value):
            try:
                return SYSTEM.now() - parse_duration(value)
            except (ValueError, OverflowError) as error:
                self.fail(str(error), param, ctx)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"found {value!r}; allowed: 24h, 7d, or an instant such as 2026-01-31T12:00:00Z", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
