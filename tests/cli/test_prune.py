"""`dispatcher prune` and `dispatcher erase`: what they say, write and let go of."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher.clock import SYSTEM
from dispatcher.store import partitions
from tests.cli.test_commands import Run, run
from tests.support import walk

__all__ = ["run"]


@pytest.fixture
def old(engine: Engine) -> datetime:
    """When an event of 40 days ago was, which was delivered."""
    at = SYSTEM.now() - timedelta(days=40)
    with engine.begin() as connection:
        partitions.ensure(connection, at)
        walk.add_endpoint(connection)
        walk.emit(connection, 1, now=at, object_id="pay_1")
        worker = walk.add_worker(connection, now=at)
        walk.record(connection, [walk.result(one) for one in walk.claim(connection, worker, now=at)], now=at)
    return at


def payloads(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT payload FROM dispatcher.events")).scalars())


def test_a_dry_run_says_what_would_go_and_changes_nothing(run: Run, engine: Engine, old: datetime) -> None:
    ran = run("prune", "--dry-run", "--output", "json")
    assert ran.code == 0, ran.out
    found = {one["partition"]: one["action"] for one in json.loads(ran.out)["data"]}
    assert found[f"events_{old:%Y%m%d}"] == "without payloads"
    assert found[f"ended_deliveries_{old:%Y%m%d}"] == "keep"
    assert payloads(engine) == [b'{"n":0}']


def test_what_goes_is_written_first(run: Run, engine: Engine, old: datetime, tmp_path: Path) -> None:
    ran = run("prune", "--export", str(tmp_path))
    assert ran.code == 0, ran.out
    assert payloads(engine) == [None]
    [path] = tmp_path.glob(f"events_{old:%Y%m%d}.without-payloads.*.jsonl.gz")
    [line] = gzip.decompress(path.read_bytes()).splitlines()
    assert json.loads(line)["payload"] == '{"n":0}'
    [path] = tmp_path.glob(f"attempts_{old:%Y%m%d}.without-answers.*.jsonl.gz")
    [line] = gzip.decompress(path.read_bytes()).splitlines()
    assert json.loads(line)["response_body"] == "ok"
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_does_not_go(
    run: Run, engine: Engine, old: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dispatcher.cli.archive.os.fsync", full)
    ran = run("prune", "--export", str(tmp_path))
    assert ran.code == 1
    assert payloads(engine) == [b'{"n":0}']
    assert not list(tmp_path.iterdir())


def test_an_object_is_erased(run: Run, engine: Engine, old: datetime, tmp_path: Path) -> None:
    ran = run("erase", "pay_1", "--dry-run")
    assert "1 event, 1 of them with a payload" in ran.out
    assert payloads(engine) == [b'{"n":0}']
    path = tmp_path / "pay_1.jsonl.gz"
    ran = run("erase", "pay_1", "--yes", "--export", str(path), "--output", "json")
    assert ran.code == 0, ran.out
    assert json.loads(ran.out)["events"] == 1
    assert payloads(engine) == [None]
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["kind"] for line in lines] == ["event", "attempt"]
