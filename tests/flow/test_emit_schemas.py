"""`emit()` keeps to the schema of the event's type, whatever is installed and whenever the schema was stored."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import orjson
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from dispatcher import Event, emit, wiring
from dispatcher.errors import InvalidInput, Unavailable
from dispatcher.flow import enqueue
from dispatcher.local.postgres import EmbeddedPostgres
from tests.support import walk
from tests.support.producers import count, shared_database, wipe

RECURSIVE = {"items": {"$ref": "#"}}


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    yield from shared_database(postgres, migrated_template)


@pytest.fixture
def migrated_database_url(shared: str) -> str:
    return wipe(shared)


@pytest.fixture
def stored(engine: Engine) -> Iterator[Engine]:
    """A type with a schema of the present version, and one that an earlier version has stored."""
    schemas = {"payment.paid": {"type": "object"}, "payment.old": RECURSIVE}
    with engine.begin() as connection:
        for name, schema in schemas.items():
            connection.execute(
                text("INSERT INTO dispatcher.event_types (name, schema) VALUES (:name, :schema)"),
                {"name": name, "schema": orjson.dumps(schema).decode()},
            )
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dispatcher.event_types"))


@pytest.fixture
def no_validator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which only the dependencies are installed."""
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    monkeypatch.delitem(sys.modules, "dispatcher.flow.event_schemas", raising=False)
    monkeypatch.delattr("dispatcher.flow.event_schemas", raising=False)


@pytest.mark.usefixtures("no_validator")
def test_without_the_validator_an_event_of_a_type_with_a_schema_is_refused_and_the_extra_named(stored: Engine) -> None:
    with Session(stored) as session, session.begin():
        with pytest.raises(Unavailable, match=r"pip install 'dispatcher-webhooks\[schemas\]'"):
            emit(session, Event(type="payment.paid", payload={}))
        emit(session, Event(type="payment.other", payload={}))
    with stored.begin() as connection:
        assert count(connection, "events") == 1


@pytest.mark.usefixtures("no_validator")
def test_without_the_validator_each_of_a_batch_raises_and_none_is_skipped(stored: Engine) -> None:
    with stored.begin() as connection, pytest.raises(Unavailable):
        enqueue.enqueue_each(
            connection, [Event(type="payment.other", payload=1), Event(type="payment.paid", payload={})]
        )


@pytest.mark.usefixtures("no_validator")
def test_what_prepares_a_database_does_not_leave_schemas_unchecked(stored: Engine) -> None:
    with stored.connect() as connection, pytest.raises(Unavailable, match="need the validator"):
        wiring.check_schemas(connection)
    with pytest.raises(Unavailable, match="need the validator"):
        wiring.check_validator()


def test_a_schema_of_an_earlier_version_is_told_when_the_database_is_prepared(
    stored: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with stored.connect() as connection, caplog.at_level(logging.WARNING):
        wiring.check_schemas(connection)
    (line,) = caplog.messages
    assert line.startswith(
        'schema.refused event_type=payment.old reason="/schema/items/$ref: found a recursive reference'
    )


def test_events_of_a_type_whose_schema_has_no_bound_are_refused(stored: Engine) -> None:
    with Session(stored) as session, session.begin():
        with pytest.raises(InvalidInput, match="once its schema has been replaced") as refused:
            emit(session, Event(type="payment.old", payload=[]))
        emit(session, Event(type="payment.paid", payload={}))
    assert refused.value.pointer == "/payload"


def pauses(connection: Connection, payloads: list[object]) -> int:
    """How often others have a turn while events with these payloads are accepted."""
    turns: list[None] = []
    events = [Event(type="payment.paid", payload=payload) for payload in payloads]
    enqueue.enqueue_each(connection, events, now=walk.NOW, pause=lambda: turns.append(None))
    return len(turns)


def test_others_have_a_turn_between_payloads_that_take_long(stored: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored.begin() as connection:
        assert pauses(connection, [{}] * 10) == 0
        monkeypatch.setattr(enqueue, "PAUSE_STEPS", 1)
        assert pauses(connection, [{}] * 10) == 10
        monkeypatch.setattr(enqueue, "PAUSE_STEPS", 50)
        assert pauses(connection, [1] * 20) == 2  # each was refused, and counts a tenth
