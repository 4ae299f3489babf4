"""The OpenAPI document: what FastAPI finds out by itself, and what the gate and the problems add to each operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from dispatcher.api.gate import PUBLIC_PATHS
from dispatcher.api.problems import WITH_BODY, title
from dispatcher.api.webhooks import webhooks
from dispatcher.ids import NOUNS
from dispatcher.shapes import DeliveredEvent, NewBatch, Problem
from dispatcher.shapes.values import EXAMPLE_UUID, UUID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI
    from fastapi.routing import APIRoute

DESCRIPTION: Final = """\
A durable webhook sender: an event that was accepted is delivered, signed, at least once, whatever fails meanwhile.

Every request below `/v1` needs a key: `Authorization: Bearer <key>`, the key alone, or a signature with HMAC. A key
acts for one tenant or belongs to an operator; its scopes say what it may do. An object of another tenant is answered
like one that does not exist.

Requests and responses are JSON with names in snake_case; times are RFC 3339 in UTC. A list is a page:
`{data, has_more, next_cursor}`. Errors are `application/problem+json` (RFC 9457) with a `code` that does not change. A
POST may be repeated with the same `Idempotency-Key`.
"""

_IDS: Final = {f"{noun}_id": prefix for prefix, noun in NOUNS.items()}
"""A parameter of this name is an id with this prefix; members say it by their types."""

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _header(schema: dict[str, Any], description: str, *, required: bool = True) -> dict[str, Any]:
    return {"schema": schema, "description": description, "required": required}


_REQUEST_ID: Final = {
    "x-request-id": _header(
        {"type": "string", "examples": ["req_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"]}, "The number of the request."
    )
}
_RETRY_AFTER: Final = {
    "retry-after": _header({"type": "integer", "minimum": 1, "examples": [1]}, "When to come again, in seconds.")
}
_AUTHENTICATE: Final = {
    "www-authenticate": _header({"type": "string", "examples": ["Bearer"]}, "How to say who calls.")
}
_REPLAYED: Final = {
    "idempotency-replayed": _header(
        {"const": "true", "examples": ["true"]}, "This is the first answer again.", required=False
    )
}

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


_IRREGULAR: Final = {
    "endpoint_import.import_": "importEndpoints",
    "events.create_batch": "createEvents",
    "find.find": "findAnything",
    "health.healthz": "checkLiveness",
    "health.readyz": "checkReadiness",
    "metrics.metrics": "getMetrics",
    "public_keys.jwks": "getJwks",
    "statistics.read": "getStatistics",
}
"""Operations whose names do not follow from the function and the path, by module and function."""


def operation_id(route: APIRoute) -> str:
    """What a library calls the operation: verb and object, as in `listDeliveries`, `getDelivery`, `rotateTenantSecret`.

    They come from the function's name (`list_`, `show`, `rotate_secret`) and the first part of the path below /v1.
    """
    function = route.endpoint.__name__
    irregular = _IRREGULAR.get(f"{route.endpoint.__module__.rpartition('.')[2]}.{function}")
    if irregular is not None:
        return irregular
    verb, _, rest = function.strip("_").partition("_")
    plural = _camel(route.path.removeprefix("/v1/").partition("/")[0])
    if function == "list_":
        return f"list{plural}"
    return f"{'get' if verb == 'show' else verb}{_singular(plural)}{_camel(rest)}"


def _camel(name: str) -> str:
    """Words joined by their capitals.

    >>> _camel("rotate_secret")
    'RotateSecret'
    """
    return "".join(word.capitalize() for word in name.split("_"))


def _singular(plural: str) -> str:
    """A noun of a path, of one thing.

    >>> [_singular(noun) for noun in ("Deliveries", "Endpoints", "SenderAddresses")]
    ['Delivery', 'Endpoint', 'SenderAddress']
    """
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if plural.endswith(ending):
            return plural.removesuffix(ending) + instead
    return plural


def install(app: FastAPI, tags: Mapping[str, str]) -> None:
    """Makes the application serve the completed document. `tags` are the groups of operations, each described."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary="A durable webhook sender.",
                    description=DESCRIPTION,
                    servers=[{"url": "/", "description": "Where this document came from."}],
                    license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                    routes=app.routes,
                ),
                tags,
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation of a document: its path, its method in lower case, itself."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(found: dict[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for shape in (Problem, NewBatch, DeliveredEvent):  # which no route names to FastAPI
        schema = TypeAdapter(shape).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[shape.__name__] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    found["components"]["securitySchemes"] = _SECURITY
    used = set()
    for path, method, operation in operations(found):
        used |= set(operation["tags"])
        _complete_operation(operation, method, path)
    found["webhooks"] = webhooks()
    used.add("webhooks")
    found["tags"] = [{"name": name, "description": text} for name, text in tags.items() if name in used]
    return found


def _complete_operation(operation: dict[str, Any], method: str, path: str) -> None:
    operation["summary"] = operation["description"].partition("\n\n")[0].partition(". ")[0].rstrip(".")
    responses = operation["responses"]
    responses.pop("422", None)
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        _say_prefix(parameter["name"], parameter["schema"])
    statuses = [408, 431]  # from the connection, which knows no path
    if path.startswith("/v1/") and path not in PUBLIC_PATHS:
        operation["security"] = [{"bearer": []}, {"hmac": []}]
        statuses += [401, 403, 404, 422, 429]
        if method.upper() in WITH_BODY:
            statuses += [409, 413, 415]
        elif method == "delete":
            statuses += [409]
    else:
        operation["security"] = []  # nobody needs a key
        if path in PUBLIC_PATHS:
            statuses.append(422)
    if path != "/healthz":
        statuses.append(503)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"description": title(status), "content": _PROBLEM})
    is_repeatable = any(parameter["name"] == "idempotency-key" for parameter in parameters)
    for status_text, response in responses.items():
        headers = response.setdefault("headers", {})
        headers |= _REQUEST_ID
        match status_text:
            case "401":
                headers |= _AUTHENTICATE
            case "429" | "503":
                headers |= _RETRY_AFTER
            case _ if is_repeatable and status_text.startswith("2"):
                headers |= _REPLAYED


def _say_prefix(name: str, schema: dict[str, Any]) -> None:
    """Says what an id looks like, where a parameter is named as one."""
    if name not in _IDS:
        return
    for one in schema.get("anyOf", [schema]):
        if "string" in _list(one.get("type")):
            one["pattern"] = f"^{_IDS[name]}_{UUID}$"
    schema.setdefault("examples", [f"{_IDS[name]}_{EXAMPLE_UUID}"])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
