"""JSON Schemas of event types: checked when they are stored, and what payloads must meet.

JSON Schema 2020-12. A schema refers to itself only: nothing is ever fetched. `format` is an annotation.

The validator is jsonschema-rs, of the extra `schemas`. Its regular expressions are matched in linear time (the engine
without look-around and back-references), and everything else takes time that `dispatcher.flow.schema_bounds` has
computed before it starts. Only its `uniqueItems` is quadratic where hashes collide, so that is done here.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from types import NoneType
from typing import Any, Final

import orjson

from dispatcher.errors import InvalidInput
from dispatcher.extras import missing_extra
from dispatcher.flow import schema_bounds
from dispatcher.flow.schema_bounds import Size, Weight, escape

try:
    import jsonschema_rs
except ModuleNotFoundError as error:
    raise (missing_extra(error, "event types with a schema need the validator") or error) from error

MAX_SCHEMA_BYTES: Final = 64 * 1024
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

MAX_STEPS: Final = 20_000_000
"""That judging one payload may take: less than 50 ms of CPU with everything around it, on a slow machine, too."""

MAX_STEPS_WITH_ERROR: Final = 32_000_000
"""That validating a payload and writing its first fault as text may take together."""

ORDINARY: Final = Size(values=300, fractions=30, bytes=4096)
"""A schema must have room for payloads of this size."""

MAX_PATTERN_BYTES: Final = 256 * 1024
"""Memory of a compiled regular expression."""

MAX_ITEM_LEVELS: Final = 200
"""How deep items may be nested that `uniqueItems` compares."""

_SMALL_PATTERN_BYTES: Final = 8 * 1024 * 1024
"""Enough for every pattern without repetitions that has each Unicode class once."""

_PATTERN_TOKEN: Final = re.compile(
    r"(?P<refused>\(\?<?[=!]|\\[1-9]|\\k<)|\\.|\[\^?(?:\\.|[^\]\\])*\]|[^\\\[(]+|.", re.DOTALL
)
_REPETITION: Final = re.compile(r"\{(?P<least>\d{1,9})(?:,(?P<most>\d{1,9})?)?\}")
_KEPT: Final = 256
_SHOWN: Final = 80
_PARSED: Final = "valid JSON, nested at most 1,024 levels deep"


def write_schema(schema: Any, *, pointer: str = "/schema") -> str:
    """The text of a schema that payloads can be judged by. Raises InvalidInput naming the place in `pointer`."""
    if not isinstance(schema, dict | bool):
        raise InvalidInput(pointer, type(schema).__name__, "a JSON Schema: an object, true or false")
    try:
        text = orjson.dumps(schema)
    except TypeError as error:  # orjson.JSONEncodeError is one
        raise InvalidInput(
            pointer, str(error), "JSON with numbers of at most 64 bits, not nested too deeply"
        ) from error
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidInput(pointer, f"{len(text)} bytes", f"at most {MAX_SCHEMA_BYTES} bytes")
    _compile(orjson.loads(text), pointer)
    return text.decode()


@lru_cache(maxsize=1024)
def refusal(schema: str) -> str | None:
    """Why a schema that was stored by an earlier version is refused by this one; None where it is not."""
    try:
        _judge(schema)
    except InvalidInput as error:
        return str(error)
    return None


def check(schema: str, payload: bytes, pointer: str) -> int:
    """Passes a payload that meets the schema, and says how many steps that may have taken.

    Raises InvalidInput naming the place of its first fault in `pointer`. Refuses a payload that it would take too long
    to judge, and every payload where the schema itself is refused.
    """
    try:
        validator, weight = _judge(schema)
    except InvalidInput as error:
        found = f"an event of a type whose schema has no bound ({error})"
        raise InvalidInput(pointer, found, "events of this type once its schema has been replaced") from error
    if (containers := schema_bounds.containers(payload)) > schema_bounds.MAX_CONTAINERS:
        found = f"a payload of {containers:,} arrays and objects"
        raise InvalidInput(pointer, found, f"at most {schema_bounds.MAX_CONTAINERS:,}, since its type has a schema")
    value = _parse(payload, pointer)
    size = schema_bounds.most(payload)
    if schema_bounds.judging(weight, size) > MAX_STEPS:
        size = schema_bounds.measure(value, len(payload))
    if (steps := schema_bounds.judging(weight, size)) > MAX_STEPS:
        found = f"{size.values:,} values in {size.bytes:,} bytes, which this type's schema judges in {steps:,} steps"
        raise InvalidInput(pointer, found, f"at most {MAX_STEPS:,} steps: a smaller payload or a simpler schema")
    if _is_met(validator, value, pointer):
        return steps
    if schema_bounds.explaining(weight, size) > MAX_STEPS:
        size = schema_bounds.measure(value, len(payload))
    if schema_bounds.explaining(weight, size) <= (MAX_STEPS if weight.explaining else MAX_STEPS_WITH_ERROR):
        raise _fault(validator, value, pointer)
    if schema_bounds.explaining(weight._replace(explaining=0, explaining_bytes=0), size) <= MAX_STEPS_WITH_ERROR:
        raise _fault(_without_alternatives(schema), value, pointer)
    found = f"a payload that does not meet it; {size.values:,} values in {size.bytes:,} bytes are too many to say where"
    raise InvalidInput(pointer, found, "what the schema of the type says")


def _is_met(validator: Any, value: Any, pointer: str) -> bool:
    """Whether the payload meets the schema. Raises InvalidInput where the validator cannot tell, or panics."""
    try:
        met: bool = validator.is_valid(value)
    except (ValueError, RuntimeError) as error:
        raise InvalidInput(pointer, f"a payload that cannot be judged: {error}"[:200], "a simpler one") from error
    return met


def _fault(validator: Any, value: Any, pointer: str) -> InvalidInput:
    """What is wrong with a payload that does not meet the schema, and where."""
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        place = "/".join([pointer, *(escape(str(part)) for part in error.instance_path)])
        rule = "/".join(map(str, error.schema_path))
        return InvalidInput(place, _short(error.message), f"what the schema of the type says at {rule[:200]}")
    except (ValueError, RuntimeError):  # what is wrong contains values that are nested too deeply to be shown
        return InvalidInput(pointer, "a payload that does not meet it", "what the schema of the type says")
    found = "a payload that does not meet one of " + ", ".join(_ALTERNATIVES)
    return InvalidInput(pointer, found, "what the schema of the type says")


def _short(message: str) -> str:
    """The message in 200 characters. It begins with what was found and ends with what is wrong with that."""
    return message if len(message) <= 200 else f"{message[:99]}…{message[-100:]}"


def _parse(payload: bytes, pointer: str) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(pointer, f"a payload that could not be parsed: {error}"[:200], _PARSED) from error


@lru_cache(maxsize=_KEPT)
def _judge(schema: str) -> tuple[Any, Weight]:
    """The validator of a stored schema, and what it takes. Raises InvalidInput for one that is refused."""
    return _compile(orjson.loads(schema), "/schema")


@lru_cache(maxsize=_KEPT)
def _without_alternatives(schema: str) -> Any:
    """A validator that finds the same faults but for those of `anyOf` and what else tries several ways.

    It tells at once what is wrong; of an `anyOf` that does not hold, all errors of all branches are made.
    """
    return _validator(orjson.loads(schema), keywords=_KEYWORDS | dict.fromkeys(_ALTERNATIVES, _NoKeyword))


def _compile(schema: Any, pointer: str) -> tuple[Any, Weight]:
    if isinstance(schema, dict) and schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        raise InvalidInput(f"{pointer}/$schema", repr(schema["$schema"])[:_SHOWN], DIALECT)
    try:
        _meta_schema().validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise _refused(error, pointer) from error
    except ValueError as error:
        raise InvalidInput(pointer, str(error)[:200], "a schema that is nested less deeply") from error
    for where, node in schema_bounds.subschemas(schema, pointer):
        for name in ("$id", "$schema"):
            if name in node and where != pointer:
                allowed = f"a {name} at the root of the schema only"
                raise InvalidInput(f"{where}/{name}", repr(node[name])[:_SHOWN], allowed)
    weight = schema_bounds.weigh(schema, pointer, _pattern_bytes)
    if (steps := schema_bounds.judging(weight, ORDINARY)) > MAX_STEPS:
        size = f"a payload of {ORDINARY.values} values in {ORDINARY.bytes:,} bytes"
        found = f"a schema that judges {size} in {schema_bounds.shown(steps)} steps"
        raise InvalidInput(pointer, found, f"at most {MAX_STEPS:,} steps")
    try:
        return _validator(schema), weight
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise _refused(error, pointer) from error


@cache
def _meta_schema() -> Any:
    """What every schema must meet. With our `uniqueItems`, since `required` has to be unique, and may be anything."""
    return _validator({"$ref": DIALECT})


def _refused(error: Any, pointer: str) -> InvalidInput:
    place = "/".join([pointer, *(escape(str(part)) for part in getattr(error, "instance_path", ()))])
    return InvalidInput(place, error.message[:200], "JSON Schema 2020-12")


def _validator(
    schema: Any,
    *,
    pattern_bytes: int = MAX_PATTERN_BYTES,
    keywords: dict[str, Any] | None = None,
) -> Any:
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=False,
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=pattern_bytes, dfa_size_limit=MAX_PATTERN_BYTES),
        keywords=keywords or _KEYWORDS,
    )


@lru_cache(maxsize=4096)
def _least_bytes(pattern: str) -> int | None:
    """The least power of two that the compiled pattern fits into, None where that is too much, or it is invalid."""
    fits, too_small = MAX_PATTERN_BYTES * 2, 512
    while fits > 2 * too_small:
        middle = 1 << ((fits.bit_length() + too_small.bit_length()) // 2 - 1)
        try:
            _validator({"pattern": pattern}, pattern_bytes=middle)
        except jsonschema_rs.ValidationError:
            too_small = middle
        else:
            fits = middle
    return fits if fits <= MAX_PATTERN_BYTES else None


def _pattern_bytes(pattern: str, pointer: str) -> int:
    size = _least_bytes(pattern)
    if size is None:
        raise InvalidInput(pointer, *_why_refused(pattern))
    return size


def _why_refused(pattern: str) -> tuple[str, str]:
    """What is wrong with a pattern that does not compile, and what is allowed instead."""
    shown = repr(pattern)[:_SHOWN]
    if any(token.group("refused") for token in _PATTERN_TOKEN.finditer(pattern)):
        return (
            f"look-around or a back-reference in the regular expression {shown}",
            "a regular expression without look-around and back-references",
        )
    known: set[str] = set()

    def once(unicode_class: re.Match[str]) -> str:
        if unicode_class[0] in known:
            return r"\w"
        known.add(unicode_class[0])
        return unicode_class[0]

    small = schema_bounds.UNICODE_CLASS.sub(once, _REPETITION.sub(_without_repetition, pattern))
    try:
        _validator({"pattern": small}, pattern_bytes=_SMALL_PATTERN_BYTES)
    except jsonschema_rs.ValidationError:
        return f"a regular expression with invalid syntax: {shown}", "a regular expression with valid syntax"
    return (
        f"a regular expression that is too large when compiled: {shown}",
        f"at most {MAX_PATTERN_BYTES // 1024} KiB: use smaller repetitions or fewer Unicode classes",
    )


def _without_repetition(repetition: re.Match[str]) -> str:
    least, most = repetition["least"], repetition["most"]
    return repetition[0] if most and int(most) < int(least) else "{1}"


class _UniqueItems:
    """`uniqueItems` by a set of the items as JSON, whose hash nobody can predict."""

    def __init__(self, _schema: Any, value: Any, _path: Any) -> None:
        self._applies = value is True

    def validate(self, value: Any) -> None:
        if self._applies and type(value) is list and len(value) > 1 and not _are_unique(value):
            raise ValueError("has items that are equal")


def _are_unique(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    if kinds <= {str}:
        return len(set(items)) == len(items)
    if kinds <= {str, int, bool, NoneType}:
        return len(set(map(repr, items))) == len(items)
    return len({orjson.dumps(_canonical(item), option=orjson.OPT_SORT_KEYS) for item in items}) == len(items)


def _canonical(value: Any, level: int = 1) -> Any:
    """The same value with 1.0 written as 1. Raises ValueError for one that is nested too deeply."""
    if level > MAX_ITEM_LEVELS:
        raise ValueError(f"has items that are nested more than {MAX_ITEM_LEVELS} levels deep")
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, list):
        return [_canonical(item, level + 1) for item in value]
    if isinstance(value, dict):
        return {name: _canonical(item, level + 1) for name, item in value.items()}
    return value


class _NoKeyword:
    """A keyword that every value meets."""

    def __init__(self, _schema: Any, _value: Any, _path: Any) -> None:
        pass

    def validate(self, _value: Any) -> None:
        """Every value meets it."""


_KEYWORDS: Final[dict[str, Any]] = {"uniqueItems": _UniqueItems, "dependencies": _NoKeyword}
"""In place of the validator's own. JSON Schema 2020-12 has no `dependencies` any more, which it would apply."""

_ALTERNATIVES: Final = ("anyOf", "oneOf", "not", "if", "contains")
