"""Databases with the schema of an older number, made by this version's migrations."""

from __future__ import annotations

from sqlalchemy import Engine, text

from dispatcher.store import migrate, partitions
from dispatcher.store.steps import AtOnce


def migrate_to(engine: Engine, revision: str) -> None:
    """Gives an empty database that schema, and a day's partitions."""
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA dispatcher"))
        migrate._upgrade(connection, AtOnce(connection), to=revision)
        for partition in partitions.missing(connection)[: len(partitions.TABLES)]:
            partitions.make(connection, partition)
