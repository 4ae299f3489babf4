"""What the table of the platform's keys keeps, and refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError

from dispatcher.store import signing_keys as store
from dispatcher.store.signing_keys import SigningKey
from tests.support import walk
from tests.support.walk import NOW


@pytest.fixture(autouse=True)
def no_keys(engine: Engine) -> None:
    walk.forget_signing_keys(engine)


HOUR = timedelta(hours=1)
KEY = SigningKey(id="one", kind="rsa", public=b"public", sealed="v1.k1.x", created_at=NOW, signs_from=NOW + HOUR)


def test_a_key_is_kept_as_it_is_with_and_without_ends(engine: Engine) -> None:
    ends = replace(KEY, id="two", kind="ed25519", signs_until=NOW + 2 * HOUR, published_until=NOW + 3 * HOUR)
    with engine.begin() as connection:
        store.add(connection, KEY)
        store.add(connection, ends)
        assert store.list_(connection, kind="rsa") == [KEY]
        assert store.list_(connection, kind="ed25519") == [ends]
        ended = replace(KEY, signs_until=NOW, published_until=NOW)
        store.set_ends(connection, ended)
        assert store.list_(connection, kind="rsa") == [ended]
        store.set_ends(connection, KEY)
        assert store.list_(connection) == [KEY, ends]


def test_the_newest_beginning_comes_first(engine: Engine) -> None:
    keys = [
        replace(KEY, id="later", signs_from=NOW + 2 * HOUR),
        replace(KEY, id="made later", created_at=NOW + HOUR),
        replace(KEY, id="a"),
        replace(KEY, id="b"),
        replace(KEY, id="earlier", signs_from=NOW),
    ]
    with engine.begin() as connection:
        for key in reversed(keys):
            store.add(connection, key)
        assert store.list_(connection) == keys


def test_a_key_is_published_from_its_making_to_its_end(engine: Engine) -> None:
    with engine.begin() as connection:
        store.add(connection, replace(KEY, signs_until=NOW + HOUR, published_until=NOW + 2 * HOUR))
        for hours, count in ((-1, 0), (0, 1), (1.9, 1), (2, 0), (3, 0)):
            found = store.published(connection, now=NOW + hours * HOUR)
            assert len(found) == count, hours
            assert all(one.is_published(NOW + hours * HOUR) for one in found)
        assert store.published(connection) == [], "by the database's clock it is over"


def test_no_key_signs_longer_than_it_is_published(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(IntegrityError):
        store.add(connection, replace(KEY, signs_until=NOW + 2 * HOUR, published_until=NOW + HOUR))
    with engine.begin() as connection, pytest.raises(IntegrityError):
        store.add(connection, replace(KEY, published_until=NOW + HOUR))


def test_changes_take_turns_and_readers_do_not_wait(engine: Engine) -> None:
    with engine.begin() as first:
        store.lock(first)
        with engine.begin() as reader:
            reader.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            assert store.published(reader) == []
        with engine.begin() as second:
            second.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(OperationalError, match="lock timeout"):
                store.lock(second)


def test_a_key_signs_from_its_beginning_to_before_its_end() -> None:
    key = replace(KEY, signs_until=NOW + 2 * HOUR)
    assert [key.signs(NOW + hours * HOUR) for hours in (0, 1, 1.9, 2)] == [False, True, True, False]
    assert [key.signs_after(NOW + hours * HOUR) for hours in (0, 1, 1.9, 2)] == [True, True, True, False]
    assert not replace(KEY, signs_until=NOW).signs_after(NOW - HOUR), "ended before it began"
    assert KEY.signs_after(NOW + 1000 * HOUR)


def test_nothing_shows_what_was_sealed() -> None:
    assert "v1.k1" not in repr(KEY)
