"""Holds every answer of the API against its shape, in whatever test it is given."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from dispatcher.api.app import make_app
from dispatcher.api.openapi import operations
from dispatcher.config import Settings
from tests.support import walk


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document; what a shape does not name is forbidden in it, in answers too."""
    app = make_app(Settings(database_url="postgresql+psycopg://x@x/x", secret_keys=walk.KEYS.reveal()))
    found = copy.deepcopy(app.openapi())
    for shape in found["components"]["schemas"].values():
        if "properties" in shape:
            shape.setdefault("additionalProperties", False)
    return found


@cache
def _paths() -> list[tuple[re.Pattern[str], str, str]]:
    """Each operation's path as a pattern, those without parameters first."""
    found = []
    for path, method, _ in operations(document()):
        found.append((re.compile(re.sub(r"{\w+}", "[^/]+", path)), method.upper(), path))
    return sorted(found, key=lambda operation: operation[2].count("{"))


@cache
def _validator(path: str, method: str, status: int, kind: str) -> Any:
    described = document()["paths"][path][method.lower()]["responses"]
    assert str(status) in described, f"{method} {path} answered {status}, which the document does not have"
    content = described[str(status)].get("content", {})
    if kind not in content:
        return None
    return jsonschema_rs.validator_for({**content[kind]["schema"], "components": document()["components"]})


def check(response: httpx.Response) -> None:
    """Raises AssertionError for an answer that its shape does not allow."""
    request = response.request
    operation = next(
        (
            (path, method)
            for pattern, method, path in _paths()
            if method == request.method and pattern.fullmatch(request.url.path)
        ),
        None,
    )
    if operation is None or not response.content:
        return
    kind = response.headers.get("content-type", "").partition(";")[0]
    if not kind.endswith("json"):
        return
    validator = _validator(*operation, response.status_code, kind)
    if validator is not None:
        error = next(iter(validator.iter_errors(json.loads(response.content))), None)
        assert error is None, f"{request.method} {request.url.path} {response.status_code}: {error}"


class Checked(httpx.AsyncBaseTransport):
    """Another transport, whose answers are checked."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        await response.aread()
        response.request = request
        check(response)
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()
