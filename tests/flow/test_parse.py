"""From JSON to an event: what is asked of its text."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.flow.parse import parse_event, parse_line, read_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["payload", "type", "a\\", 'b"', "{"]), VALUES), st.sampled_from([None, 1]))
def test_the_payload_is_the_text_between_its_neighbours(values: dict[str, object], indent: int | None) -> None:
    read = read_object(json.dumps(values, indent=indent).encode())
    assert isinstance(read, dict)
    assert read.keys() == values.keys()
    if "payload" in values:
        assert json.loads(read["payload"]) == values["payload"]
        assert read["payload"] in json.dumps(values, indent=indent).encode()


def test_of_two_payloads_the_last_one_counts_as_for_every_parser() -> None:
    assert read_object(b'{"payload": 1, "pay\\u006coad": 2}') == {"payload": b"2"}


@pytest.mark.parametrize("text", [b"[1]", b"5", b"{}", b'"payload"'])
def test_what_has_no_payload_is_read_as_ever(text: bytes) -> None:
    assert read_object(text) == orjson.loads(text)


def test_a_line_keeps_the_digits_of_its_numbers() -> None:
    event = parse_line(b'{"type": "a", "payload": {"amount": 0.10, "n": 123456789012345678901234567890}}\n', 1)
    assert event.payload == b'{"amount": 0.10, "n": 123456789012345678901234567890}'
    assert parse_event({"type": "a", "payload": {"b": 1}}).payload == {"b": 1}
