"""Migrations beside live traffic: what each step locks, and what an interruption leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from dispatcher.errors import Unavailable
from dispatcher.store import migrate, partitions, steps
from dispatcher.store.steps import Change, InSteps, NewIndex, Step
from tests.support.catalog import catalog
from tests.support.older_schema import migrate_to
from tests.support.patience import PATIENCE_S

_LOCKS = """
SELECT coalesce(parent.relname, c.relname), parent.relname IS NOT NULL, l.mode
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE l.pid = {pid} AND l.locktype = 'relation' AND c.relkind IN ('r', 'p')
  AND c.relnamespace = 'dispatcher'::regnamespace AND l.relation = ANY (CAST(ARRAY{oids} AS oid[]))"""

_MODES = {
    "ShareUpdateExclusiveLock": steps.SHARE_UPDATE_EXCLUSIVE,
    "ShareLock": steps.SHARE,
    "ShareRowExclusiveLock": steps.SHARE_ROW_EXCLUSIVE,
    "ExclusiveLock": "EXCLUSIVE",
    "AccessExclusiveLock": steps.ACCESS_EXCLUSIVE,
}
"""From the weakest that conflicts with itself to the strongest."""


def scripts() -> list[Any]:
    return migrate._scripts(after=None)


@pytest.fixture
def empty(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@contextmanager
def in_autocommit(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        yield connection


def pid_of(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


class Watched(InSteps):
    """Notes what each step has locked of the tables that existed before it."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._pid = pid_of(connection)
        super().__init__(connection, self._pid)
        self._engine = engine
        self._before: list[int] = [0]
        self.seen: dict[str, str] = {}

    def watch(self, revision: str, step: Step) -> dict[str, str]:
        """Runs one step; the strongest lock on each table, `table_*` where partitions had another than their parent."""
        oids = self._connection.exec_driver_sql(
            "SELECT oid FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace"
        )
        self._before, self.seen = [0, *oids.scalars()], {}
        self.run(revision, [step])
        return {
            table: mode
            for table, mode in self.seen.items()
            if not (table.endswith("_*") and self.seen.get(table.removesuffix("_*")) == mode)
        }

    def note(self, connection: Connection) -> None:
        for table, is_partition, mode in connection.exec_driver_sql(_LOCKS.format(pid=self._pid, oids=self._before)):
            if mode in _MODES:
                name = f"dispatcher.{table}{'_*' if is_partition else ''}"
                ranked = list(_MODES.values())
                self.seen[name] = max(self.seen.get(name, ranked[0]), _MODES[mode], key=ranked.index)

    @contextmanager
    def begin(self) -> Iterator[None]:
        with super().begin():
            yield
            self.note(self._connection)

    def build_index(self, *args: Any, **values: Any) -> None:
        """An older snapshot keeps the concurrent build waiting until its locks have been read."""
        with self._engine.connect() as older, self._engine.connect() as observer:
            older.execution_options(isolation_level="REPEATABLE READ")
            observer.execution_options(isolation_level="AUTOCOMMIT")
            older.execute(text("SELECT 1"))
            ended = threading.Event()

            def observe() -> None:
                waits = f"SELECT count(*) FROM pg_locks WHERE pid = {self._pid} AND NOT granted"
                while not ended.is_set() and not observer.exec_driver_sql(waits).scalar_one():
                    pass
                self.note(observer)
                older.rollback()

            thread = threading.Thread(target=observe)
            thread.start()
            try:
                super().build_index(*args, **values)
            finally:
                ended.set()
                thread.join()


def test_each_step_locks_what_it_states_and_the_schema_is_that_of_one_transaction(
    empty: Engine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "FIRST_PAUSE_S", 0.0)
    migrate_to(empty, "0001")
    with in_autocommit(empty) as connection:
        runner = Watched(connection, empty)
        for script in scripts()[1:]:
            for step in script.module.STEPS:
                assert runner.watch(script.revision, step) == step.locks, f"{script.revision}, {step.name}"
        runner.finish()
        stepwise = catalog(connection)
    assert of_parents(stepwise) == of_parents(fresh(engine))


def fresh(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return catalog(connection)


def of_parents(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without the daily partitions and the version table: the databases may have different days."""
    return {
        kind: [row for row in rows if not row[0].startswith("alembic") and not row[0][-8:].isdigit()]
        for kind, rows in found.items()
    }


def test_every_migration_is_made_of_steps_that_lock_one_table_of_the_schema() -> None:
    for script in scripts():
        names = [step.name for step in script.module.STEPS]
        assert len(names) == len(set(names)) > 0
        for step in script.module.STEPS:
            assert all(table.startswith("dispatcher.") for table in step.locks)
            assert len({table.removesuffix("_*") for table in step.locks}) <= 1
            assert set(step.locks.values()) <= set(_MODES.values())


class Killed(Exception):
    pass


class Dying(InSteps):
    """Dies after each of its actions, some of which leave an index half-built."""

    def _die(self) -> None:
        raise Killed

    def transaction(self, step: Step, *args: Any, **values: Any) -> None:
        super().transaction(step, *args, **values)
        self._die()

    def build_index(self, step: Step, index: str, *args: Any, **values: Any) -> None:
        valid = self.is_valid(index)
        super().build_index(step, index, *args, **values)
        if not valid:
            if valid is None and "ended" in index:
                self._connection.exec_driver_sql(
                    f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
                )
            self._die()


def test_a_migration_that_dies_after_every_action_is_continued(empty: Engine, engine: Engine) -> None:
    migrate_to(empty, "0001")
    deaths = 0
    with in_autocommit(empty) as connection:
        for script in scripts()[1:]:
            while True:
                try:
                    Dying(connection, pid_of(connection)).run(script.revision, script.module.STEPS)
                    break
                except Killed:
                    deaths += 1
        InSteps(connection, pid_of(connection)).finish()
        continued = catalog(connection)
    assert deaths > sum(len(script.module.STEPS) for script in scripts()[1:])
    assert of_parents(continued) == of_parents(fresh(engine))


ADD = Change("add a column", "ALTER TABLE dispatcher.tenants ADD COLUMN c int", "dispatcher.tenants")
FIRST = Change("first", "CREATE TABLE dispatcher.made_first (n int)")


def test_a_lock_that_cannot_be_had_is_one_clear_error_and_the_next_run_continues(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TRIES", 2)
    monkeypatch.setattr(steps, "FIRST_PAUSE_S", 0.0)
    with in_autocommit(engine) as connection:
        runner = InSteps(connection, pid_of(connection))
        with engine.connect() as reader:
            reader.execute(text("SELECT FROM dispatcher.tenants"))
            with pytest.raises(Unavailable) as caught:
                runner.run("0099", (FIRST, ADD))
            holder = pid_of(reader)
        assert str(caught.value).startswith(
            "migration 0099, step 'add a column': could not get ACCESS EXCLUSIVE on dispatcher.tenants in 2 tries of "
            "500 ms"
        )
        assert f"process {holder} (" in str(caught.value)
        assert "`dispatcher migrate` continues at this step" in str(caught.value)
        assert steps.finished(connection, "0099") == {"first"}
        runner.run("0099", (FIRST, ADD))
        assert steps.finished(connection, "0099") == {"first", "add a column"}


@pytest.mark.parametrize(
    "step",
    [
        ADD,
        NewIndex("tenants_made", "dispatcher.tenants", "(name)"),
        NewIndex("events_made", "dispatcher.events", "(type)"),
    ],
    ids=lambda step: step.name,
)
def test_a_step_is_tried_again_once_the_lock_is_free(
    step: Step, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_autocommit(engine) as connection, engine.connect() as other:
        other.execute(text("LOCK TABLE dispatcher.tenants, dispatcher.events IN ROW EXCLUSIVE MODE"))
        pauses = []

        def free(pause_s: float) -> None:
            pauses.append(pause_s)
            other.rollback()

        monkeypatch.setattr(steps.time, "sleep", free)
        InSteps(connection, pid_of(connection)).run("0099", (step,))
        assert pauses == [steps.FIRST_PAUSE_S]
        assert steps.finished(connection, "0099") == {step.name}


def test_a_partition_that_is_dropped_while_its_index_is_built_is_left_out(engine: Engine) -> None:
    class Dropping(InSteps):
        dropped = ""

        def build_index(self, step: Step, index: str, create: str, *, on: str = "") -> None:
            if not self.dropped:
                self.dropped = on
                self._connection.exec_driver_sql(f"DROP TABLE {on}")
            super().build_index(step, index, create, on=on)

    with in_autocommit(engine) as connection:
        runner = Dropping(connection, pid_of(connection))
        runner.run("0099", (NewIndex("events_made", "dispatcher.events", "(type)"),))
        assert runner.dropped
        assert runner.is_valid("dispatcher.events_made")


def test_a_partition_that_is_made_while_an_index_is_built_has_it(engine: Engine) -> None:
    class Making(InSteps):
        made: partitions.DayPartition | None = None

        def build_index(self, *args: Any, **values: Any) -> None:
            super().build_index(*args, **values)
            if self.made is None:
                self.made = next(p for p in partitions.missing(self._connection) if p.table == "events")
                self.make_partition(self.made)

    with in_autocommit(engine) as connection:
        runner = Making(connection, pid_of(connection))
        runner.run("0099", (NewIndex("events_made", "dispatcher.events", "(type)"),))
        assert runner.made is not None
        assert runner.without_index("dispatcher.events", "dispatcher.events_made") == []
        assert runner.is_valid("dispatcher.events_made")


def test_a_session_that_is_not_the_one_with_the_lock_is_refused(engine: Engine) -> None:
    with in_autocommit(engine) as connection, pytest.raises(Unavailable, match="connection pooler"):
        InSteps(connection, pid_of(connection) + 1).run("0099", (ADD,))


def at_once(*calls: Callable[[], None]) -> None:
    """Runs them in threads; raises the first error."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("revision", [None, "0002"])
def test_two_that_migrate_at_once_take_turns(revision: str | None, empty: Engine, engine: Engine) -> None:
    if revision is not None:
        migrate_to(empty, revision)
    at_once(lambda: migrate.migrate(empty), lambda: migrate.migrate(empty))
    with empty.connect() as connection:
        assert migrate.current(connection) == migrate.head()
        assert of_parents(catalog(connection)) == of_parents(fresh(engine))


def test_what_is_planned_is_what_is_missing_and_nothing_is_changed(empty: Engine) -> None:
    migrate_to(empty, "0006")
    with empty.begin() as connection:
        before = catalog(connection)
        planned = migrate.pending(connection)
        assert catalog(connection) == before
    names = [(step.revision, step.name) for step in planned if step.revision]
    assert names == [(s.revision, step.name) for s in scripts() if s.revision > "0006" for step in s.module.STEPS]
    migrate.migrate(empty)
    with empty.connect() as connection:
        assert migrate.pending(connection) == []
