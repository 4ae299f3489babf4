"""What a status means, and what a Retry-After asks for."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.egress import classify
from dispatcher.model.outcome import OutcomeClass
from dispatcher.model.retry_after import parse_retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@given(st.integers(0, 999), st.booleans(), st.sampled_from(["any_2xx", frozenset({200}), frozenset({200, 204})]))
def test_every_status_has_a_class(status: int, has_retry_after: bool, success: object) -> None:
    kind = classify(status, has_retry_after=has_retry_after, success=success)  # type: ignore[arg-type]
    accepted = 200 <= status < 300 and (success == "any_2xx" or status in success)  # type: ignore[operator]
    assert (kind is OutcomeClass.OK) is accepted
    assert (kind is OutcomeClass.THROTTLED) is (status == 429 or (status == 503 and has_retry_after))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7\t", 7.0),
        ("0", 0.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("1000000000000", None),
        ("999999999999", 999_999_999_999.0),
        ("-1", None),
        ("1e12", None),
        ("inf", None),
        ("nan", None),
        ("٧", None),
        ("7s", None),
        ("7, 8", None),
        ("", None),
        ("soon", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thursday, 01-Jan-26 12:00:30 GMT", 30.0),
        ("Thu Jan  1 12:00:30 2026", 30.0),
        ("Thu, 01 Jan 2026 13:00:30 +0100", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 99 Jan 2026 12:00:30 GMT", None),
        ("Thu, 01 Jan 99999 12:00:30 GMT", None),
        ("Thu, 01 Jan 2026 12:00:30 +9999999999", None),
    ],
)
def test_what_a_retry_after_asks_for(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_raises(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds < 10**12


@given(st.text(alphabet="0123456789 ,:+-JanFebGMTSunThu", max_size=64))
def test_nothing_that_looks_like_a_date_raises(value: str) -> None:
    seconds = parse_retry_after("Thu, " + value, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10**9))
def test_a_date_is_read_back(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize("module", ["addresses", "outcome", "url"])
def test_the_examples_in_the_docstrings_hold(module: str) -> None:
    assert doctest.testmod(import_module(f"dispatcher.egress.{module}")).failed == 0
