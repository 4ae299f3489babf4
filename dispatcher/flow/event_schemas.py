"""JSON Schemas of event types: read once, and what payloads must meet.

JSON Schema 2020-12. A schema refers to itself only: nothing is ever fetched.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import ValidationError

MAX_SCHEMA_BYTES: Final = 64 * 1024
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_REFERENCES: Final = ("$ref", "$dynamicRef")
_KEPT: Final = 256
_SHOWN: Final = 80


def write_schema(schema: Any, *, pointer: str = "/schema") -> str:
    """The text of a schema that payloads can be checked by. Raises InvalidInput naming `pointer`."""
    if not isinstance(schema, dict | bool):
        raise InvalidInput(pointer, type(schema).__name__, "a JSON Schema: an object, true or false")
    text = orjson.dumps(schema)
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidInput(pointer, f"{len(text)} bytes", f"at most {MAX_SCHEMA_BYTES} bytes")
    if isinstance(schema, dict) and schema.get("$schema", DIALECT) != DIALECT:
        raise InvalidInput(f"{pointer}/$schema", repr(schema["$schema"])[:_SHOWN], DIALECT)
    for where, target in _references(schema, pointer):
        if not isinstance(target, str) or not target.startswith("#"):
            raise InvalidInput(where, repr(target)[:_SHOWN], "a reference inside this schema, such as #/$defs/money")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(
            "/".join([pointer, *map(str, error.absolute_path)]), error.message[:200], "JSON Schema 2020-12"
        ) from error
    except RecursionError as error:
        raise InvalidInput(pointer, "a schema that is nested too deeply", "JSON Schema 2020-12") from error
    return text.decode()


def check(schema: str, payload: bytes, pointer: str) -> None:
    """Passes a payload that meets the schema. Raises InvalidInput naming the place of its first fault in `pointer`."""
    try:
        fault = next(islice(_validator(schema).iter_errors(orjson.loads(payload)), 1), None)
    except (Unresolvable, RecursionError) as error:  # a reference to nothing, or to itself without an end
        raise InvalidInput(pointer, "a payload that the type's schema cannot judge", "a schema that can") from error
    if fault is not None:
        found = _worst(fault)
        place = "/".join([pointer, *(_escape(str(part)) for part in found.absolute_path)])
        rule = "/".join(map(str, found.absolute_schema_path))
        raise InvalidInput(place, found.message[:200], f"what the schema of the type says at {rule[:200]}")


def _worst(fault: ValidationError) -> ValidationError:
    found: ValidationError = best_match([fault]) or fault
    return found


@lru_cache(maxsize=_KEPT)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(orjson.loads(schema), registry=Registry())


def _escape(part: str) -> str:
    """As RFC 6901 section 3 writes a part of a pointer."""
    return part[:_SHOWN].replace("~", "~0").replace("/", "~1")


def _references(schema: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Every reference anywhere in the schema, and where it stands."""
    ahead: list[tuple[str, Any]] = [(pointer, schema)]
    while ahead:
        where, value = ahead.pop()
        if isinstance(value, dict):
            yield from ((f"{where}/{name}", value[name]) for name in _REFERENCES if name in value)
            ahead += [(f"{where}/{_escape(name)}", one) for name, one in value.items()]
        elif isinstance(value, list):
            ahead += [(f"{where}/{n}", one) for n, one in enumerate(value)]
