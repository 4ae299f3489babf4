from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from dispatcher.store import migrate


def test_the_names_of_the_files_say_the_revisions_that_alembic_finds() -> None:
    script = ScriptDirectory.from_config(migrate.alembic_config())
    revisions = [one.revision for one in script.walk_revisions()]
    assert list(migrate._known()) == revisions[::-1]
    assert migrate.head() == script.get_current_head()


def test_the_revision_of_a_database_is_the_one_that_alembic_reads(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": migrate.SCHEMA})
        assert migrate.current(connection) == context.get_current_revision() == migrate.head()


def test_an_empty_database_has_no_revision(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert migrate.current(connection) is None
    engine.dispose()
