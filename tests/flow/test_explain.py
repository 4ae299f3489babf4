"""Why an event went where it went, endpoint by endpoint, as of the moment at which it was accepted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher import Event
from dispatcher.clock import SYSTEM
from dispatcher.flow import replay
from dispatcher.flow.enqueue import enqueue
from dispatcher.flow.explain import Explained, explain
from dispatcher.ids import DEFAULT_TENANT, uuid7
from dispatcher.model.endpoint import EndpointStatus
from dispatcher.model.event import Target, Verdict
from dispatcher.store import endpoints, log
from tests.support import walk


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def add_tenant(connection: Connection, parent_id: UUID | None = None) -> UUID:
    id_ = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name, parent_id) VALUES (:id, :name, :parent_id)"),
        {"id": id_, "name": str(id_), "parent_id": parent_id},
    )
    return id_


def set_back(connection: Connection) -> None:
    """What was done so far was done an hour ago."""
    for table, column in (("endpoint_history", "changed_at"), ("endpoints", "created_at"), ("pauses", "created_at")):
        connection.execute(text(f"UPDATE dispatcher.{table} SET {column} = {column} - interval '1 hour'"))


def emit(connection: Connection, type_: str = "payment.paid", **values: Any) -> UUID:
    set_back(connection)
    (accepted,) = enqueue(connection, [Event(type=type_, payload=1, **values)])
    return accepted.id


def explained(connection: Connection, event_id: UUID, only: UUID | None = None) -> dict[UUID, Explained]:
    event = log.find_event(connection, event_id)
    assert event is not None
    found = explain(connection, event, now=SYSTEM.now() + timedelta(seconds=1), only=only)
    assert len({one.endpoint_id for one in found}) == len(found)
    for one in found:
        has_delivery = one.verdict in (Verdict.MATCHED, Verdict.DISABLED, Verdict.PAUSED, Verdict.LIMITED)
        assert (one.delivery is not None) == has_delivery
    return {one.endpoint_id: one for one in found}


def test_each_endpoint_is_told_with_the_rule_that_decided(connection: Connection) -> None:
    matching = walk.add_endpoint(connection, event_types=("refund.*", "payment.*"))
    everything = walk.add_endpoint(connection)
    filtered = walk.add_endpoint(connection, event_types=("refund.*",))
    two = walk.add_endpoint(connection, event_types=("refund.*", "payment.failed"))
    found = explained(connection, emit(connection))
    assert {id_: one.verdict for id_, one in found.items()} == {
        matching.id: Verdict.MATCHED,
        everything.id: Verdict.MATCHED,
        filtered.id: Verdict.FILTERED,
        two.id: Verdict.FILTERED,
    }
    assert found[matching.id].rule == "event_types payment.* matches payment.paid (version 1 of the endpoint)"
    assert found[everything.id].rule.startswith("no event_types: it hears all, also payment.paid")
    assert found[filtered.id].rule == "event_types refund.* does not match payment.paid (version 1 of the endpoint)"
    assert "refund.*, payment.failed do not match" in found[two.id].rule
    delivery = found[matching.id].delivery
    assert delivery is not None
    assert (delivery.endpoint_id, delivery.state) == (matching.id, "waiting")


def test_an_event_that_matched_nobody_is_explained_too(connection: Connection) -> None:
    assert explained(connection, emit(connection)) == {}
    endpoint = walk.add_endpoint(connection, event_types=("payment.*",))
    assert explained(connection, emit(connection, "refund.paid"))[endpoint.id].verdict is Verdict.FILTERED


def test_what_was_changed_later_does_not_count(connection: Connection) -> None:
    deleted = walk.add_endpoint(connection)
    changed = walk.add_endpoint(connection, event_types=("payment.*",))
    event_id = emit(connection)
    endpoints.set_status(connection, deleted.id, EndpointStatus.DELETED, "deleted")
    connection.execute(
        text("""UPDATE dispatcher.endpoints
                SET event_types = '{refund.*}', type_patterns = '{refund.%}', version = 2 WHERE id = :id"""),
        {"id": changed.id},
    )
    connection.execute(
        text("""INSERT INTO dispatcher.endpoint_history (endpoint_id, version, event_types, status)
                VALUES (:id, 2, '{refund.*}', 'active')"""),
        {"id": changed.id},
    )
    later = walk.add_endpoint(connection)
    found = explained(connection, event_id)
    assert found[deleted.id].verdict is Verdict.MATCHED
    assert found[changed.id].rule == "event_types payment.* matches payment.paid (version 1 of the endpoint)"
    assert found[later.id].verdict is Verdict.NOT_REGISTERED_YET
    second = explained(connection, emit(connection))
    assert second[deleted.id].verdict is Verdict.DELETED
    assert second[changed.id].rule == "event_types refund.* does not match payment.paid (version 2 of the endpoint)"
    assert second[later.id].verdict is Verdict.MATCHED


def test_an_endpoint_that_was_disabled_holds_its_delivery(connection: Connection) -> None:
    before, after = walk.add_endpoint(connection), walk.add_endpoint(connection)
    endpoints.set_status(connection, before.id, EndpointStatus.DISABLED, "merchant asked")
    event_id = emit(connection)
    endpoints.set_status(connection, after.id, EndpointStatus.DISABLED, "later")
    found = explained(connection, event_id)
    assert {one.verdict for one in found.values()} == {Verdict.DISABLED}
    assert "it was disabled then (merchant asked)" in found[before.id].rule
    assert "disabled since" in found[after.id].rule


def test_a_pause_is_told(connection: Connection) -> None:
    paused, other = walk.add_endpoint(connection), walk.add_endpoint(connection)
    connection.execute(
        text("""INSERT INTO dispatcher.pauses (id, endpoint_id, event_type, type_pattern, reason, created_by)
                VALUES (:id, :endpoint_id, 'payment.*', 'payment.%', 'maintenance', 'me')"""),
        {"id": uuid7(), "endpoint_id": paused.id},
    )
    found = explained(connection, emit(connection))
    assert found[paused.id].verdict is Verdict.PAUSED
    assert found[paused.id].rule.endswith("a pause of payment.* holds it (maintenance)")
    assert found[other.id].verdict is Verdict.MATCHED
    assert explained(connection, emit(connection, "refund.paid"))[paused.id].verdict is Verdict.MATCHED


def test_what_waits_for_room_is_limited(connection: Connection) -> None:
    capped, rated, later = (walk.add_endpoint(connection) for _ in range(3))
    connection.execute(text("UPDATE dispatcher.lanes SET capped = endpoint_id = :id"), {"id": capped.id})
    connection.execute(text("UPDATE dispatcher.endpoints SET rate_limit = 5 WHERE id = :id"), {"id": rated.id})
    found = explained(connection, emit(connection))
    assert found[capped.id].verdict is Verdict.LIMITED
    assert "in flight" in found[capped.id].rule
    assert found[rated.id].verdict is Verdict.LIMITED
    assert "5 attempts a second" in found[rated.id].rule
    assert found[later.id].verdict is Verdict.MATCHED
    in_a_day = explained(connection, emit(connection, not_before=SYSTEM.now() + timedelta(days=1)))
    assert {one.verdict for one in in_a_day.values()} == {Verdict.MATCHED}


def test_a_target_overrides_the_tenants_endpoints_and_not_those_above(connection: Connection) -> None:
    parent = add_tenant(connection)
    tenant = add_tenant(connection, parent)
    own, above = walk.add_endpoint(connection, tenant_id=tenant), walk.add_endpoint(connection, tenant_id=parent)
    event_id = emit(connection, tenant_id=tenant, target=Target("https://shop.example.com/orders/1"))
    found = explained(connection, event_id)
    assert found[own.id].verdict is Verdict.OVERRIDDEN_BY_TARGET
    assert found[above.id].verdict is Verdict.MATCHED
    (target,) = found.keys() - {own.id, above.id}
    assert (found[target].verdict, found[target].rule) == (Verdict.MATCHED, "the event has a target of its own")
    ordinary = explained(connection, emit(connection, tenant_id=tenant))
    assert ordinary.keys() == {own.id, above.id}
    assert explained(connection, event_id, only=tenant).keys() == {own.id, target}


def test_what_neither_owns_nor_is_above_the_tenant_is_not_told(connection: Connection) -> None:
    walk.add_endpoint(connection)
    child, sibling = add_tenant(connection, DEFAULT_TENANT), add_tenant(connection)
    walk.add_endpoint(connection, tenant_id=child)
    walk.add_endpoint(connection, tenant_id=sibling)
    assert [one.tenant_id for one in explained(connection, emit(connection)).values()] == [DEFAULT_TENANT]
    found = explained(connection, emit(connection, tenant_id=child))
    assert {one.tenant_id for one in found.values()} == {DEFAULT_TENANT, child}


def test_of_a_delivery_and_its_replay_the_latest_is_told(connection: Connection) -> None:
    endpoint = walk.add_endpoint(connection)
    event_id = emit(connection)
    worker_id = walk.add_worker(connection, now=None)
    claims = walk.claim(connection, worker_id, now=None)
    walk.record(connection, [walk.result(claim, walk.EXHAUSTED) for claim in claims], now=None)
    replayed = replay.retry(connection, claims[0].delivery_id)
    found = explained(connection, event_id)[endpoint.id]
    assert found.delivery is not None
    assert (found.delivery.id, found.verdict) == (replayed, Verdict.MATCHED)
