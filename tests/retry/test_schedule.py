from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.retry import RetrySchedule, load_catalog, shipped_schedules_dir
from tests.retry.strategies import schedules

SECOND = timedelta(seconds=1)
STEPS = RetrySchedule("steps", (0 * SECOND, 5 * SECOND, 300 * SECOND))
OFFSETS = RetrySchedule("offsets", (0 * SECOND, 5 * SECOND, 300 * SECOND), relative_to="first_attempt")


def test_the_shipped_ladder_is_eight_attempts_over_27_35_05() -> None:
    standard = load_catalog(shipped_schedules_dir())["standard"]
    assert standard.relative_to == "previous_failure"
    assert [wait.total_seconds() for wait in standard.waits] == [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 36_000]
    assert (standard.attempts, standard.jitter) == (8, 0.0)
    assert standard.total == timedelta(hours=27, minutes=35, seconds=5)


def test_the_shipped_exponential_schedule_is_seven_attempts_over_126_minutes() -> None:
    exponential = load_catalog(shipped_schedules_dir())["exponential"]
    assert [wait // timedelta(minutes=1) for wait in exponential.waits] == [0, 2, 4, 8, 16, 32, 64]
    assert exponential.total == timedelta(minutes=126)


def test_the_shipped_schedules_raise_no_warning() -> None:
    assert load_catalog(shipped_schedules_dir()).warnings == ()


def test_the_total_of_offsets_is_the_last_of_them() -> None:
    assert STEPS.total == 305 * SECOND
    assert OFFSETS.total == 300 * SECOND


def test_the_wait_before_attempt_n_is_the_nth() -> None:
    assert [STEPS.wait_before(attempt) for attempt in (1, 2, 3)] == list(STEPS.waits)


@pytest.mark.parametrize("attempt", [-1, 0, 4])
def test_there_is_no_wait_before_an_attempt_that_does_not_exist(attempt: int) -> None:
    with pytest.raises(IndexError, match="1 to 3"):
        STEPS.wait_before(attempt)


def test_the_step_before_an_attempt_is_the_gap_to_the_one_before() -> None:
    assert [STEPS.step_before(attempt) // SECOND for attempt in (1, 2, 3)] == [0, 5, 300]
    assert [OFFSETS.step_before(attempt) // SECOND for attempt in (1, 2, 3)] == [0, 5, 295]


@given(schedules(), st.data(), st.integers())
def test_jitter_only_lengthens_and_never_beyond_its_bound(
    schedule: RetrySchedule, data: st.DataObject, seed: int
) -> None:
    attempt = data.draw(st.integers(min_value=1, max_value=schedule.attempts))
    wait_s = schedule.wait_before(attempt).total_seconds()
    delay_s = schedule.delay_s(attempt, Random(seed).uniform)
    assert wait_s <= delay_s <= wait_s * (1 + schedule.jitter) * (1 + 1e-12)


def test_a_draw_below_one_does_not_shorten_a_wait() -> None:
    assert replace(STEPS, jitter=0.5).delay_s(2, lambda low, high: 0.1) == 5.0


def test_without_jitter_nothing_is_drawn() -> None:
    def never(low: float, high: float) -> float:
        raise AssertionError

    assert STEPS.delay_s(2, never) == 5.0


@given(schedules())
def test_the_canonical_text_reads_back(schedule: RetrySchedule) -> None:
    read = RetrySchedule.from_canonical(schedule.name, schedule.canonical())
    assert read == schedule
    assert read.version == schedule.version


def test_the_canonical_text_and_version_of_the_ladder_never_change() -> None:
    """Rows that hold them outlive every release: were this to fail, all pinned deliveries would miss their rows."""
    standard = load_catalog(shipped_schedules_dir())["standard"]
    assert standard.canonical() == (
        '{"jitter":0.0,"relative_to":"previous_failure",'
        '"waits_ms":[0,5000,300000,1800000,7200000,18000000,36000000,36000000]}'
    )
    assert standard.version == "60417363571e634334e1a751077eecb468fd8365ad75065c24e99bdae1e7e8ad"


def test_only_what_changes_behaviour_makes_a_new_version() -> None:
    assert replace(STEPS, name="other", description="d", source="s", jitter=-0.0).version == STEPS.version
    assert replace(STEPS, jitter=0.1).version != STEPS.version
    assert replace(STEPS, waits=STEPS.waits[:2]).version != STEPS.version
    assert OFFSETS.version != STEPS.version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"jitter":0.0,"relative_to":"previous_failure","waits_ms":[]}',
        '{"jitter":0.0,"relative_to":"previous_failure","waits_ms":["0s"]}',
        '{"jitter":0.0,"relative_to":"previous_failure","waits_ms":[1e300]}',
        '{"jitter":0.0,"relative_to":"previous_failure","waits_ms":[-1]}',
        '{"jitter":null,"relative_to":"previous_failure","waits_ms":[0]}',
        '{"jitter":NaN,"relative_to":"previous_failure","waits_ms":[0]}',
        '{"jitter":0.0,"relative_to":"elsewhen","waits_ms":[0]}',
        '{"jitter": 0.0, "relative_to": "previous_failure", "waits_ms": [0]}',
        '{"jitter":0.0,"relative_to":"previous_failure","waits_ms":[0],"more":1}',
        "[" * 100_000,
    ],
)
def test_a_corrupt_stored_version_raises(text: str) -> None:
    with pytest.raises(ValueError, match="the stored version of schedule 'x' is"):
        RetrySchedule.from_canonical("x", text)


def test_a_stored_version_holds_nothing_of_the_name() -> None:
    assert set(json.loads(STEPS.canonical())) == {"jitter", "relative_to", "waits_ms"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"waits": ()},
        {"waits": (SECOND,) * 101},
        {"waits": (-SECOND,)},
        {"waits": (timedelta(days=31),)},
        {"waits": (timedelta(days=30),) * 13},
        {"waits": (timedelta(microseconds=1),)},
        {"relative_to": "now"},
        {"relative_to": "first_attempt", "waits": (SECOND, 2 * SECOND)},
        {"relative_to": "first_attempt", "waits": (0 * SECOND, SECOND, SECOND)},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": float("nan")},
    ],
)
def test_no_schedule_can_be_made_of_values_that_a_file_could_not_hold(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"waits|wait|relative_to|offsets|jitter"):
        RetrySchedule(**{"name": "wrong", "waits": (0 * SECOND,), **wrong})
