"""Alembic's entry point: runs the migrations on the connection that `dispatcher.store.migrate` passes in."""

from __future__ import annotations

from alembic import context

from dispatcher.store.migrate import SCHEMA

# No transaction of Alembic's: the runner of `dispatcher.store.steps` makes its own, or has that of its caller.
context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=SCHEMA,
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
