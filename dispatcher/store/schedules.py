"""The statements that keep every version of a retry schedule that a delivery may have pinned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PUBLISH = text("""
WITH version AS (
    INSERT INTO dispatcher.schedule_versions (name, hash, body, first_wait_s)
    VALUES (:name, :hash, :body, :first_wait_s)
    ON CONFLICT (name, hash) DO NOTHING
    RETURNING id
)
INSERT INTO dispatcher.schedules (name, version_id)
SELECT :name, id FROM version
UNION ALL
SELECT :name, id FROM dispatcher.schedule_versions WHERE name = :name AND hash = :hash
LIMIT 1
ON CONFLICT (name) DO UPDATE SET version_id = excluded.version_id
WHERE schedules.version_id <> excluded.version_id
""")

_VERSIONS = text("SELECT id, name, body FROM dispatcher.schedule_versions ORDER BY id")

_CURRENT = text("""
SELECT s.name, v.body FROM dispatcher.schedules s JOIN dispatcher.schedule_versions v ON v.id = s.version_id
ORDER BY s.name
""")

_NAMES = text("SELECT name FROM dispatcher.schedules ORDER BY name")


def publish(connection: Connection, *, name: str, version: str, body: str, first_wait_s: float) -> None:
    """Makes this content the version of `name` that new deliveries pin; keeps the older ones.

    Locks the schedule's row until the transaction ends, if the version is another than before.
    """
    connection.execute(_PUBLISH, {"name": name, "hash": version, "body": body, "first_wait_s": first_wait_s})


def versions(connection: Connection) -> list[tuple[int, str, str]]:
    """Every version ever published: (id, name, canonical body)."""
    return [(id_, name, body) for id_, name, body in connection.execute(_VERSIONS)]


def current(connection: Connection) -> list[tuple[str, str]]:
    """What new deliveries pin: (name, canonical body) of each schedule that an endpoint may name."""
    return [(name, body) for name, body in connection.execute(_CURRENT)]


def names(connection: Connection) -> list[str]:
    """The schedules that an endpoint may name."""
    return list(connection.execute(_NAMES).scalars())
