"""JSON Schemas of event types: read once, and what payloads must meet.

JSON Schema 2020-12. A schema refers to itself only: nothing is ever fetched.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SCHEMA_BYTES: Final = 64 * 1024
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_REFERENCES: Final = ("$ref", "$dynamicRef")
_SAMPLES: Final = (b"null", b"true", b"0", b'""', b"[]", b"{}")
_KEPT: Final = 256
_SHOWN: Final = 80


def write_schema(schema: Any, *, pointer: str = "/schema") -> str:
    """The text of a schema that payloads can be checked by. Raises InvalidInput naming `pointer`."""
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
    if isinstance(schema, dict) and schema.get("$schema", DIALECT) != DIALECT:
        raise InvalidInput(f"{pointer}/$schema", repr(schema["$schema"])[:_SHOWN], DIALECT)
    _check_schema(schema, pointer)
    inside, seen = Registry().resolver_with_root(DRAFT202012.create_resource(schema)), set()
    for where, target in _members(schema, pointer, *_REFERENCES):
        found = _referred(inside.lookup, target, where)
        if target not in seen:
            _check_schema(found, where)
        seen.add(target)
    for where, target in _members(schema, pointer, "$id"):
        if isinstance(target, str) and where != f"{pointer}/$id":
            raise InvalidInput(where, repr(target)[:_SHOWN], "an $id at the root only")
    for sample in _SAMPLES:
        with _bounded(pointer, "a schema that refers to itself without an end", "one that can judge a payload"):
            next(_validator(text.decode()).iter_errors(orjson.loads(sample)), None)
    return text.decode()


def _check_schema(schema: Any, pointer: str) -> None:
    """Raises InvalidInput for what is no schema. What stands where no schema is expected, nobody has looked at yet."""
    try:
        with _bounded(pointer, "a schema that is nested too deeply", "JSON Schema 2020-12"):
            Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join([pointer, *(_escape(str(part)) for part in error.absolute_path)])
        raise InvalidInput(place, error.message[:200], "JSON Schema 2020-12") from error


def _referred(lookup: Callable[[str], Any], target: Any, pointer: str) -> Any:
    """What the reference means. Raises InvalidInput where that is nothing inside of the schema."""
    try:
        if not isinstance(target, str) or not target.startswith("#"):
            raise ValueError(target)
        return lookup(target).contents
    except (Unresolvable, ValueError, TypeError) as error:  # the last for a way through what is no object or list
        allowed = "a reference inside this schema, such as #/$defs/money"
        raise InvalidInput(pointer, repr(target)[:_SHOWN], allowed) from error


def check(schema: str, payload: bytes, pointer: str) -> None:
    """Passes a payload that meets the schema. Raises InvalidInput naming the place of its first fault in `pointer`."""
    with _bounded(pointer, "a payload that is nested too deeply for the type's schema", "one that it can judge"):
        fault = next(_validator(schema).iter_errors(orjson.loads(payload)), None)
        found = None if fault is None else best_match([fault]) or fault
    if found is not None:
        place = "/".join([pointer, *(_escape(str(part)) for part in found.absolute_path)])
        rule = "/".join(map(str, found.absolute_schema_path))
        raise InvalidInput(place, found.message[:200], f"what the schema of the type says at {rule[:200]}")


@contextmanager
def _bounded(pointer: str, found: str, allowed: str) -> Iterator[None]:
    """Raises InvalidInput where Python's recursion limit is met.

    Where it is met inside of rpds, which jsonschema keeps its maps in, that panics rather than raise RecursionError:
    a BaseException, which nobody would catch, of a class that cannot be imported.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, RecursionError) or type(error).__name__ == "PanicException":
            raise InvalidInput(pointer, found, allowed) from error
        raise


@lru_cache(maxsize=_KEPT)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(orjson.loads(schema), registry=Registry())


def _escape(part: str) -> str:
    """As RFC 6901 section 3 writes a part of a pointer."""
    return part[:_SHOWN].replace("~", "~0").replace("/", "~1")


def _members(schema: Any, pointer: str, *names: str) -> Iterator[tuple[str, Any]]:
    """Every member with one of the names, anywhere in the schema, and where it stands."""
    ahead: list[tuple[str, Any]] = [(pointer, schema)]
    while ahead:
        where, value = ahead.pop()
        if isinstance(value, dict):
            yield from ((f"{where}/{name}", value[name]) for name in names if name in value)
            ahead += [(f"{where}/{_escape(name)}", one) for name, one in value.items()]
        elif isinstance(value, list):
            ahead += [(f"{where}/{n}", one) for n, one in enumerate(value)]
