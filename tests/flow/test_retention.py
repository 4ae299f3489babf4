"""What is past its retention goes, day by day; what lives, or is erased, is as it must be."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from dispatcher.clock import Clock
from dispatcher.flow import audit, erase, retention
from dispatcher.flow.retention import Policy
from dispatcher.ids import DEFAULT_TENANT
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.store import log, partitions
from dispatcher.store import retention as store
from tests.support import walk
from tests.support.walk import NOW

POLICY = Policy()
ANSWER = Outcome(
    OutcomeClass.OK, Phase.BODY, status_code=200, response_body=b"secret", response_headers=[("a", "b")], duration_ms=1
)


def later(days: float) -> datetime:
    return NOW + timedelta(days=days)


def prepare(connection: Connection, **values: Any) -> None:
    """A day's partitions, an endpoint, and events of that day of which two are delivered."""
    partitions.ensure(connection, NOW)
    walk.add_schedule(connection, 0, 60)
    walk.add_endpoint(connection, schedule="test")
    walk.emit(connection, 2, **values)
    worker = walk.add_worker(connection)
    walk.record(connection, [walk.result(one, outcome=ANSWER) for one in walk.claim(connection, worker)])


def retain(engine: Engine, now: datetime, policy: Policy = POLICY) -> list[str]:
    done = []
    while True:
        with engine.begin() as connection:
            found = retention.step(connection, policy, now=now)
        if not found:
            return done
        done += [f"{one.partition.table}: {one.action}" for one in found]


def payloads(connection: Connection) -> list[Any]:
    return [row.payload for row in walk.rows(connection, "SELECT payload FROM dispatcher.events ORDER BY id")]


def test_nothing_goes_before_its_day_is_past(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
    assert retain(engine, later(28)) == []


def test_payloads_and_answers_go_and_the_log_stays(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        before = walk.ended(connection)
    assert {"events: without payloads", "attempts: without answers"} <= set(retain(engine, later(31)))
    with engine.begin() as connection:
        assert payloads(connection) == [None, None]
        assert [(one.response_body, one.response_headers) for one in walk.attempts(connection)] == [(b"", [])] * 2
        assert walk.ended(connection) == before
        found = log.find_event(connection, before[0].event_id)
        assert found is not None
        assert found.payload_gone == "retention"
        assert retain(engine, later(31)) == []
    assert walk.broken_promises(engine) == []


def test_a_day_is_dropped_as_a_whole_and_the_audit_finds_nothing_wrong(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        walk.emit(connection, 1, not_before=later(120))
    assert "events: drop" in retain(engine, later(91))
    with engine.begin() as connection:
        assert len(payloads(connection)) == len(walk.live(connection)) == 1
        assert walk.ended(connection) == walk.attempts(connection) == []
        assert store.kept_since(connection) > walk.uuid7(NOW)
        days = audit.days(connection)
    for day in days:
        with engine.begin() as connection:
            assert [one for one in audit.verify_day(connection, day).checks if one.count] == []


def test_what_lives_keeps_its_payload_and_its_attempts_and_is_sent(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        walk.emit(connection, 1, not_before=later(120))
    retain(engine, later(31))
    with engine.begin() as connection:
        assert [one is not None for one in payloads(connection)].count(True) == 1
    retain(engine, later(119))
    with engine.begin() as connection:
        assert len(payloads(connection)) == 1
        worker = walk.add_worker(connection, now=later(121))
        [claim] = walk.claim(connection, worker, now=later(121))
        assert claim.event.payload == b'{"n":0}'
        walk.record(connection, [walk.result(claim, outcome=ANSWER)], now=later(121))
        assert retention.sweep(connection, POLICY, now=later(121)) is False
        assert payloads(connection) == walk.ended(connection) == walk.attempts(connection) == []


def test_a_payload_that_was_kept_goes_once_its_delivery_has_ended(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        walk.emit(connection, 1, not_before=later(35))
    retain(engine, later(31))
    with engine.begin() as connection:
        worker = walk.add_worker(connection, now=later(36))
        [claim] = walk.claim(connection, worker, now=later(36))
        walk.record(connection, [walk.result(claim, outcome=ANSWER)], now=later(36))
    retain(engine, later(36))
    with engine.begin() as connection:
        assert payloads(connection) == [None] * 3
        assert {one.response_body for one in walk.attempts(connection)} == {b""}


def test_a_lock_that_is_not_to_be_had_is_tried_again_and_nothing_is_lost(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
    with engine.begin() as producer:
        walk.rows(producer, "SELECT 1 FROM dispatcher.events LIMIT 1")
        with pytest.raises(OperationalError, match="lock timeout"), engine.begin() as connection:
            retention.step(connection, POLICY, now=later(31))
    with engine.begin() as connection:
        assert None not in payloads(connection)
    retain(engine, later(31))
    with engine.begin() as connection:
        assert payloads(connection) == [None, None]


def test_a_step_that_is_rolled_back_leaves_everything(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
    for days in (31, 91):
        with engine.connect() as connection:
            assert retention.step(connection, POLICY, now=later(days))
            connection.rollback()
    with engine.begin() as connection:
        assert None not in payloads(connection)
        assert len(walk.ended(connection)) == len(walk.attempts(connection)) == 2
    assert walk.broken_promises(engine) == []


def test_a_plan_changes_nothing_and_says_what_lives(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        walk.emit(connection, 1, not_before=later(120))
    with engine.begin() as connection:
        planned = retention.plan(connection, POLICY, now=later(31))
    found = {one.partition.name: (one.action, one.living.deliveries) for one in planned}
    assert found[f"events_{NOW:%Y%m%d}"] == ("without payloads", 1)
    with engine.begin() as connection:
        assert None not in payloads(connection)


def test_old_rows_of_the_default_partitions_go_in_batches(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_schedule(connection, 0, 60)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection, 3)
        worker = walk.add_worker(connection)
        walk.record(connection, [walk.result(one, outcome=ANSWER) for one in walk.claim(connection, worker)])
    rounds = 0
    more = True
    while more:
        with engine.begin() as connection:
            more = retention.sweep(connection, POLICY, now=later(91), batch=2)
        rounds += 1
    with engine.begin() as connection:
        assert payloads(connection) == walk.ended(connection) == walk.attempts(connection) == []


@pytest.mark.parametrize("what", ["payloads", "responses", "metadata"])
def test_a_tenant_that_keeps_less_has_less(engine: Engine, what: str) -> None:
    with engine.begin() as connection:
        prepare(connection)
        retention.keep_less(connection, DEFAULT_TENANT, POLICY, by="test", **{what: 10})
    more = True
    while more:
        with engine.begin() as connection:
            more = retention.sweep(connection, POLICY, now=later(12), batch=1)
    with engine.begin() as connection:
        match what:
            case "payloads":
                assert payloads(connection) == [None, None]
            case "responses":
                assert {one.response_body for one in walk.attempts(connection)} == {b""}
            case _:
                assert payloads(connection) == walk.ended(connection) == walk.attempts(connection) == []
    assert walk.broken_promises(engine) == []


def test_an_object_is_erased_everywhere_and_what_became_of_it_stays(engine: Engine) -> None:
    clock = Clock(now=lambda: later(1))
    with engine.begin() as connection:
        prepare(connection, object_id="pay_1")
        walk.emit(connection, 1, object_id="pay_1", not_before=later(5))
        walk.emit(connection, 1, object_id="pay_2", not_before=later(5))
        hashes = [one.body_sha256 for one in walk.attempts(connection)]
    with engine.begin() as connection:
        started = erase.start(connection, "pay_1", by="test", clock=clock)
    for _ in range(4):  # in batches, each of which may be the last before a kill
        with engine.begin() as connection:
            done = erase.step(connection, only=started.id, batch=2, now=later(1))
    with engine.begin() as connection:
        done = erase.find(connection, started.id)
        assert (done.events, done.cancelled, done.attempts, done.in_flight) == (3, 1, 2, 0)
        assert [one.object_id for one in walk.live(connection)] == ["pay_2"]
        assert {one.state for one in walk.ended(connection)} == {"delivered", "cancelled"}
        assert [one.body_sha256 for one in walk.attempts(connection)] == hashes
        assert {one.response_body for one in walk.attempts(connection)} == {b""}
        assert sum(one is None for one in payloads(connection)) == 3
        [entry] = walk.rows(connection, "SELECT after FROM dispatcher.audit_log WHERE action = 'object.erased'")
        assert entry.after["events"] == 3
    assert walk.broken_promises(engine) == []


def test_what_was_in_flight_at_an_erasure_is_erased_when_it_has_ended(engine: Engine) -> None:
    with engine.begin() as connection:
        partitions.ensure(connection, NOW)
        walk.add_schedule(connection, 0, 60)
        walk.add_endpoint(connection, schedule="test")
        walk.emit(connection, 2, object_id="pay_1")
        worker = walk.add_worker(connection)
        first, second = walk.claim(connection, worker)
        started = erase.start(connection, "pay_1", by="test", clock=Clock(now=lambda: NOW))
        found = erase.step(connection, only=started.id, now=NOW)
        assert found is not None
        assert found.in_flight == 2
        get = {"method": "GET", "url": "https://shop.example.com/hook?object_id=pay_1"}
        walk.record(connection, [walk.result(first, outcome=ANSWER, **get), walk.result(second, walk.retry(60), **get)])
        assert erase.step(connection, only=started.id, now=NOW + timedelta(minutes=2)) is not None
        assert walk.live(connection) == []
        assert {one.response_body for one in walk.attempts(connection)} == {b""}
        assert {one.url for one in walk.attempts(connection)} == {"https://shop.example.com/hook?erased"}
        found = erase.step(connection, only=started.id, now=NOW + timedelta(minutes=11))
        assert found is not None
        assert found.next_pass_at is None


def test_an_erasure_of_a_tenant_leaves_the_others_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection, object_id="pay_1")
        started = erase.start(connection, "pay_1", by="test", tenant_id=walk.uuid7(), clock=Clock(now=lambda: later(1)))
        done = erase.step(connection, only=started.id, now=later(1))
        assert done is not None
        assert done.events == 0
        assert None not in payloads(connection)
