"""The statements that keep the catalogue of event types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

_COLUMNS = "name, description, schema, created_at, updated_at"

_LIST = text(f"SELECT {_COLUMNS} FROM dispatcher.event_types ORDER BY name")

_FIND = text(f"SELECT {_COLUMNS} FROM dispatcher.event_types WHERE name = :name")

_LOCK = text(f"{_FIND.text} FOR UPDATE")

_PUT = text(f"""
INSERT INTO dispatcher.event_types (name, description, schema) VALUES (:name, :description, :schema)
ON CONFLICT (name) DO UPDATE
SET description = excluded.description, schema = excluded.schema, updated_at = statement_timestamp()
RETURNING {_COLUMNS}
""")

_DELETE = text("DELETE FROM dispatcher.event_types WHERE name = :name")


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of the catalogue; `schema` is the text of a JSON Schema that payloads must meet, if there is one."""

    name: str
    description: str | None
    schema: str | None
    created_at: datetime
    updated_at: datetime


def list_(connection: Connection) -> list[EventType]:
    """All of them, by name."""
    return [EventType(*row) for row in connection.execute(_LIST)]


def find(connection: Connection, name: str) -> EventType | None:
    """The type with this name."""
    row = connection.execute(_FIND, {"name": name}).first()
    return None if row is None else EventType(*row)


def lock(connection: Connection, name: str) -> EventType | None:
    """The type with this name, locked until the transaction ends."""
    row = connection.execute(_LOCK, {"name": name}).first()
    return None if row is None else EventType(*row)


def put(connection: Connection, name: str, *, description: str | None, schema: str | None) -> EventType:
    """Adds the type, or replaces what it says."""
    row = connection.execute(_PUT, {"name": name, "description": description, "schema": schema}).one()
    return EventType(*row)


def delete(connection: Connection, name: str) -> bool:
    """Takes the type out of the catalogue. False where it is not in it."""
    return connection.execute(_DELETE, {"name": name}).rowcount > 0
