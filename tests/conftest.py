"""Servers for every test. Each pytest-xdist worker is a process of its own and so has its own servers."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine

from dispatcher import wiring
from dispatcher.api import context, key_lookup
from dispatcher.local.accounts import server_account
from dispatcher.local.guard import Guard
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.local.redis import EmbeddedRedis
from dispatcher.store import limits
from dispatcher.wiring import PLANS
from dispatcher.workers import doorbell, loop
from tests.support import walk
from tests.support.patience import PATIENCE_S
from tests.support.servers import drop_database, fresh_database, start_postgres

LONGEST_FIRST = (
    "upgrade/test_upgrade.py",
    "crash/test_campaign.py",
    "api/test_openapi.py",
    "crash/test_broker.py",
    "crash/test_rabbitmq.py",
    "bench/test_workloads.py",
    "scenarios/test_demo.py",
    "attack/test_attacks.py",
    "api/test_bad_input.py",
    "scenarios/test_systems.py",
    "api/test_isolation.py",
    "crash/test_seeded.py",
    "crash/test_supervisor.py",
    "crash/test_stop.py",
    "client/test_typing.py",
    "signing/test_a_new_scheme.py",
    "openapi/test_judges.py",
    "api/test_reference.py",
    "local/test_stack.py",
    "local/test_postgres.py",
    "flow/test_evidence.py",
    "flow/test_emit_sqlalchemy20.py",
)
"""Files that take more than some seconds, those that wait beside those that compute.

A file is one worker's, so a long one that began last would run alone while the other cores have nothing left to do.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a process or a due time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


ALLOWED_SKIPS = (
    # what the test says: why no package helps
    ("which only Linux has", "another operating system"),
    ("needs root", "whoever is not root cannot become another user"),
    ("the history of this checkout does not have commit", "a shallow clone, or files without a repository"),
    (
        "no other Python of this version on this machine",
        "a distribution has one version; others are tried where they are installed",
    ),
    (
        "no Python of this version that the user nobody can run",
        "a distribution has one version, and others lie in homes",
    ),
)
"""Skips that installing something could not have prevented; any other is a failure where TEST_STRICT_SKIPS is set."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Makes a failure of a skip that should not have been, if TEST_STRICT_SKIPS asks for it."""
    if not os.environ.get("TEST_STRICT_SKIPS") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(allowed in reason for allowed, _ in ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = (
            f"{reason}\nTEST_STRICT_SKIPS is set: install what this test needs, or allow it in {__file__}."
        )


# How long an example or a search takes is the machine's affair: a busy one fails no test for it.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def patient_database() -> Iterator[None]:
    """Searches and other statements of the API may take five minutes, not seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (limits, "SEARCH_S"),
            (limits, "COUNT_S"),
            (wiring, "API_POOL_S"),
            (wiring, "API_STATEMENT_S"),
            (context, "STALLED_S"),
            (key_lookup, "ANSWERS_WITHIN_S"),
        ):
            assert getattr(module, name) < PATIENCE_S
            patch.setattr(module, name, PATIENCE_S)
        yield


@pytest.fixture(scope="session", autouse=True)
def surviving_worker_loops() -> Iterator[None]:
    """A loop whose duty met a defect ends its process, which here would be the test run's. Instead the run goes on, and
    fails at its end with what the duties met.
    """
    defects: list[str] = []

    def tell(duty: asyncio.Task[None]) -> None:
        if not duty.cancelled() and (error := duty.exception()) is not None:
            test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
            defects.append(f"the duty {duty.get_name()} of a worker's loop ended, beside {test}:")
            defects.extend(traceback.format_exception(error))

    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, doorbell):
            patch.setattr(module, "die_of_a_defect", tell)
        yield
    if defects:
        pytest.fail("\n".join(defects), pytrace=False)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Takes back what a command that ran in this process has set for its log: its stream is closed after the test."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def servers_data_dir() -> Iterator[Path]:
    """A data directory that the servers' account reaches: pytest's own temporary folders are closed to it."""
    # In memory where there is plenty: copying a database makes 470 files, which costs four times as much on a disk.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= 4 * 2**30
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-test-", dir=memory if roomy else None))
    yield data_dir
    remove_data_dir(data_dir, server_account())


@pytest.fixture(scope="session")
def servers_guard() -> Iterator[Guard]:
    """Stops the servers when the test run itself is killed."""
    guard = Guard(grace_s=5)
    yield guard
    guard.close()


@pytest.fixture(scope="session")
def postgres(servers_data_dir: Path, servers_guard: Guard) -> Iterator[EmbeddedPostgres]:
    server = start_postgres(servers_data_dir)
    assert server.pid is not None
    servers_guard.watch(server.pid, signal.SIGINT, stage=1)
    yield server
    servers_guard.forget(server.pid)
    server.stop("immediate")


@pytest.fixture(scope="session")
def redis_server(servers_data_dir: Path, servers_guard: Guard) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(servers_data_dir)
    server.start()
    assert server.pid is not None
    servers_guard.watch(server.pid, signal.SIGTERM, stage=1)
    yield server
    servers_guard.forget(server.pid)
    server.stop()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of an empty database."""
    url = fresh_database(postgres)
    yield url
    drop_database(postgres, url)


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    return walk.make_template(postgres)


@pytest.fixture
def migrated_database_url(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The URL of a database with the schema and the shipped schedules, copied in some 30 ms."""
    url = fresh_database(postgres, migrated_template)
    yield url
    drop_database(postgres, url)


@pytest.fixture
def engine(migrated_database_url: str) -> Iterator[Engine]:
    """Synchronous, with the plans that the workers' connections have."""
    engine = create_engine(migrated_database_url, pool_size=16, connect_args={"options": PLANS, "prepare_threshold": 0})
    yield engine
    engine.dispose()
