"""Schemas of event types: what is one, and what payloads meet it."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.flow import event_schemas

MONEY = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"$ref": "#/$defs/minor"}},
    "$defs": {"minor": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ([], "/schema"),
        ("text", "/schema"),
        ({"type": "objekt"}, "/schema/type"),
        ({"properties": {"a": {"minimum": "low"}}}, "/schema/properties/a/minimum"),
        ({"$ref": "https://example.com/schema"}, "/schema/$ref"),
        ({"properties": {"a/b": {"$ref": "file:///etc/passwd"}}}, "/schema/properties/a~1b/$ref"),
        ({"$dynamicRef": 7}, "/schema/$dynamicRef"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema"),
        ({"const": "x" * 70_000}, "/schema"),
    ],
)
def test_what_is_no_schema_is_refused_by_its_place(schema: Any, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        event_schemas.write_schema(schema)
    assert refused.value.pointer == pointer


def test_a_payload_that_meets_the_schema_passes() -> None:
    text = event_schemas.write_schema(MONEY)
    event_schemas.check(text, b'{"amount": 1000}', "/payload")


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (b"[]", "/payload"),
        (b"{}", "/payload"),
        (b'{"amount": -1}', "/payload/amount"),
        (b'{"amount": "1"}', "/payload/amount"),
    ],
)
def test_a_payload_that_does_not_is_refused_by_its_place(payload: bytes, pointer: str) -> None:
    text = event_schemas.write_schema(MONEY)
    with pytest.raises(InvalidInput) as refused:
        event_schemas.check(text, payload, "/payload")
    assert refused.value.pointer == pointer


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/none"}, {"$ref": "#"}])
def test_a_reference_to_nothing_or_to_itself_is_an_answer_and_no_crash(schema: Any) -> None:
    text = event_schemas.write_schema(schema)
    with pytest.raises(InvalidInput):
        event_schemas.check(text, b"1", "/payload")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_is_asked_for_is_a_schema_or_refused(asked: Any) -> None:
    try:
        text = event_schemas.write_schema(asked)
    except (InvalidInput, orjson.JSONEncodeError):
        return
    with contextlib.suppress(InvalidInput):
        event_schemas.check(text, b'{"a": [1, "b"]}', "/payload")
