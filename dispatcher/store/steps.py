"""The steps of a migration: each one states what it locks, holds that only for a moment, and may be tried again.

The processes of the version before go on while a migration runs, so:

- A step locks one table (with its partitions, which come after their parent) and takes this lock first. It never waits
  for one lock while it holds another, so that it cannot be part of a deadlock.
- It waits at most LOCK_TIMEOUT_MS for a lock, because everybody else queues behind it, and tries again after a pause.
- Finished steps are recorded in `dispatcher.migration_steps`, each in its own transaction. A migration that was
  interrupted continues there. The table exists only while a migration is under way.

An empty database has no other users: `AtOnce` runs the same steps there in one transaction.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dispatcher import telemetry
from dispatcher.errors import Unavailable
from dispatcher.store import partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

_log = logging.getLogger(__name__)

LOCK_TIMEOUT_MS: Final = 500
"""Every other session that needs the table waits as long, behind the step."""

TRIES: Final = 40
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 4.0
"""Each pause between two tries is twice as long as the one before: in all they last over two minutes."""

ACCESS_EXCLUSIVE: Final = "ACCESS EXCLUSIVE"
SHARE: Final = "SHARE"
SHARE_ROW_EXCLUSIVE: Final = "SHARE ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE: Final = "SHARE UPDATE EXCLUSIVE"
"""Neither reading nor writing conflicts with this mode, so a step may hold it for longer than a second."""

RUNNER: Final = "runner"
"""Key of the runner in Alembic's `config.attributes`."""

_LOCK_NOT_AVAILABLE: Final = "55P03"
_DEADLOCK: Final = "40P01"
_UNDEFINED: Final = ("42P01", "42704")  # table, object

_SESSION: Final = (
    f"SET lock_timeout = {LOCK_TIMEOUT_MS}",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    # An autovacuum makes way for a step only after the step has waited for this long. Superusers may set it.
    (
        f"SELECT set_config('deadlock_timeout', '{LOCK_TIMEOUT_MS // 2}', false) "
        "WHERE has_parameter_privilege('deadlock_timeout', 'SET')"
    ),
)

_RECORDS: Final = """
CREATE TABLE IF NOT EXISTS dispatcher.migration_steps (
    revision text NOT NULL,
    step text NOT NULL,
    PRIMARY KEY (revision, step)
)
"""

_HAS_RECORDS = text("SELECT to_regclass('dispatcher.migration_steps') IS NOT NULL")
_DONE = text("SELECT step FROM dispatcher.migration_steps WHERE revision = :revision")
_RECORD = text("INSERT INTO dispatcher.migration_steps (revision, step) VALUES (:revision, :step)")

_INDEX_IS_VALID = text(
    "SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = CAST(pg_catalog.to_regclass(:name) AS oid)"
)

_WITHOUT_INDEX = text(
    """SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
       WHERE i.inhparent = CAST(pg_catalog.to_regclass(:parent) AS oid)
         AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_inherits xi ON xi.inhrelid = x.indexrelid
             WHERE x.indrelid = c.oid AND xi.inhparent = CAST(pg_catalog.to_regclass(:index) AS oid))
       ORDER BY c.relname = :default_name, c.relname"""
)

_SERVER_PROCESS = text("SELECT pg_backend_pid()")

_OLDEST = text(
    """SELECT pid, coalesce(nullif(application_name, ''), backend_type, 'another session'),
              coalesce(state, 'state unknown'),
              CAST(extract(epoch FROM clock_timestamp() - xact_start) AS int)
       FROM pg_catalog.pg_stat_activity
       WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
       ORDER BY xact_start LIMIT 3"""
)


class Step(Protocol):
    """One step of a migration."""

    @property
    def name(self) -> str:
        """Unique within its migration."""
        ...

    @property
    def locks(self) -> dict[str, str]:
        """Tables that exist before the step, each with the strongest lock on it; "table_*": its partitions."""
        ...

    def plain(self) -> list[str]:
        """The statements for a database without other users."""
        ...

    def run(self, runner: InSteps) -> None:
        """Runs the step beside live traffic, and records it."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """Statements that run in one transaction: in a string, each but the last ends in ";" at the end of a line.

    `table` is the one table they lock, of those that existed before, in `mode`. None of the statements may read or
    rewrite a table's rows under a lock that anybody waits for: add a column with a constant default or null, add a
    constraint as NOT VALID and validate it in a step of its own.
    """

    name: str
    sql: str | tuple[str, ...]
    table: str | None = None
    mode: str = ACCESS_EXCLUSIVE

    @property
    def locks(self) -> dict[str, str]:
        """The lock that `run` takes."""
        return {} if self.table is None else {self.table: self.mode}

    def plain(self) -> list[str]:
        """The statements."""
        if isinstance(self.sql, tuple):
            return list(self.sql)
        return [statement for statement in self.sql.split(";\n") if statement.strip()]

    def run(self, runner: InSteps) -> None:
        """One transaction: the lock, the statements, the record."""
        runner.transaction(self, self.plain(), table=self.table, mode=self.mode)


def validate(table: str, *constraints: str) -> Change:
    """The step that validates constraints that were added as NOT VALID. It reads the table, and blocks nobody."""
    actions = ", ".join(f"VALIDATE CONSTRAINT {name}" for name in constraints)
    return Change(
        f"validate {' and '.join(constraints)}", f"ALTER TABLE {table} {actions}", table, SHARE_UPDATE_EXCLUSIVE
    )


@dataclass(frozen=True, slots=True)
class NewIndex:
    """An index of a table with rows, built concurrently; on a partitioned table, partition by partition.

    `definition` is what follows the table's name in CREATE INDEX.
    """

    index: str
    table: str
    definition: str
    unique: bool = False

    @property
    def name(self) -> str:
        """Of the step."""
        return f"index {self.index}"

    @property
    def partitioned(self) -> bool:
        """Whether the table is."""
        return self.table.removeprefix("dispatcher.") in partitions.TABLES

    @property
    def locks(self) -> dict[str, str]:
        """The parent's lock is held for a moment, and before those of the partitions."""
        if self.partitioned:
            return {self.table: SHARE, f"{self.table}_*": SHARE_UPDATE_EXCLUSIVE}
        return {self.table: SHARE_UPDATE_EXCLUSIVE}

    def plain(self) -> list[str]:
        """The ordinary CREATE INDEX."""
        return [self._create("", self.index, self.table)]

    def run(self, runner: InSteps) -> None:
        """Builds what is missing of it. What an interrupted run left half-built is dropped and built again."""
        if not self.partitioned:
            runner.build_index(self, f"dispatcher.{self.index}", self._create("CONCURRENTLY ", self.index, self.table))
        else:
            self._run_by_partition(runner)
        runner.record(self)

    def _run_by_partition(self, runner: InSteps) -> None:
        parent = f"dispatcher.{self.index}"
        if runner.is_valid(parent) is None:
            statement = self._create("", self.index, f"ONLY {self.table}")
            runner.transaction(self, [statement], table=f"ONLY {self.table}", mode=SHARE, record=False)
        # A partition that is made meanwhile comes with the index. The default partition is the last one to be attached,
        # and that makes the parent's index valid.
        while missing := runner.without_index(self.table, parent):
            for partition in missing:
                child = f"{self.index}_{partition.removeprefix(self.table.removeprefix('dispatcher.') + '_')}"
                create = self._create("CONCURRENTLY ", child, f"dispatcher.{partition}")
                try:
                    runner.build_index(self, f"dispatcher.{child}", create, on=f"dispatcher.{partition}")
                    attach = f"ALTER INDEX {parent} ATTACH PARTITION dispatcher.{child}"
                    runner.transaction(self, [attach], waits_for=f"index dispatcher.{child}", record=False)
                except DBAPIError as error:
                    if _sqlstate(error) not in _UNDEFINED or partition in runner.without_index(self.table, parent):
                        raise  # else retention has dropped the partition meanwhile

    def _create(self, how: str, index: str, table: str) -> str:
        unique = "UNIQUE " if self.unique else ""
        return f"CREATE {unique}INDEX {how}{index} ON {table} {self.definition}"


class Runner(Protocol):
    """Runs the steps of one migration."""

    def run(self, revision: str, steps: Sequence[Step]) -> None:
        """Runs those that are not done yet."""
        ...


def run(revision: str, steps: Sequence[Step]) -> None:
    """What `upgrade` of each migration calls: has the runner that `dispatcher.store.migrate` chose run the steps."""
    from alembic import op  # noqa: PLC0415 - see `dispatcher.store.migrate`

    config = op.get_context().config
    assert config is not None
    runner: Runner = config.attributes[RUNNER]
    runner.run(revision, steps)


class AtOnce:
    """Runs the steps in the transaction of its caller, on a database without other users."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, revision: str, steps: Sequence[Step]) -> None:  # noqa: ARG002 - the other runner records it
        """Runs all of them."""
        for step in steps:
            for statement in step.plain():
                self._connection.execute(text(statement))


class InSteps:
    """Runs the steps beside live traffic, on a connection in autocommit mode that nothing else uses."""

    def __init__(self, connection: Connection, server_process: int) -> None:
        """`server_process`: the one whose session has the advisory lock of migrations."""
        self._connection = connection
        self._server_process = server_process
        self._revision = ""
        for statement in _SESSION:
            connection.execute(text(statement))

    def run(self, revision: str, steps: Sequence[Step]) -> None:
        """Runs those that are not recorded yet. Raises Unavailable for a lock that it could not get."""
        self._revision = revision
        if not self._connection.execute(_HAS_RECORDS).scalar_one():
            self._connection.execute(text(_RECORDS))
        done = finished(self._connection, revision)
        for step in steps:
            if step.name not in done:
                step.run(self)

    def finish(self) -> None:
        """Forgets the records, once no migration is missing."""
        if self._connection.execute(_HAS_RECORDS).scalar_one():
            self._connection.execute(text("DROP TABLE dispatcher.migration_steps"))

    def record(self, step: Step) -> None:
        """Records that the step is done."""
        self._connection.execute(_RECORD, {"revision": self._revision, "step": step.name})

    def transaction(
        self,
        step: Step,
        statements: Sequence[str],
        *,
        table: str | None = None,
        mode: str = "",
        waits_for: str = "",
        record: bool = True,
    ) -> None:
        """Runs statements in one transaction that begins with its one lock, and is tried again without it."""

        def attempt() -> None:
            with self.begin():
                if table is not None:
                    self._connection.execute(text(f"LOCK TABLE {table} IN {mode} MODE"))
                for statement in statements:
                    self._connection.execute(text(statement))
                if record:
                    self.record(step)

        what = f"{mode} on {table}" if table is not None else waits_for or "a lock"
        self.retry(f"migration {self._revision}, step {step.name!r}", what, attempt)

    def make_partition(self, partition: partitions.DayPartition) -> None:
        """Makes one partition, in a transaction of its own."""

        def attempt() -> None:
            with self.begin():
                partitions.make(self._connection, partition)

        what = ", ".join(f"{mode} on {table}" for table, mode in partition.locks.items())
        self.retry(f"partition {partition.name}", what, attempt)

    def build_index(self, step: Step, index: str, create: str, *, on: str = "") -> None:
        """Builds one index concurrently, unless it is there and valid."""

        def attempt() -> None:
            valid = self.is_valid(index)
            if valid is False:  # of an interrupted run, or of the try before
                self._connection.execute(text(f"DROP INDEX CONCURRENTLY {index}"))
            if not valid:
                self._connection.execute(text(create))

        what = f"{SHARE_UPDATE_EXCLUSIVE} on {on or next(iter(step.locks))}, or the end of every older transaction,"
        self.retry(f"migration {self._revision}, step {step.name!r}", what, attempt)

    def is_valid(self, index: str) -> bool | None:
        """Whether an index is valid; None where there is none."""
        valid: bool | None = self._connection.execute(_INDEX_IS_VALID, {"name": index}).scalar_one_or_none()
        return valid

    def without_index(self, table: str, index: str) -> Sequence[str]:
        """The partitions of a table that have no part of its index yet, the default one last."""
        default_name = f"{table.removeprefix('dispatcher.')}_default"
        values = {"parent": table, "index": index, "default_name": default_name}
        return self._connection.execute(_WITHOUT_INDEX, values).scalars().all()

    @contextmanager
    def begin(self) -> Iterator[None]:
        """A transaction on the connection, which is in autocommit mode otherwise."""
        self._connection.execute(text("BEGIN"))
        try:
            if self._connection.execute(_SERVER_PROCESS).scalar_one() != self._server_process:
                raise Unavailable(
                    "a migration needs one session of the server from its start to its end, and a connection pooler in "
                    "transaction mode gives it several: name the server itself"
                )
            yield
            self._connection.execute(text("COMMIT"))
        except BaseException:
            if not self._connection.invalidated:
                self._connection.execute(text("ROLLBACK"))
            raise

    def retry(self, where: str, what: str, attempt: Callable[[], None]) -> None:
        """Tries until the lock is available. Raises Unavailable after TRIES tries."""
        pause_s = FIRST_PAUSE_S
        for n in range(1, TRIES + 1):
            try:
                attempt()
            except DBAPIError as error:
                if _sqlstate(error) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                    raise
                telemetry.log(_log, logging.WARNING, "migration.lock_missed", step=where, lock=what, tries=n)
            else:
                return
            if n < TRIES:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        oldest = "; ".join(
            f"process {pid} ({name}, {state}, for {seconds} s)"
            for pid, name, state, seconds in self._connection.execute(_OLDEST)
        )
        raise Unavailable(
            f"{where}: could not get {what} in {TRIES} tries of {LOCK_TIMEOUT_MS} ms. Oldest open transactions: "
            f"{oldest or 'none any more'}. What is done stays done: `dispatcher migrate` continues at this step"
        )


def finished(connection: Connection, revision: str) -> set[str]:
    """The names of the steps of a migration that an interrupted run has finished."""
    if not connection.execute(_HAS_RECORDS).scalar_one():
        return set()
    return set(connection.execute(_DONE, {"revision": revision}).scalars())


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
