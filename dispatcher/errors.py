"""The errors that this project raises on purpose.

    DispatcherError
    ├── ConfigurationError   a setting or a data file is wrong; carries every problem at once
    ├── InvalidInput         what a caller passed cannot be accepted; names the field, what was found, what is allowed
    ├── Unauthorized         no valid key, or a signature that does not hold
    ├── Forbidden            the key is valid, and may not do this
    ├── NotFound             no such object, or not the caller's
    ├── Conflict             the object exists, but its state or another object forbids the change
    ├── IdempotencyConflict  an idempotency key was already used with a different body
    ├── TooMany              asked for too often; says when to come back
    └── Unavailable          a server that we need does not answer

An outcome of a delivery is never an error: see `dispatcher.model.outcome`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DispatcherError(Exception):
    """Base of every error raised on purpose. `str()` is one sentence for a person."""

    code = "ERROR"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a setting or a data file.

    `where` is a file's path, or the name of a setting; `line` counts from 1, None where there is none;
    `field` is the dotted name inside the file. `hint` is the likeliest intention, or where to read on; an unknown name
    has a hint rather than a list of everything that is `allowed`.
    """

    where: str
    field: str
    found: str
    allowed: str
    line: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        field = f" {self.field}:" if self.field else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}:{field} found {self.found}{allowed}{hint}"


class ConfigurationError(DispatcherError):
    """Settings or data files are wrong. `problems` holds all of them; `str()` has one line for each."""

    code = "CONFIGURATION"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidInput(DispatcherError):
    """A caller's value cannot be accepted. `pointer` is a JSON pointer into what was passed ("/type")."""

    code = "INVALID_INPUT"

    def __init__(self, pointer: str, found: str, allowed: str, *, code: str | None = None) -> None:
        self.pointer = pointer
        if code is not None:
            self.code = code
        self.found = found
        self.allowed = allowed
        super().__init__(f"{pointer}: found {found}; allowed: {allowed}")


class Unauthorized(DispatcherError):
    """Nobody known calls. `str()` says what is allowed and repeats no key."""

    code = "UNAUTHORIZED"


class Forbidden(DispatcherError):
    """The caller is known, and their key may not do this."""

    code = "FORBIDDEN"


class NotFound(DispatcherError):
    """There is no such object, or it is not the caller's: the two are never told apart."""

    code = "NOT_FOUND"


class Conflict(DispatcherError):
    """The change is refused because of the state that the object, or another one, is in."""

    code = "CONFLICT"

    def __init__(self, text: str, *, code: str | None = None) -> None:
        super().__init__(text)
        if code is not None:
            self.code = code


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, with another body."""

    code = "IDEMPOTENCY_CONFLICT"


class NoTransaction(DispatcherError):
    """An event was emitted where no transaction of the producer decides about it."""

    code = "NO_TRANSACTION"


class TooMany(DispatcherError):
    """Asked for too often. `retry_after_s` is when it may be asked again, in whole seconds."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self, text: str, *, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Unavailable(DispatcherError):
    """A server that we need (PostgreSQL, Redis, a port) cannot be used. `str()` says which and why."""

    code = "UNAVAILABLE"
