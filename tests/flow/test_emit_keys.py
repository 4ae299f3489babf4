"""Idempotency keys, and an event's own id as one: a repeat is no second event, and no key has two meanings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from dispatcher import Event
from dispatcher.errors import IdempotencyConflict, InvalidInput
from dispatcher.flow.enqueue import ID_LIFETIME, KEY_LIFETIME, enqueue
from dispatcher.ids import uuid7
from dispatcher.local.postgres import EmbeddedPostgres
from dispatcher.model.event import body_hash, validate
from tests.support import walk
from tests.support.producers import count, shared_database, wipe
from tests.support.walk import NOW

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


def event(key: str | None = "k", payload: Any = 1, **values: Any) -> Event:
    return Event(type=values.pop("type_", "a"), payload=payload, idempotency_key=key, **values)


def add_tenant(connection: Any, parent_id: UUID | None = None) -> UUID:
    id_ = uuid7()
    connection.execute(
        text("INSERT INTO dispatcher.tenants (id, name, parent_id) VALUES (:id, :name, :parent_id)"),
        {"id": id_, "name": str(id_), "parent_id": parent_id},
    )
    return id_


def test_a_repeat_answers_with_the_first_event_before_and_after_the_commit(engine: Engine) -> None:
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        (first,) = enqueue(connection, [event()], now=NOW)
        (again,) = enqueue(connection, [event()], now=NOW)
        connection.commit()
        (later,) = enqueue(connection, [event()], now=NOW + KEY_LIFETIME - timedelta(seconds=1))
        assert (again.id, later.id) == (first.id, first.id)
        assert [one.duplicate for one in (first, again, later)] == [False, True, True]
        assert [one.fanout for one in (first, again, later)] == [1, None, None]
        assert count(connection, "events") == count(connection, "deliveries") == 1


def test_a_key_is_free_again_after_a_day(engine: Engine) -> None:
    with engine.connect() as connection:
        (first,) = enqueue(connection, [event()], now=NOW)
        (second,) = enqueue(connection, [event(payload=2)], now=NOW + KEY_LIFETIME)
        assert not second.duplicate
        assert second.id != first.id
        (again,) = enqueue(connection, [event(payload=2)], now=NOW + KEY_LIFETIME + HOUR)
        assert (again.id, again.duplicate) == (second.id, True)


@pytest.mark.parametrize(
    "other",
    [
        event(payload=2),
        event(payload=b" 1"),
        event(payload="1"),
        event(type_="b"),
        event(mode="test"),
        event(object_id="None"),
        event(not_before=NOW),
        event(expires_at=NOW),
    ],
    ids=lambda other: f"{other.type} {other.payload!r} {other.mode} {other.object_id} {other.not_before}",
)
def test_another_body_conflicts_and_changes_nothing(engine: Engine, other: Event) -> None:
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        enqueue(connection, [event()])
        with pytest.raises(IdempotencyConflict, match="the key 'k' was already used with a different body"):
            enqueue(connection, [other])
        with pytest.raises(IdempotencyConflict, match="event 2: the key 'k'"):
            enqueue(connection, [event("new"), event(None), other, event("newer")])
        for table in ("events", "deliveries", "idempotency", "wakes"):
            assert count(connection, table) == 1
        assert not enqueue(connection, [event("new", 7)])[0].duplicate


def test_the_payloads_bytes_are_what_is_compared(engine: Engine) -> None:
    with engine.connect() as connection:
        enqueue(connection, [event(payload={"a": 1, "b": 2})])
        assert enqueue(connection, [event(payload=b'{"a":1,"b":2}')])[0].duplicate
        for other in ({"b": 2, "a": 1}, b'{"a": 1, "b": 2}'):
            with pytest.raises(IdempotencyConflict):
                enqueue(connection, [event(payload=other)])


def test_the_same_instant_in_another_time_zone_is_the_same_body(engine: Engine) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45, seconds=7)))
    with engine.connect() as connection:
        enqueue(connection, [event(not_before=NOW, expires_at=NOW + HOUR)])
        (again,) = enqueue(connection, [event(not_before=elsewhere, expires_at=elsewhere + HOUR)])
        assert again.duplicate


def test_within_a_batch_the_first_one_counts(engine: Engine) -> None:
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        enqueue(connection, [event("old")])
        batch = [event("new"), event(None), event("old"), event("new"), event(None)]
        accepted = enqueue(connection, batch)
        assert [one.duplicate for one in accepted] == [False, False, True, True, False]
        assert accepted[3].id == accepted[0].id
        assert count(connection, "events") == count(connection, "deliveries") == 4
        with pytest.raises(IdempotencyConflict, match="event 1: the key 'newer'"):
            enqueue(connection, [event("newer"), event("newer", 2)])
        assert count(connection, "idempotency") == 2


def test_a_key_means_something_else_to_another_tenant(engine: Engine) -> None:
    with engine.connect() as connection:
        tenants = [add_tenant(connection), add_tenant(connection)]
        accepted = enqueue(connection, [event(payload=n, tenant_id=id_) for n, id_ in enumerate(tenants)])
        assert [one.duplicate for one in accepted] == [False, False]


def test_an_unknown_tenant_takes_no_key(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(InvalidInput, match="/1/tenant_id"):
            enqueue(connection, [event("new"), event("k", tenant_id=uuid7())])
        assert count(connection, "idempotency") == 0


def test_an_events_own_id_is_its_key(engine: Engine) -> None:
    id_ = uuid7(NOW)
    with engine.connect() as connection:
        walk.add_endpoint(connection)
        (first,) = enqueue(connection, [event(None, id=id_)], now=NOW)
        assert (first.id, first.duplicate, first.fanout) == (id_, False, 1)
        batch = enqueue(connection, [event(None), event(None, id=id_), event(None, id=uuid7(NOW))], now=NOW)
        assert [one.duplicate for one in batch] == [False, True, False]
        with pytest.raises(IdempotencyConflict, match=f"'evt_{id_}'"):
            enqueue(connection, [event(None, 2, id=id_)], now=NOW)
        with pytest.raises(IdempotencyConflict, match="event 1"):
            enqueue(connection, [event(None, 1, id=(twice := uuid7(NOW))), event(None, 2, id=twice)], now=NOW)
        assert count(connection, "events") == 3


def test_an_own_id_is_remembered_for_as_long_as_it_is_accepted(engine: Engine) -> None:
    ahead = uuid7(NOW + 23 * HOUR)
    with engine.connect() as connection:
        enqueue(connection, [event(None, id=ahead)], now=NOW)
        (again,) = enqueue(connection, [event(None, id=ahead)], now=NOW + 46 * HOUR)
        assert (again.id, again.duplicate) == (ahead, True)
        with pytest.raises(InvalidInput, match="within a day of now"):
            enqueue(connection, [event(None, id=ahead)], now=NOW + 48 * HOUR)
    assert timedelta(days=2) < ID_LIFETIME


@pytest.mark.parametrize("several", [False, True])
def test_an_id_that_another_event_has_is_refused_and_no_broken_transaction(engine: Engine, several: bool) -> None:
    with engine.connect() as connection:
        other_tenant = add_tenant(connection)
        (made,) = enqueue(connection, [event(None)])  # its id was ours to choose
        taken = event(None, id=made.id)
        mine = uuid7()
        enqueue(connection, [event(None, id=mine)])
        theirs = event(None, id=mine, tenant_id=other_tenant)
        for clash in (taken, theirs):
            batch = [clash, event(None, id=uuid7())] if several else [clash]
            named = f"evt_{clash.id} … evt_{batch[-1].id}, one of which" if several else f"evt_{clash.id};"
            with pytest.raises(InvalidInput, match=named) as refused:
                enqueue(connection, batch)
            assert refused.value.pointer == "/id"
        assert count(connection, "events") == 2
        assert count(connection, "idempotency") == 1


@pytest.mark.parametrize(
    "values",
    [
        {"id": uuid4()},
        {"id": uuid7(NOW - timedelta(days=1, minutes=1))},
        {"id": uuid7(NOW + timedelta(days=1, minutes=1))},
        {"id": "evt_01890a5d-ac96-774b-bcce-b302099a8057"},
        {"id": uuid7(NOW), "key": "k"},
    ],
    ids=["version 4", "old", "ahead", "text", "beside a key"],
)
def test_an_id_that_cannot_be_one_is_refused(engine: Engine, values: dict[str, Any]) -> None:
    with engine.connect() as connection:
        key = values.pop("key", None)
        with pytest.raises(InvalidInput) as refused:
            enqueue(connection, [event(key, **values)], now=NOW)
        assert refused.value.pointer == ("/idempotency_key" if key else "/id")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=JSON, second=JSON)
def test_any_json_value_is_kept_byte_for_byte_and_repeats_only_itself(engine: Engine, first: Any, second: Any) -> None:
    same = validate(event(payload=first)) == validate(event(payload=second))
    with engine.connect() as connection:  # rolled back each time
        (accepted,) = enqueue(connection, [event(payload=first)])
        assert enqueue(connection, [event(payload=first)])[0].id == accepted.id
        (row,) = walk.rows(connection, "SELECT payload FROM dispatcher.events")
        assert bytes(row.payload) == validate(event(payload=first))
        if same:
            assert enqueue(connection, [event(payload=second)])[0].duplicate
        else:
            with pytest.raises(IdempotencyConflict):
                enqueue(connection, [event(payload=second)])
        connection.rollback()


def test_what_a_key_stands_for_covers_every_field_of_the_body() -> None:
    bodies = [
        event(),
        event(object_id="None"),
        event(object_id="x"),
        event(not_before=NOW),
        event(expires_at=NOW),
        event(mode="test"),
        event(type_="b"),
        event(payload=[1]),
    ]
    assert len({body_hash(one, validate(one)) for one in bodies}) == len(bodies)
