from __future__ import annotations

import contextlib
import doctest
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model import duration
from dispatcher.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("5s", 5),
        ("90s", 90),
        ("5m", 300),
        ("30m", 1_800),
        ("2h", 7_200),
        ("10h", 36_000),
        ("1d", 86_400),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        ("1d2h3m4s5ms", 93_784.005),
        ("1m1ms", 60.001),
        ("007s", 7),
    ],
)
def test_a_duration_reads_as_people_mean_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "s", "5 s", " 5s", "5s\n", "-5s", "+5s", "1.5h", "1,5h", "5S", "5sec", "5min", "1w", "1y"),
        *("30m1h", "1h1h", "5ms5s", "٥s", "1e3s", "0x5s", "1_000s", "∞"),
        *("9" * 65 + "s", "9" * 5_000 + "s", "9" * 60 + "d"),
    ],
)
def test_what_is_no_duration_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration|longer than") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200


@given(st.integers(min_value=0, max_value=10**15))
def test_what_is_written_reads_back(ms: int) -> None:
    wait = timedelta(milliseconds=ms)
    assert parse_duration(format_duration(wait)) == wait


@given(st.text(max_size=80))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(duration).failed == 0
