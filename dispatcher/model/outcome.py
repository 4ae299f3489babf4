"""What came of one POST: a value, never an exception.

The class is decided at the final status line and headers; the body is evidence only. A time-out or a cap after
a 2xx is still a success, or the receiver would get a duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from dispatcher.model.outcome_class import OutcomeClass

__all__ = ["BodyEnd", "Outcome", "OutcomeClass", "Phase", "Timings"]

Timings: TypeAlias = tuple[float | None, float | None, float | None, float | None]
"""In milliseconds: the look-up, the dial, the TLS handshake, and the wait from the request to the answer's first byte.

None is what was not needed, not reached, or is not known. Of a failure the last one given is how long that step went
on until it failed.
"""


def reason(kind: str, status_code: int | None) -> str:
    """What a delivery's `status_reason` says of its last attempt.

    >>> reason("http_4xx", 404), reason("dns", None)
    ('http_4xx 404', 'dns')
    """
    return str(kind) if status_code is None else f"{kind} {status_code}"


class Phase(StrEnum):
    """How far an attempt got."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    WRITE = "write"
    HEADERS = "headers"
    BODY = "body"


class BodyEnd(StrEnum):
    """How the response's body ended. Only COMPLETE leaves a connection fit for reuse."""

    COMPLETE = "complete"
    INCOMPLETE = "body_incomplete"  # closed, reset or broken framing after the headers
    DEADLINE = "body_deadline"
    CAPPED = "body_capped"


@dataclass(slots=True)  # never changed; see StoredEvent
class Outcome:
    """The result of one attempt.

    `known` is False where the POST may have reached the receiver without our learning its answer.
    `response_headers` are (name, value) pairs decoded as latin-1; `response_body` is at most the cap's bytes,
    never decompressed. `retry_after_s` is what the receiver asked for, in seconds, None if absent or not
    understood. `duration_ms` runs from the start of the dial. `error` is one line for a person.
    """

    kind: OutcomeClass
    phase: Phase | None = None
    known: bool = True
    status_code: int | None = None
    response_headers: tuple[tuple[str, str], ...] = ()
    response_body: bytes = b""
    body_end: BodyEnd = BodyEnd.COMPLETE
    error: str | None = None
    peer_ip: str | None = None
    duration_ms: float = 0.0
    retry_after_s: float | None = None
    timings_ms: Timings | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver has accepted the event."""
        return self.kind is OutcomeClass.OK
