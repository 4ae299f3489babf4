"""`client.deliveries`: the delivery log; `client.replays` and `client.cancellations`: work over many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

from dispatcher.client.answer import read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging

if TYPE_CHECKING:
    from dispatcher.shapes import (
        Attempt,
        Delivery,
        DeliverySearch,
        NewCancellation,
        NewReplay,
        Page,
        Preview,
        Replay,
        ReplayEndpoint,
        ReplayPreview,
        ReplayProgress,
        Story,
        WaitingFilter,
    )


class Deliveries(Resource[X]):
    """One event to one endpoint, and every attempt at it."""

    @operation
    def list(
        self, *, limit: int = 50, cursor: str | None = None, **chosen: Unpack[DeliverySearch]
    ) -> Call[Page[Delivery]]:
        """The deliveries that all of `chosen` choose, the newest first."""
        return Call("GET", path("deliveries"), read_page, query({**chosen, "limit": limit, "cursor": cursor}))

    iterate = paging(list)

    @operation
    def get(self, delivery_id: str) -> Call[Delivery]:
        """One delivery."""
        return Call("GET", path("deliveries", delivery_id))

    @operation
    def attempts(self, delivery_id: str) -> Call[Page[Attempt]]:
        """Every attempt of one delivery, the first one first."""
        return Call("GET", path("deliveries", delivery_id, "attempts"), read_page)

    @operation
    def story(self, delivery_id: str) -> Call[Story]:
        """Everything about one delivery: where it is and why, what comes next, and how to prove it."""
        return Call("GET", path("deliveries", delivery_id, "story"))

    @operation
    def retry(self, delivery_id: str, *, idempotency_key: str | None = None) -> Call[Delivery]:
        """Has it attempted now: a waiting one at once, an ended one as a replay. Answers which will be attempted."""
        return Call("POST", path("deliveries", delivery_id, "retry"), idempotency_key=idempotency_key)

    @operation
    def advance(self, delivery_id: str, *, idempotency_key: str | None = None) -> Call[Delivery]:
        """Sends the next attempt of a waiting delivery of test mode now, whatever its schedule says."""
        return Call("POST", path("deliveries", delivery_id, "advance"), idempotency_key=idempotency_key)

    @operation
    def cancel(
        self, delivery_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Call[Delivery]:
        """Ends a delivery that waits."""
        body = write(given({"reason": reason}))
        return Call("POST", path("deliveries", delivery_id, "cancel"), body=body, idempotency_key=idempotency_key)


class Replays(Resource[X]):
    """New deliveries of old events."""

    @operation
    def preview(self, **chosen: Unpack[ReplayPreview]) -> Call[Preview]:
        """What a replay of the deliveries that all of `chosen` choose would do."""
        return Call("POST", path("replays", "preview"), body=write(given(chosen)))

    @operation
    def create(self, *, idempotency_key: str | None = None, **chosen: Unpack[NewReplay]) -> Call[Replay]:
        """Starts a replay: of what `chosen` choose, or of what a preview counted."""
        return Call("POST", path("replays"), body=write(given(chosen)), idempotency_key=idempotency_key)

    @operation
    def list(
        self,
        *,
        kind: Literal["replay", "cancellation"] | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Call[Page[Replay]]:
        """The replays and cancellations, the newest first."""
        chosen = query({"kind": kind, "tenant_id": tenant_id, "limit": limit, "cursor": cursor})
        return Call("GET", path("replays"), read_page, chosen)

    iterate = paging(list)

    @operation
    def get(self, replay_id: str) -> Call[ReplayProgress]:
        """One replay, and how far it is."""
        return Call("GET", path("replays", replay_id))

    @operation
    def endpoints(self, replay_id: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[ReplayEndpoint]]:
        """How far it is with each endpoint, and what it waits for."""
        return Call(
            "GET", path("replays", replay_id, "endpoints"), read_page, query({"limit": limit, "cursor": cursor})
        )

    iterate_endpoints = paging(endpoints)

    @operation
    def pause(self, replay_id: str, *, idempotency_key: str | None = None) -> Call[Replay]:
        """Has it rest."""
        return Call("POST", path("replays", replay_id, "pause"), idempotency_key=idempotency_key)

    @operation
    def resume(self, replay_id: str, *, idempotency_key: str | None = None) -> Call[Replay]:
        """Has it go on."""
        return Call("POST", path("replays", replay_id, "resume"), idempotency_key=idempotency_key)

    @operation
    def cancel(self, replay_id: str, *, idempotency_key: str | None = None) -> Call[Replay]:
        """Ends it; what it has made stays."""
        return Call("POST", path("replays", replay_id, "cancel"), idempotency_key=idempotency_key)


class Cancellations(Resource[X]):
    """The end of many deliveries that wait."""

    @operation
    def preview(self, **chosen: Unpack[WaitingFilter]) -> Call[Preview]:
        """How many deliveries all of `chosen` choose."""
        return Call("POST", path("cancellations", "preview"), body=write(given(chosen)))

    @operation
    def create(self, *, idempotency_key: str | None = None, **chosen: Unpack[NewCancellation]) -> Call[Replay]:
        """Cancels what `chosen` choose, or what a preview counted."""
        return Call("POST", path("cancellations"), body=write(given(chosen)), idempotency_key=idempotency_key)
