"""What the metrics count, and that none of it costs more as the tables grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, create_engine, text

from dispatcher.ids import uuid7
from dispatcher.model.delivery import Stop
from dispatcher.model.event import Mode
from dispatcher.store import limits, metrics, pauses
from tests.support import walk

GROWING = ("deliveries", "ended_deliveries", "attempts", "events", "wakes")


@pytest.fixture
def connection(migrated_database_url: str) -> Iterator[Connection]:
    """Planned freely, as the API's are."""
    engine = create_engine(migrated_database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_live_deliveries_are_counted_by_state(connection: Connection) -> None:
    walk.add_endpoint(connection)
    walk.emit(connection, 5, now=None)
    walk.claim(connection, walk.add_worker(connection, now=None), now=None, room=2)
    walk.add_worker(connection, now=None, room=7)
    walk.add_worker(connection, now=None, room=9, term_s=0)
    found = metrics.read(connection)
    assert (found.waiting, found.in_flight, found.workers, found.room) == (3, 2, 2, 7)
    assert found.endpoints == {"active": 1}
    assert (found.held, found.failed, found.pauses, found.replays) == (0, {}, 0, 0)


def test_more_than_can_be_counted_is_estimated(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    walk.add_endpoint(connection)
    walk.emit(connection, 50, now=None)
    connection.execute(text("ANALYZE dispatcher.deliveries"))
    walk.emit(connection, 10, now=None)
    assert metrics.read(connection).waiting == 60
    monkeypatch.setattr(metrics, "EXACT", 20)
    assert metrics.read(connection).waiting == 50


def test_what_waits_for_a_disabled_or_paused_endpoint_is_held(connection: Connection) -> None:
    endpoint = walk.add_endpoint(connection, event_types=("a",))
    walk.add_endpoint(connection, event_types=("b",), status="disabled", status_reason="gone")
    walk.add_endpoint(connection, event_types=("c",))
    for count, type_ in ((1, "a"), (2, "b"), (4, "c")):
        walk.emit(connection, count, now=None, type_=type_)
    assert metrics.read(connection).held == 2
    pauses.add(connection, uuid7(), pauses.Scope(event_type="c"), reason="of a type", by="test")
    assert metrics.read(connection).held == 2
    pauses.add(connection, uuid7(), pauses.Scope(endpoint_id=endpoint.id), reason="of an endpoint", by="test")
    found = metrics.read(connection)
    assert (found.held, found.pauses) == (3, 2)
    pauses.add(connection, uuid7(), pauses.Scope(), reason="of all", by="test")
    assert metrics.read(connection).held == 7


def test_failures_are_those_of_the_last_hour(connection: Connection) -> None:
    walk.add_endpoint(connection)
    walk.emit(connection, 4, now=None)
    claims = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
    ends = [walk.EXHAUSTED, walk.EXHAUSTED, Stop("rejected", "gone 410"), walk.DELIVERED]
    walk.record(connection, [walk.result(claim, end) for claim, end in zip(claims, ends, strict=True)], now=None)
    assert metrics.read(connection).failed == {"exhausted": 2, "rejected": 1}
    connection.execute(text("UPDATE dispatcher.ended_deliveries SET ended_at = ended_at - interval '61 minutes'"))
    assert metrics.read(connection).failed == {}


def test_a_failure_of_test_mode_is_not_among_the_failed(connection: Connection) -> None:
    walk.add_endpoint(connection)
    walk.emit(connection, 2, now=None, mode=Mode.TEST)
    walk.emit(connection, 1, now=None)
    claims = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
    walk.record(connection, [walk.result(claim, walk.EXHAUSTED) for claim in claims], now=None)
    assert metrics.read(connection).failed == {"exhausted": 1}


def test_due_work_that_nobody_takes_has_an_age(connection: Connection) -> None:
    assert metrics.read(connection).oldest_due_s == 0
    walk.add_endpoint(connection)
    now = connection.execute(text("SELECT statement_timestamp()")).scalar_one()
    walk.emit(connection, 1, now=now - timedelta(hours=1))
    assert 3600 <= metrics.read(connection).oldest_due_s < 7200


def test_a_counter_is_a_days_so_that_no_dropped_partition_lowers_one(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 3, now=None)
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with engine.begin() as connection:
        before = metrics.read(connection).inserted
        assert sum(before["events"].values()) == 3
        assert set(before) == {"events", "attempts", "ended_deliveries"}
        oldest = min(before["events"])
        connection.execute(text(f"DROP TABLE dispatcher.events_{oldest}"))
        after = metrics.read(connection).inserted
        assert after["events"] == {day: count for day, count in before["events"].items() if day != oldest}


@pytest.mark.parametrize("analysed", [True, False])
def test_what_grows_is_read_by_index(connection: Connection, analysed: bool) -> None:
    for status in ("active", "disabled"):
        walk.add_endpoint(connection, status=status, status_reason=None if status == "active" else "gone")
    walk.emit(connection, 2000, now=None)
    claims = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
    results = [walk.result(claim, walk.DELIVERED if n % 20 else walk.EXHAUSTED) for n, claim in enumerate(claims)]
    walk.record(connection, results, now=None)
    if analysed:
        connection.execute(text("ANALYZE"))
    limits.pin_plans(connection)
    for statement in (metrics._GAUGES, metrics._HELD, metrics._FAILED, metrics._ENDPOINTS, metrics._INSERTED):
        scanned = {relation for node, relation in _scans(connection, statement) if node == "Seq Scan"}
        assert not [name for name in scanned if name.startswith(GROWING)], statement.text


def _scans(connection: Connection, statement: TextClause) -> list[tuple[str, str]]:
    values = {"exact": metrics.EXACT} if ":exact" in statement.text else {}
    explained = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), values).scalar_one()
    found: list[tuple[str, str]] = []

    def visit(node: dict[str, Any]) -> None:
        if "Relation Name" in node:
            found.append((node["Node Type"], node["Relation Name"]))
        for child in node.get("Plans", ()):
            visit(child)

    visit((json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"])
    return found
