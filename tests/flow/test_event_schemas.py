"""Schemas of event types: what is one, and what payloads meet it."""

from __future__ import annotations

import contextlib
from typing import Any

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


WORDS = (
    *("$ref", "$dynamicRef", "$id", "$anchor", "$defs", "definitions", "properties", "items", "not", "allOf", "type"),
    *("object", "integer", "pattern", "patternProperties", "required", "uniqueItems", "multipleOf", "contains", "enum"),
    *("a", "b", "#", "#a", "#/$defs/a", "#/definitions/a", "#/properties/a", "#/items", "^a", "unevaluatedProperties"),
)


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
        ({"$ref": "#/$defs/none"}, "/schema/$ref"),
        ({"$ref": "#/type/x", "type": "object"}, "/schema/$ref"),
        ({"$ref": "#/maximum/x", "maximum": 5}, "/schema/$ref"),
        ({"$ref": "#/const", "const": 5}, "/schema/$ref"),
        ({"$ref": "#/x", "x": {"type": 5}}, "/schema/$ref/type"),
        ({"$ref": "#"}, "/schema"),
        ({"not": {"$ref": "#"}}, "/schema"),
        ({"allOf": [{"type": "object"}, {"$ref": "#"}]}, "/schema"),
        ({"$id": "https://example.com/", "$ref": "#none"}, "/schema/$ref"),
        ({"$defs": {"a": {"$id": "https://example.com/"}}}, "/schema/$defs/a/$id"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema"),
        ({"const": "x" * 70_000}, "/schema"),
        ({"const": 2**64}, "/schema"),
        ({"const": "\ud800"}, "/schema"),
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


def test_references_stay_inside() -> None:
    schema = {"$id": "https://example.com/", "$anchor": "a", "properties": {"next": {"$ref": "#a"}}, "type": "object"}
    text = event_schemas.write_schema(schema)
    event_schemas.check(text, b'{"next": {"next": {}}}', "/payload")
    with pytest.raises(InvalidInput):
        event_schemas.check(text, b'{"next": {"next": 1}}', "/payload")


def test_a_payload_that_is_nested_too_deeply_is_an_answer_and_no_crash() -> None:
    text = event_schemas.write_schema({"items": {"$ref": "#"}, "not": {"type": "string"}})
    event_schemas.check(text, b"[" * 20 + b"]" * 20, "/payload")
    with pytest.raises(InvalidInput, match="nested too deeply"):
        event_schemas.check(text, b"[" * 900 + b"]" * 900, "/payload")


def test_a_panic_at_the_recursion_limit_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # pyo3's name
        pass

    def panic(*_: object) -> Any:
        raise PanicException

    text = event_schemas.write_schema(MONEY)
    monkeypatch.setattr(event_schemas, "_validator", panic)
    with pytest.raises(InvalidInput, match="nested too deeply"):
        event_schemas.check(text, b"{}", "/payload")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(WORDS),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(WORDS), inner),
    )
)
def test_whatever_is_asked_for_is_a_schema_or_refused(asked: Any) -> None:
    try:
        text = event_schemas.write_schema(asked)
    except InvalidInput:
        return
    with contextlib.suppress(InvalidInput):
        event_schemas.check(text, b'{"a": [1, "b"]}', "/payload")
