"""`client.schedules` and `client.event_types`: what endpoints and events name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from dispatcher.client.answer import read_nothing, read_page
from dispatcher.client.body import given, write
from dispatcher.client.call import Call, path, query
from dispatcher.client.resource import Resource, X, operation

if TYPE_CHECKING:
    from dispatcher.shapes import EventType, InstantGiven, NewSimulation, Page, Schedule, SchedulePreview, Simulation


class Schedules(Resource[X]):
    """When attempts are made."""

    @operation
    def list(self) -> Call[Page[Schedule]]:
        """The schedules of this installation."""
        return Call("GET", path("schedules"), read_page)

    @operation
    def get(self, name: str) -> Call[Schedule]:
        """One schedule."""
        return Call("GET", path("schedules", name))

    @operation
    def preview(self, name: str, *, start: InstantGiven | None = None) -> Call[SchedulePreview]:
        """When the attempts of a delivery would be, if each failed at once."""
        return Call("GET", path("schedules", name, "preview"), query=query({"start": start}))

    @operation
    def simulate(self, **asked: Unpack[NewSimulation]) -> Call[Simulation]:
        """What a schedule makes of an outage of the receiver."""
        return Call("POST", path("schedules", "simulate"), body=write(given(asked)))


class EventTypes(Resource[X]):
    """The catalogue of event types."""

    @operation
    def list(self) -> Call[Page[EventType]]:
        """The event types, those that profiles bring among them."""
        return Call("GET", path("event_types"), read_page)

    @operation
    def get(self, name: str) -> Call[EventType]:
        """One event type."""
        return Call("GET", path("event_types", name))

    @operation
    def put(self, name: str, *, description: str | None = None, schema: Any = None) -> Call[EventType]:
        """Adds a type, or changes it; `schema` is a JSON Schema that payloads must meet."""
        return Call("PUT", path("event_types", name), body=write(given({"description": description, "schema": schema})))

    @operation
    def delete(self, name: str) -> Call[None]:
        """Takes a type out of the catalogue."""
        return Call("DELETE", path("event_types", name), read_nothing)
