"""The CPU that the worst event-type schemas and payloads take which are accepted: none may hold up the API for long.

`python -m bench.schema` prints every pair. Each shape is a schema that grows with a number; it is made as large as the
limits allow, once for itself, and once for each size of payload. Nothing else runs: no server, no database.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import orjson

from bench.site import Bench, Figures
from dispatcher.errors import InvalidInput
from dispatcher.flow import event_schemas, schema_bounds

PAYLOAD_BYTES = (1 << 10, 1 << 14, 1 << 16, 1 << 18)
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """`schema(n)` grows with n; the payload is an array of `items`, as long as it may be."""

    name: str
    schema: Callable[[int], Any]
    items: Callable[[], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Pair:
    name: str
    n: int
    schema_bytes: int
    payload_bytes: int
    cpu_ms: float
    store_cpu_ms: float


def _same(item: Any) -> Callable[[], Iterator[Any]]:
    return lambda: iter(lambda: item, object())


def _nested(inner: Any, wrap: Callable[[Any], Any], depth: int) -> Any:
    for _ in range(min(depth, schema_bounds.MAX_DEPTH - 4)):
        inner = wrap(inner)
    return inner


def _trees() -> Iterator[Any]:
    """Different nests of empty arrays, which a hash of their leaves cannot tell apart."""
    known: list[Any] = [[]]
    for n in count():
        tree = [known[n // 2], known[n // 3]]
        known.append([*tree, []] if n % 2 else tree)
        yield known[-1] if n < 200 else [known[n % 180], known[n // 180 % 180]]


def _cycled(*items: Any) -> Callable[[], Iterator[Any]]:
    return lambda: (items[n % len(items)] for n in count())


def _random(letters: str, length: int) -> Callable[[], Iterator[Any]]:
    """Texts without a period: what a pattern has seen does not come again."""
    return lambda: ("".join(random.Random(n).choices(letters, k=length)) for n in count())


def _each(schema: Any) -> Any:
    return {"items": schema}


def _all(schema: Any) -> Callable[[int], Any]:
    return lambda n: _each({"allOf": [schema] * n})


def _none(*schemas: Any) -> Callable[[int], Any]:
    return lambda n: _each({"not": {"anyOf": [*schemas] * n}})


def _chain(n: int, branches: int = 2) -> dict[str, Any]:
    steps = {f"s{k}": {"anyOf": [{"$ref": f"#/$defs/s{k + 1}"}] * branches} for k in range(n)}
    return {"$defs": {**steps, f"s{n}": {"type": "null"}}, "not": {"$ref": "#/$defs/s0"}}


_NULL = {"type": "null"}
_WORDS = [f"w{n}" for n in range(2_000)]

SHAPES = (
    Shape("allOf {}", _all({}), _same(1)),
    Shape("allOf true", _all(True), _same(1)),
    Shape("allOf type", _all({"type": ["null", "string", "integer"]}), _same(1)),
    Shape("allOf not type", _none(_NULL), _same(1)),
    Shape("allOf if then else", _all({"if": _NULL, "then": {}, "else": {}}), _same(1)),
    Shape("maximum, integers", _all({"maximum": 9}), _same(1)),
    Shape("maximum, fractions", _all({"maximum": 9.5}), _same(1.5)),
    Shape("maximum 9.5, integers", _all({"exclusiveMaximum": 9.5}), _same(1)),
    Shape("maximum 1e300, integers", _all({"maximum": 1e300}), _same(1)),
    Shape("maximum, 1e-300", _all({"exclusiveMaximum": 9.5}), _same(-1e300)),
    Shape("maximum, 20 digits", _all({"exclusiveMinimum": 9.5}), _same(2**64 - 1)),
    Shape("multipleOf 1, integers", _all({"multipleOf": 1}), _same(1)),
    Shape("multipleOf 1, 1.0", _all({"multipleOf": 1}), _same(1.0)),
    Shape("multipleOf 7, 7e300", _none({"multipleOf": 7}), _same(1e300)),
    Shape("multipleOf 0.01, integers", _all({"multipleOf": 0.01}), _same(1)),
    Shape("multipleOf 0.01, fractions", _all({"multipleOf": 0.01}), _same(1.5)),
    Shape("multipleOf 0.01, 1e-20", _none({"multipleOf": 0.01}), _same(1e-20)),
    Shape("multipleOf 0.01, 1e300", _all({"multipleOf": 0.01}), _same(1e300)),
    Shape("multipleOf 0.01, 1e-300", _none({"multipleOf": 0.01}), _same(1.2345e-300)),
    Shape("multipleOf 1e-15, 1.5", _all({"multipleOf": 1e-15}), _same(1.5)),
    Shape("multipleOf 1e-15, integers", _all({"multipleOf": 1e-15}), _same(1)),
    Shape("multipleOf 1e-15, 1e-300", _none({"multipleOf": 1e-15}), _same(1.2345e-300)),
    Shape("const, integers", _none({"const": 2}), _same(1)),
    Shape("const 2.5, integers", _none({"const": 2.5}), _same(1)),
    Shape("const 2.5, fractions", _none({"const": 2.5}), _same(1.5)),
    Shape("const 1e300, integers", _none({"const": 1e300}), _same(1)),
    Shape("const 1e300, 1e301", _none({"const": 1e300}), _same(1e301)),
    Shape("const, 20 digits", _none({"const": 2**64 - 1}), _same(2**64 - 2)),
    Shape("const array", _all({"const": [1, 1, 1, 1]}), _same([1, 1, 1, 1])),
    Shape("const object", _all({"const": {"a": 1}}), _same({"a": 1})),
    Shape("const empty", _all({"const": {}}), _same({})),
    Shape("const string", _none({"const": "a"}), _same("b")),
    Shape("enum integers, fractions", lambda n: _each({"not": {"enum": list(range(n + 2))}}), _same(1.5)),
    Shape("enum integers, 1e300", lambda n: _each({"not": {"enum": list(range(n + 2))}}), _same(1e300)),
    Shape("enum integers, integers", lambda n: _each({"not": {"enum": list(range(10, n + 12))}}), _same(1)),
    Shape("enum fractions", lambda n: _each({"not": {"enum": [k + 0.5 for k in range(n + 2)]}}), _same(9)),
    Shape("enum strings", lambda n: _each({"not": {"enum": _WORDS[: n + 2]}}), _same("w")),
    Shape("enum strings and 1", lambda n: _each({"not": {"enum": [*_WORDS[: n + 2], 1]}}), _same("w")),
    Shape("enum arrays", lambda n: _each({"not": {"enum": [[1, k] for k in range(n + 2)]}}), _same([1, []])),
    Shape("enum objects", lambda n: _each({"not": {"enum": [{"": k} for k in range(n + 2)]}}), _same({"": -1})),
    Shape("enum empty", lambda n: _each({"not": {"enum": [[]] * (n + 2)}}), _same([1])),
    Shape("lengths", _all({"maxLength": 9, "minLength": 0}), _same("")),
    Shape("lengths of long", _all({"maxLength": 90_000}), _same("é" * 400)),
    Shape("required", _none({"required": ["a"]}), _same({})),
    Shape("required, there", _all({"required": ["a", "b", "c"]}), _same({"a": 1, "b": 1, "c": 1})),
    Shape("dependentRequired", lambda n: _each({"dependentRequired": {w: [] for w in _WORDS[:n]}}), _same({})),
    Shape(
        "dependentRequired, all",
        lambda n: _each({"dependentRequired": dict.fromkeys(_WORDS[: min(n, 20)], _WORDS[:20])}),
        _same(dict.fromkeys(_WORDS[:20], 1)),
    ),
    Shape("dependentSchemas", lambda n: _each({"dependentSchemas": {word: {} for word in _WORDS[:n]}}), _same({})),
    Shape("properties", _all({"properties": {"a": {}}}), _same({"a": 1})),
    Shape(
        "properties, few",
        _all({"properties": {word: {} for word in _WORDS[:14]}}),
        _same(dict.fromkeys(_WORDS[:15], 1)),
    ),
    Shape(
        "properties, other",
        _all({"properties": {word: {} for word in _WORDS[:15]}}),
        _same(dict.fromkeys(_WORDS[20:34], 1)),
    ),
    Shape("properties, many", lambda n: _each({"properties": {word: {} for word in _WORDS[:n]}}), _same({})),
    Shape("additionalProperties", _all({"properties": {"b": {}}, "additionalProperties": {}}), _same({"a": 1})),
    Shape(
        "patternProperties",
        lambda n: _each({"patternProperties": {f"[a-z]{k}": {} for k in range(n)}}),
        _same({"a": 1}),
    ),
    Shape("patternProperties, all", _all({"patternProperties": {"^[a-z]": {}}}), _same({"a": 1})),
    Shape("propertyNames", _all({"propertyNames": {"maxLength": 9}}), _same({"": 1})),
    Shape("contains", _all({"contains": {}}), _same([1])),
    Shape("contains nothing", _none({"contains": _NULL}), _same([1] * 40)),
    Shape("contains, root", lambda n: {"not": {"anyOf": [{"contains": {"const": 1}}] * n}}, _same(2)),
    Shape("items", _all({"items": {}}), _same([1])),
    Shape("items, root", lambda n: {"allOf": [{"items": {"type": "integer"}}] * n}, _same(1)),
    Shape("prefixItems", _all({"prefixItems": [{}]}), _same([1])),
    Shape("anyOf, last holds", lambda n: _each({"anyOf": [_NULL] * n + [{}]}), _same(1)),
    Shape("oneOf, last holds", lambda n: _each({"oneOf": [_NULL] * n + [{}]}), _same(1)),
    Shape(
        "oneOf, by a constant",
        lambda n: _each({"oneOf": [{"properties": {"t": {"const": k}}, "required": ["t"]} for k in range(n)]}),
        _cycled({"t": 0}),
    ),
    Shape("anyOf, faults", lambda n: {"anyOf": [_NULL] * n}, _same(1)),
    Shape("anyOf, faults of items", lambda n: {"anyOf": [{"items": _NULL}] * n}, _same(1)),
    Shape("anyOf, faults of texts", lambda n: {"anyOf": [{"items": _NULL}] * n}, _same("x" * 500)),
    Shape("anyOf, faults of a text", lambda n: {"items": {"anyOf": [_NULL] * n}}, _same("x" * 200_000)),
    Shape(
        "anyOf, faults of objects",
        lambda n: {"anyOf": [{"items": {"required": ["b"], "properties": {"a": _NULL}}}] * n},
        _same({"a": 1}),
    ),
    Shape("anyOf, deep faults", lambda n: _nested(_NULL, lambda s: {"anyOf": [s, _NULL]}, n), _same(1)),
    Shape("oneOf, deep faults", lambda n: _nested(_NULL, lambda s: {"oneOf": [s, False]}, n), _same(1)),
    Shape(
        "anyOf of deep arrays",
        lambda n: _nested(_NULL, lambda s: {"items": {"anyOf": [s]}}, n),
        _same(_nested(1, lambda x: [x], 40)),
    ),
    Shape("contains, faults", lambda n: {"anyOf": [{"contains": {"const": 1}}] * n}, _same(2)),
    Shape("not, faults", lambda n: _nested({}, lambda s: {"not": {"not": s, "anyOf": [{}, {}]}}, n), _same(1)),
    Shape(
        "propertyNames, faults", lambda n: _each({"propertyNames": {"anyOf": [{"maxLength": 0}] * n}}), _same({"a": 1})
    ),
    Shape("one fault, all shown", lambda n: {"maxItems": n}, _same("x")),
    Shape("root fault, nests shown", lambda n: {"maxItems": n}, _same(_nested([], lambda x: [x], 59))),
    Shape("root fault, objects nested", lambda n: {"maxItems": n}, _same(_nested(1, lambda x: {"": x}, 50))),
    Shape("root fault, empty arrays", lambda n: {"maxItems": n}, _same([])),
    Shape("root fault, type", lambda _: {"type": "string"}, _same(_nested([], lambda x: [x], 20))),
    Shape("root fault, fractions", lambda _: {"type": "string"}, _same(1.5)),
    Shape("root fault, false", lambda n: {"allOf": [{}] * n + [False]}, _same([])),
    Shape("root fault, not", lambda n: {"allOf": [{}] * n + [{"not": {}}]}, _same({"a": 1})),
    Shape("root fault, oneOf false", lambda n: {"oneOf": [False] * n}, _same({"a": 1})),
    Shape("root fault, oneOf of a text", lambda n: {"items": {"oneOf": [False] * n}}, _same("é😀" * 40_000)),
    Shape(
        "root fault, anyOf of a text", lambda n: {"items": {"anyOf": [_NULL, {"const": 1}] * n}}, _same("é😀" * 9_000)
    ),
    Shape("root fault, anyOf false", lambda n: {"anyOf": [False] * n}, _same([])),
    Shape("root fault, unevaluatedItems", lambda n: {"maxItems": n, "unevaluatedItems": False}, _same([])),
    Shape(
        "root fault, unevaluated nests", lambda _: {"unevaluatedItems": False}, _same(_nested([], lambda x: [x], 59))
    ),
    Shape(
        "root fault, unevaluated minimum",
        lambda n: {"allOf": [{}] * n, "unevaluatedItems": {"minimum": 5}},
        _same(1),
    ),
    Shape("faults of items, oneOf false", lambda n: _each({"oneOf": [False] * n}), _same({"a": 1})),
    Shape(
        "nests, all judged",
        lambda n: _nested({}, lambda s: {"maxItems": 9, "items": s}, n),
        _same(_nested([], lambda x: [x], 59)),
    ),
    Shape("enum, shown", lambda n: {"enum": [k + 0.5 for k in range(n)]}, _same(1)),
    Shape("chained references", _chain, _same(1)),
    Shape(
        "shared references",
        lambda n: {
            "$defs": {"a": {"properties": {"b": _NULL}}},
            "not": {"anyOf": [{"items": {"$ref": "#/$defs/a"}}] * n},
        },
        _same({"b": 1}),
    ),
    Shape("unevaluatedProperties", _all({"unevaluatedProperties": {}}), _same({"a": 1})),
    Shape(
        "unevaluatedProperties, branches",
        _all({"unevaluatedProperties": False, "oneOf": [{"properties": {"a": {}}}]}),
        _same({"a": 1}),
    ),
    Shape(
        "unevaluatedProperties, none",
        _all({"unevaluatedProperties": False, "oneOf": [{"properties": {"a": {}}}]}),
        _same({}),
    ),
    Shape(
        "unevaluatedProperties, nested",
        lambda n: _each(_nested({}, lambda s: {"unevaluatedProperties": {}, "anyOf": [s]}, n)),
        _same({"a": 1}),
    ),
    Shape(
        "unevaluatedProperties, deep",
        lambda n: _each({"unevaluatedProperties": {}, "anyOf": [_nested({}, lambda s: {"allOf": [s]}, n)]}),
        _same({"a": 1}),
    ),
    Shape(
        "unevaluatedProperties, if",
        _all({"unevaluatedProperties": {}, "if": {"properties": {"a": {}}}, "then": {"if": {}}}),
        _same({"a": 1}),
    ),
    Shape(
        "unevaluatedProperties, patterns",
        _all({"unevaluatedProperties": False, "anyOf": [{"patternProperties": {"[a-z]": {}}}]}),
        _same({"a": 1}),
    ),
    Shape("unevaluatedItems", _all({"unevaluatedItems": {}}), _same([1])),
    Shape(
        "unevaluatedItems, contains",
        _all({"unevaluatedItems": False, "anyOf": [{"contains": {"type": "integer"}}]}),
        _same([1] * 20),
    ),
    Shape(
        "unevaluatedItems, contains one",
        _all({"unevaluatedItems": False, "anyOf": [{"contains": {"type": "integer"}}]}),
        _same([1]),
    ),
    Shape(
        "unevaluatedItems, nested",
        lambda n: _each(_nested({}, lambda s: {"unevaluatedItems": {}, "oneOf": [s]}, n)),
        _same([1]),
    ),
    Shape("uniqueItems, integers", lambda n: {"allOf": [{"uniqueItems": True}] * n}, lambda: iter(count())),
    Shape(
        "uniqueItems, 64 bits",
        lambda n: {"allOf": [{"uniqueItems": True}] * n},
        lambda: (2**64 - 1 - k for k in count()),
    ),
    Shape("uniqueItems, trees", lambda n: {"allOf": [{"uniqueItems": True}] * n}, _trees),
    Shape(
        "uniqueItems, objects", lambda n: {"allOf": [{"uniqueItems": True}] * n}, lambda: ({"a": k} for k in count())
    ),
    Shape(
        "uniqueItems, fractions", lambda n: {"allOf": [{"uniqueItems": True}] * n}, lambda: (k + 0.5 for k in count())
    ),
    Shape("uniqueItems, texts", lambda n: {"allOf": [{"uniqueItems": True}] * n}, lambda: (f"{k}" for k in count())),
    Shape("uniqueItems, small", _all({"uniqueItems": True}), _same([])),
    Shape("uniqueItems, small ones", _all({"uniqueItems": True}), _same([1, 2])),
    Shape("uniqueItems, small mixed", _all({"uniqueItems": True}), _same([1.0, "e"])),
    Shape(
        "uniqueItems, deep",
        lambda n: _nested({}, lambda s: {"uniqueItems": True, "items": s}, n),
        lambda: (_nested(k, lambda x: [x], 30) for k in count()),
    ),
    Shape("pattern, fixed", _all({"pattern": "^[a-z]{3}$"}), _same("abc")),
    Shape("pattern, short texts", _none({"pattern": "[a-z]x|yz*"}), _same("")),
    Shape(
        "pattern, simple",
        lambda n: _each({"not": {"anyOf": [{"pattern": f"^[ab]{{{k + 1},200}}$"} for k in range(n)]}}),
        _same("ab" * 500 + "c"),
    ),
    Shape(
        "pattern, simple and short",
        lambda n: _each({"allOf": [{"pattern": f"^[ab]{{{k % 7 + 1},200}}$"} for k in range(n)]}),
        _same("abababab"),
    ),
    Shape(
        "pattern, not ASCII",
        lambda n: _each({"not": {"anyOf": [{"pattern": f"^[^a]{{{k + 1},50}}$"} for k in range(n)]}}),
        _same("éü漢" * 200 + "a"),
    ),
    Shape("pattern, many states", lambda n: _each({"not": {"pattern": f"(a|b)*a(a|b){{{n}}}c"}}), _random("ab", 1000)),
    Shape(
        "pattern, many states and short",
        lambda n: _each({"not": {"pattern": f"(a|b)*a(a|b){{{n}}}c"}}),
        _random("ab", 9),
    ),
    Shape("pattern, delayed", lambda n: _each({"not": {"pattern": f"[ab]*a[ab]{{{n}}}c"}}), _random("ab", 20_000)),
    Shape(
        "pattern, delayed, anchored", lambda n: _each({"not": {"pattern": f"^[ab]*a[ab]{{{n}}}c$"}}), _random("ab", 900)
    ),
    Shape("pattern, dots", lambda n: _each({"not": {"pattern": f"a.{{{n}}}c"}}), _random("ab", 900)),
    Shape("pattern, dots, not ASCII", lambda n: _each({"not": {"pattern": f"é.{{{n}}}c"}}), _random("é漢éüé𝄞a", 900)),
    Shape("pattern, nested stars", lambda n: _each({"not": {"pattern": f"(.*a){{{n}}}c"}}), _random("ab", 900)),
    Shape("pattern, optional", lambda n: _each({"not": {"pattern": f"^(a?b?){{{n}}}c$"}}), _random("ab", 900)),
    Shape(
        "pattern, boundaries",
        lambda n: _each({"not": {"anyOf": [{"pattern": rf"\ba.*\bb{{{k + 1}}}\b"} for k in range(n)]}}),
        _random("aéb ü", 900),
    ),
    Shape(
        "pattern, exponential elsewhere",
        lambda n: _each({"not": {"anyOf": [{"pattern": "^([A-Z0-9]+)+$"}] * n}}),
        _same("A" * 1000 + "!"),
    ),
    Shape(
        "pattern, classes",
        lambda n: _each({"not": {"anyOf": [{"pattern": "^" + r"\d" * 120 + f"{k}"} for k in range(n)]}}),
        _same("1" * 200),
    ),
    Shape(
        "pattern, letters",
        lambda n: _each({"not": {"pattern": rf"\p{{L}}*a\p{{L}}{{{n}}}0"}}),
        _random("aéaüaaa漢", 900),
    ),
    Shape(
        "pattern, Unicode classes",
        lambda n: _each({"not": {"anyOf": [{"pattern": rf"^(\p{{L}}|{k})+ (\p{{L}}|é)+$"} for k in range(n)]}}),
        _random("éü漢字aЯ𝄞α ", 900),
    ),
    Shape(
        "pattern, Unicode states",
        lambda n: _each({"not": {"pattern": rf"(\p{{Greek}}|a)*a(\p{{Greek}}|a){{{n}}}[bc]"}}),
        _random("aα" * 20 + "b", 900),
    ),
    Shape(
        "pattern, Unicode repeated",
        lambda n: _each({"not": {"pattern": rf"[\p{{Greek}}a]*a[\p{{Greek}}a]{{{n}}}$"}}),
        _random("aα", 900),
    ),
    Shape(
        "pattern, groups",
        lambda n: _each({"not": {"anyOf": [{"pattern": rf"^(\d+-)*(\d{{{k + 2}}}-)*x"} for k in range(n)]}}),
        _random("0123456789-", 900),
    ),
    Shape("pattern, states", lambda n: _each({"not": {"pattern": f"^[ab]*a[ab]{{{n}}}c$"}}), _random("ab", 5_000)),
    Shape(
        "pattern of names",
        lambda n: _each({"patternProperties": {f"(a|b)*a(a|b){{{n}}}c": {}}}),
        lambda: ({text: 1} for text in _random("ab", 900)()),
    ),
)


def _payload(items: Iterator[Any], size: int) -> bytes:
    """An array of that many bytes at most."""
    texts, left = [], size - 2
    for item in islice(items, size):
        text = orjson.dumps(item)
        left -= len(text) + 1
        if left < 0:
            break
        texts.append(text)
    return b"[" + b",".join(texts) + b"]"


def _is_stored(shape: Shape, n: int) -> str | None:
    try:
        return event_schemas.write_schema(shape.schema(n))
    except InvalidInput:
        return None


def _is_judged(text: str, size: schema_bounds.Size) -> bool:
    _, weight = event_schemas._judge(text)  # noqa: SLF001 - the bound itself is what is filled up
    return schema_bounds.judging(weight, size) <= event_schemas.MAX_STEPS


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 for none; what is larger than one that does not, does not either."""
    least, n = 0, 1
    while n <= most and fits(n):
        least, n = n, 2 * n
    most = min(n, most + 1)
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def _cpu_ms(work: Callable[[], object]) -> float:
    """The least of some rounds: what else the machine does is not the work's."""
    least = float("inf")
    for _ in range(ROUNDS):
        start_s = time.process_time()
        work()
        least = min(least, (time.process_time() - start_s) * 1e3)
    return least


def _settle() -> None:
    """Keeps the garbage collector from looking again and again at what is here already, which is not the work's."""
    gc.collect()
    gc.freeze()


def _judge(text: str, payload: bytes) -> None:
    try:
        event_schemas.check(text, payload, "/payload")
    except InvalidInput:
        return


def _pairs(shape: Shape) -> Iterator[Pair]:
    stored = _largest(lambda n: _is_stored(shape, n) is not None, 3_000)
    if not stored:
        return
    schema = shape.schema(stored)
    event_schemas._least_bytes.cache_clear()  # noqa: SLF001 - as in a process that has not seen it

    def store() -> None:
        event_schemas._least_bytes.cache_clear()  # noqa: SLF001
        event_schemas.write_schema(schema)

    store_ms = _cpu_ms(store)
    for size in PAYLOAD_BYTES:
        payload = _payload(shape.items(), size)
        measured = schema_bounds.measure(orjson.loads(payload), len(payload))
        n = _largest(lambda n: (text := _is_stored(shape, n)) is not None and _is_judged(text, measured), stored)  # noqa: B023
        if n:
            text = event_schemas.write_schema(shape.schema(n))
            cpu_ms = _cpu_ms(lambda: _judge(text, payload))  # noqa: B023
            yield Pair(shape.name, n, len(text), len(payload), cpu_ms, store_ms)


def schema(bench: Bench) -> Figures:
    """The worst pairs of schema and payload, and the worst schema to store."""
    wanted = bench.options.schema_shapes
    shapes = SHAPES if wanted is None else SHAPES[:: len(SHAPES) // wanted]
    pairs: list[Pair] = []
    _settle()
    try:
        for done, shape in enumerate(shapes):
            bench.progress(done, len(shapes))
            pairs += _pairs(shape)
    finally:
        gc.unfreeze()
    worst = sorted(pairs, key=lambda pair: -pair.cpu_ms)
    bench.details["pairs"] = [
        {"name": one.name, "n": one.n, "schema_bytes": one.schema_bytes, "payload_bytes": one.payload_bytes}
        | {"cpu_ms": round(one.cpu_ms, 3), "store_cpu_ms": round(one.store_cpu_ms, 3)}
        for one in worst
    ]
    return {
        "worst_pair_cpu_ms": worst[0].cpu_ms,
        "worst_store_cpu_ms": max(one.store_cpu_ms for one in pairs),
        "pairs": len(pairs),
    }


def main() -> None:
    print(f"{'shape':34}{'n':>6}{'schema B':>10}{'payload B':>11}{'CPU ms':>9}{'to store':>10}")
    worst: list[Pair] = []
    _settle()
    names = sys.argv[1:]
    for shape in SHAPES:
        if names and not any(name in shape.name for name in names):
            continue
        for pair in _pairs(shape):
            worst.append(pair)
            print(
                f"{pair.name:34}{pair.n:6}{pair.schema_bytes:10,}{pair.payload_bytes:11,}"
                f"{pair.cpu_ms:9.2f}{pair.store_cpu_ms:10.2f}",
                flush=True,
            )
    print(f"worst pair: {max(pair.cpu_ms for pair in worst):.1f} ms")
    print(f"worst to store: {max(pair.store_cpu_ms for pair in worst):.1f} ms")


if __name__ == "__main__":
    main()
