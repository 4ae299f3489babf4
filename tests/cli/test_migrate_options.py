"""`dispatcher migrate --check` and `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from dispatcher.store import migrate
from tests.support.catalog import catalog
from tests.support.command import Command
from tests.support.older_schema import migrate_to


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    found = create_engine(database_url)
    yield found
    found.dispose()


@pytest.fixture
def run(bare: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", database_url)
    return Command(monkeypatch, capsys, ("migrate",))


def test_check_says_in_one_line_whether_migrations_are_missing(run: Command, engine: Engine) -> None:
    nothing = run("--check")
    assert (nothing.code, nothing.out) == (1, "")
    missing = f"migrations up to {migrate.head()} are missing: run `dispatcher migrate`\n"
    assert nothing.err == f"dispatcher: the database's schema is at nothing, and {missing}"
    migrate_to(engine, "0006")
    older = run("--check")
    assert (older.code, older.err) == (1, f"dispatcher: the database's schema is at 0006, and {missing}")
    assert run().code == 0
    newest = run("--check")
    assert (newest.code, newest.err) == (0, "")
    assert newest.out == f"schema dispatcher is at {migrate.head()}; no migration is missing\n"


def test_dry_run_prints_each_step_with_its_locks_and_changes_nothing(run: Command, engine: Engine) -> None:
    migrate_to(engine, "0005")
    with engine.connect() as connection:
        before = catalog(connection)
        shown = run("--dry-run")
        assert catalog(connection) == before
    lines = shown.out.splitlines()
    assert lines[0] == "0006  workers: ACCESS EXCLUSIVE on dispatcher.workers"
    assert lines[1] == "0006  index deliveries_due_new: SHARE UPDATE EXCLUSIVE on dispatcher.deliveries"
    assert "0007  previews: locks no existing table" in lines
    assert any(
        line.startswith("-     partition attempts_")
        and line.endswith(
            ": SHARE UPDATE EXCLUSIVE on dispatcher.attempts, ACCESS EXCLUSIVE on dispatcher.attempts_default"
        )
        for line in lines
    )
    assert lines[-1] == f"{len(lines) - 1} steps are missing; nothing was changed"


def test_a_newer_schema_lacks_nothing(run: Command, engine: Engine) -> None:
    run()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dispatcher.alembic_version SET version_num = '9999'")
    assert run("--check").out == "schema dispatcher is at 9999; no migration is missing\n"
    assert run().out.startswith("schema dispatcher is at 9999 on PostgreSQL ")


def test_what_changes_nothing_grants_nothing(run: Command) -> None:
    refused = run("--check", "--grant-producer", "shop")
    assert refused.code == 2
    assert "--check, --dry-run and --grant-producer exclude each other" in refused.err
