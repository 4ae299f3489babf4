"""`client.events`: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from dispatcher.client.answer import read_data, read_page, read_text
from dispatcher.client.body import batches, given, write_event
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation, paging
from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dispatcher.client.call import Steps
    from dispatcher.shapes import AcceptedEvent, BatchItem, Event, EventFilter, Explanation, NewEvent, Page


class Events(Resource[X]):
    """What happened, and where it went."""

    @operation
    def create(self, **event: Unpack[NewEvent]) -> Call[AcceptedEvent]:
        """Has an event accepted: it is committed when this returns.

        A repeat under the same `idempotency_key`, or with the same `id`, is not a second event: the answer is the first
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
        tenant_id: str | None = None,
        on_batch: Callable[[list[BatchItem]], object] | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[list[BatchItem]]:
        """Has many events accepted, in batches of 1,000; answers what became of each, in their order.

        An event that is refused does not keep the others from being accepted. Each batch is committed on its own:
        `on_batch` is called with its results, so that they are known also where a later one fails. `tenant_id` is
        whose events they are that name no tenant. The same events sent again under the same `idempotency_key` get the
        first answers, batch by batch; without one, sending all of it again is safe where the events carry ids or keys.
        """
        results: list[BatchItem] = []
        texts = (write_event(event, pointer=f"/{n}") for n, event in enumerate(events))
        asked = query({"tenant_id": tenant_id})
        for n, body in enumerate(batches(texts, name="events")):
            key = None if idempotency_key is None else f"{idempotency_key}/{n}"
            call = Call("POST", path("events", "batch"), read_data, asked, body, key)
            batch: list[BatchItem] = yield from call
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
    def text(self, event_id: str) -> Call[str]:
        """One event as the JSON text of the answer, in which the numbers of its payload have all their digits."""
        return Call("GET", path("events", event_id), read_text)

    @operation
    def explain(self, event_id: str) -> Call[Explanation]:
        """For each endpoint, what became of the event there, and which rule decided."""
        return Call("GET", path("events", event_id, "explain"))


def is_header(key: object) -> bool:
    """Whether a header carries this key as it is."""
    return isinstance(key, str) and key.isascii() and key.isprintable() and key == key.strip() != ""
