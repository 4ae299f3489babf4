"""What an event becomes: one delivery for each endpoint that wants it, or a refusal that says why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher import Event
from dispatcher.errors import InvalidInput
from dispatcher.flow.enqueue import CHUNK, enqueue
from dispatcher.ids import created_at, uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.event import MAX_PAYLOAD_BYTES
from tests.support import walk
from tests.support.producers import count, shared_database, wipe
from tests.support.walk import NOW


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


def emit(connection: Connection, type_: str = "payment.completed", payload: Any = 1, **values: Any) -> UUID:
    (accepted,) = enqueue(connection, [Event(type=type_, payload=payload, **values)], now=NOW)
    return accepted.id


def add_tenant(connection: Connection, parent_id: UUID | None = None) -> UUID:
    id_ = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name, parent_id) VALUES (:id, :name, :parent_id)"),
        {"id": id_, "name": str(id_), "parent_id": parent_id},
    )
    return id_


def receivers(connection: Connection, event_id: UUID) -> Counter[UUID]:
    return Counter(row.endpoint_id for row in walk.live(connection) if row.event_id == event_id)


@pytest.mark.parametrize(
    ("wanted", "matching", "others"),
    [
        (None, ["a", "payment.completed", "x-y.z"], []),
        (("*",), ["a", "payment.completed"], []),
        (("payment.*",), ["payment.completed", "payment.a.b"], ["payment", "payments.a", "refund.payment.a"]),
        (("payment.completed", "refund.*"), ["payment.completed", "refund.failed"], ["payment.failed", "refund"]),
        (("payment_sent",), ["payment_sent"], ["payment.sent", "paymentXsent"]),
        (("a_b.*",), ["a_b.c"], ["aXb.c"]),
        (("Payment.*",), ["Payment.x"], ["payment.x"]),
    ],
)
def test_an_endpoint_gets_the_types_that_it_names(
    engine: Engine, wanted: tuple[str, ...] | None, matching: list[str], others: list[str]
) -> None:
    with engine.connect() as connection:
        walk.add_endpoint(connection, event_types=wanted)
        kinds = matching + others
        accepted = enqueue(connection, [Event(type=kind, payload=1) for kind in kinds])
        got = [kind for kind, one in zip(kinds, accepted, strict=True) if one.fanout == 1]
        assert got == matching
        assert sorted(row.event_type for row in walk.live(connection)) == sorted(matching)


def test_every_endpoint_that_wants_it_gets_one_delivery(engine: Engine) -> None:
    with engine.connect() as connection:
        wanting = [walk.add_endpoint(connection, event_types=("payment.*", "payment.completed")).id for _ in range(3)]
        walk.add_endpoint(connection, event_types=("refund.*",))
        event_id = emit(connection)
        assert receivers(connection, event_id) == Counter(wanting)
        (event,) = walk.rows(connection, "SELECT fanout FROM dispatcher.events")
        assert event.fanout == 3
        wakes = walk.rows(connection, "SELECT endpoint_id, due_at FROM dispatcher.wakes")
        assert Counter(wakes) == Counter((id_, NOW) for id_ in wanting)


def test_an_event_that_nobody_wants_is_recorded_as_such(engine: Engine) -> None:
    with engine.connect() as connection:
        (accepted,) = enqueue(connection, [Event(type="a", payload=1)])
        assert (accepted.fanout, accepted.duplicate) == (0, False)
        (event,) = walk.rows(connection, "SELECT id, fanout FROM dispatcher.events")
        assert (event.id, event.fanout) == (accepted.id, 0)
        assert walk.live(connection) == []
        assert count(connection, "wakes") == 0


def test_parents_hear_their_childrens_events_and_not_the_other_way_round(engine: Engine) -> None:
    with engine.connect() as connection:
        top = add_tenant(connection)
        middle = add_tenant(connection, top)
        leaf, sibling = add_tenant(connection, middle), add_tenant(connection, middle)
        at = {id_: walk.add_endpoint(connection, tenant_id=id_).id for id_ in (top, middle, leaf, sibling)}
        for tenant_id, expected in ((leaf, [leaf, middle, top]), (middle, [middle, top]), (top, [top])):
            event_id = emit(connection, tenant_id=tenant_id)
            assert receivers(connection, event_id) == Counter(at[id_] for id_ in expected)
            assert {row.tenant_id for row in walk.live(connection) if row.event_id == event_id} == set(expected)


def test_tenants_that_are_one_anothers_parents_get_one_delivery_each(engine: Engine) -> None:
    with engine.connect() as connection:
        one = add_tenant(connection)
        other = add_tenant(connection, one)
        connection.execute(text("UPDATE dispatcher.tenants SET parent_id = :o WHERE id = :i"), {"o": other, "i": one})
        at = [walk.add_endpoint(connection, tenant_id=id_).id for id_ in (one, other)]
        assert receivers(connection, emit(connection, tenant_id=one)) == Counter(at)


def test_a_disabled_endpoint_gets_a_held_delivery_and_a_deleted_one_none(engine: Engine) -> None:
    with engine.connect() as connection:
        disabled = walk.add_endpoint(connection, status="disabled", status_reason="by hand")
        deleted = walk.add_endpoint(connection)
        connection.execute(
            text("UPDATE dispatcher.endpoints SET status = 'deleted' WHERE id = :id"), {"id": deleted.id}
        )
        assert receivers(connection, emit(connection)) == Counter([disabled.id])
        assert walk.claim(connection, walk.add_worker(connection)) == []


@pytest.mark.parametrize("place", [0, 1, CHUNK + 1])
def test_an_unknown_tenant_is_refused_before_anything_is_inserted(engine: Engine, place: int) -> None:
    events = [Event(type="a", payload=1) for _ in range(place)] + [Event(type="a", payload=1, tenant_id=uuid7())]
    with engine.connect() as connection:
        with pytest.raises(InvalidInput, match="a tenant that exists") as refused:
            enqueue(connection, events)
        assert refused.value.pointer == (f"/{place}/tenant_id" if place else "/tenant_id")
        assert count(connection, "events") == 0


def test_when_a_delivery_is_due(engine: Engine) -> None:
    with engine.connect() as connection:
        walk.add_schedule(connection, 90, 5, name="later")
        now, later = walk.add_endpoint(connection), walk.add_endpoint(connection, schedule="later")
        soon, late = NOW + timedelta(seconds=30), NOW + timedelta(hours=1)
        expires_at = NOW + timedelta(days=1)
        for not_before, due_now, due_later in (
            (None, NOW, NOW + timedelta(seconds=90)),
            (NOW - timedelta(days=1), NOW, NOW + timedelta(seconds=90)),
            (soon, soon, NOW + timedelta(seconds=90)),
            (late.astimezone(timezone(timedelta(hours=-7))), late, late),
        ):
            event_id = emit(connection, not_before=not_before, expires_at=expires_at)
            due = {row.endpoint_id: row.due_at for row in walk.live(connection) if row.event_id == event_id}
            assert due == {now.id: due_now, later.id: due_later}
        assert {row.expires_at for row in walk.live(connection)} == {expires_at}
        wakes = walk.rows(connection, "SELECT DISTINCT due_at FROM dispatcher.wakes")
        assert {row.due_at for row in wakes} == {row.due_at for row in walk.live(connection)}


def test_deliveries_pin_the_schedules_newest_version(engine: Engine) -> None:
    with engine.connect() as connection:
        walk.add_schedule(connection, 0, 5, name="mine")
        walk.add_endpoint(connection, schedule="mine")
        emit(connection)
        walk.add_schedule(connection, 0, 7, name="mine")
        emit(connection)
        walk.add_schedule(connection, 0, 5, name="mine")
        emit(connection)
        first, second, third = (row.schedule_id for row in sorted(walk.live(connection), key=lambda row: row.id))
        versions = {
            row.id: orjson.loads(row.body)
            for row in walk.rows(connection, "SELECT id, body FROM dispatcher.schedule_versions WHERE name = 'mine'")
        }
    assert len({first, second, third}) == len(versions) == 2


def test_2500_events_in_three_statements(engine: Engine) -> None:
    with engine.connect() as connection:
        endpoints = [walk.add_endpoint(connection, event_types=(f"t{n}", "all")) for n in range(3)]
        events = [Event(type=f"t{n % 3}", payload={"n": n}, object_id=f"o{n}") for n in range(2498)]
        accepted = enqueue(connection, [*events, Event(type="all", payload=1), Event(type="none", payload=1)])
        assert [one.fanout for one in accepted] == [1] * 2498 + [3, 0]
        assert len({one.id for one in accepted}) == count(connection, "events") == 2500
        live = walk.live(connection)
        assert len(live) == 2501
        where = {row.event_id: row.endpoint_id for row in live}
        assert all(where[one.id] == endpoints[n % 3].id for n, one in enumerate(accepted[:2498]))
        stored = {row.id: row for row in walk.rows(connection, "SELECT id, payload, object_id FROM dispatcher.events")}
        for n, one in enumerate(accepted[:2498]):
            assert (orjson.loads(stored[one.id].payload), stored[one.id].object_id) == ({"n": n}, f"o{n}")
        assert count(connection, "wakes") == 9


def test_ids_carry_the_time_and_never_meet(engine: Engine) -> None:
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        accepted = enqueue(connection, [Event(type="a", payload=1)] * 500, now=NOW)
        assert len({one.id for one in accepted}) == 500
        assert {created_at(one.id) for one in accepted} == {NOW}
        assert {created_at(row.id) for row in walk.live(connection)} == {NOW}


NAIVE = datetime(2026, 3, 2, 9, 0)
RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize(
    ("values", "pointer", "found"),
    [
        ({"type": ""}, "/type", "''"),
        ({"type": "a b"}, "/type", "'a b'"),
        ({"type": "a."}, "/type", "'a.'"),
        ({"type": "a\0"}, "/type", r"'a\x00'"),
        ({"type": "a\n"}, "/type", r"'a\n'"),
        ({"type": "\ud800"}, "/type", r"'\ud800'"),
        ({"type": "a" * 129}, "/type", "'aaa"),
        ({"type": None}, "/type", "None"),
        ({"object_id": "pay\0"}, "/object_id", r"'pay\x00'"),
        ({"object_id": "\udfff"}, "/object_id", r"'\udfff'"),
        ({"object_id": ""}, "/object_id", "''"),
        ({"object_id": "x" * 201}, "/object_id", "'xxx"),
        ({"object_id": 17}, "/object_id", "17"),
        ({"idempotency_key": "k\0"}, "/idempotency_key", r"'k\x00'"),
        ({"idempotency_key": ""}, "/idempotency_key", "''"),
        ({"idempotency_key": "k" * 256}, "/idempotency_key", "'kkk"),
        ({"not_before": NAIVE}, "/not_before", "datetime.datetime(2026, 3, 2, 9, 0)"),
        ({"expires_at": NAIVE}, "/expires_at", "datetime.datetime(2026, 3, 2, 9, 0)"),
        ({"expires_at": "2026-03-02T09:00:00Z"}, "/expires_at", "'2026-03-02T09:00:00Z'"),
        ({"not_before": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, "/not_before", "datetime"),
        ({"mode": "prod"}, "/mode", "'prod'"),
        ({"tenant_id": "ten_1"}, "/tenant_id", "'ten_1'"),
        ({"tenant_id": None}, "/tenant_id", "None"),
        ({"payload": float("nan")}, "/payload", "nan"),
        ({"payload": {"a": [None, {"b": float("-inf")}]}}, "/payload/a/1/b", "-inf"),
        ({"payload": 2**64}, "/payload", "int (Integer exceeds 64-bit range)"),
        ({"payload": {1: 2}}, "/payload", "dict (Dict key must be str)"),
        ({"payload": {"a": "\ud800"}}, "/payload", "surrogates not allowed"),
        ({"payload": {"a": Decimal("1.10")}}, "/payload", "Decimal is not JSON"),
        ({"payload": {"at": NAIVE}}, "/payload", "a datetime without a time zone"),
        ({"payload": {1, 2}}, "/payload", "set is not JSON"),
        ({"payload": RECURSIVE}, "/payload", "nested more than 128 levels"),
        ({"payload": bytearray(b"1")}, "/payload", "bytearray"),
        ({"payload": b""}, "/payload", "bytes that are not JSON"),
        ({"payload": b"{'a': 1}"}, "/payload", "bytes that are not JSON"),
        ({"payload": b"NaN"}, "/payload", "bytes that are not JSON"),
        ({"payload": b'"\xff"'}, "/payload", "bytes that are not JSON"),
        ({"payload": b'"\\ud800"'}, "/payload", "bytes that are not JSON"),
        ({"payload": b"1 2"}, "/payload", "bytes that are not JSON"),
        ({"payload": "x" * (MAX_PAYLOAD_BYTES - 1)}, "/payload", f"{MAX_PAYLOAD_BYTES + 1} bytes"),
        ({"payload": b" " * (MAX_PAYLOAD_BYTES + 1)}, "/payload", f"{MAX_PAYLOAD_BYTES + 1} bytes"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_accepted_says_where_and_what_is_allowed(
    values: dict[str, Any], pointer: str, found: str
) -> None:
    complete: dict[str, Any] = {"type": "a", "payload": 1} | values
    event = Event(**complete)
    unused: Any = None  # refused before the database hears of it
    with pytest.raises(InvalidInput) as refused:
        enqueue(unused, [event])
    assert refused.value.pointer == pointer
    assert found in refused.value.found
    assert refused.value.allowed
    str(refused.value).encode()
    with pytest.raises(InvalidInput) as refused:
        enqueue(unused, [Event(type="a", payload=1), event])
    assert refused.value.pointer == f"/1{pointer}"


KEPT: list[tuple[Any, bytes]] = [
    ("\0", rb'"\u0000"'),
    ("é😀", '"é😀"'.encode()),
    (b' {"b" : 1.50,\n"a":18446744073709551617} ', b' {"b" : 1.50,\n"a":18446744073709551617} '),
    ([None, True, 2**64 - 1, -(2**63), 0.5], b"[null,true,18446744073709551615,-9223372036854775808,0.5]"),
    ({"at": NOW, "on": date(2026, 3, 2)}, b'{"at":"2026-03-02T09:00:00+00:00","on":"2026-03-02"}'),
    ({"id": UUID(int=7)}, b'{"id":"00000000-0000-0000-0000-000000000007"}'),
    ("x" * (MAX_PAYLOAD_BYTES - 2), b'"' + b"x" * (MAX_PAYLOAD_BYTES - 2) + b'"'),
    ((1, [2]), b"[1,[2]]"),
]


def test_a_payload_is_kept_as_these_bytes(engine: Engine) -> None:
    with engine.connect() as connection:
        for payload, stored in KEPT:
            id_ = emit(connection, payload=payload, object_id="é😀 \\ ' %s :x", mode="test")
            (event,) = walk.rows(connection, "SELECT * FROM dispatcher.events WHERE id = :id", id=id_)
            assert event.payload == stored
            assert (event.object_id, event.mode, event.created_at) == ("é😀 \\ ' %s :x", "test", NOW.astimezone(UTC))


def test_an_event_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Event(type="a", payload=1).type = "b"  # type: ignore[misc]
