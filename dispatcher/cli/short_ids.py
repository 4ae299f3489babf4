"""Whole ids for those that were shortened on the command line: the system that the command works on is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli.arguments import ShortId
from dispatcher.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.client import Client


LISTED: Final = 10
"""Candidates that an error lists."""

MOST_ENDS: Final = 1000
"""Ids of one beginning among which an end is looked for."""


def any_short(values: Mapping[str, Any]) -> bool:
    """Whether an id among a command's parameters was shortened. If none was, nothing needs to be asked."""
    return any(
        isinstance(one, ShortId)
        for value in values.values()
        for one in (value if isinstance(value, tuple) else [value])
    )


def resolve(client: Client, values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with whole ids. Raises BadParameter where several ids begin so, NotFound where none does."""
    return {
        name: tuple(_whole(client, one) for one in value) if isinstance(value, tuple) else _whole(client, value)
        for name, value in values.items()
    }


def _whole(client: Client, value: Any) -> Any:
    if not isinstance(value, ShortId):
        return value
    # Ids of one batch may differ at their ends only, hundreds of them.
    found = client.resolve_id(value.text, limit=MOST_ENDS if value.end else None)
    # Where more ids begin so than are listed, others may end so too.
    ids = found["ids"] if found["has_more"] else [id_ for id_ in found["ids"] if id_.endswith(value.end)]
    if not ids:
        raise NotFound(f"there is no id that begins with {value.text} and ends with {value.end}")
    if len(ids) == 1 and not found["has_more"]:
        return value.read(ids[0])
    number = f"more than {len(ids)}" if found["has_more"] else str(len(ids))
    which = "all" if not found["has_more"] and len(ids) <= LISTED else "the newest"
    lines = "\n".join(f"  {id_}" for id_ in ids[:LISTED])
    raise click.BadParameter(
        f"found {value.text}, the beginning of {number} ids; allowed: more characters of one id; {which} are\n{lines}",
        ctx=value.ctx,
        param=value.param,
    )
