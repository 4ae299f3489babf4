"""What no route takes: a body that is not strictly JSON, or cannot be stored."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import Request

from dispatcher.api.gate import INGEST_PATHS
from dispatcher.api.problems import WITH_BODY
from dispatcher.errors import InvalidInput

ANSWER_DEPTH: Final = 32
"""How many levels an answer may have around a value that came in a request."""


async def strict(request: Request) -> None:
    """Passes a body that is read in one way only, and can be stored and answered. Raises InvalidInput.

    Python's own reader, which FastAPI has used before this, also takes NaN, infinite numbers and lone surrogates.
    Routes that accept events read their bodies themselves.
    """
    if request.method not in WITH_BODY or request.url.path in INGEST_PATHS or not (text := await request.body()):
        return
    try:
        body = orjson.loads(text)
        orjson.dumps(_inside(body))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise InvalidInput("/", f"no JSON ({error})", "JSON in UTF-8, not nested too deeply") from error
    if b"\\u0000" in text and (pointer := _find_nul(body)) is not None:
        raise InvalidInput(pointer, "the character NUL", "Unicode text without it")


def _inside(value: Any) -> Any:
    """The value as deep inside of an answer as any of ours has it: orjson writes fewer levels than it reads."""
    for _ in range(ANSWER_DEPTH):
        value = [value]
    return value


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
