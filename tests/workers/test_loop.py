"""The worker's loop: what it takes, what it lets pass, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, QueuePool, text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from dispatcher import telemetry
from dispatcher.clock import SYSTEM, Clock
from dispatcher.flow import rescue
from dispatcher.ids import format_id
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.delivery import Released, Result, Stop
from dispatcher.model.event import Mode
from dispatcher.model.outcome import Outcome, OutcomeClass, Phase
from dispatcher.store import deliveries
from dispatcher.store.deliveries import Claimed
from dispatcher.wiring import read_schedules
from dispatcher.workers.loop import CONNECTIONS, CONTENDED_S, WorkerLoop, _attempted
from tests.support import walk
from tests.workers.conftest import Receiver, until

MakeWorker = Callable[..., WorkerLoop]


def given(engine: Engine, count: int = 1, *, lanes: int = 1) -> list[str]:
    """So many events for each of so many endpoints; the endpoints' hosts."""
    with engine.begin() as connection:
        names = [f"r{n}.example.com" for n in range(lanes)]
        for n, name in enumerate(names):
            walk.add_endpoint(connection, event_types=(f"t{n}",), url=f"https://{name}/hook")
            walk.emit(connection, count, type_=f"t{n}", now=None)
    return names


def count(engine: Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(sql)).scalar_one())


def delivered(engine: Engine) -> int:
    return count(engine, "SELECT count(*) FROM dispatcher.ended_deliveries WHERE state = 'delivered'")


async def test_what_is_due_is_delivered_once_at_a_bell(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    given(engine, 30, lanes=5)
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 150)
    assert len(receiver.posts) == len(set(receiver.posts)) == 150
    assert walk.broken_promises(engine) == []


async def test_a_batch_never_waits_for_its_slowest_member(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    hosts = given(engine, 3, lanes=10)
    receiver.hanging = {hosts[0]}
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 27)
    await until(lambda: worker.room == 97)
    with engine.begin() as connection:
        walk.emit(connection, 5, type_="t1", now=None)
    await worker.ring()
    await until(lambda: delivered(engine) == 32)
    receiver.let_go.set()
    await until(lambda: delivered(engine) == 35)


async def test_endpoints_that_hang_leave_room_for_those_that_answer(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    """Ten endpoints with more due than the worker has room for, each within its own cap of 64."""
    hosts = given(engine, 40, lanes=10)
    receiver.hanging = set(hosts)
    worker = make_worker(max_in_flight=200)
    await worker.start()
    for _ in range(5):
        await worker.ring()
    assert worker.room >= 50
    with engine.begin() as connection:
        walk.add_endpoint(connection, event_types=("new",), url="https://answers.example.com/hook")
        walk.emit(connection, 30, type_="new", now=None)
    await worker.ring()
    await until(lambda: delivered(engine) == 30)
    receiver.let_go.set()
    await until(lambda: delivered(engine) == 430)


async def test_what_another_worker_has_locked_is_claimed_without_another_bell(
    engine: Engine, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(engine, 30)
    looks = 0
    claim = deliveries.claim

    def counted(*args: Any, **kwargs: Any) -> Claimed:
        nonlocal looks
        looks += 1
        return claim(*args, **kwargs)

    worker = make_worker()
    await worker.start()
    with engine.begin() as connection:
        another = walk.add_worker(connection, now=None)
        assert len(walk.claim(connection, another, now=None, room=10)) == 10
    monkeypatch.setattr(deliveries, "claim", counted)
    with engine.connect() as other:
        other.execute(text("SELECT FROM dispatcher.lanes FOR NO KEY UPDATE"))
        began_s = SYSTEM.monotonic()
        bell = asyncio.create_task(worker.ring())
        await until(lambda: looks >= 3)
        assert not bell.done()
        assert looks <= (SYSTEM.monotonic() - began_s) / CONTENDED_S + 1  # now and then, not as fast as it can
        other.rollback()
    await bell
    await until(lambda: delivered(engine) == 20)


async def test_claiming_stops_while_recording_falls_behind(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    given(engine, 6, lanes=10)
    worker = make_worker(max_in_flight=20)
    await worker.start()
    with engine.connect() as other:
        other.execute(text("LOCK TABLE dispatcher.attempts IN SHARE MODE"))
        bell = asyncio.create_task(worker.ring())
        await until(lambda: len(receiver.posts) == 20)
        await asyncio.sleep(0.2)  # long enough for many more claims
        assert (len(receiver.posts), worker.room) == (20, 0)
        other.rollback()
    await until(lambda: delivered(engine) == 60)
    await bell
    assert len(receiver.posts) == 60


async def test_no_post_starts_once_the_heartbeat_is_too_old(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    given(engine, 3)
    monotonic_s = 1000.0
    worker = make_worker(clock=Clock(monotonic=lambda: monotonic_s), term_s=30.0)
    await worker._beat()
    monotonic_s += 24.0
    await worker._claim()
    await until(lambda: len(worker._results) == 3)
    assert receiver.posts == []
    await worker._record(worker._results)
    with engine.connect() as connection:
        assert [(row.state, row.attempts) for row in walk.live(connection)] == [("waiting", 0)] * 3
        assert walk.attempts(connection) == []


async def test_a_worker_with_an_old_heartbeat_claims_nothing(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    given(engine)
    monotonic_s = 1000.0
    worker = make_worker(clock=Clock(monotonic=lambda: monotonic_s))
    await worker.start()
    monotonic_s += 24.0
    await worker.ring()
    assert count(engine, "SELECT sum(claim_seq) FROM dispatcher.deliveries") == 0
    await worker._beat()
    await worker.ring()
    await until(lambda: delivered(engine) == 1)


async def test_stopping_lets_finish_what_can_within_the_grace_and_leaves_the_rest_to_the_rescue(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    hosts = given(engine, 4, lanes=2)
    receiver.hanging = {hosts[0]}
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: len(receiver.posts) == 8)
    await worker.stop()
    assert delivered(engine) == 4
    assert count(engine, "SELECT count(*) FROM dispatcher.workers") == 0
    with engine.begin() as connection:
        assert rescue.rescue(connection, read_schedules(connection), clock=SYSTEM) == 4
        assert [(row.state, row.refunds) for row in walk.live(connection)] == [("waiting", 1)] * 4
        lost = [attempt for attempt in walk.attempts(connection) if attempt.outcome == "worker_lost"]
        assert [attempt.outcome_known for attempt in lost] == [False] * 4
    assert walk.broken_promises(engine) == []


async def test_what_finishes_within_the_grace_is_recorded_before_the_worker_leaves(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    hosts = given(engine, 4)
    receiver.hanging = set(hosts)
    worker = make_worker(grace_s=20.0)
    await worker.start()
    await worker.ring()
    await until(lambda: len(receiver.posts) == 4)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    receiver.let_go.set()
    await stopping
    assert delivered(engine) == 4


async def test_a_worker_opens_its_connections_before_it_claims(hot: AsyncEngine, make_worker: MakeWorker) -> None:
    """A server in smart shutdown refuses new ones and still serves these."""
    await make_worker().start()
    assert isinstance(hot.pool, QueuePool)
    assert hot.pool.checkedin() == CONNECTIONS


async def test_a_record_whose_connection_is_cut_is_made_again_and_counts_once(
    engine: Engine,
    postgres: EmbeddedPostgres,
    migrated_database_url: str,
    make_worker: MakeWorker,
    receiver: Receiver,
) -> None:
    given(engine, 5)
    worker = make_worker()
    await worker.start()
    with engine.connect() as other:
        other.execute(text("LOCK TABLE dispatcher.attempts IN SHARE MODE"))
        await worker.ring()
        await asyncio.to_thread(walk.wait_until_blocked, engine)
        assert walk.terminate_backends(postgres, migrated_database_url) >= 2
        other.invalidate()
    engine.dispose()
    await until(lambda: delivered(engine) == 5)
    assert len(receiver.posts) == 5
    assert count(engine, "SELECT count(*) FROM dispatcher.attempts") == 5
    assert walk.broken_promises(engine) == []


async def test_results_outlive_a_server_that_is_read_only_for_a_while(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover. A worker that died of it would leave all that it had in flight with an unknown outcome."""
    given(engine, 3)
    record, refused = deliveries.record, [1, 2]

    def refuse(*values: Any, **named: Any) -> int:
        if refused:
            refused.pop()
            raise InternalError("INSERT", {}, Exception("cannot execute INSERT in a read-only transaction"))
        return record(*values, **named)

    monkeypatch.setattr(deliveries, "record", refuse)
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 3)
    assert len(receiver.posts) == 3


async def test_connections_that_were_cut_while_idle_cost_nothing_but_a_moment(
    engine: Engine,
    postgres: EmbeddedPostgres,
    migrated_database_url: str,
    make_worker: MakeWorker,
    receiver: Receiver,
) -> None:
    hosts = given(engine, 5)
    receiver.hanging = set(hosts)
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: len(receiver.posts) == 5)
    walk.terminate_backends(postgres, migrated_database_url)
    engine.dispose()
    receiver.let_go.set()
    await until(lambda: delivered(engine) == 5)
    walk.terminate_backends(postgres, migrated_database_url)
    engine.dispose()
    with engine.begin() as connection:
        walk.emit(connection, 2, type_="t0", now=None)
    await worker.ring()
    await worker.ring()
    await until(lambda: delivered(engine) == 7)
    assert len(receiver.posts) == 7


async def test_a_claim_whose_commit_was_never_answered_is_given_back(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(engine, 5)
    worker = make_worker()
    await worker._beat()
    claim_on = WorkerLoop._claim_on

    def unheard(worker: WorkerLoop, connection: Connection) -> Claimed:
        claim_on(worker, connection)
        connection.commit()
        raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    monkeypatch.setattr(WorkerLoop, "_claim_on", unheard)
    with pytest.raises(OperationalError):
        await worker._claim()
    monkeypatch.undo()
    with engine.begin() as connection:
        walk.emit(connection, type_="t0", now=None)
    in_flight = "SELECT count(*) FROM dispatcher.deliveries WHERE state = 'in_flight'"
    assert count(engine, in_flight) == 5
    await worker._claim()  # these it holds, and keeps
    held = len(worker._in_flight)
    await worker._give_up()
    assert count(engine, in_flight) == held == 1
    assert deliveries_demand(engine)
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 6)
    assert len(receiver.posts) == 6


def deliveries_demand(engine: Engine) -> bool:
    with engine.connect() as connection:
        return deliveries.demand(connection).lanes > 0


async def test_a_defect_of_ours_is_neither_charged_nor_tried_again_at_once(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(engine)
    worker = make_worker()
    monkeypatch.setattr(type(worker._deliver.requests), "prepare", lambda *_: 1 / 0)
    await worker.start()
    await worker.ring()
    await until(lambda: count(engine, "SELECT count(*) FROM dispatcher.attempts"))
    with engine.connect() as connection:
        (row,), (attempt,) = walk.live(connection), walk.attempts(connection)
    assert (row.state, row.attempts, row.reason, attempt.outcome) == ("waiting", 0, "internal", "internal")
    assert row.due_at - row.created_at >= timedelta(seconds=5)


async def test_an_endpoints_change_reaches_the_next_claim(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver
) -> None:
    given(engine)
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 1)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dispatcher.endpoints SET url = 'https://new.example.com/', version = version + 1")
        )
        walk.emit(connection, type_="t0", now=None)
    await worker.ring()
    await until(lambda: delivered(engine) == 2)
    with engine.connect() as connection:
        assert walk.attempts(connection)[-1].url == "https://new.example.com/"


async def test_the_heartbeat_reports_life_and_room(engine: Engine, hot: AsyncEngine, make_worker: MakeWorker) -> None:
    worker = make_worker(max_in_flight=77)
    await worker._beat()
    with engine.connect() as connection:
        (row,) = walk.rows(
            connection, "SELECT *, heartbeat_until - statement_timestamp() AS left FROM dispatcher.workers"
        )
    assert (row.id, row.room) == (worker.worker_id, 77)
    assert timedelta(seconds=20) < row.left <= timedelta(seconds=30)
    assert worker._may_post()


async def test_evidence_that_the_database_refuses_costs_no_other_delivery_anything(
    engine: Engine, make_worker: MakeWorker, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    (_, poisoned) = given(engine, 10, lanes=2)
    with engine.begin() as connection:
        connection.execute(
            text(f"ALTER TABLE dispatcher.attempts ADD CHECK (url NOT LIKE '%{poisoned}%' OR response_body = '')")
        )
    receiver.body = b"poison"
    worker = make_worker()
    await worker.start()
    await worker.ring()
    await until(lambda: delivered(engine) == 20)
    kept = "SELECT count(*) FROM dispatcher.attempts WHERE response_body = 'poison'"
    stripped = "SELECT count(*) FROM dispatcher.attempts WHERE error = 'the answer cannot be stored'"
    assert (count(engine, kept), count(engine, stripped)) == (10, 10)
    logged = [record.getMessage() for record in caplog.records if "record.stripped" in record.getMessage()]
    assert len(logged) == 10
    assert all("violates check constraint" in line for line in logged)
    assert not any("poison" in line or b"poison".hex() in line for line in logged), "the log holds no body"


CHANGES = [
    *(walk.DELIVERED, walk.retry(60), walk.retry(0.5, charged=False), walk.retry(90, from_first_attempt=True)),
    *(Stop("exhausted", "http_retryable 503"), Released()),
]
OUTCOMES = [
    Outcome(OutcomeClass.OK, Phase.BODY, status_code=200, duration_ms=12.6),
    Outcome(OutcomeClass.DEADLINE, Phase.HEADERS, known=False, error="no answer in 15 s", duration_ms=15_000.0),
]


def test_the_line_of_an_attempt_has_the_declared_fields_and_needs_no_quotes(engine: Engine) -> None:
    given(engine)
    with engine.begin() as connection:
        (claim,) = walk.claim(connection, walk.add_worker(connection, now=None), now=None)
    results = [walk.result(claim, change, outcome) for change in CHANGES for outcome in OUTCOMES]
    results.append(Result(claim, None, Released(), 0.0))
    of_test_mode = replace(claim, event=replace(claim.event, mode=Mode.TEST))
    results.append(Result(of_test_mode, None, Released(), 0.0))
    rows = [_attempted(result) for result in results]
    assert {name for row in rows for name in row} == set(telemetry.EVENTS["delivery.attempted"].fields)
    for row in rows:
        line = str(telemetry.Line("delivery.attempted", row))
        assert '"' not in line
        assert line.count(" ") == len(row)
    assert rows[-1]["mode"] == "test"
    assert rows[0] == {
        "delivery_id": format_id("dlv", claim.delivery_id),
        "event_id": format_id("evt", claim.event.id),
        "endpoint_id": format_id("ep", claim.endpoint_id),
        "attempt": 1,
        "decision": "delivered",
        "outcome": "ok",
        "status_code": 200,
        "outcome_known": True,
        "duration_ms": 13,
    }


async def test_a_heartbeat_that_succeeded_is_not_logged_as_failed(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def succeed() -> None:
        pass

    async def fail() -> None:
        raise OperationalError("SELECT 1", {}, Exception("refused"))

    worker = make_worker()
    monkeypatch.setattr(worker, "_term_s", 0.06)
    for beat, give_up, event in ((succeed, fail, "claims.release_failed"), (fail, succeed, "heartbeat.failed")):
        caplog.clear()
        monkeypatch.setattr(worker, "_beat", beat)
        monkeypatch.setattr(worker, "_give_up", give_up)
        beating = asyncio.create_task(worker._keep_beating())
        await until(lambda: caplog.messages)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        assert set(caplog.messages) == {f"{event} worker_id={worker.worker_id} error=refused"}


async def test_a_stopping_worker_that_cannot_remove_its_row_says_so(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("DELETE", {}, Exception("refused"))

    worker = make_worker()
    await worker.start()
    monkeypatch.setattr("dispatcher.store.workers.retire", fail)
    with caplog.at_level("WARNING", "dispatcher.workers.loop"):  # another test may have left it at info
        caplog.clear()
        await worker.stop()
    assert caplog.messages == [f"worker.deregister_failed worker_id={worker.worker_id} error=refused"]
