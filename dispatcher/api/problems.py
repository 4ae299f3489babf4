"""Errors as `application/problem+json` (RFC 9457): mapped to HTTP here, once."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import psycopg
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from dispatcher import renamed, telemetry
from dispatcher.errors import (
    Conflict,
    DispatcherError,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    TooMany,
    Unauthorized,
    Unavailable,
)
from dispatcher.model import json_text
from dispatcher.shapes.problems import MAX_FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

    from dispatcher.shapes.problems import Fault, Problem

_log = logging.getLogger(__name__)

_STATUSES: Final[dict[type[DispatcherError], int]] = {
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    IdempotencyConflict: 422,
    Conflict: 409,
    InvalidInput: 422,
    TooMany: 429,
    Unavailable: 503,
}


_CODES: Final = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "CONTENT_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    431: "HEAD_TOO_LARGE",
}
"""Of what the connection, the framework and the gate refuse. `http.HTTPStatus` names them differently in each version
of Python."""

_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
"""As RFC 9110 has them; Python before 3.13 has the words of the RFC before that."""

_SUBJECTS: Final = {
    "Input should be": "",
    "String should": "a string that should",
    "List should": "a list that should",
    "Dictionary should": "an object that should",
    "Value error,": "",
}
"""How pydantic begins what it has to say, and how that goes on after "allowed:"."""

_READ_ONLY: Final = "25006"
"""SQLSTATE read_only_sql_transaction."""

_NO_PLACES: Final = object()

WITH_BODY: Final = frozenset({"PATCH", "POST", "PUT"})
"""The methods whose requests have bodies that we read."""


STRICT_JSON: Final = "JSON in UTF-8, its numbers within a double"
"""What a body has to be."""

_SECRET_FIELDS: Final = frozenset({"auth", "headers", "password", "secret", "secrets"})
"""Whose values no answer repeats."""


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[Fault] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """One problem as an answer."""
    number = request.scope.get("dispatcher.request_id", "")
    body = document(status, code, detail, instance=request.url.path, errors=errors, request_id=number)
    return _Problem(body, status_code=status, headers=headers)


def document(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str,
    request_id: str,
    errors: list[Fault] | None = None,
) -> Problem:
    """One problem document."""
    return {
        "type": f"urn:dispatcher:problem:{code.lower().replace('_', '-')}",
        "title": title(status),
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "errors": errors or [],
        "request_id": request_id,
    }


def code_of(status: int) -> str:
    """The code of a refusal that the framework made, not the application."""
    return _CODES.get(status) or next(kind.code for kind, known in _STATUSES.items() if known == status)


def title(status: int) -> str:
    """What a status is called."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


class _Problem(JSONResponse):
    media_type = "application/problem+json"


def answer(request: Request, error: Exception) -> Response | None:
    """How an error is answered; None for a defect of ours."""
    match error:
        case DispatcherError():
            return _ours(request, error)
        case RequestValidationError():
            return _invalid(request, error)
        case HTTPException():
            return _refused(request, error)
        case DataError() | UnicodeEncodeError():
            given = (*request.path_params.items(), *request.query_params.multi_items())
            place = next((name for name, value in given if "\0" in str(value)), "/")
            fault = _fault(place, "a character or a number that cannot be stored", "Unicode text without NUL")
            return _faulty(request, InvalidInput.code, [fault])
        case DBAPIError() | PoolTimeout() | psycopg.Error():
            telemetry.log(_log, logging.ERROR, "request.failed", path=request.url.path, error=error)
            why = "is read-only" if is_read_only(error) else "does not answer"
            return _ours(request, Unavailable(f"the database {why}; repeat the request with its idempotency key"))
    return None


def is_read_only(error: Exception) -> bool:
    """Whether the database refused to write because it is read-only, such as a standby."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == _READ_ONLY


def _ours(request: Request, error: DispatcherError) -> Response | None:
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        return None
    headers = {}
    match error:
        case InvalidInput():
            pointer = _place(request, error.pointer)
            return _faulty(request, error.code, [_fault(pointer, error.found, error.allowed)])
        case IdempotencyConflict():
            pointer = "idempotency-key" if "idempotency-key" in request.headers else "/"
            return _faulty(request, error.code, [_fault(pointer, str(error), "the same request, or a key of its own")])
        case Unauthorized():
            headers = {"www-authenticate": "Bearer"}
        case TooMany():
            headers = {"retry-after": str(error.retry_after_s)}
        case Unavailable():
            headers = {"retry-after": "1"}
    return problem(request, status, error.code, str(error), headers=headers)


def _faulty(request: Request, code: str, errors: list[Fault]) -> Response:
    """A 422 that says everything that its `errors` say."""
    more = f"; and {len(errors) - MAX_FAULTS} more" if len(errors) > MAX_FAULTS else ""
    errors = errors[:MAX_FAULTS]
    detail = "; ".join(f"{one['pointer']}: {one['detail']}" for one in errors) + more
    return problem(request, 422, code, detail, errors=errors)


def _fault(pointer: str, found: str, allowed: str) -> Fault:
    return {"pointer": pointer, "detail": f"found {found}; allowed: {allowed}"}


def faults(error: DispatcherError) -> list[Fault]:
    """What an error names, as `errors` has it."""
    return [_fault(error.pointer, error.found, error.allowed)] if isinstance(error, InvalidInput) else []


def _place(request: Request, pointer: str) -> str:
    """A pointer as it was raised, by code that does not know whether its value came in the body; or the parameter."""
    name = pointer.removeprefix("/")
    if name == "id" and request.path_params:
        return next(reversed(request.path_params))
    is_parameter = request.method not in WITH_BODY or name in request.query_params or name in request.headers
    return name if is_parameter and name else pointer


def _refused(request: Request, error: HTTPException) -> Response:
    """What the framework or the gate refuse."""
    headers = dict(error.headers) if error.headers else {}
    detail = str(error.detail)
    match error.status_code:
        case 400 if isinstance(error.__cause__, RecursionError):  # FastAPI's, of a body that `json` cannot read
            return _faulty(request, InvalidInput.code, faults(json_text.too_deep("/", json_text.MAX_REQUEST_DEPTH)))
        case 400:  # the same, of an integer of thousands of digits, or of bytes that are not UTF-8
            return _faulty(request, InvalidInput.code, [_fault("/", "invalid JSON", STRICT_JSON)])
        case 404:
            detail = "there is no such path; /docs and /openapi.json describe the API"
        case 405:
            allowed = ", ".join(_methods(request))
            headers = {"allow": allowed}
            detail = f"found the method {request.method[:20]}; allowed: {allowed}"
    return problem(request, error.status_code, _CODES[error.status_code], detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the path allows. The framework names the methods of one of its routes only."""
    found = set()
    for method in ("DELETE", "GET", "PATCH", "POST", "PUT"):
        scope = dict(request.scope) | {"method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            found.add(method)
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _faulty(request, InvalidInput.code, field_faults(error.errors(), body=error.body))


def field_faults(errors: Iterable[Mapping[str, Any]], *, body: Any = _NO_PLACES) -> list[Fault]:
    """What pydantic found wrong, in our words. With `body`, each location says first where it is: body, query, path."""
    return [_field_fault(one, body) for one in errors]


def _field_fault(one: Mapping[str, Any], body: Any) -> Fault:
    loc: tuple[str | int, ...] = one["loc"]
    if body is _NO_PLACES:
        pointer = _pointer(loc)
    elif loc[0] == "body":
        pointer = _pointer(_there(loc[1:], body, missing=one["type"] == "missing"))
    else:
        pointer = str(loc[1])
    match one["type"]:
        case "missing":
            return _fault(pointer, "nothing", "a value: it is required")
        case "extra_forbidden":
            if loc[-1] in renamed.REQUEST_FIELDS:
                return _fault(pointer, "the old name of a field", renamed.REQUEST_FIELDS[loc[-1]])
            return _fault(pointer, "a field that does not exist", "the fields of the OpenAPI document")
        case "parameter":
            return _fault(pointer, one["found"], one["msg"])
        case "json_invalid":
            return _fault("/", f"invalid JSON ({one['ctx']['error']} at character {loc[1]})", "JSON in UTF-8")
    allowed = one["msg"]
    for begins, instead in _SUBJECTS.items():
        if allowed.startswith(begins):
            allowed = (instead + allowed.removeprefix(begins)).strip()
    return _fault(pointer, _found(one), allowed)


def _there(loc: Iterable[str | int], body: Any, *, missing: bool) -> list[str | int]:
    """Of pydantic's location what is in the body, or missing there: it also names alternatives, and keys as keys."""
    found: list[str | int] = []
    for part in loc:
        if isinstance(body, dict) and (part in body or missing):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
        else:
            continue
        found.append(part)
    return found


def _pointer(loc: Iterable[str | int]) -> str:
    return "/" + "/".join(str(part)[:80].replace("~", "~0").replace("/", "~1") for part in loc)


def _found(one: Mapping[str, Any]) -> str:
    """What was found, unless it is a secret or holds one."""
    if not _SECRET_FIELDS.isdisjoint(str(part).lower() for part in one["loc"]):
        return "a value that is not repeated here"
    match one.get("input"):
        case dict():
            return "an object"
        case list(found):
            return f"a list of {len(found)}"
        case bytes(found):
            return f"{len(found)} bytes"
        case found:
            return repr(found)[:80]


def too_large(limit: int) -> HTTPException:
    """A body beyond its limit, in bytes."""
    return HTTPException(413, f"found more than {limit} bytes; allowed: {limit}")


def check_length(scope: Scope, limit: int) -> None:
    """Raises a 413 for a request that says it is longer, before anything of it is read."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(limit)


def check_content_type(scope: Scope) -> None:
    """Raises a 415 for a body that says it is compressed, or no JSON; one that says nothing is taken for JSON."""
    if scope["method"] not in WITH_BODY:
        return
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            coding = value.decode("latin-1")[:80]
            raise HTTPException(415, f"found the content-encoding {coding!r}; allowed: a body that is not compressed")
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
                raise HTTPException(415, f"found {kind.decode('latin-1')[:80]!r}; allowed: application/json")


def install(app: FastAPI) -> None:
    """Has every error of the application answered as a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        found = answer(request, error)
        if found is None:
            raise error
        return found

    for kind in (
        DispatcherError,
        RequestValidationError,
        HTTPException,
        UnicodeEncodeError,
        DBAPIError,
        PoolTimeout,
        psycopg.Error,
    ):
        app.add_exception_handler(kind, handle)

    @app.exception_handler(Exception)  # which is raised again, so that the server logs the traceback
    async def defect(request: Request, error: Exception) -> Response:
        number = request.scope.get("dispatcher.request_id", "")  # the gate is inside of what answers here
        path = request.url.path
        telemetry.log(_log, logging.ERROR, "request.failed_internally", request_id=number, path=path, error=error)
        headers = {"x-request-id": number}
        return problem(request, 500, "INTERNAL_ERROR", "a defect of ours; the log has the details", headers=headers)
