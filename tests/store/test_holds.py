"""What keeps due work from being claimed: pauses, rate limits, order, and endpoints that are disabled by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from dispatcher.flow.prune import prune
from dispatcher.ids import uuid7
from dispatcher.model.delivery import Claim, Stop
from dispatcher.model.event import Mode
from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.store import deliveries
from tests.support import walk
from tests.support.walk import NOW

BLOCKED = Outcome(OutcomeClass.BLOCKED_ADDRESS, error="found 10.0.0.1", duration_ms=1.0)


def later(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def pause(connection: Connection, **scope: Any) -> UUID:
    pause_id = uuid7()
    names = ("tenant_id", "endpoint_id", "event_type", "type_pattern", "mode")
    values: dict[str, Any] = dict.fromkeys(names) | scope
    walk.rows(
        connection,
        """INSERT INTO dispatcher.pauses
            (id, tenant_id, endpoint_id, event_type, type_pattern, mode, reason, created_by)
        VALUES (:id, :tenant_id, :endpoint_id, :event_type, :type_pattern, :mode, 'test', 'test') RETURNING id""",
        id=pause_id,
        **values,
    )
    return pause_id


def unpause(connection: Connection, *endpoint_ids: UUID) -> None:
    walk.rows(connection, "DELETE FROM dispatcher.pauses RETURNING id")
    for endpoint_id in endpoint_ids:
        deliveries.wake(connection, endpoint_id, now=NOW)


def types(connection: Connection, claims: list[Claim]) -> list[str]:
    return sorted(claim.event.type for claim in claims)


@pytest.mark.parametrize("scope", ["all", "tenant", "endpoint"])
def test_a_pause_holds_what_it_names_until_it_ends(engine: Engine, scope: str) -> None:
    with engine.begin() as connection:
        endpoint, other = walk.add_endpoint(connection), walk.add_endpoint(connection)
        walk.emit(connection, 3)
        worker_id = walk.add_worker(connection)
        pause(
            connection,
            **{
                "all": {},
                "tenant": {"tenant_id": endpoint.tenant_id},
                "endpoint": {"endpoint_id": endpoint.id},
            }[scope],
        )
        held = walk.per_endpoint(walk.claim_all(connection, worker_id))
        assert held == ({other.id: 3} if scope == "endpoint" else {})
        assert all(row.state == "waiting" for row in walk.live(connection) if row.endpoint_id == endpoint.id)
        unpause(connection, endpoint.id, other.id)
        released = walk.per_endpoint(walk.claim_all(connection, worker_id))
        assert released[endpoint.id] == 3


def test_a_pause_of_a_type_lets_the_others_pass(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        for type_ in ("payment.failed", "payment.completed", "refund.failed"):
            walk.emit(connection, type_=type_)
        worker_id = walk.add_worker(connection)
        pause(connection, event_type="payment.*", type_pattern="payment.%")
        assert types(connection, walk.claim_all(connection, worker_id)) == ["refund.failed"]
        assert walk.lane(connection, endpoint.id).asleep
        unpause(connection, endpoint.id)
        assert types(connection, walk.claim_all(connection, worker_id)) == ["payment.completed", "payment.failed"]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("of_type", [False, True])
def test_a_pause_of_one_mode_lets_the_other_pass(engine: Engine, ordered: bool, of_type: bool) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, ordered=ordered)
        walk.emit(connection, 1, mode=Mode.LIVE)
        walk.emit(connection, 1, mode=Mode.TEST)
        worker_id = walk.add_worker(connection)
        pause(connection, mode="test", **({"event_type": "payment.*", "type_pattern": "payment.%"} if of_type else {}))
        live = walk.claim_all(connection, worker_id)
        assert [claim.event.mode for claim in live] == ["live"]
        walk.record(connection, [walk.result(claim) for claim in live])
        assert walk.claim_all(connection, worker_id) == []
        unpause(connection, endpoint.id)
        assert [claim.event.mode for claim in walk.claim_all(connection, worker_id)] == ["test"]


def test_what_a_pause_of_test_mode_holds_for_seven_days_expires(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 1, mode=Mode.LIVE)
        walk.emit(connection, 1, mode=Mode.TEST)
        pause(connection, mode="test")
        prune(connection, now=NOW + timedelta(days=7))
        assert [(row.mode, row.state) for row in walk.ended(connection)] == [("test", "expired")]


def test_a_pause_of_a_type_at_one_endpoint_is_none_at_another(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint, other = walk.add_endpoint(connection), walk.add_endpoint(connection)
        walk.emit(connection, type_="payment.failed")
        pause(connection, endpoint_id=endpoint.id, event_type="payment.failed", type_pattern="payment.failed")
        claims = walk.claim_all(connection, walk.add_worker(connection))
        assert walk.per_endpoint(claims) == {other.id: 1}


def test_what_a_pause_holds_for_seven_days_expires(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, type_="payment.failed")
        walk.emit(connection, type_="refund.failed")
        pause(connection, event_type="payment.*", type_pattern="payment.%")
        prune(connection, now=NOW + timedelta(days=7, seconds=-1))
        assert walk.ended(connection) == []
        prune(connection, now=NOW + timedelta(days=7))
        (row,) = walk.ended(connection)
        assert (row.event_type, row.state, row.reason) == (
            "payment.failed",
            "expired",
            "held for 7 days, until it expired",
        )


def test_a_rate_limit_lets_a_seconds_worth_through_and_then_its_rate(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, rate_limit=5.0)
        walk.emit(connection, 40)
        worker_id = walk.add_worker(connection)
        assert len(walk.claim_all(connection, worker_id)) == 5
        lane = walk.lane(connection, endpoint.id)
        assert (lane.capped, lane.ready_at) == (False, later(0.2))
        assert walk.claim_all(connection, worker_id, now=later(0.1)) == []
        assert len(walk.claim_all(connection, worker_id, now=later(0.2))) == 1
        taken = [len(walk.claim_all(connection, worker_id, now=later(0.2 + tenth / 10))) for tenth in range(1, 41)]
        assert sum(taken) == 20
        assert max(taken) == 1


def test_tokens_do_not_pile_up_beyond_a_second(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, rate_limit=5.0)
        walk.emit(connection, 40)
        worker_id = walk.add_worker(connection)
        walk.claim_all(connection, worker_id)
        assert len(walk.claim_all(connection, worker_id, now=later(3600))) == 5


def test_a_slow_rate_lets_one_through_at_once(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, rate_limit=0.1)
        walk.emit(connection, 3)
        worker_id = walk.add_worker(connection)
        assert len(walk.claim_all(connection, worker_id)) == 1
        assert walk.lane(connection, endpoint.id).ready_at == pytest.approx(later(10), abs=timedelta(milliseconds=1))
        assert len(walk.claim_all(connection, worker_id, now=later(10.001))) == 1


def test_waiting_for_the_rate_is_no_attempt(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, rate_limit=1.0)
        walk.emit(connection, 2)
        walk.claim_all(connection, walk.add_worker(connection))
        assert sorted(row.claim_seq for row in walk.live(connection)) == [0, 1]


def test_an_ordered_endpoint_gets_the_next_only_after_the_last_has_ended(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, ordered=True)
        for n in range(3):
            walk.emit(connection, object_id=f"o{n}", now=later(n))
        worker_id = walk.add_worker(connection)
        (first,) = walk.claim_all(connection, worker_id, now=later(10))
        assert first.event.object_id == "o0"
        walk.record(connection, [walk.result(first, walk.retry(60.0), worker_id=worker_id)], now=later(11))
        # The second is due, and waits all the same: the first has not ended.
        assert walk.claim_all(connection, worker_id, now=later(30)) == []
        (again,) = walk.claim_all(connection, worker_id, now=later(71))
        assert again.delivery_id == first.delivery_id
        walk.record(connection, [walk.result(again, worker_id=worker_id)], now=later(72))
        (second,) = walk.claim_all(connection, worker_id, now=later(73))
        assert second.event.object_id == "o1"
        walk.record(connection, [walk.result(second, walk.EXHAUSTED, worker_id=worker_id)], now=later(74))
        (third,) = walk.claim_all(connection, worker_id, now=later(75))
        assert third.event.object_id == "o2"
        assert walk.per_endpoint([third]) == {endpoint.id: 1}


def test_what_was_accepted_before_the_endpoint_was_ordered_is_put_in_order(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 2)
        walk.rows(connection, "UPDATE dispatcher.endpoints SET ordered = true RETURNING id")
        worker_id = walk.add_worker(connection)
        assert walk.claim_all(connection, worker_id) == []
        prune(connection, now=NOW)
        deliveries.wake(connection, endpoint.id, now=NOW)
        assert len(walk.claim_all(connection, worker_id)) == 1


def test_a_held_type_holds_what_comes_after_it_in_order(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection, ordered=True)
        walk.emit(connection, type_="payment.failed")
        walk.emit(connection, type_="refund.failed", now=later(1))
        pause(connection, event_type="payment.*", type_pattern="payment.%")
        worker_id = walk.add_worker(connection)
        assert walk.claim_all(connection, worker_id, now=later(5)) == []
        unpause(connection, endpoint.id)
        assert types(connection, walk.claim_all(connection, worker_id, now=later(5))) == ["payment.failed"]


def blocked(connection: Connection, limit: int, *, now: Any = NOW) -> None:
    """One more attempt that met an address that may not be dialled."""
    worker_id = walk.add_worker(connection, now=now)
    (claim,) = walk.claim(connection, worker_id, now=now, room=1)
    result = walk.result(claim, walk.retry(0.0), BLOCKED, worker_id=worker_id, blocked_limit=limit)
    walk.record(connection, [result], now=now)


def status(connection: Connection, endpoint_id: UUID) -> tuple[Any, ...]:
    (row,) = walk.rows(
        connection,
        "SELECT status, status_reason, blocked, version FROM dispatcher.endpoints WHERE id = :id",
        id=endpoint_id,
    )
    return tuple(row)


def test_addresses_that_may_not_be_dialled_disable_the_endpoint_after_so_many_in_a_row(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection)
        blocked(connection, 3)
        blocked(connection, 3, now=later(1))
        assert status(connection, endpoint.id) == ("active", None, 2, 1)
        blocked(connection, 3, now=later(2))
        reason = "3 attempts in a row met an address that may not be dialled"
        assert status(connection, endpoint.id) == ("disabled", reason, 0, 2)
        (row,) = walk.live(connection)
        assert row.state == "waiting"
        history = walk.rows(connection, "SELECT version, status FROM dispatcher.endpoint_history ORDER BY version")
        assert [tuple(one) for one in history] == [(1, "active"), (2, "disabled")]
        (entry,) = walk.rows(
            connection, "SELECT actor, action, object, after FROM dispatcher.audit_log WHERE actor = 'worker'"
        )
        assert tuple(entry)[:3] == ("worker", "endpoint.disabled", f"ep_{endpoint.id}")
        assert entry.after == {"status": "disabled", "status_reason": reason}


def test_an_address_that_answers_in_between_starts_the_count_anew(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = walk.add_endpoint(connection)
        walk.emit(connection, 2)
        blocked(connection, 2)
        worker_id = walk.add_worker(connection)
        (claim,) = walk.claim(connection, worker_id, now=later(1), room=1)
        walk.record(connection, [walk.result(claim, walk.retry(0.0), worker_id=worker_id)], now=later(1))
        assert status(connection, endpoint.id) == ("active", None, 0, 1)
        blocked(connection, 2, now=later(2))
        assert status(connection, endpoint.id)[0] == "active"


def test_an_answer_that_disables_is_in_the_audit_log_once(engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection, 3)
        worker_id = walk.add_worker(connection)
        claims = walk.claim_all(connection, worker_id)
        stop = Stop("rejected", "gone 410", disable_endpoint=True)
        gone = Outcome(OutcomeClass.GONE, status_code=410, duration_ms=1.0)
        walk.record(connection, [walk.result(claim, stop, gone, worker_id=worker_id) for claim in claims])
        (entry,) = walk.rows(connection, "SELECT after FROM dispatcher.audit_log WHERE actor = 'worker'")
        assert entry.after == {"status": "disabled", "status_reason": "gone 410"}


def test_in_order_is_by_ids_and_what_is_committed_late_comes_late(engine: Engine) -> None:
    """Two producers at once: ids are made as they emit, and nobody waits for what is not committed. So the receiver
    sees the second one first. What is emitted after both are committed comes after both.
    """
    with engine.begin() as connection:
        walk.add_endpoint(connection, ordered=True)
        worker_id = walk.add_worker(connection, now=None)

    def deliver_next() -> UUID:
        with engine.begin() as connection:
            (claim,) = walk.claim(connection, worker_id, now=None)
            walk.record(connection, [walk.result(claim)], now=None)
        return claim.event.id

    with engine.begin() as slow:
        first = walk.emit(slow, now=None)[0].id
        with engine.begin() as fast:
            second = walk.emit(fast, now=None)[0].id
        assert deliver_next() == second
    with engine.begin() as connection:
        third = walk.emit(connection, now=None)[0].id
    assert [deliver_next(), deliver_next()] == [first, third]
