"""`client.endpoints`: registered URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

from dispatcher.client.answer import read_data, read_page
from dispatcher.client.body import batches, given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dispatcher.client.call import Steps
    from dispatcher.shapes import (
        CreatedEndpoint,
        DeletedEndpoint,
        Endpoint,
        EndpointChanges,
        EndpointStats,
        EndpointStatus,
        ImportedEndpoint,
        ImportItem,
        InstantGiven,
        NewEndpoint,
        Page,
        Ping,
        Replay,
    )


class Endpoints(Resource[X]):
    """Registered URLs, and what they want to hear."""

    @operation
    def create(self, *, idempotency_key: str | None = None, **endpoint: Unpack[NewEndpoint]) -> Call[CreatedEndpoint]:
        """Registers a URL. The answer holds the signing secret, this once."""
        return Call("POST", path("endpoints"), body=write(given(endpoint)), idempotency_key=idempotency_key)

    @operation
    def import_many(self, endpoints: Iterable[ImportedEndpoint | Mapping[str, Any]]) -> Steps[list[ImportItem]]:
        """Registers many that exist elsewhere, with their secrets; answers what became of each, in their order."""
        results: list[ImportItem] = []
        texts = (write(given(endpoint), pointer=f"/{n}") for n, endpoint in enumerate(endpoints))
        for body in batches(texts, name="endpoints"):
            batch: list[ImportItem] = yield from Call("POST", path("endpoints", "import"), read_data, body=body)
            results += [{**one, "index": len(results) + n} for n, one in enumerate(batch)]
        return results

    @operation
    def list(
        self,
        *,
        tenant_id: str | None = None,
        status: EndpointStatus | None = None,
        profile: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Call[Page[Endpoint]]:
        """The endpoints, the newest first."""
        chosen = query({"tenant_id": tenant_id, "status": status, "profile": profile, "limit": limit, "cursor": cursor})
        return Call("GET", path("endpoints"), read_page, chosen)

    iterate = paging(list)

    @operation
    def get(self, endpoint_id: str) -> Call[Endpoint]:
        """One endpoint."""
        return Call("GET", path("endpoints", endpoint_id))

    @operation
    def update(self, endpoint_id: str, **changes: Unpack[EndpointChanges]) -> Call[Endpoint]:
        """Changes what is given; None takes a value away."""
        return Call("PATCH", path("endpoints", endpoint_id), body=write(changes))

    @operation
    def set_url(self, url: str, *, tenant_id: str | None = None) -> Call[CreatedEndpoint]:
        """Sets or replaces the URL of a tenant that has one endpoint.

        The answer holds the signing secret where the endpoint is new.
        """
        return Call("PUT", path("notification_url"), body=write(given({"url": url, "tenant_id": tenant_id})))

    @operation
    def delete(self, endpoint_id: str) -> Call[DeletedEndpoint]:
        """Takes an endpoint away. What waits for it is cancelled, and its log stays."""
        return Call("DELETE", path("endpoints", endpoint_id))

    @operation
    def enable(self, endpoint_id: str, *, idempotency_key: str | None = None) -> Call[Endpoint]:
        """Has deliveries made again, those that were held too."""
        return Call("POST", path("endpoints", endpoint_id, "enable"), idempotency_key=idempotency_key)

    @operation
    def disable(
        self, endpoint_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Call[Endpoint]:
        """Holds deliveries until the endpoint is enabled."""
        body = write(given({"reason": reason}))
        return Call("POST", path("endpoints", endpoint_id, "disable"), body=body, idempotency_key=idempotency_key)

    @operation
    def ping(self, endpoint_id: str, *, idempotency_key: str | None = None) -> Call[Ping]:
        """Sends the validation ping, and tells what came of it."""
        return Call("POST", path("endpoints", endpoint_id, "ping"), idempotency_key=idempotency_key)

    @operation
    def rotate_secret(
        self, endpoint_id: str, *, overlap_s: float | None = None, idempotency_key: str | None = None
    ) -> Call[CreatedEndpoint]:
        """Makes a new secret, told this once; the old one signs too for `overlap_s` more."""
        body = write(given({"overlap_s": overlap_s}))
        return Call("POST", path("endpoints", endpoint_id, "rotate_secret"), body=body, idempotency_key=idempotency_key)

    @operation
    def recover(
        self,
        endpoint_id: str,
        *,
        since: InstantGiven,
        until: InstantGiven | None = None,
        mode: Literal["live", "test"] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Replay]:
        """Sends again all that failed to reach the endpoint since then."""
        body = write(given({"since": since, "until": until, "mode": mode}))
        return Call("POST", path("endpoints", endpoint_id, "recover"), body=body, idempotency_key=idempotency_key)

    @operation
    def stats(
        self,
        endpoint_id: str,
        *,
        window: Literal["1h", "24h", "7d", "30d"] | None = None,
        mode: Literal["live", "test"] | None = None,
    ) -> Call[EndpointStats]:
        """How the endpoint is doing, and did in the window: 24h, unless given; in live mode, unless given."""
        return Call("GET", path("endpoints", endpoint_id, "stats"), query=query({"window": window, "mode": mode}))
