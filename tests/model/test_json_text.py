"""How deep JSON text nests, and what has no JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import json_text


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b'"[[[[[["', 0),
        (b"[[], [], []]", 2),
        (b'{"a": [{}, {}], "b": [1]}', 3),
        (b"[[[[[1]]], [2]]]", 5),
        (b'["[\\"]]]", {"[[[[": [0]}]', 3),
    ],
)
def test_depth_is_of_brackets_outside_of_strings(text: bytes, depth: int) -> None:
    assert not json_text.is_deeper(text, depth)
    assert depth == 0 or json_text.is_deeper(text, depth - 1)


@pytest.mark.parametrize(
    ("text", "deeper"), [(b"[[[[[[", True), (b"]]]]]]]]", False), (b"[[]]]]", False), (b"][][][][[[[", True)]
)
def test_of_what_is_not_json_what_is_open_counts(text: bytes, deeper: bool) -> None:
    assert json_text.is_deeper(text, 2) is deeper


def test_dates_and_instants_are_text_and_naive_instants_are_refused() -> None:
    at = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    assert json_text.write([at, date(2026, 3, 2), time(9, 0)], "/payload") == (
        b'["2026-03-02T09:00:00+00:00","2026-03-02","09:00:00"]'
    )
    with pytest.raises(InvalidInput, match="without a time zone"):
        json_text.write(datetime(2026, 3, 2, 9, 0), "/payload")


@pytest.mark.parametrize(
    ("value", "place"), [(float("nan"), "/payload"), ({"a": [1, (float("inf"),)]}, "/payload/a/1/0")]
)
def test_a_number_that_is_not_finite_is_refused_by_its_place(value: object, place: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        json_text.write(value, "/payload")
    assert refused.value.pointer == place


def test_what_nests_too_deeply_is_refused_written_or_read() -> None:
    deep: list[object] = []
    for _ in range(3):
        deep = [deep]
    for depth in (3, 2):
        with pytest.raises(InvalidInput, match=f"nested more than {depth} levels"):
            json_text.write(deep, "/payload", depth=depth)
        with pytest.raises(InvalidInput, match=f"nested more than {depth} levels"):
            json_text.read(b"[[[[]]]]", "/payload", depth=depth)
    for _ in range(300):  # beyond what the writer itself takes
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested more than 128 levels"):
        json_text.write(deep, "/payload")


def test_an_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(InvalidInput, match="int"):
        json_text.write(2**64, "/payload")
