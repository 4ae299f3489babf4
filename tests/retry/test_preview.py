from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.retry import RetrySchedule, ahead, load_catalog, preview, shipped_schedules_dir
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


AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@given(schedules())
def test_what_is_ahead_of_a_new_delivery_is_the_preview(schedule: RetrySchedule) -> None:
    first, *rest = preview(schedule)
    start = AT + first.earliest
    planned = ahead(schedule, 1, start)
    assert [one.number for one in planned] == [one.number for one in preview(schedule)]
    for dated, laid in zip(planned[1:], rest, strict=True):
        assert dated.earliest == AT + laid.earliest
        assert dated.latest == start + (laid.latest - first.latest)


def test_what_is_ahead_starts_at_the_next_attempt() -> None:
    standard = load_catalog(shipped_schedules_dir())["standard"]
    seventh, eighth = ahead(standard, 7, AT, first_at=AT - timedelta(hours=8))
    assert (seventh.number, seventh.earliest, seventh.latest) == (7, AT, AT)
    assert (eighth.number, eighth.earliest) == (8, AT + timedelta(hours=10))
    assert [one.number for one in ahead(standard, 9, AT)] == [9]


def test_offsets_run_from_the_first_attempt_and_never_back() -> None:
    waits = tuple(timedelta(minutes=n) for n in (0, 5, 10, 60))
    schedule = RetrySchedule("offsets", waits, relative_to="first_attempt", jitter=0.5)
    late = ahead(schedule, 2, AT + timedelta(minutes=20), first_at=AT)
    assert [(one.earliest - AT, one.latest - AT) for one in late[1:]] == [
        (timedelta(minutes=20), timedelta(minutes=20)),
        (timedelta(minutes=60), timedelta(minutes=90)),
    ]
