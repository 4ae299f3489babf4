"""The errors of the client.

    DispatcherError
    ├── Unreachable       no answer came, also after the retries
    └── ApiError          the API refused; has its status, code, detail, errors and request_id
        ├── Unauthorized  401: no valid key, or a signature that does not hold
        ├── Forbidden     403: the key may not do this
        ├── NotFound      404: no such object, or not yours
        ├── Conflict      409: another object, or the state of this one, forbids it
        ├── TooLarge      413: a body beyond its limit
        ├── Unprocessable 422: a value cannot be accepted, or an idempotency key had another body
        ├── TooMany       429: asked for too often, also after the retries
        ├── Unavailable   503: the API cannot work now, also after the retries
        └── ForeignAnswer whatever answered, it is not this API

A value that the client itself refuses is `dispatcher.errors.InvalidInput`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dispatcher import errors

if TYPE_CHECKING:
    from dispatcher.shapes import Fault


class Unreachable(errors.Unavailable):
    """No answer came: the connection failed, was cut or took too long. What was asked for may have been done."""

    code = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API said. `errors` names each fault: a JSON pointer, and what was found and is allowed."""

    status: int
    code: str
    detail: str
    errors: tuple[Fault, ...] = ()
    request_id: str | None = None


class ApiError(errors.DispatcherError):
    """The API refused a request. Programs look at `code`, people at `str()`."""

    def __init__(self, refusal: Refusal) -> None:
        Exception.__init__(self, refusal)
        self.status = refusal.status
        self.code = refusal.code
        self.detail = refusal.detail
        self.errors = refusal.errors
        self.request_id = refusal.request_id

    def __str__(self) -> str:
        number = f", {self.request_id}" if self.request_id else ""
        return f"{self.detail} ({self.status} {self.code}{number})"


class Unauthorized(ApiError, errors.Unauthorized):
    """401: no valid key, or a signature that does not hold."""


class Forbidden(ApiError, errors.Forbidden):
    """403: the key is valid, and may not do this."""


class NotFound(ApiError, errors.NotFound):
    """404: there is no such object, or it is not the caller's."""


class Conflict(ApiError, errors.Conflict):
    """409: the state of the object, or of another one, forbids the change."""


class TooLarge(ApiError):
    """413: the body is beyond its limit."""


class Unprocessable(ApiError):
    """422: a value cannot be accepted, or an idempotency key was already used with a different body."""


class TooMany(ApiError):
    """429: asked for too often, also after the retries."""


class Unavailable(ApiError, errors.Unavailable):
    """503: the API cannot work now, also after the retries."""


class ForeignAnswer(ApiError):
    """What answered is not this API, or broke off: a proxy, another server, a URL that is not right."""


BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Unprocessable,
    429: TooMany,
    503: Unavailable,
}
