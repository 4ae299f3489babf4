"""How much work a JSON Schema can make for the validator: computed as numbers, without running it.

Judging a payload takes at most `Weight.per_value` steps for each of its values and `Weight.per_byte` for each of its
bytes. A step is about a nanosecond: each figure below was measured with jsonschema-rs 0.60 at the worst value that the
keyword can meet, and rounded up. `python -m bench schema` measures the worst schemas and payloads that are accepted.

- What is applied to the same value adds up: the branches of `allOf`, `anyOf` and `oneOf`, the target of a `$ref`.
- What is applied to different values counts as the heaviest of them: a value is one property, or one item.
- References are expanded. A schema that refers to itself is refused: nothing bounds how often it is applied.
- `unevaluatedProperties` and `unevaluatedItems` judge the branches beside them a second time, and those do the same
  with theirs: the work is exponential in how deep they are nested, and is counted so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_SUBSCHEMAS: Final = 2_000
"""Sub-schemas of a schema with its references expanded. A pattern counts as ten or more: it takes longer to compile."""

MAX_DEPTH: Final = 64
"""Sub-schemas inside each other with references expanded: the validator recurses on the stack of the process."""

MAX_PATTERN_CHARACTERS: Final = 256
"""Of a regular expression: the time that the validator takes to read one is quadratic in its length."""

MULTIPLE_OF: Final = (1e-15, 1e15)
"""Between these `multipleOf` must be: with larger exponents a division takes a thousand times as long."""

MAX_CONTAINERS: Final = 30_000
"""Arrays and objects of a payload that a schema checks: parsing and measuring one takes up to 400 ns."""

_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SUBSCHEMA_STEPS: Final = 6
_ERROR_STEPS: Final = 1_700
_ERROR_STEPS_PER_VALUE_BELOW: Final = 500
"""An error contains the value that it is about, which is copied and written as text. Nested arrays take longest."""

_ERROR_STEPS_PER_BYTE: Final = 8
_EXTREME_FRACTIONS: Final = 15
_LONG_FRACTIONS: Final = 10
_EXTREME: Final = (1e-20, 1e20)
_LONG: Final = 2**63 - 1
_INTEGERS: Final = range(-(2**63), _LONG + 1)

_BRANCHES: Final = ("allOf", "anyOf", "oneOf")
_BRANCH: Final = ("not", "if", "then", "else")
_REFERENCES: Final = ("$ref", "$dynamicRef")
_MAPS: Final = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
_LISTS: Final = frozenset((*_BRANCHES, "prefixItems"))
_SINGLE: Final = frozenset(
    (
        *_BRANCH,
        "items",
        "contains",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
        "contentSchema",
    )
)
_STEPS: Final = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), 10),
    **dict.fromkeys((*_BRANCHES, *_BRANCH, *_REFERENCES), 8),
    **dict.fromkeys(("additionalProperties", "items", "prefixItems", "contains", "dependentSchemas"), 20),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), 60),
    "type": 12,
    "required": 30,
    "properties": 40,
    "propertyNames": 45,
    "pattern": 40,
}
"""Of a keyword at one value, without what its sub-schemas take."""

_UNIQUE_ITEMS_STEPS: Final = 1_000
"""For each value inside of the array: it is compared by a function of ours."""


class Weight(NamedTuple):
    """What a schema, or a part of one, takes, in steps but for the last three."""

    per_value: int = 0
    """For each value of the payload."""
    per_fraction: int = 0
    """Beyond that, for each number with a fraction or an exponent."""
    per_byte: int = 0
    """For each byte of its text."""
    below: int = 0
    """For each value below the one that is judged, such as those of `uniqueItems`."""
    errors: int = 0
    """For each value, of making the errors of a branch that does not hold."""
    errors_below: int = 0
    """The same, for each value below the one that the branch judges: an error shows them."""
    explaining: int = 0
    """For each value, of telling what is wrong: the errors of every branch of each `anyOf` and `oneOf` are made."""
    explaining_bytes: int = 0
    """The same for each byte: every error copies the text of its value."""
    marking: int = 0
    """For each value, of finding out what has been evaluated, for an `unevaluated…` above."""
    marking_bytes: int = 0
    """The same for each byte."""
    marking_subschemas: int = 0
    """Sub-schemas that are compiled once more for that."""
    subschemas: int = 0
    """With references expanded."""
    depth: int = 0
    """Of sub-schemas inside each other, with references expanded."""


def _together(weights: Sequence[Weight]) -> Weight:
    """All are applied to the same value."""
    if len(weights) < 2:
        return weights[0] if weights else _NOTHING
    figures = [sum(column) for column in zip(*weights, strict=True)]
    return Weight._make([*figures[:-1], max(weight.depth for weight in weights)])


def _heaviest(weights: Sequence[Weight]) -> Weight:
    """Each is applied to other values than the others."""
    if len(weights) < 2:
        return weights[0] if weights else _NOTHING
    heaviest = Weight._make(map(max, zip(*weights, strict=True)))
    return heaviest._replace(subschemas=sum(weight.subschemas for weight in weights))


_NOTHING: Final = Weight()


@dataclass(frozen=True, slots=True)
class Size:
    """Of a payload: its JSON values and member names, its numbers that are slow to judge, and its bytes.

    `fractions` are the numbers that are written with a fraction or an exponent. One beyond 1e±20 counts 15 times and
    an integer beyond 63 bits 10 times: so much longer they take.
    """

    values: int
    fractions: int
    bytes: int


def judging(weight: Weight, size: Size) -> int:
    """The steps that finding out whether the payload meets the schema takes at most."""
    values = (weight.per_value + weight.below) * size.values
    return values + weight.per_fraction * size.fractions + weight.per_byte * size.bytes


def explaining(weight: Weight, size: Size) -> int:
    """The steps that finding the place of a fault takes at most."""
    return (
        judging(weight, size)
        + (weight.explaining + _ERROR_STEPS_PER_VALUE_BELOW) * size.values
        + (weight.explaining_bytes + _ERROR_STEPS_PER_BYTE) * size.bytes
    )


def containers(payload: bytes) -> int:
    """How many arrays and objects a payload has that is JSON. Takes at most a few milliseconds."""
    count = payload.count(b"[") + payload.count(b"{")
    if count > MAX_CONTAINERS and b'"' in payload:  # brackets in texts do not count
        texts = b"".join(_TEXT.split(payload))
        count = texts.count(b"[") + texts.count(b"{")
    return count


def measure(payload: Any, payload_bytes: int) -> Size:
    """The size of a parsed payload."""
    values = fractions = 0
    level: list[Any] = [payload]
    while level:
        values += len(level)
        kinds = set(map(type, level))
        deeper: list[Any] = []
        if int in kinds:
            fractions += _LONG_FRACTIONS * len([value for value in level if type(value) is int and value > _LONG])
        if float in kinds:
            numbers = [value for value in level if type(value) is float]
            fractions += len(numbers) + (_EXTREME_FRACTIONS - 1) * sum(map(_is_extreme, numbers))
        if list in kinds:
            deeper.extend(chain.from_iterable([value for value in level if type(value) is list]))
        if dict in kinds:
            before = len(deeper)
            deeper.extend(chain.from_iterable(value.values() for value in level if type(value) is dict and value))
            values += len(deeper) - before  # their names
        level = deeper
    return Size(values, fractions, payload_bytes)


def most(payload: bytes) -> Size:
    """At least the size of a payload, counted without parsing it: what stands in its texts counts as if it did not."""
    values = 1 + sum(map(payload.count, (b",", b"[", b"{", b":")))
    exponents = payload.count(b"e") + payload.count(b"E")
    longs = (len(payload) + 1) // len("9223372036854775808,")
    fractions = payload.count(b".") + _EXTREME_FRACTIONS * exponents + _LONG_FRACTIONS * longs
    return Size(values, fractions, len(payload))


def weigh(schema: Any, pointer: str, pattern_bytes: Callable[[str, str], int]) -> Weight:
    """The weight of a schema that meets the meta-schema.

    `pattern_bytes` says how much memory a compiled pattern takes, and raises InvalidInput for one that is refused.
    Raises InvalidInput, naming the place, for what has no bound or is beyond one.
    """
    if not isinstance(schema, dict):
        return _boolean_weight(schema)
    found = _Weigher(schema, pointer, pattern_bytes).weigh(schema, pointer, 1)
    if found.subschemas > MAX_SUBSCHEMAS:
        many = f"{shown(found.subschemas)} sub-schemas with references expanded"
        raise InvalidInput(pointer, many, f"at most {MAX_SUBSCHEMAS:,}")
    return found


def _boolean_weight(schema: Any) -> Weight:
    """The weight of `true` or `false`. No value meets `false`, and the error shows the value."""
    failing = int(schema is False)
    return Weight(
        per_value=_SUBSCHEMA_STEPS,
        errors=_ERROR_STEPS * failing,
        errors_below=_ERROR_STEPS_PER_VALUE_BELOW * failing,
        subschemas=1,
        depth=1,
    )


class _Weigher:
    """Weighs each sub-schema once, however often it is referred to."""

    def __init__(self, root: dict[str, Any], pointer: str, pattern_bytes: Callable[[str, str], int]) -> None:
        self._root = root
        self._pattern_bytes = pattern_bytes
        self._known: dict[int, Weight] = {}
        self._open: set[int] = set()
        self._places: set[int] = set()
        self._anchors: dict[str, Any] = {}
        self._patterns = 0
        for place, node in subschemas(root, pointer):
            self._places.add(id(node))
            if len(self._places) > MAX_SUBSCHEMAS:
                raise InvalidInput(pointer, f"more than {MAX_SUBSCHEMAS:,} sub-schemas", f"at most {MAX_SUBSCHEMAS:,}")
            for name in {node[key] for key in ("$anchor", "$dynamicAnchor") if key in node}:
                if name in self._anchors:
                    raise InvalidInput(place, f"the anchor {name[:80]!r} a second time", "each anchor once")
                self._anchors[name] = node

    def weigh(self, node: Any, pointer: str, level: int) -> Weight:
        if not isinstance(node, dict):
            return _boolean_weight(node)
        known = self._known.get(id(node))
        if level + (0 if known is None else known.depth - 1) > MAX_DEPTH:
            allowed = f"at most {MAX_DEPTH}, references expanded"
            raise InvalidInput(pointer, f"more than {MAX_DEPTH} sub-schemas inside each other", allowed)
        if known is not None:
            return known
        if id(node) in self._open:
            allowed = "references without recursion; write the nested levels out"
            raise InvalidInput(pointer, "a recursive reference", allowed)
        self._open.add(id(node))
        try:
            weight = self._weigh(node, pointer, level)
        finally:
            self._open.discard(id(node))
        self._known[id(node)] = weight
        return weight

    def _weigh(self, node: dict[str, Any], pointer: str, level: int) -> Weight:
        branches: list[Weight] = []  # applied to the value itself
        alternatives: list[Weight] = []  # the same, of `anyOf` and `oneOf`
        marked: list[Weight] = []  # branches that tell what has been evaluated
        properties: list[Weight] = []  # each applied to one of its properties, or to another
        items: list[Weight] = []
        every_property: list[Weight] = []  # may be applied to the same property as others
        every_item: list[Weight] = []
        compiled_again: list[Weight] = []
        for name, value in node.items():
            if name in _LISTS:
                inner = [self.weigh(one, f"{pointer}/{name}/{n}", level + 1) for n, one in enumerate(value)]
            elif name in _MAPS:
                inner = [self.weigh(one, f"{pointer}/{name}/{escape(key)}", level + 1) for key, one in value.items()]
            elif name in _SINGLE:
                inner = [self.weigh(value, f"{pointer}/{name}", level + 1)]
            elif name in _REFERENCES:
                inner = [self._target(value, f"{pointer}/{name}", level)]
            else:
                continue
            match name:
                case "anyOf" | "oneOf":
                    alternatives += inner
                    marked += inner
                case "allOf" | "dependentSchemas" | "if" | "then" | "else" | "$ref" | "$dynamicRef":
                    branches += inner
                    marked += inner
                case "not" | "propertyNames":
                    branches += inner
                case "properties":
                    properties += inner
                case "additionalProperties":
                    properties += inner
                    compiled_again += inner
                case "patternProperties" | "unevaluatedProperties":
                    every_property += inner
                    compiled_again += inner
                case "items" | "prefixItems":
                    items += inner
                case "contains" | "unevaluatedItems":
                    every_item += inner
                    compiled_again += inner
        in_place = _together([*branches, *alternatives])
        objects = _together([_heaviest(properties), *every_property])
        arrays = _together([_heaviest(items), *every_item])
        inside = _heaviest([objects, arrays])
        own = self._own(node, pointer)
        weight = Weight(
            per_value=max(own.per_value, inside.per_value) + in_place.per_value,
            per_fraction=max(own.per_fraction, inside.per_fraction) + in_place.per_fraction,
            per_byte=max(own.per_byte, inside.per_byte) + in_place.per_byte,
            below=own.below + inside.below + in_place.below,
            errors=max(own.errors, inside.errors) + in_place.errors,
            errors_below=own.errors_below + inside.errors_below + in_place.errors_below,
            explaining=inside.explaining
            + in_place.explaining
            + sum(one.per_value + one.below + one.errors + one.errors_below for one in alternatives),
            explaining_bytes=inside.explaining_bytes
            + in_place.explaining_bytes
            + sum(
                one.per_byte + _ERROR_STEPS_PER_BYTE * (one.errors_below // _ERROR_STEPS_PER_VALUE_BELOW)
                for one in alternatives
            ),
            marking=own.marking
            + sum(one.per_value for one in compiled_again)
            + sum(one.marking + one.per_value + one.below for one in marked),
            marking_bytes=own.marking_bytes
            + sum(one.per_byte for one in compiled_again)
            + sum(one.marking_bytes + one.per_byte for one in marked),
            marking_subschemas=1
            + sum(one.subschemas for one in compiled_again)
            + sum(one.marking_subschemas + one.subschemas for one in marked),
            subschemas=own.subschemas + inside.subschemas + in_place.subschemas,
            depth=1 + max(inside.depth, in_place.depth),
        )
        if "unevaluatedProperties" not in node and "unevaluatedItems" not in node:
            return weight
        return weight._replace(
            per_value=weight.per_value + weight.marking,
            per_byte=weight.per_byte + weight.marking_bytes,
            subschemas=weight.subschemas + weight.marking_subschemas,
        )

    def _own(self, node: dict[str, Any], pointer: str) -> Weight:
        """What the keywords themselves take, without their sub-schemas."""
        steps, per_fraction, per_byte, below, subschemas = _SUBSCHEMA_STEPS, 0, 1, 0, 1
        marking, marking_bytes, failing = 60, 0, 0
        for name, value in node.items():
            failing += name in _STEPS or name in _ASSERTIONS
            match name:
                case "const":
                    steps += _comparing(value)
                    per_fraction += _FRACTION_STEPS * _numbers(value)
                case "enum":
                    steps += _choosing(value)
                    per_fraction += _FRACTION_STEPS * _numbers(value)
                case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                    steps += 20 if _is_integer(value) else 1_000 if _is_extreme(value) else 200
                    per_fraction += 100 if _is_integer(value) else 400
                case "multipleOf":
                    if not MULTIPLE_OF[0] <= value <= MULTIPLE_OF[1]:
                        raise InvalidInput(f"{pointer}/{name}", str(value), "a number from 1e-15 to 1e15")
                    steps += 30 if _is_integer(value) else 500 if value > 1e-6 else 1_000
                    per_fraction += 200 if _is_integer(value) else 2_000
                case "uniqueItems":
                    below += _UNIQUE_ITEMS_STEPS if value else 0
                case "dependentRequired":
                    steps += 30 * (1 + len(value))
                case "dependentSchemas":
                    steps += 20 * (1 + len(value))
                case "pattern":
                    steps += _STEPS[name]
                    per_byte += self._pattern(value, f"{pointer}/{name}")
                    subschemas += _pattern_subschemas(value)
                case "patternProperties":
                    cost = sum(self._pattern(one, f"{pointer}/{name}/{escape(one)}") for one in value)
                    steps += 20 + 50 * len(value)
                    per_byte += cost
                    marking += 50 * len(value)
                    marking_bytes += cost
                    subschemas += sum(map(_pattern_subschemas, value))
                case _:
                    steps += _STEPS.get(name, 0)
            if name in ("properties", "additionalProperties"):
                marking += 50
        return Weight(
            per_value=steps,
            per_fraction=per_fraction,
            per_byte=per_byte,
            below=below,
            errors=_ERROR_STEPS * failing,
            errors_below=_ERROR_STEPS_PER_VALUE_BELOW * failing,
            marking=marking,
            marking_bytes=marking_bytes,
            subschemas=subschemas,
        )

    def _pattern(self, pattern: str, pointer: str) -> int:
        """The steps for each byte of text. Counts first: the validator takes its time to read a pattern."""
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            found = f"a regular expression of {len(pattern)} characters"
            raise InvalidInput(pointer, found, f"at most {MAX_PATTERN_CHARACTERS}")
        self._patterns += _pattern_subschemas(pattern)
        if self._patterns > MAX_SUBSCHEMAS:
            found = f"patterns that count as more than {MAX_SUBSCHEMAS:,} sub-schemas"
            raise InvalidInput(pointer, found, f"at most {MAX_SUBSCHEMAS:,}: fewer patterns, or shorter ones")
        size = self._pattern_bytes(pattern, pointer)
        if (plain := UNICODE_CLASS.sub(r"\\d", pattern)) != pattern:
            size = min(size, _UNICODE_CLASS_FACTOR * self._pattern_bytes(plain, pointer))
        return pattern_steps(pattern, size)

    def _target(self, reference: Any, pointer: str, level: int) -> Weight:
        target = self._resolve(reference)
        if not isinstance(target, bool) and id(target) not in self._places:
            allowed = "a reference to a sub-schema of this schema, such as #/$defs/money"
            raise InvalidInput(pointer, repr(reference)[:80], allowed)
        return self.weigh(target, pointer, level + 1)

    def _resolve(self, reference: Any) -> Any:
        """What the reference means, None for nothing inside of the schema."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        try:
            fragment = unquote(reference[1:], errors="strict")
        except UnicodeDecodeError:
            return None
        if not fragment:
            return self._root
        if not fragment.startswith("/"):
            return self._anchors.get(fragment)
        node: Any = self._root
        for part in fragment[1:].split("/"):
            if isinstance(node, dict):
                node = node.get(part.replace("~1", "/").replace("~0", "~"))
            elif isinstance(node, list) and re.fullmatch("0|[1-9][0-9]{0,5}", part) and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node


_ASSERTIONS: Final = frozenset(
    (
        "const",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "uniqueItems",
        "dependentRequired",
        "pattern",
        "patternProperties",
    )
)
"""Keywords that make an error of their own, beside those of `_STEPS`."""


def subschemas(root: Any, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sub-schema that is an object, and where it stands. Meets each once: JSON is a tree."""
    ahead: list[tuple[str, Any]] = [(pointer, root)]
    while ahead:
        where, node = ahead.pop()
        if not isinstance(node, dict):
            continue
        yield where, node
        for name, value in node.items():
            if name in _MAPS:
                ahead += [(f"{where}/{name}/{escape(key)}", one) for key, one in value.items()]
            elif name in _LISTS:
                ahead += [(f"{where}/{name}/{n}", one) for n, one in enumerate(value)]
            elif name in _SINGLE:
                ahead.append((f"{where}/{name}", value))


def _comparing(value: Any) -> int:
    """The steps of comparing a value with this one."""
    if isinstance(value, dict):
        return 20 + sum(20 + _comparing(inner) for inner in value.values())
    if isinstance(value, list):
        return 20 + sum(map(_comparing, value))
    if value is None or isinstance(value, str | bool):
        return 20
    return 200 if _is_integer(value) else 900


def _choosing(values: list[Any]) -> int:
    """The steps of finding a value among these: strings are hashed, integers sorted, anything else is compared."""
    if all(value is None or isinstance(value, str) or _is_integer(value) for value in values):
        kinds = {isinstance(value, str) for value in values if value is not None}
        if len(kinds) < 2:
            return 60
    return sum(map(_comparing, values))


def _numbers(value: Any) -> int:
    """How many numbers there are, at any depth."""
    if isinstance(value, list):
        return sum(map(_numbers, value))
    if isinstance(value, dict):
        return sum(map(_numbers, value.values()))
    return int(isinstance(value, int | float) and not isinstance(value, bool))


_FRACTION_STEPS: Final = 900
"""Of comparing a number with one that is written with a fraction or an exponent."""


def _pattern_subschemas(pattern: str) -> int:
    """As how many sub-schemas a pattern counts: those with many classes take long to read."""
    return 10 + len(pattern) * len(_CLASS.findall(pattern)) // 20


_CLASS: Final = re.compile(r"\\[dDsSwW]")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INTEGERS


def _is_extreme(value: float) -> bool:
    return value != 0 and not _EXTREME[0] <= abs(value) <= _EXTREME[1]


UNICODE_CLASS: Final = re.compile(r"\\[pP](?:\{[\w=:!^-]+\}|[A-Z])")
_UNICODE_CLASS_FACTOR: Final = 8
"""How many states of a class such as \\p{L} may be active for one of \\d: a character has four bytes at most.

Compiled it takes 64 KiB, but those are the many ranges of its letters, of which a text is in one at a time.
"""

_ATOM: Final = re.compile(
    r"(?:\\[dwsDWS]|\\[pP](?:\{[\w=:!^-]+\}|[A-Z])|\\[^\w\s]|\[\^?(?:\\.|[^\]\\\[])+\]|[^\\\[\](){}.*+?|^$]|\.)"
    r"(?P<times>\{(?P<least>\d{1,4})(?P<comma>,)?(?P<most>\d{1,4})?\}|[*+?])?"
)


def pattern_steps(pattern: str, size: int) -> int:
    """The steps of matching one byte of text, at most, by a pattern that takes so many bytes when compiled.

    The engine simulates all states that the pattern may be in at once, so they bound the time. It keeps the sets of
    states that it has met, and takes 2 ns a byte while these are few. They are where the pattern has a fixed beginning
    and only its last part repeats a varying number of times, as in ^pay_[a-z]{20,32}$.
    """
    body = pattern.removeprefix("^").removesuffix("$")
    atoms: list[re.Match[str]] = []
    at = 0
    while at < len(body):
        atom = _ATOM.match(body, at)
        if atom is None:  # a group, an alternative, an anchor: only the size says
            return 2 + size // 12
        atoms.append(atom)
        at = atom.end()
    states, varying = 1, []
    for n, atom in enumerate(atoms):
        least, most = atom["least"], atom["most"]
        states += int(most or least or 1)
        if atom["times"] and not (least and (not atom["comma"] or most == least)):
            varying.append(n)
    if pattern.startswith("^") and varying in ([], [len(atoms) - 1]):
        return 5
    return min(2 + 25 * states, 2 + size // 12)


def shown(number: int) -> str:
    """A number for people."""
    return f"{number:,}" if number < 10**12 else "more than 1,000,000,000,000"


def escape(part: str) -> str:
    """As RFC 6901 section 3 writes a part of a pointer."""
    return part[:80].replace("~", "~0").replace("/", "~1")
