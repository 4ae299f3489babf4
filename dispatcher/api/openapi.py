"""The OpenAPI document: what FastAPI finds out by itself, and what the gate and the problems add to each operation."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from dispatcher.api.gate import PUBLIC_PATHS
from dispatcher.api.problems import Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REQUEST_ID: Final = {"x-request-id": {"schema": {"type": "string"}, "description": "The number of the request."}}
_RETRY_AFTER: Final = {"retry-after": {"schema": {"type": "integer"}, "description": "In seconds."}}

_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, as `Bearer <key>`; also alone."},
    "hmac": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The key's id, with x-timestamp (ISO 8601, within 300 s) and x-signature (base64 of "
        "HMAC-SHA256 over timestamp, method, path with query, and the body's SHA-256 in hex, joined by line feeds).",
    },
}


def install(app: FastAPI) -> None:
    """Has the application serve the completed document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(found: dict[str, Any]) -> dict[str, Any]:
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs")
    schemas["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    found["components"]["securitySchemes"] = _SECURITY
    for path, operations in found["paths"].items():
        guarded = path.startswith("/v1/") and path not in PUBLIC_PATHS
        for method, operation in operations.items():
            _complete_operation(operation, method, path, guarded=guarded)
    return found


def _complete_operation(operation: dict[str, Any], method: str, path: str, *, guarded: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    statuses: list[HTTPStatus] = []
    if guarded:
        operation["security"] = [{"bearer": []}, {"hmac": []}]
        statuses += [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND]
        statuses += [HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS]
        if method != "get":
            statuses += [HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE]
    if guarded or path in PUBLIC_PATHS or path != "/healthz":
        statuses.append(HTTPStatus.SERVICE_UNAVAILABLE)
    for status in sorted(statuses):
        responses.setdefault(str(int(status)), {"description": status.phrase, "content": _PROBLEM})
    for status_text, response in responses.items():
        more = _RETRY_AFTER if status_text in {"429", "503"} else {}
        response["headers"] = {**response.get("headers", {}), **_REQUEST_ID, **more}
