"""Where an event with a target of its own goes: its tenant's implicit endpoint of that origin, made on first use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dispatcher.egress import parse_url
from dispatcher.errors import InvalidInput
from dispatcher.flow.rules import url_policy
from dispatcher.ids import uuid7
from dispatcher.store import events as store

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.event import Target
    from dispatcher.store.events import Recipient
    from dispatcher.store.profiles import Published

MAX_IN_FLIGHT: Final = 64
"""Of an implicit endpoint: as many as of one that is registered without a word about it."""


@dataclass(frozen=True, slots=True)
class Route:
    """A target that was checked: the URL in its canonical form, and what its endpoint is made of."""

    tenant_id: UUID
    origin: str
    url: str
    method: str
    profile: str
    schedule: str

    @property
    def place(self) -> tuple[UUID, str]:
        """Whose it is and where: what there is one implicit endpoint for."""
        return self.tenant_id, self.origin


def route(target: Target, tenant_id: UUID, published: Published | None, *, pointer: str) -> Route:
    """How an event gets to its target, by the profile of its tenant. Raises InvalidInput naming the field."""
    if published is None:
        raise InvalidInput(pointer, "a tenant whose profile is not published", "a profile of this installation")
    profile = published.profile
    if not profile.target:
        raise InvalidInput(pointer, f"a target under the profile {profile.name!r}", "none: it allows no targets")
    try:
        url = parse_url(target.url, url_policy(profile, published.networks))
    except InvalidInput as error:
        raise InvalidInput(f"{pointer}/url", error.found, error.allowed) from error
    method = target.method or profile.methods[0]
    if method not in profile.methods:
        raise InvalidInput(f"{pointer}/method", repr(method), " or ".join(profile.methods))
    origin = f"{url.scheme}://{url.authority.decode()}"
    return Route(tenant_id, origin, url.canonical, method, profile.name, profile.schedule)


def endpoints(connection: Connection, routes: Collection[Route], *, at: datetime) -> dict[tuple[UUID, str], Recipient]:
    """The implicit endpoint of each place; those that are lacking are made, one after the other in one order.

    Who is the first at a place waits for whoever is the first there in a transaction that is still open.
    """
    wanted = {one.place: one for one in routes}
    found = store.implicit_endpoints(connection, wanted)
    lacking = sorted(wanted.keys() - found.keys())
    for place in lacking:
        one = wanted[place]
        store.register_implicit_endpoint(
            connection,
            uuid7(at),
            tenant_id=one.tenant_id,
            origin=one.origin,
            profile=one.profile,
            schedule=one.schedule,
            max_in_flight=MAX_IN_FLIGHT,
        )
    return found | store.implicit_endpoints(connection, lacking) if lacking else found
