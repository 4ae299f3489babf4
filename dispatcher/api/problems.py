"""Errors as `application/problem+json` (RFC 9457): mapped to HTTP here, once."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException

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

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

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


class Fault(BaseModel):
    """One thing wrong: where, what was found and what is allowed."""

    pointer: str = Field(description="A JSON pointer into the body, or the name of a parameter.", examples=["/url"])
    detail: str = Field(examples=["found the scheme 'http'; allowed: https"])


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(examples=["urn:dispatcher:problem:invalid-input"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["/url: found the scheme 'http'; allowed: https"])
    instance: str = Field(description="The path that was asked for.", examples=["/v1/endpoints"])
    code: str = Field(description="For programs: it does not change.", examples=["INVALID_INPUT"])
    errors: list[Fault] = Field(description="Each fault that was found, if some can be named.")
    request_id: str = Field(description="Also in the header x-request-id.", examples=["req_0190"])


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """One problem document."""
    body: dict[str, Any] = {
        "type": f"urn:dispatcher:problem:{code.lower().replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "errors": errors or [],
        "request_id": request.scope.get("dispatcher.request_id", ""),
    }
    return _Problem(body, status_code=status, headers=headers)


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
            code = HTTPStatus(error.status_code).phrase.upper().replace(" ", "_")
            headers = dict(error.headers) if error.headers else None
            return problem(request, error.status_code, code, str(error.detail), headers=headers)
        case DataError() | UnicodeEncodeError():
            detail = "found a character or a number that cannot be stored; allowed: Unicode text without NUL"
            return problem(request, 422, "INVALID_INPUT", detail)
        case DBAPIError():
            _log.error("api.failed path=%s error=%s", request.url.path, " ".join(str(error.orig).split()))
            return problem(
                request,
                503,
                "UNAVAILABLE",
                "the database does not answer; nothing was accepted",
                headers={"retry-after": "1"},
            )
    return None


def _ours(request: Request, error: DispatcherError) -> Response | None:
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        return None
    headers = {}
    match error:
        case Unauthorized():
            headers = {"www-authenticate": "Bearer"}
        case TooMany():
            headers = {"retry-after": str(error.retry_after_s)}
        case Unavailable():
            headers = {"retry-after": "1"}
    return problem(request, status, error.code, str(error), errors=faults(error), headers=headers)


def faults(error: DispatcherError) -> list[dict[str, str]]:
    """What an error names, as `errors` has it."""
    if not isinstance(error, InvalidInput):
        return []
    return [{"pointer": error.pointer, "detail": f"found {error.found}; allowed: {error.allowed}"}]


def _invalid(request: Request, error: RequestValidationError) -> Response:
    errors = [
        {
            "pointer": "/" + "/".join(str(part) for part in one["loc"][1:]),
            "detail": f"{one['msg']} (found {repr(one.get('input'))[:80]}, in the {one['loc'][0]})",
        }
        for one in error.errors()
    ]
    return problem(request, 422, "INVALID_INPUT", "; ".join(one["detail"] for one in errors), errors=errors)


def too_large(limit: int) -> HTTPException:
    """A body beyond its limit, in bytes."""
    return HTTPException(413, f"found more than {limit} bytes; allowed: {limit}")


def check_length(scope: Scope, limit: int) -> None:
    """Raises a 413 for a request that says it is longer, before anything of it is read."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(limit)


def check_content_type(scope: Scope) -> None:
    """Raises a 415 for a body that says it is no JSON; one that says nothing is taken for JSON."""
    if scope["method"] not in {"POST", "PATCH", "PUT"}:
        return
    for name, value in scope["headers"]:
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

    for kind in (DispatcherError, RequestValidationError, HTTPException, DataError, UnicodeEncodeError, DBAPIError):
        app.add_exception_handler(kind, handle)

    @app.exception_handler(Exception)  # which is raised again, so that the server logs it
    async def defect(request: Request, _: Exception) -> Response:
        return problem(request, 500, "INTERNAL_ERROR", "a defect of ours; the log has the details")
