"""What no route takes: a body that is not strictly JSON or cannot be stored, and query parameters that it lacks."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError

from dispatcher.api.gate import INGEST_PATHS
from dispatcher.api.problems import STRICT_JSON, WITH_BODY
from dispatcher.errors import InvalidInput
from dispatcher.model import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute


MAX_PARAMETERS: Final = 100
"""In one query. More are refused before they are parsed."""

MAX_NAMED: Final = 10
"""Query parameters that one answer finds fault with."""

_NAME: Final = 80
"""Characters of a parameter's name that are compared with the names of a route, and repeated in the answer."""

_known: dict[Callable[..., Any], tuple[str, ...]] = {}
"""The names of the query parameters of each route that was asked with a query, by the route's function."""


async def strict(request: Request) -> None:
    """Passes a body that is read in one way only, and can be stored and answered. Raises InvalidInput.

    Python's own reader, which FastAPI has used before this, also takes NaN, infinite numbers and lone surrogates. What
    it does not take, for its depth or for the digits of an integer, `dispatcher.api.problems` answers as this does.
    Routes that accept events read their bodies themselves.
    """
    if request.method not in WITH_BODY or request.url.path in INGEST_PATHS or not (text := await request.body()):
        return
    json_text.check_size(text)
    if json_text.is_deeper(text, json_text.MAX_REQUEST_DEPTH):
        raise json_text.too_deep("/", json_text.MAX_REQUEST_DEPTH)
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("/", f"invalid JSON ({error})", STRICT_JSON) from error
    if b"\\u0000" in text and (pointer := _find_nul(body)) is not None:
        raise InvalidInput(pointer, "the character NUL", "Unicode text without it")


def _find_nul(body: Any) -> str | None:
    """Where a string, or a member's name, has a NUL."""
    ahead: list[tuple[str, Any]] = [("", body)]
    while ahead:
        pointer, value = ahead.pop()
        match value:
            case str() if "\0" in value:
                return pointer or "/"
            case dict():
                if any("\0" in name for name in value):
                    return pointer or "/"
                ahead += [(f"{pointer}/{name}", one) for name, one in value.items()]
            case list():
                ahead += [(f"{pointer}/{n}", one) for n, one in enumerate(value)]
    return None


async def known_parameters(request: Request) -> None:
    """Does what `check_query` does, for a route that nobody needs a key for."""
    check_query(request)


def check_query(request: Request) -> None:
    """Raises RequestValidationError for query parameters that the route does not have, or that are given twice.

    Whoever finds out the caller calls this then (`dispatcher.api.caller`): 401 and 403 come first, and nothing has
    been done yet.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return
    if query.count(b"&") >= MAX_PARAMETERS:
        raise InvalidInput("query", f"more than {MAX_PARAMETERS} parameters", f"at most {MAX_PARAMETERS}")
    known = _parameters(request.scope["route"])
    given = Counter(name for name, _ in request.query_params.multi_items())
    faults = [
        _fault(name, f"a parameter that is given {times} times", "once")
        if name in known
        else _fault(name, "a parameter that does not exist", _names(name, known))
        for name, times in given.items()
        if name not in known or times > 1
    ]
    if faults:
        raise RequestValidationError(faults[:MAX_NAMED])


def _fault(name: str, found: str, allowed: str) -> dict[str, Any]:
    """A fault in the form of pydantic's, as `dispatcher.api.problems` reads it."""
    return {"type": "parameter", "loc": ("query", name[:_NAME] or "?"), "found": found, "msg": allowed}


def _names(name: str, known: tuple[str, ...]) -> str:
    """All names that there are, the nearest one first.

    >>> _names("endpoint", ("tenant_id", "endpoint_id", "event_type"))
    'endpoint_id (nearest), tenant_id, event_type'
    """
    if not known:
        return "none: this request takes no parameters"
    (nearest,) = get_close_matches(name[:_NAME].lower(), known, n=1, cutoff=0.0)
    return ", ".join([f"{nearest} (nearest)", *(one for one in known if one != nearest)])


def _parameters(route: APIRoute) -> tuple[str, ...]:
    """The names of a route's query parameters: those of its functions, and those that it describes by itself."""
    found = _known.get(route.endpoint)
    if found is None:
        described = (route.openapi_extra or {}).get("parameters", ())
        found = _known[route.endpoint] = (
            *_of_functions(route.dependant),
            *(parameter["name"] for parameter in described if parameter["in"] == "query"),
        )
    return found


def _of_functions(dependant: Dependant) -> Iterator[str]:
    """The names of the query parameters of a function, and of those that it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _of_functions(inner)
