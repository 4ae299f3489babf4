"""`dispatcher prune` and `dispatcher erase`: what they say, write and let go of."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher.cli import erase
from dispatcher.clock import SYSTEM
from dispatcher.flow import erase as erase_flow
from dispatcher.ids import DEFAULT_TENANT, format_id
from dispatcher.store import partitions
from tests.cli.test_commands import Run
from tests.support import walk


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
    assert ran.out == "would erase 1 payload of 1 event, and cancel what waits of 0 deliveries that have not ended\n"
    assert payloads(engine) == [b'{"n":0}']
    path = tmp_path / "pay_1.jsonl.gz"
    ran = run("erase", "pay_1", "--yes", "--export", str(path), "--output", "json")
    assert ran.code == 0, ran.out
    assert json.loads(ran.out)["events"] == 1
    assert payloads(engine) == [None]
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["kind"] for line in lines] == ["event", "attempt"]


def test_an_export_has_every_digit_and_what_tenants_above_received(run: Run, engine: Engine, tmp_path: Path) -> None:
    written = '{"amount": 1.10, "n": 123456789012345678901234567890}'
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    till = run("tenants", "create", "till", "--parent", format_id("ten", DEFAULT_TENANT), "--output", "json").json["id"]
    for tenant in ((), ("--tenant", till)):
        sent = ("events", "send", "--event-type", "a.b", "--object-id", "pay_2", *tenant)
        assert run(*sent, stdin=written).code == 0
    told = run("erase", "pay_2", "--tenant", till, "--dry-run", "--output", "json").json
    assert told == {"events": 1, "payloads": 1, "live_deliveries": 1}
    path = tmp_path / "pay_2.jsonl.gz"
    refused = run("erase", "pay_2", "--yes", "--export", str(path))
    assert (refused.code, "--all-tenants" in refused.err, path.exists()) == (2, True, False)
    assert run("erase", "pay_2", "--yes", "--all-tenants", "--export", str(path)).code == 0
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["payload"] for line in lines] == [written] * 2
    again = run("erase", "pay_2", "--dry-run", "--output", "json").json
    assert again == {"events": 2, "payloads": 0, "live_deliveries": 0}


def test_what_is_already_there_is_not_written_over_and_nothing_is_erased(
    run: Run, engine: Engine, old: datetime, tmp_path: Path
) -> None:
    path = tmp_path / "pay_1.jsonl.gz"
    path.write_text("mine")
    assert run("erase", "pay_1", "--yes", "--export", str(path)).code == 1
    assert path.read_text() == "mine"
    assert payloads(engine) == [b'{"n":0}']


def test_an_erasure_of_many_is_followed_to_its_end(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API does the first 500 with its answer; the scheduler, which is a step of this test here, does the others."""

    def step(_: float) -> None:
        with engine.begin() as connection:
            erase_flow.step(connection)

    with engine.begin() as connection:
        walk.emit(connection, 501, now=None, object_id="pay_3")
    monkeypatch.setattr(erase, "sleep", step)
    erased = run("erase", "pay_3", "--yes", "--output", "json").json
    assert (erased["status"], erased["events"]) == ("done", 501)


def test_an_erasure_that_nobody_goes_on_with_says_so(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as connection:
        walk.emit(connection, 501, now=None, object_id="pay_3")
    monkeypatch.setattr(erase, "PATIENCE_S", 0.0)
    left = run("erase", "pay_3", "--yes")
    assert left.code == 0
    assert "running" in left.out
    assert "next check at" not in left.out
    assert "The scheduler goes on with the others." in left.out
