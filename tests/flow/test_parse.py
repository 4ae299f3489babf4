"""From JSON to an event: what is asked of its text."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.flow.parse import parse_event, read_batch, read_event, read_line, read_object
from dispatcher.model.event import Target, validate
from dispatcher.model.json_text import CheckedText

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


def test_what_is_marked_as_checked_goes_no_further_than_the_check() -> None:
    text = b'{"type": "a", "payload": {"amount": 0.10}}'
    read = read_object(text)
    assert isinstance(read, dict)
    assert type(read["payload"]) is bytes
    (of_batch,) = read_batch(b'{"events": [%b]}' % text)
    for values in (read_event(text), of_batch):
        assert isinstance(values, dict)
        assert type(values["payload"]) is CheckedText
        payload = validate(parse_event(values))
        assert type(payload) is bytes
        assert payload == read["payload"]


@pytest.mark.parametrize("text", [b"[1]", b"5", b"{}", b'"payload"'])
def test_what_has_no_payload_is_read_as_ever(text: bytes) -> None:
    assert read_object(text) == orjson.loads(text)


def test_a_line_keeps_the_digits_of_its_numbers() -> None:
    event = read_line(b'{"type": "a", "payload": {"amount": 0.10, "n": 123456789012345678901234567890}}\n', 1)
    assert event["payload"] == b'{"amount": 0.10, "n": 123456789012345678901234567890}'
    assert parse_event({"type": "a", "payload": {"b": 1}}).payload == {"b": 1}


@given(
    st.lists(st.dictionaries(st.sampled_from(["payload", "type", "a\\"]), VALUES) | VALUES, min_size=1, max_size=5),
    st.sampled_from([None, 1]),
)
def test_each_event_of_a_batch_is_read_as_it_would_be_alone(events: list[object], indent: int | None) -> None:
    alone = [read_object(json.dumps(event, indent=indent).encode()) for event in events]
    in_batch = read_batch(json.dumps({"events": events}, indent=None).encode())
    assert len(in_batch) == len(alone)
    for one, other in zip(in_batch, alone, strict=True):
        if indent is None:
            assert one == other
        if isinstance(one, dict) and "payload" in one:
            assert isinstance(other, dict)
            assert json.loads(one["payload"]) == json.loads(other["payload"])


@given(
    st.lists(st.sampled_from(['"events"', "[1]", "[]", "7", '{"payload": [2]}', ",", ":", "[", "]", " "]), max_size=12)
)
def test_no_batch_is_read_as_another_one(parts: list[str]) -> None:
    text = "{" + "".join(parts) + "}"
    try:
        found = read_batch(text.encode())
    except (ValueError, InvalidInput):
        return
    assert found == [{**one, "payload": b"[2]"} if isinstance(one, dict) else one for one in json.loads(text)["events"]]


def test_a_target_is_read() -> None:
    event = parse_event({"type": "a", "payload": 1, "target": {"url": "https://a.example.com", "method": None}})
    assert event.target == Target("https://a.example.com")
    assert parse_event({"type": "a", "payload": 1, "target": None}).target is None


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"[" + b",".join([b"[" * 60 + b"]" * 60] * 4000) + b"]", "240004 objects and arrays"),
        (b"[" + b",".join([b"0"] * 1_100_000) + b"]", "1100004 values"),
    ],
)
def test_a_batch_that_would_hold_up_the_api_is_refused_before_it_is_read(payload: bytes, found: str) -> None:
    with pytest.raises(InvalidInput, match=found):
        read_batch(b'{"events": [{"type": "a", "payload": ' + payload + b"}]}")


def test_brackets_and_commas_in_strings_are_no_values() -> None:
    text = json.dumps({"events": [{"type": "a", "payload": '[{,"' * 500_000}]}).encode()
    assert len(read_batch(text)) == 1
