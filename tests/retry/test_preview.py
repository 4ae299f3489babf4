from __future__ import annotations

from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.retry import RetrySchedule, load_catalog, preview, shipped_schedules_dir
from tests.retry.strategies import schedules


def test_the_ladder_is_laid_out_with_its_offsets() -> None:
    planned = preview(load_catalog(shipped_schedules_dir())["standard"])
    assert [attempt.number for attempt in planned] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert planned[3].wait == timedelta(minutes=30)
    assert planned[3].earliest == timedelta(minutes=35, seconds=5)
    assert all(attempt.latest == attempt.earliest for attempt in planned)


@given(schedules())
def test_the_last_attempt_is_no_sooner_than_the_total(schedule: RetrySchedule) -> None:
    assert preview(schedule)[-1].earliest == schedule.total


@given(schedules(), st.integers())
def test_every_draw_of_the_jitter_lies_between_earliest_and_latest(schedule: RetrySchedule, seed: int) -> None:
    uniform = Random(seed).uniform
    offset_s, rounding_s = 0.0, 1e-3
    for attempt in preview(schedule):
        delay_s = schedule.delay_s(attempt.number, uniform)
        offset_s = delay_s if schedule.from_first_attempt else offset_s + delay_s
        assert attempt.earliest.total_seconds() - rounding_s <= offset_s <= attempt.latest.total_seconds() + rounding_s
