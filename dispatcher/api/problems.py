"""Errors as `application/problem+json` (RFC 9457): mapped to HTTP here, once."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException

from dispatcher.errors import Conflict, DispatcherError, IdempotencyConflict, InvalidInput, NotFound, Unavailable
from dispatcher.ids import uuid7

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

_log = logging.getLogger(__name__)

_STATUSES: Final[dict[type[DispatcherError], int]] = {
    NotFound: 404,
    IdempotencyConflict: 422,
    Conflict: 409,
    InvalidInput: 422,
    Unavailable: 503,
}


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


def install(app: FastAPI) -> None:
    """Has every error of the application answered as a problem."""

    @app.middleware("http")
    async def number(request: Request, call_next: Any) -> Response:
        request.scope["dispatcher.request_id"] = f"req_{uuid7()}"
        response: Response = await call_next(request)
        response.headers["x-request-id"] = request.scope["dispatcher.request_id"]
        return response

    @app.exception_handler(DispatcherError)
    async def ours(request: Request, error: DispatcherError) -> Response:
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)
        errors = (
            [{"pointer": error.pointer, "detail": f"found {error.found}; allowed: {error.allowed}"}]
            if isinstance(error, InvalidInput)
            else None
        )
        headers = {"retry-after": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return problem(request, status, error.code, str(error), errors=errors, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {
                "pointer": "/" + "/".join(str(part) for part in one["loc"][1:]),
                "detail": f"{one['msg']} (found {repr(one.get('input'))[:80]}, in the {one['loc'][0]})",
            }
            for one in error.errors()
        ]
        return problem(request, 422, "INVALID_INPUT", "; ".join(one["detail"] for one in errors), errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).phrase.upper().replace(" ", "_")
        headers = dict(error.headers) if error.headers else None
        return problem(request, error.status_code, code, str(error.detail), headers=headers)

    @app.exception_handler(DataError)
    @app.exception_handler(UnicodeEncodeError)
    async def unstorable(request: Request, _: Exception) -> Response:
        detail = "found a character or a number that cannot be stored; allowed: Unicode text without NUL"
        return problem(request, 422, "INVALID_INPUT", detail)

    @app.exception_handler(Exception)  # which is raised again, so that the server logs it
    async def defect(request: Request, _: Exception) -> Response:
        return problem(request, 500, "INTERNAL_ERROR", "a defect of ours; the log has the details")

    @app.exception_handler(DBAPIError)
    async def database(request: Request, error: DBAPIError) -> Response:
        _log.error("api.failed path=%s error=%s", request.url.path, " ".join(str(error.orig).split()))
        return problem(
            request,
            503,
            "UNAVAILABLE",
            "the database does not answer; nothing was accepted",
            headers={"retry-after": "1"},
        )
