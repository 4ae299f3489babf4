"""From JSON to an event: what is asked of its text."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.model.event import Mode, Target, validate
from dispatcher.model.json_text import MAX_DEPTH, CheckedText
from dispatcher.model.parse import MAX_BATCH, parse_event, read_batch, read_event, read_line, read_object

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


@pytest.mark.parametrize(
    ("text", "pointer", "found"),
    [
        (b"[]", "/", "list"),
        (b'{"evnts": []}', "/evnts", "a field that does not exist"),
        (b"{}", "/events", "nothing"),
        (b'{"events": {}}', "/events", "dict"),
        (b'{"events": []}', "/events", "0 events"),
        (b'{"events": [' + b"1," * MAX_BATCH + b"1]}", "/events", f"{MAX_BATCH + 1} events"),
        (b'{"events": 1, "events": [1]}', "/events", "the field twice"),
        (b'{"events": [1], "events": [1, 2]}', "/events", "the field twice"),
        (b'{"events": [1, 2], "events": [1]}', "/events", "the field twice"),
        (b'{"events": [], "events": [1]}', "/events", "the field twice"),
        (b"[" * 1_000, "/", None),
    ],
)
def test_what_is_not_a_batch_is_refused(text: bytes, pointer: str, found: str | None) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_batch(text)
    assert refused.value.pointer == pointer
    assert found in {None, refused.value.found}


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ([], "/"),
        ({"type": "a.b", "payload": b"1", "palyoad": b"1"}, "/palyoad"),
        ({"payload": b"1"}, "/type"),
        ({"type": "a.b"}, "/payload"),
        ({"type": 1, "payload": b"1"}, "/type"),
        ({"type": "a.b", "payload": b"1", "id": "dlv_1"}, "/id"),
        ({"type": "a.b", "payload": b"1", "mode": "tets"}, "/mode"),
        ({"type": "a.b", "payload": b"1", "target": "https://a.example"}, "/target"),
        ({"type": "a.b", "payload": b"1", "target": {"uri": "https://a.example"}}, "/target/uri"),
        ({"type": "a.b", "payload": b"1", "target": {"method": "GET"}}, "/target/url"),
        ({"type": "a.b", "payload": b"1", "not_before": "tomorrow"}, "/not_before"),
        ({"type": "a.b", "payload": b"1", "expires_at": "2026-01-31T12:00:00"}, "/expires_at"),
    ],
)
def test_what_is_not_an_event_is_refused_by_the_name_of_its_field(values: object, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_event(values)
    assert refused.value.pointer == pointer


def test_every_field_of_an_event_is_read() -> None:
    event = parse_event(
        {
            "type": "payment.completed",
            "payload": b"1",
            "id": "evt_01890a5d-ac96-774b-bcce-b302099a8057",
            "mode": "test",
            "not_before": "2026-01-31T12:00:00Z",
        }
    )
    assert (event.mode, str(event.id)) == (Mode.TEST, "01890a5d-ac96-774b-bcce-b302099a8057")
    assert event.not_before == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("line", [b"{", b"[" * 1_000, b"[]", b'{"type": "", "payload": 1}'])
def test_a_line_that_is_not_an_event_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_line(line, 7)
    assert refused.value.pointer.startswith("line 7")


def test_a_payload_that_nests_too_deeply_is_left_to_be_checked_with_its_event() -> None:
    depth = MAX_DEPTH + 10
    (event,) = read_batch(b'{"events": [{"payload": ' + b"[" * depth + b"]" * depth + b"}]}")
    assert isinstance(event, dict)
    assert type(event["payload"]) is bytes
