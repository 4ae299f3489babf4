"""Whole ids for those that were shortened on the command line: the system that the command works on is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from dispatcher.cli.arguments import ShortId, TenantName
from dispatcher.cli.output import visible
from dispatcher.errors import DispatcherError, Forbidden, NotFound
from dispatcher.ids import parse_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from dispatcher.client import Client
    from dispatcher.shapes import Found, Pause


LISTED: Final = 10
"""Candidates that an error lists."""

MOST_ENDS: Final = 1000
"""Ids of one beginning among which an end is looked for."""


class ScopeMissing(DispatcherError):
    """The key may do what the command does, and may not look for ids."""

    code = "FORBIDDEN"


def any_short(values: Mapping[str, Any]) -> bool:
    """Whether an id among a command's parameters was shortened. If none was, nothing needs to be asked."""
    return any(
        isinstance(one, ShortId | TenantName)
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
    if isinstance(value, TenantName):
        return _tenant(client, value)
    if not isinstance(value, ShortId):
        return value
    # Ids of one batch may differ at their ends only, hundreds of them.
    try:
        found = client.resolve_id(value.text, limit=MOST_ENDS if value.end else None)
    except Forbidden as error:
        raise ScopeMissing(
            f"{error}; that is to find the id that begins with {value.text}: a whole id works"
        ) from error
    # Where more ids begin so than are listed, others may end so too.
    ids = found["ids"] if found["has_more"] else [id_ for id_ in found["ids"] if id_.endswith(value.end)]
    if not ids:
        raise NotFound(f"there is no id that begins with {value.text} and ends with {value.end}")
    if len(ids) == 1 and not found["has_more"]:
        return value.read(ids[0])
    number = f"more than {len(ids)}" if found["has_more"] else str(len(ids))
    which = "all" if not found["has_more"] and len(ids) <= LISTED else "the newest"
    lines = "\n".join(visible(f"  {line}") for line in _described(client, value.text, ids[:LISTED]))
    raise click.BadParameter(
        f"found {value.text}, the beginning of {number} ids; allowed: more characters of one id; {which} are\n{lines}",
        ctx=value.ctx,
        param=value.param,
    )


def _tenant(client: Client, name: TenantName) -> UUID:
    """The id of the tenant with this name, which is unique."""
    try:
        found = client.tenants.list(name=name.text)["data"]
    except Forbidden as error:
        raise ScopeMissing(f"{error}; that is to find the tenant named {name.text}: its id works") from error
    if not found:
        raise click.BadParameter(
            f"found {name.text!r}, which no tenant is called; allowed: the id of a tenant, its first characters, or "
            "the name of a tenant",
            ctx=name.ctx,
            param=name.param,
        )
    return parse_id("ten", found[0]["id"])


def _described(client: Client, beginning: str, ids: list[str]) -> list[str]:
    """Each id with what tells it apart: when it was created, its state, its URL or its event type.

    Only the id, where the key may not read more.
    """
    try:
        match beginning.partition("_")[0]:
            case "pau":
                pauses = {pause["id"]: pause for pause in client.pauses.list(limit=1000)["data"]}
                told = {id_: (pause["created_at"], _held(pause)) for id_, pause in pauses.items()}
            case "ers":
                erasures = [client.erasures.get(id_) for id_ in ids]
                told = {one["id"]: (one["created_at"], f"{one['object_id']}: {one['status']}") for one in erasures}
            case _:
                found = client.find(beginning)["data"]
                missing = set(ids) - {one["id"] for one in found}
                for id_ in sorted(missing):
                    found += client.find(id_)["data"]
                told = {one["id"]: (_created_at(one), one["summary"]) for one in found}
    except Forbidden:
        return ids
    return ["  ".join((id_, *filter(None, told.get(id_, ())))) for id_ in ids]


def _held(pause: Pause) -> str:
    scope = [value for value in (pause["tenant_id"], pause["endpoint_id"], pause["event_type"]) if value]
    return f"{' '.join(scope) or 'everything'}: {pause['reason']}"


def _created_at(found: Found) -> str:
    created_at: str = found["object"].get("created_at", "")
    return created_at
