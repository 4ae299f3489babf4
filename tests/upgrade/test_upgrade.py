"""Upgrades under load: processes of an older schema number work on while this version's `dispatcher migrate` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from dispatcher import renamed
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.store.decisions import DECIDED
from tests.support import walk
from tests.support.ledger import Ledger, accepted
from tests.support.patience import until
from tests.support.servers import FAST_SETTINGS, drop_database, fresh_database
from tests.support.system import REPOSITORY, SCHEDULE
from tests.upgrade.server_log import LINE_PREFIX, ServerLog

HERE = Path(__file__).parent
VERSIONS = tomllib.loads((HERE / "versions.toml").read_text())
LAST_COMMIT: dict[str, str] = VERSIONS["last_commit"]
PATHS = {"/ok/1": "common", "/ok/2": "common", "/slow-100/3": "common", "/ok/4": "rare", "/fail-1/5": "rare"}
"""Each endpoint's path, and the type of the events that it receives."""

DECISIONS = {("ok", "delivered", True, None, False), ("http_retryable", "retry", True, 0.5, False)}
"""What is decided about the attempts at these endpoints: outcome, decision, whether it was charged, its wait in
seconds, and whether the wait counts from the first attempt.
"""


def by_both(number: str) -> set[tuple[object, ...]]:
    """The same, as the version of this number writes it and as this one does: since 0009 as data."""
    return {(form, *each) for form in ("sentence" if number < "0009" else "data", "data") for each in DECISIONS}


SOME = 60
"""So many POSTs show that deliveries flow."""

LONGEST_MS = 1000
PROGRAM = "migrate under test"


def numbers_to_try() -> list[str]:
    chosen = os.environ.get("UPGRADE_FROM", "")
    if chosen == "all":
        return list(LAST_COMMIT)
    return chosen.split(",") if chosen else VERSIONS["usual"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that logs each lock that was waited for, and all that sessions of `dispatcher migrate` run."""
    data_dir = tmp_path_factory.mktemp("upgrade")
    logging = {
        "log_lock_waits": "on",
        "deadlock_timeout": "1s",
        "log_error_verbosity": "default",
        "log_line_prefix": LINE_PREFIX,
    }
    found = EmbeddedPostgres(data_dir, FAST_SETTINGS | logging)
    found.start()
    yield found
    found.stop("immediate")
    remove_data_dir(data_dir, server_account())


@pytest.fixture
def url(server: EmbeddedPostgres) -> Iterator[str]:
    found = fresh_database(server)
    yield found
    drop_database(server, found)


class Version:
    """The processes of one version of the code, on one database and broker."""

    def __init__(self, checkout: Path, env: dict[str, str]) -> None:
        self._checkout = checkout
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
        self._env |= named_as_in(checkout, env) | {"PYTHONPATH": str(checkout)}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.log = checkout.parent / f"{checkout.name}.log"

    def run(self, *argv: str, **env: str) -> str:
        """Runs one program to its end."""
        ended = subprocess.run(
            [sys.executable, *argv],
            env=self._env | env,
            cwd=self._checkout,
            check=False,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"{argv} in {self._checkout.name}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def start(self, *argv: str) -> None:
        """Starts one program, known by its last argument."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *argv],
                env=self._env,
                cwd=self._checkout,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if argv[-1] == "emit" else log,
                stderr=log,
                text=True,
            )
        self.processes[argv[-1]] = process

    def finish(self, name: str) -> str:
        """Closes a program's standard input and waits for its end; returns what it printed."""
        printed, _ = self.processes[name].communicate()
        assert self.processes.pop(name).returncode == 0, f"{name} failed; see {self.log}"
        return printed

    def stop(self, *names: str) -> None:
        """Stops these, or all of them, and waits until they are gone."""
        for name in names or self.processes:
            self.processes[name].terminate()
        for name in names or list(self.processes):
            self.processes.pop(name).communicate()


def named_as_in(checkout: Path, env: dict[str, str]) -> dict[str, str]:
    """The settings under the names that they have in a checkout: some have been renamed since."""
    known = (checkout / "dispatcher" / "config.py").read_text()
    earlier = {new: old for old, new in renamed.SETTINGS.items()}

    def name_in(name: str) -> str:
        return name if f"\n    {name.removeprefix('DISPATCHER_').lower()}: " in known else earlier.get(name, name)

    return {name_in(name): value for name, value in env.items()}


def check_out(commit: str, target: Path) -> None:
    """Puts the files of a commit into a folder. Skips the test where the history does not reach back so far."""
    git = ["git", "-C", str(REPOSITORY)]
    known = subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], check=False, capture_output=True)
    if known.returncode:
        pytest.skip(f"the history of this checkout does not have commit {commit[:10]}")
    target.mkdir()
    archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)


@pytest.mark.parametrize("number", numbers_to_try())
def test_an_upgrade_under_load_loses_nothing_and_locks_nothing_for_long(
    number: str, server: EmbeddedPostgres, url: str, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    check_out(LAST_COMMIT[number], tmp_path / number)
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / f"{SCHEDULE[0]}.toml").write_text(SCHEDULE[1])
    env = {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_BROKER_URL": redis_server.url,
        "DISPATCHER_SECRET_KEYS": walk.KEYS.reveal(),
        "DISPATCHER_SCHEDULES_DIR": str(tmp_path / "schedules"),
        "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8",
        "DISPATCHER_WORKER_LEASE_S": "3",
        "DISPATCHER_SHUTDOWN_GRACE_S": "5",
    }
    old, new = Version(tmp_path / number, env), Version(REPOSITORY, env)
    new.log = tmp_path / "new.log"
    engine = create_engine(url, poolclass=NullPool)
    with Ledger() as ledger:
        try:
            old.run("-m", "dispatcher", "migrate")
            old.run(str(HERE / "producer.py"), "register", *endpoints(ledger))
            for process in ("scheduler", "worker"):
                old.start("-m", "dispatcher", process)
            old.start(str(HERE / "producer.py"), "emit")
            flows(ledger, "before the upgrade")

            began = server.log_path.stat().st_size
            logged = {"PGAPPNAME": PROGRAM, "PGOPTIONS": "-c log_min_duration_statement=0"}
            new.run("-m", "dispatcher", "migrate", **logged)
            log = ServerLog.read(server.log_path, began, PROGRAM)
            flows(ledger, "with the old processes on the new schema")

            for process in ("scheduler", "worker"):
                new.start("-m", "dispatcher", process)
            if number == max(LAST_COMMIT):
                flows(ledger, "with the processes of both versions")
            old.stop("scheduler", "worker")
            flows(ledger, "with the new processes")
            until(lambda: decisions(engine) >= by_both(number), "both versions have recorded each decision")
            emitted = json.loads(old.finish("emit"))
            until(lambda: live(engine) == 0, "every delivery has ended")
        finally:
            old.stop()
            new.stop()
        check_nothing_is_lost(engine, ledger, emitted["committed"])
        # On a slow machine a lease may end before its worker does: such an attempt is not charged.
        assert [other for other in decisions(engine) - by_both(number) if other[3]] == []
        if number == max(LAST_COMMIT):
            old.run("-m", "dispatcher", "audit", "verify")  # the version before reads what this one wrote
    assert emitted["repeated"] == 0, "a producer's transaction failed"
    assert log.deadlocks == []
    assert [wait for wait in log.lock_waits if wait[0] > LONGEST_MS] == []
    assert log.statements, "the server's log has the statements of the migration"
    assert [held for held in log.held if held[0] > LONGEST_MS] == []


def decisions(engine: Engine) -> set[tuple[object, ...]]:
    """The decisions about attempts, as they are read, each with the form in which it is stored."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(f"""
            SELECT DISTINCT CASE WHEN a.charged IS NULL THEN 'sentence' ELSE 'data' END, a.outcome,
                   decided.kind, decided.charged, decided.wait_s, decided.from_first_attempt
            FROM dispatcher.attempts a {DECIDED} WHERE a.outcome IN ('ok', 'http_retryable')""")
        )
        return {tuple(row) for row in rows}


def endpoints(ledger: Ledger) -> list[str]:
    """What the producer registers."""
    return [f"{type_}={ledger.url}{path}" for path, type_ in PATHS.items()]


def flows(ledger: Ledger, when: str) -> None:
    """Waits until deliveries arrive."""
    before = ledger.count()
    until(lambda: ledger.count() >= before + SOME, f"deliveries flow {when}")


def live(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM dispatcher.deliveries")).scalar_one())


def check_nothing_is_lost(engine: Engine, ledger: Ledger, committed: list[list[str]]) -> None:
    """Each committed event arrived at each endpoint, and only attempts of unknown outcome explain a second arrival."""
    arrived = accepted(ledger.posts())
    expected = {(id_, path) for id_, type_ in committed for path, wanted in PATHS.items() if type_ == wanted}
    assert expected - arrived.keys() == set()
    with engine.connect() as connection:
        states = connection.execute(text("SELECT state, count(*) FROM dispatcher.ended_deliveries GROUP BY 1")).all()
        unknown = connection.execute(
            text("SELECT count(*) FROM dispatcher.attempts WHERE NOT outcome_known OR was_lost")
        ).scalar_one()
    assert [tuple(row) for row in states] == [("delivered", len(arrived))]
    assert sum(arrived.values()) - len(arrived) <= unknown
