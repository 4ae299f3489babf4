"""`client.events`: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from dispatcher.client.answer import read_data, read_page
from dispatcher.client.body import batches, given, write_event
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging
from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dispatcher.client.call import Steps
    from dispatcher.client.types import AcceptedEvent, BatchItem, Event, EventFilter, Explanation, NewEvent, Page


class Events(Resource[X]):
    """What happened, and where it went."""

    @operation
    def create(self, **event: Unpack[NewEvent]) -> Call[AcceptedEvent]:
        """Has an event accepted: it is committed when this returns.

        A repeat under the same `idempotency_key`, or with the same `id`, is no second event: the answer is the first
        one's, with `duplicate`.
        """
        values: dict[str, Any] = given(event, keep="payload")
        key = values.get("idempotency_key")
        if key is not None and "id" in values:
            raise InvalidInput("/idempotency_key", "an id and an idempotency key", "one of the two")
        if is_header(key):
            del values["idempotency_key"]
        return Call(
            "POST",
            path("events"),
            body=write_event(values),
            idempotency_key=key,
            has_key_in_body=not values.keys().isdisjoint({"id", "idempotency_key"}),
        )

    @operation
    def create_many(
        self,
        events: Iterable[NewEvent | Mapping[str, Any]],
        *,
        on_batch: Callable[[list[BatchItem]], object] | None = None,
    ) -> Steps[list[BatchItem]]:
        """Has many events accepted, in batches of 1,000; answers what became of each, in their order.

        An event that is refused does not keep the others from being accepted. Each batch is committed on its own:
        `on_batch` is called with its results, so that they are known also where a later one fails. Sending all of it
        again is safe where the events carry ids or keys.
        """
        results: list[BatchItem] = []
        texts = (write_event(event, pointer=f"/{n}") for n, event in enumerate(events))
        for body in batches(texts, name="events"):
            batch: list[BatchItem] = yield from Call("POST", path("events", "batch"), read_data, body=body)
            results += batch
            if on_batch is not None:
                on_batch(batch)
        return results

    @operation
    def list(self, *, limit: int = 50, cursor: str | None = None, **chosen: Unpack[EventFilter]) -> Call[Page[Event]]:
        """The events that all of `chosen` choose, the newest first."""
        return Call("GET", path("events"), read_page, query({**chosen, "limit": limit, "cursor": cursor}))

    iterate = paging(list)

    @operation
    def get(self, event_id: str) -> Call[Event]:
        """One event."""
        return Call("GET", path("events", event_id))

    @operation
    def explain(self, event_id: str) -> Call[Explanation]:
        """For each endpoint, what became of the event there, and which rule decided."""
        return Call("GET", path("events", event_id, "explain"))


def is_header(key: object) -> bool:
    """Whether a header carries this key as it is."""
    return isinstance(key, str) and key.isascii() and key.isprintable() and key == key.strip() != ""
