"""Schemas of event types: which can be stored, and which payloads meet them."""

from __future__ import annotations

import contextlib
import sys
from itertools import pairwise
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput, Unavailable
from dispatcher.flow import event_schemas, schema_bounds

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


def chained(links: int, keyword: str = "anyOf", times: int = 2) -> dict[str, Any]:
    """Each definition refers `times` times to the next: times^links sub-schemas with the references expanded."""
    definitions = {f"s{n}": {keyword: [{"$ref": f"#/$defs/s{n + 1}"}] * times} for n in range(links)}
    return {"$ref": "#/$defs/s0", "$defs": {**definitions, f"s{links}": {"type": "integer"}}}


def nested(levels: int, **around: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {**around, "allOf": [schema]}
    return schema


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ([], "/schema"),
        ("text", "/schema"),
        ({"type": "objekt"}, "/schema/type"),
        ({"items": {"required": [2**64 - 1 - n for n in range(3_000)]}}, "/schema/items/required/0"),
        ({"properties": {"a": {"minimum": "low"}}}, "/schema/properties/a/minimum"),
        ({"$ref": "https://example.com/schema"}, "/schema/$ref"),
        ({"properties": {"a/b": {"$ref": "file:///etc/passwd"}}}, "/schema/properties/a~1b/$ref"),
        ({"$ref": event_schemas.DIALECT}, "/schema/$ref"),
        ({"$dynamicRef": 7}, "/schema/$dynamicRef"),
        ({"$ref": "#/$defs/none"}, "/schema/$ref"),
        ({"$ref": "#none"}, "/schema/$ref"),
        ({"$ref": "#/%ff"}, "/schema/$ref"),
        ({"$ref": "#/type/x", "type": "object"}, "/schema/$ref"),
        ({"$ref": "#/maximum/x", "maximum": 5}, "/schema/$ref"),
        ({"$ref": "#/const", "const": 5}, "/schema/$ref"),
        ({"$ref": "#/x", "x": {"type": 5}}, "/schema/$ref"),
        ({"$ref": "#/x", "x": {"type": "object"}}, "/schema/$ref"),
        ({"$ref": "#/allOf/01", "allOf": [{}, {}]}, "/schema/$ref"),
        ({"$ref": "#"}, "/schema/$ref"),
        ({"not": {"$ref": "#"}}, "/schema/not/$ref"),
        ({"allOf": [{"type": "object"}, {"$ref": "#"}]}, "/schema/allOf/1/$ref"),
        ({"properties": {"next": {"$ref": "#"}}}, "/schema/properties/next/$ref"),
        ({"$anchor": "a", "items": {"$dynamicRef": "#a"}}, "/schema/items/$dynamicRef"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "/schema/$defs/a/items/$ref"),
        ({"$defs": {"a": {"$anchor": "x"}, "b": {"$dynamicAnchor": "x"}}}, "/schema/$defs/a"),
        ({"$id": "https://example.com/", "$ref": "#none"}, "/schema/$ref"),
        ({"$defs": {"a": {"$id": "https://example.com/"}}}, "/schema/$defs/a/$id"),
        ({"$defs": {"a": {"$schema": "http://json-schema.org/draft-04/schema#"}}}, "/schema/$defs/a/$schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema"),
        ({"const": "x" * 70_000}, "/schema"),
        ({"const": 2**64}, "/schema"),
        ({"const": "\ud800"}, "/schema"),
    ],
)
def test_an_invalid_schema_is_refused_by_its_place(schema: Any, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        event_schemas.write_schema(schema)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("schema", "pointer", "found"),
    [
        ({"pattern": "(?=a)b"}, "/schema/pattern", "(?=a)b"),
        ({"pattern": r"(a)\1"}, "/schema/pattern", r"(a)"),
        ({"items": {"pattern": "(?<!a)b"}}, "/schema/items/pattern", "(?<!a)b"),
        ({"patternProperties": {"^(?!a)": {}}}, "/schema/patternProperties/^(?!a)", "(?!a)"),
        ({"pattern": "((a{99}){99}){99}"}, "/schema/pattern", "a{99}"),
        ({"pattern": r"\p{L}{900}"}, "/schema/pattern", "900"),
        ({"pattern": r"\d" * 200}, "/schema/pattern", "400 characters"),
        (
            {"anyOf": [{"pattern": rf"{n:03}" + r"\d" * 120} for n in range(9)]},
            "/schema/anyOf/1/pattern",
            "patterns that",
        ),
        ({"items": {"multipleOf": 1e-300}}, "/schema/items/multipleOf", "1e-300"),
        ({"items": {"multipleOf": 1e300}}, "/schema/items/multipleOf", "1e+300"),
        (chained(31), "/schema", "sub-schemas with references expanded"),
        (chained(20, "oneOf", 30), "/schema", "more than 1,000,000,000,000 sub-schemas"),
        (chained(40), "/schema/$ref" + "/anyOf/0/$ref" * 31 + "/anyOf/0", "inside each other"),
        (chained(12, "allOf"), "/schema", "sub-schemas"),
        ({"allOf": [{}] * 2_000}, "/schema", "more than 2,000 sub-schemas"),
        ({"$defs": {str(n): {} for n in range(2_000)}}, "/schema", "more than 2,000 sub-schemas"),
        (nested(64), "/schema" + "/allOf/0" * 64, "more than 64 sub-schemas inside each other"),
        (nested(9, unevaluatedProperties=False), "/schema", "sub-schemas"),
        (nested(9, unevaluatedItems=False), "/schema", "sub-schemas"),
        ({"items": {"enum": [n + 0.5 for n in range(1_000)]}}, "/schema", "steps"),
        ({"allOf": [{"items": {"minimum": 0.5}}] * 600}, "/schema", "steps"),
        ({"not": {"pattern": "(a|b)*a(a|b){900}c"}}, "/schema", "steps"),
    ],
)
def test_a_schema_without_a_bound_is_refused(schema: Any, pointer: str, found: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        event_schemas.write_schema(schema)
    assert refused.value.pointer == pointer
    assert found in refused.value.found


def test_what_a_chain_of_references_weighs_is_computed_link_by_link(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[str] = []
    weigh = schema_bounds._Weigher._weigh

    def counted(self: Any, node: Any, pointer: str, level: int) -> Any:
        weighed.append(pointer)
        return weigh(self, node, pointer, level)

    monkeypatch.setattr(schema_bounds._Weigher, "_weigh", counted)
    with pytest.raises(InvalidInput, match="sub-schemas with references expanded"):
        event_schemas.write_schema(chained(31))
    assert len(weighed) == 1 + 31 * 3 + 1  # the root, each link with its two branches, the end


def weight(schema: Any) -> schema_bounds.Weight:
    return event_schemas._judge(event_schemas.write_schema(schema))[1]


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\p{L}+$",
        r"^\p{Lu}\p{Ll}*$",
        r"^\pL+$",
        r"^\P{L}+$",
        r"^\p{L}+( \p{L}+)*$",
        r"^[\p{L}\p{M}' -]+$",
        r"^\p{Script=Greek}+$",
        r"^(\p{L}|\d)+$",
    ],
)
def test_a_pattern_with_unicode_classes_has_room_for_an_ordinary_payload(pattern: str) -> None:
    text = event_schemas.write_schema({"properties": {"name": {"type": "string", "pattern": pattern}}})
    with pytest.raises(InvalidInput, match="does not match"):
        event_schemas.check(text, orjson.dumps({"name": "a+1", "other": "x" * 4_000}), "/payload")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a(?=b)", "look-around or a back-reference"),
        ("(?<!a)b", "look-around or a back-reference"),
        (r"(a)\1", "look-around or a back-reference"),
        (r"(?<n>a)\k<n>", "look-around or a back-reference"),
        ("[a", "invalid syntax"),
        ("(", "invalid syntax"),
        ("a{3,2}", "invalid syntax"),
        (r"[(?=]\(?=\\(", "invalid syntax"),
        (r"\p{Nonsense}", "invalid syntax"),
        (r"\Z", "invalid syntax"),
        ("((a{99}){99}){99}", "too large when compiled"),
        (r"^\p{L}{1,200}$", "too large when compiled"),
        (r"\p{L}" * 40, "too large when compiled"),
        (r"\p{L}\p{M}\p{N}\p{P}\p{S}\p{Z}\p{C}\P{L}\P{M}\P{N}" * 4, "too large when compiled"),
    ],
)
def test_a_refused_pattern_says_why(pattern: str, found: str) -> None:
    with pytest.raises(InvalidInput, match=found) as refused:
        event_schemas.write_schema({"pattern": pattern})
    assert refused.value.pointer == "/schema/pattern"


def test_an_id_in_data_is_no_keyword_and_an_empty_fragment_names_the_same_dialect() -> None:
    inner = {"$id": "https://example.com/a", "$schema": "http://json-schema.org/draft-07/schema#"}
    data = {"examples": [inner], "default": inner, "enum": [inner, [inner]]}
    schema = {"$schema": event_schemas.DIALECT + "#", "properties": {"a": data, "b": {"const": inner}}}
    text = event_schemas.write_schema(schema)
    event_schemas.check(text, orjson.dumps({"a": inner, "b": inner}), "/payload")
    with pytest.raises(InvalidInput) as refused:
        event_schemas.check(text, orjson.dumps({"a": inner, "b": {"$id": "c"}}), "/payload")
    assert refused.value.pointer == "/payload/b"
    with pytest.raises(InvalidInput) as refused:
        event_schemas.write_schema({"properties": {"const": inner}})
    assert refused.value.pointer == "/schema/properties/const/$id"


def test_references_are_expanded_as_often_as_they_stand() -> None:
    """The root and what it refers to; a link is itself, two references and what each refers to."""

    def expanded(links: int) -> int:
        return 1 if links == 0 else 1 + 2 * (1 + expanded(links - 1))

    assert [weight(chained(links)).subschemas for links in range(6)] == [1 + expanded(links) for links in range(6)]


def test_what_nested_unevaluated_keywords_weigh_more_than_doubles_with_each_level() -> None:
    """The validator judges the branches again to find out what they have evaluated, and those do the same."""
    steps = [weight(nested(levels, unevaluatedProperties=True)).per_value for levels in range(2, 7)]
    assert all(after > 2.4 * before for before, after in pairwise(steps))


def test_a_value_is_one_property_so_only_the_heaviest_counts() -> None:
    heavy = {"allOf": [{"minimum": 0.5}] * 10}
    one = weight({"properties": {"a": heavy}}).per_value
    assert weight({"properties": dict.fromkeys("abcdefg", heavy)}).per_value == one
    assert weight({"properties": {"a": heavy}, "patternProperties": {"^a": heavy}}).per_value == 2 * one
    assert weight({"properties": {"a": heavy}, "allOf": [{"properties": {"a": heavy}}]}).per_value == 2 * one


def test_ordinary_schemas_and_payloads_have_room() -> None:
    money = {
        "type": "object",
        "required": ["amount", "currency"],
        "properties": {
            "amount": {"type": "integer", "minimum": 0, "maximum": 10**12},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        },
    }
    words = {"type": "string", "minLength": 1, "maxLength": 100}
    item = {
        "type": "object",
        "required": ["sku", "price"],
        "properties": {
            "sku": {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"},
            "price": {"$ref": "#/$defs/money"},
            "rate": {"type": "number", "multipleOf": 0.01},
            "labels": {"type": "array", "items": words, "uniqueItems": True},
            "kind": {"enum": ["goods", "shipping", "discount"]},
            **{f"field_{n}": words for n in range(50)},
        },
        "additionalProperties": False,
    }
    schema = {"$defs": {"money": money, "item": item}, "properties": {"items": {"items": {"$ref": "#/$defs/item"}}}}
    text = event_schemas.write_schema(schema)
    line = {"price": {"amount": 100, "currency": "EUR"}, "rate": 19.99, "labels": ["a", "b"], "kind": "goods"}
    payload = orjson.dumps({"items": [line | {"sku": f"sku-{n}", "field_1": "x" * 40} for n in range(110)]})
    assert len(text) > 3_000
    assert len(payload) > 16_000
    assert event_schemas.check(text, payload, "/payload") <= event_schemas.MAX_STEPS
    small = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}}}
    long = orjson.dumps([{"a": n, "b": "some words"} for n in range(2_500)])
    assert len(long) > 64_000
    event_schemas.check(event_schemas.write_schema(small), long, "/payload")


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
    schema = {
        "$id": "https://example.com/",
        "$defs": {"m": {"$anchor": "a", "type": "object"}},
        "items": {"$ref": "#a"},
    }
    text = event_schemas.write_schema(schema)
    event_schemas.check(text, b"[{}]", "/payload")
    with pytest.raises(InvalidInput):
        event_schemas.check(text, b"[1]", "/payload")


def test_names_of_properties_are_no_keywords() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {"type": "string"}}}
    text = event_schemas.write_schema(schema)
    with pytest.raises(InvalidInput):
        event_schemas.check(text, b'{"$ref": 1}', "/payload")


def test_a_pattern_that_other_engines_take_exponential_time_for_is_judged_in_linear_time() -> None:
    text = event_schemas.write_schema({"pattern": "^([A-Z0-9]+)+$"})
    event_schemas.check(text, orjson.dumps("A" * 20_000), "/payload")
    with pytest.raises(InvalidInput, match="does not match"):
        event_schemas.check(text, orjson.dumps("A" * 20_000 + "!"), "/payload")


def test_unique_items_of_65_kilobytes_are_told_apart_by_one_set() -> None:
    text = event_schemas.write_schema({"uniqueItems": True})
    items = [{"a": n} for n in range(6_500)]
    payload = orjson.dumps(items)
    assert len(payload) > 65_000
    event_schemas.check(text, payload, "/payload")
    with pytest.raises(InvalidInput, match="equal"):
        event_schemas.check(text, orjson.dumps([*items, {"a": 7}]), "/payload")


def test_unique_items_are_ours_since_the_validators_hashes_collide() -> None:
    """It hashes integers as doubles, so 2,048 neighbours near 2^64 have one hash: 42 kB took it 0.6 s."""

    class Counted(event_schemas._UniqueItems):
        calls = 0

        def validate(self, value: Any) -> None:
            Counted.calls += 1
            super().validate(value)

    validator = event_schemas._validator({"uniqueItems": True}, keywords={"uniqueItems": Counted})
    assert validator.is_valid([2**64 - 1 - n for n in range(2_000)])
    assert Counted.calls == 1
    assert event_schemas._KEYWORDS["uniqueItems"] is event_schemas._UniqueItems


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([], True),
        (["a", "b"], True),
        (["a", "a"], False),
        ([1, "1", True, None, False, 0], True),
        ([1, 1.0], False),
        ([0, -0.0], False),
        ([1, True], True),
        ([[1], [1.0]], False),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], False),
        ([{"a": 1}, {"a": 2}, {"b": 1}], True),
        ([[[]], [[], []], []], True),
        ([2**53, 2**53 + 1], True),
        ([float(2**53), 2**53], False),
        ([1e300, 1e300], False),
        ([1.5, "1.5"], True),
    ],
)
def test_items_are_unique_as_json_schema_means_it(items: list[Any], unique: bool) -> None:
    text = event_schemas.write_schema({"uniqueItems": True})
    with contextlib.nullcontext() if unique else pytest.raises(InvalidInput, match="equal"):
        event_schemas.check(text, orjson.dumps(items), "/payload")
    assert jsonschema.Draft202012Validator({"uniqueItems": True}).is_valid(items) == unique
    event_schemas.check(event_schemas.write_schema({"uniqueItems": False}), orjson.dumps(items), "/payload")


def test_a_payload_that_takes_too_long_to_judge_is_refused_with_both_sizes() -> None:
    text = event_schemas.write_schema({"items": {"enum": [n + 0.5 for n in range(30)]}})
    with pytest.raises(InvalidInput, match=r"5,001 values in 10,001 bytes, .* at most 20,000,000 steps") as refused:
        event_schemas.check(text, orjson.dumps([1] * 5_000), "/payload")
    assert refused.value.pointer == "/payload"
    with pytest.raises(InvalidInput, match="is not one of"):
        event_schemas.check(text, orjson.dumps([1] * 50), "/payload")


@pytest.mark.parametrize(
    "payload",
    [1, "a,b:c.e", [], {}, [1.5, 1e300, -1e-300, 0.0], [2**64 - 1], {"a.e": [[], {}, "[{,:"]}, [[[[1]]]], [True, None]],
)
def test_the_quick_size_is_never_less_than_the_exact_one(payload: Any) -> None:
    text = orjson.dumps(payload)
    exact, quick = schema_bounds.measure(payload, len(text)), schema_bounds.most(text)
    assert quick.values >= exact.values
    assert quick.fractions >= exact.fractions
    assert quick.bytes == exact.bytes


def test_the_size_of_a_payload_counts_values_names_and_slow_numbers() -> None:
    measured = schema_bounds.measure({"a": [1, 2.5, 1e300], "b": {"c": 2**64 - 1}}, 99)
    assert measured == schema_bounds.Size(values=10, fractions=1 + 15 + 10, bytes=99)


def test_the_place_is_told_without_the_errors_of_all_branches_where_those_are_too_many() -> None:
    branch = {"properties": {"kind": {"const": "a"}, "amount": {"type": "integer", "minimum": 0}}}
    schema = {"properties": {"lines": {"items": {"anyOf": [branch] * 9}}, "id": {"type": "string"}}}
    text = event_schemas.write_schema(schema)
    lines = [{"kind": "a", "amount": 1}] * 200
    for payload, pointer, found in (
        ({"id": 1, "lines": lines}, "/payload/id", "is not of type"),
        ({"lines": [{"kind": "b"}]}, "/payload/lines/0", "is not valid under any"),
        ({"lines": [*lines, {"kind": "b"}]}, "/payload", "does not meet one of anyOf"),
    ):
        with pytest.raises(InvalidInput) as refused:
            event_schemas.check(text, orjson.dumps(payload), "/payload")
        assert refused.value.pointer == pointer
        assert found in refused.value.found


NESTS = b"[" + b",".join([b"[" * 60 + b"]" * 60] * 400) + b"]"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        False,
        {"unevaluatedItems": False},
        {"oneOf": [False]},
        {"anyOf": [{"type": "null"}, {"const": 3}]},
        {"contains": {"const": "a"}},
        {"not": {}},
    ],
)
def test_no_error_shows_a_value_that_would_take_long_to_write_as_text(schema: Any) -> None:
    text = event_schemas.write_schema(schema)
    for payload, size in ((orjson.dumps([1] * 100_000), "100,001 values in"), (NESTS[:-1] + b"," + NESTS[1:], "")):
        with pytest.raises(InvalidInput) as refused:
            event_schemas.check(text, payload, "/payload")
        assert refused.value.pointer == "/payload"
        assert (size or "48,001 arrays and objects") in refused.value.found
        assert len(refused.value.found) < 200


def test_a_long_text_is_not_copied_into_the_error_of_every_branch() -> None:
    text = event_schemas.write_schema({"oneOf": [False] * 20})
    with pytest.raises(InvalidInput, match="does not meet one of anyOf"):
        event_schemas.check(text, orjson.dumps("é😀" * 40_000), "/payload")
    with pytest.raises(InvalidInput, match="is not valid under any"):
        event_schemas.check(text, orjson.dumps("é😀" * 40), "/payload")


def test_the_errors_of_false_count_like_those_of_other_schemas() -> None:
    assert weight(False).errors == weight({"type": "null"}).errors > weight(True).errors


def test_a_payload_of_too_many_arrays_and_objects_is_refused_where_its_type_has_a_schema() -> None:
    text = event_schemas.write_schema(True)
    most = schema_bounds.MAX_CONTAINERS
    event_schemas.check(text, orjson.dumps([[]] * (most - 1)), "/payload")
    event_schemas.check(text, orjson.dumps(["[{", '"[{', '\\"[{'] * most), "/payload")
    with pytest.raises(InvalidInput, match=r"30,001 arrays and objects; allowed: at most 30,000"):
        event_schemas.check(text, orjson.dumps([{}, []] * (most // 2)), "/payload")


def test_a_payload_that_is_nested_deeply_is_an_answer_and_no_crash() -> None:
    text = event_schemas.write_schema({"items": {"items": {"type": "array"}}, "uniqueItems": True})
    for levels in (20, 300, 1_000):
        event_schemas.check(text, b"[" * levels + b"]" * levels, "/payload")
    with pytest.raises(InvalidInput):
        event_schemas.check(event_schemas.write_schema({"type": "object"}), b"[" * 900 + b"]" * 900, "/payload")
    unique = event_schemas.write_schema({"uniqueItems": True})
    for levels, found in ((190, "equal"), (210, "nested more than 200 levels deep"), (900, "does not meet it")):
        item = b"[" * levels + b"]" * levels
        with pytest.raises(InvalidInput, match=found):
            event_schemas.check(unique, b"[" + item + b"," + item + b"]", "/payload")
    with pytest.raises(InvalidInput, match=r"could not be parsed: .*depth limit.*; allowed: valid JSON, nested"):
        event_schemas.check(text, b"[" * 5_000 + b"]" * 5_000, "/payload")


def test_a_schema_that_is_nested_deeply_is_an_answer_and_no_crash() -> None:
    event_schemas.write_schema(nested(63))
    for levels in (64, 100, 120, 127):
        with pytest.raises(InvalidInput):
            event_schemas.write_schema(nested(levels))
    chain = {f"s{n}": {"not": {"$ref": f"#/$defs/s{n + 1}"}} for n in range(900)} | {"s900": {}}
    with pytest.raises(InvalidInput, match="inside each other"):
        event_schemas.write_schema({"$ref": "#/$defs/s0", "$defs": chain})


def test_a_panic_of_the_validator_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panicking:
        def is_valid(self, value: Any) -> bool:
            raise RuntimeError("Validation panicked: no such state")

    _, weighed = event_schemas._judge(event_schemas.write_schema(MONEY))
    monkeypatch.setattr(event_schemas, "_judge", lambda schema: (Panicking(), weighed))
    with pytest.raises(InvalidInput, match="cannot be judged: Validation panicked"):
        event_schemas.check("{}", b"{}", "/payload")


def test_format_is_an_annotation_and_dependencies_are_no_keyword() -> None:
    text = event_schemas.write_schema({"format": "date", "dependencies": {"a": ["b"]}})
    event_schemas.check(text, b'"soon"', "/payload")
    event_schemas.check(text, b'{"a": 1}', "/payload")


def test_a_schema_that_was_stored_before_the_bounds_is_told_and_refuses_its_events() -> None:
    stored = orjson.dumps({"items": {"$ref": "#"}}).decode()
    refusal = event_schemas.refusal(stored)
    assert refusal is not None
    assert refusal.startswith(
        "/schema/items/$ref: found a recursive reference; "
        "allowed: references without recursion; write the nested levels out"
    )
    with pytest.raises(InvalidInput) as refused:
        event_schemas.check(stored, b"[]", "/payload")
    assert refused.value.pointer == "/payload"
    assert refusal in refused.value.found
    assert event_schemas.refusal(event_schemas.write_schema(MONEY)) is None


def test_without_the_validator_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    monkeypatch.delitem(sys.modules, "dispatcher.flow.event_schemas")
    with pytest.raises(
        Unavailable, match=r"^event types with a schema need the validator: pip install '.*\[schemas\]'$"
    ):
        __import__("dispatcher.flow.event_schemas")


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


LEAVES = st.sampled_from(
    [
        *({}, True, False, {"type": "integer"}, {"type": ["string", "null"]}, {"const": 1}, {"const": {"a": [1]}}),
        *({"enum": [1, "a", None]}, {"enum": ["a", "b"]}, {"minimum": 1}, {"exclusiveMaximum": 1.5}, {"multipleOf": 2}),
        *({"minLength": 1}, {"maxItems": 1}, {"minProperties": 1}, {"required": ["a"]}, {"uniqueItems": True}),
        *({"pattern": "^a"}, {"dependentRequired": {"a": ["b"]}}),
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        *(
            st.fixed_dictionaries({name: st.lists(inner, min_size=1, max_size=3)})
            for name in ("allOf", "anyOf", "oneOf")
        ),
        *(st.fixed_dictionaries({name: inner}) for name in ("not", "items", "contains", "additionalProperties")),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries({"patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner)}),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2), "unevaluatedProperties": inner}),
        st.fixed_dictionaries({"prefixItems": st.lists(inner, min_size=1, max_size=2), "unevaluatedItems": inner}),
        st.fixed_dictionaries({"propertyNames": inner, "dependentSchemas": st.dictionaries(st.just("a"), inner)}),
    ),
    max_leaves=6,
)
PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 2, 1.0, 1.5, "", "a", "ab", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(SCHEMAS, PAYLOADS)
def test_another_validator_judges_the_same(schema: Any, payload: Any) -> None:
    text = event_schemas.write_schema(schema)
    try:
        event_schemas.check(text, orjson.dumps(payload), "/payload")
        meets = True
    except InvalidInput:
        meets = False
    assert meets == jsonschema.Draft202012Validator(schema).is_valid(payload)
    faults = event_schemas._without_alternatives(text)
    assert faults.is_valid(payload) or not meets
