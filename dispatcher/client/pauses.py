"""`client.pauses`: what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dispatcher.client.answer import read_nothing, read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from dispatcher.shapes import NewPause, Page, Pause, PauseScope


class Pauses(Resource[X]):
    """Holds all, a tenant, an endpoint or a type."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **pause: Unpack[NewPause]) -> Call[Pause]:
        """Holds what matches all that is given, or everything: `create(all=True)`."""
        return Call("POST", path("pauses"), body=write(given(pause)), idempotency_key=idempotency_key)

    @operation
    def list(self, *, tenant_id: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[Pause]]:
        """The pauses, the newest first."""
        chosen = query({"tenant_id": tenant_id, "limit": limit, "cursor": cursor})
        return Call("GET", path("pauses"), read_page, chosen)

    iterate = paging(list)

    @operation
    def delete(self, pause_id: str) -> Call[None]:
        """Lets what was held go on."""
        return Call("DELETE", path("pauses", pause_id), read_nothing)

    @operation
    def delete_scope(self, **scope: Unpack[PauseScope]) -> Call[None]:
        """Ends the pause of exactly this scope; the one of everything with `all=True`."""
        return Call("DELETE", path("pauses"), read_nothing, query(scope))
