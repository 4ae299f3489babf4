"""Where the time of an attempt went is kept with it, whatever is known of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from dispatcher.model.outcome import Timings
from dispatcher.store import log
from tests.support import walk


@pytest.mark.parametrize(
    "timings",
    [
        (1.5, 2.25, 3.0, 4.75),
        (1.5, 2.25, None, 4.75),
        (None, None, None, 4.75),
        (1.5, None, None, None),
        None,
    ],
)
def test_the_log_has_the_times_that_the_attempt_had(engine: Engine, timings: Timings | None) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        walk.emit(connection)
        (claim,) = walk.claim(connection, walk.add_worker(connection))
        outcome = replace(walk.FAILED, timings_ms=timings)
        walk.record(connection, [walk.result(claim, walk.retry(5), outcome)])
        (found,) = log.attempts(connection, claim.delivery_id)
        assert found.timings == (None if timings is None else list(timings))
        by_id = log.find_attempt(connection, found.id)
        assert by_id == (claim.delivery_id, found)
