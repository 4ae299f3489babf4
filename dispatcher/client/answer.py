"""What the server answered: taken in within bounds, and read as what was expected or as an error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from dispatcher.client.errors import BY_STATUS, ApiError, ForeignAnswer, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatcher.shapes import Fault

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of an answer: a page of 1,000 attempts with all that their receivers said has some 20 MB."""

_MAX_TEXT: Final = 2000
_MAX_FAULTS: Final = 100
_MAX_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `asked` is the method and path that it answers, for people."""

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether what was asked for was done."""
        return 200 <= self.status <= 299


@dataclass(slots=True)
class Intake:
    """Takes an answer in: at most MAX_BYTES, until `until` of the monotonic clock. Raises ForeignAnswer for more."""

    response: httpx.Response
    until: float
    monotonic: Callable[[], float]
    _read: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        # We ask for none: a few bytes can unfold to gigabytes.
        if (encoding := self.response.headers.get("content-encoding", "identity")) != "identity":
            raise foreign(self._asked, self.response.status_code, f"the content encoding {_clean(encoding)!r}")

    @property
    def _asked(self) -> str:
        return f"{self.response.request.method} {self.response.request.url.path}"

    def add(self, chunk: bytes) -> None:
        """The next piece. Raises httpx.ReadTimeout where they come too slowly."""
        if len(self._read) + len(chunk) > MAX_BYTES:
            raise foreign(self._asked, self.response.status_code, f"more than {MAX_BYTES} bytes")
        if self.monotonic() > self.until:
            raise httpx.ReadTimeout("the answer came too slowly")
        self._read += chunk

    def whole(self) -> Answer:
        """The answer, now that all of it is there."""
        return Answer(self._asked, self.response.status_code, self.response.headers, bytes(self._read))


def read_object(answer: Answer) -> Any:
    """A JSON object. Raises ForeignAnswer for anything else."""
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise foreign(answer.asked, answer.status, _seen(answer))
    return found


def read_page(answer: Answer) -> Any:
    """A page of objects. Raises ForeignAnswer for anything else."""
    found = read_object(answer)
    if not isinstance(found.get("data"), list):
        raise foreign(answer.asked, answer.status, _seen(answer))
    return {"has_more": False, "next_cursor": None} | found


def read_data(answer: Answer) -> Any:
    """A list of objects that comes in one piece. Raises ForeignAnswer for anything else."""
    return read_page(answer)["data"]


def read_text(answer: Answer) -> str:
    """Text, as it is."""
    return answer.body.decode(errors="replace")


def read_nothing(_: Answer) -> None:
    """Nothing: that it was done is all there is to say."""


def error_of(answer: Answer) -> ApiError:
    """The error that an answer without success tells of (RFC 9457)."""
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return foreign(answer.asked, answer.status, _seen(answer))
    refusal = Refusal(
        status=answer.status,
        code=_clean(found["code"]),
        detail=_clean(found.get("detail")) or f"{answer.asked} was refused",
        errors=_faults(found.get("errors")),
        request_id=_clean(found.get("request_id") or answer.headers.get("x-request-id")) or None,
    )
    return BY_STATUS.get(answer.status, ApiError)(refusal)


def foreign(asked: str, status: int, found: str) -> ForeignAnswer:
    """The error for an answer that this API would not give."""
    detail = f"{asked}: found {found}; allowed: an answer of Dispatcher's API. Is the URL the API's?"
    return ForeignAnswer(Refusal(status, "FOREIGN_ANSWER", detail))


def _seen(answer: Answer) -> str:
    kind = _clean(answer.headers.get("content-type", "")).partition(";")[0][:_MAX_SHOWN] or "no content type"
    return f"{answer.status}, {kind}, {_clean(answer.body[:_MAX_SHOWN].decode(errors='replace'))!r}"


def _faults(found: object) -> tuple[Fault, ...]:
    if not isinstance(found, list):
        return ()
    return tuple(
        {"pointer": _clean(one.get("pointer")), "detail": _clean(one.get("detail"))}
        for one in found[:_MAX_FAULTS]
        if isinstance(one, dict)
    )


def _clean(text: object) -> str:
    """Text that can be shown on a terminal, of bounded length."""
    if not isinstance(text, str):
        return ""
    return "".join(one if one.isprintable() else " " for one in text[:_MAX_TEXT])
