"""`client.erasures`: what events of one object said is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dispatcher.client.answer import read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from dispatcher.shapes import Erasure, NewErasure, Page


class Erasures(Resource[X]):
    """Erases the payloads of an object's events, and the answers to them."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **erasure: Unpack[NewErasure]) -> Call[Erasure]:
        """Erases what events of the object said; it cannot be undone."""
        return Call("POST", path("erasures"), body=write(given(erasure)), idempotency_key=idempotency_key)

    @operation
    def list(self, *, tenant_id: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[Erasure]]:
        """The erasures, the newest first."""
        chosen = query({"tenant_id": tenant_id, "limit": limit, "cursor": cursor})
        return Call("GET", path("erasures"), read_page, chosen)

    iterate = paging(list)

    @operation
    def get(self, erasure_id: str) -> Call[Erasure]:
        """How far an erasure is."""
        return Call("GET", path("erasures", erasure_id))
