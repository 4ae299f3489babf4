"""`/v1/ids`: the ids that begin with the same characters, so that people can shorten an id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from dispatcher.api import caller as callers
from dispatcher.api.caller import Caller
from dispatcher.api.context import ContextOf, reply
from dispatcher.api.strict import check_query
from dispatcher.errors import NotFound
from dispatcher.ids import SHORT_UUID, format_id, parse_short_id
from dispatcher.model.access import Scope
from dispatcher.shapes import MatchingIds
from dispatcher.shapes.values import EXAMPLE_UUID
from dispatcher.store import short_ids

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.ids import Prefix

router = APIRouter(prefix="/v1/ids", tags=["ids"])

LISTED_IDS: Final = 10
"""As many ids are listed, unless the caller wants more: they would not help anybody to choose one."""

MAX_IDS: Final = 1000
"""The most that a caller gets, to look for ids by their ends too."""

READERS: Final[Mapping[Prefix, tuple[Scope, ...]]] = {
    "evt": callers.EVENT_READERS,
    "ep": callers.ENDPOINT_READERS,
    "dlv": callers.READERS,
    "rpl": callers.READERS,
    "ten": callers.READERS,
    "key": callers.ADMINS,
    "pau": callers.ENDPOINT_READERS,
    "ers": callers.ADMINS,
}
"""The scopes of which a key needs one, by the kind of id: those of the route that reads such an object."""

ShortId = Annotated[
    str,
    Path(
        description="An id, or its first characters.",
        examples=[f"dlv_{EXAMPLE_UUID[:13]}"],
        json_schema_extra={"pattern": f"^({'|'.join(READERS)})_({SHORT_UUID})$"},
    ),
]


ListedIds = Annotated[int, Query(ge=1, le=MAX_IDS, description="How many ids are listed, the newest.", examples=[10])]


async def reader(request: Request, short_id: ShortId) -> Caller:
    """A caller who may read objects of the id's kind. Raises Forbidden."""
    found = await callers.caller(request)
    callers.require(found, *READERS[parse_short_id(list(READERS), short_id).prefix])
    check_query(request)
    return found


ReaderOf = Annotated[Caller, Depends(reader)]


@router.get("/{short_id}", response_model=MatchingIds)
async def resolve(short_id: ShortId, context: ContextOf, caller: ReaderOf, limit: ListedIds = LISTED_IDS) -> Response:
    """Find the ids that begin with the given characters.

    The newest are listed. A key needs the scopes that reading such an object takes, and finds only ids of objects
    that it can read. Where no endpoint begins so, deleted ones are found by keys whose scope is admin, to read of them
    in the audit log.
    """
    wanted = parse_short_id(list(READERS), short_id)

    def read(connection: Connection) -> list[UUID]:
        found = short_ids.find(connection, wanted, tenant_id=caller.tenant_id, limit=limit + 1)
        if not found and wanted.prefix == "ep" and caller.may(Scope.ADMIN):  # who may read the audit log
            found = short_ids.find_deleted(connection, wanted, tenant_id=caller.tenant_id, limit=limit + 1)
        return found

    found = await context.search(read, pointer="/id", narrow="more characters of the id")
    if not found:
        more = "; an ended pause is found by its whole id only" if wanted.prefix == "pau" else ""
        raise NotFound(f"there is no id that begins with {short_id}{more}")
    ids = [format_id(wanted.prefix, id_) for id_ in found[:limit]]
    return reply(MatchingIds(ids=ids, has_more=len(found) > limit))
