"""An id of the producer's own: a UUIDv7 of about now."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine

from dispatcher.errors import InvalidInput
from dispatcher.ids import uuid7
from tests.support import walk
from tests.support.walk import NOW


@pytest.mark.parametrize("offset", [timedelta(hours=-23), timedelta(0), timedelta(hours=23)], ids=str)
def test_an_id_within_a_day_of_now_is_kept(engine: Engine, offset: timedelta) -> None:
    id_ = uuid7(NOW + offset)
    with engine.begin() as connection:
        assert walk.emit(connection, id=id_)[0].id == id_


@pytest.mark.parametrize(
    "id_",
    [
        uuid7(NOW - timedelta(hours=25)),
        uuid7(NOW + timedelta(hours=25)),
        UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"),
        UUID("00000000-0000-7000-8000-000000000000"),
        UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ],
    ids=["25 hours ago", "in 25 hours", "the year 10889", "1970", "version 1"],
)
def test_any_other_id_is_refused(engine: Engine, id_: UUID) -> None:
    with engine.begin() as connection, pytest.raises(InvalidInput) as error:
        walk.emit(connection, id=id_)
    assert error.value.pointer == "/id"
