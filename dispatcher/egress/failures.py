"""Why no answer came, as exceptions of httpx.

    httpx.TransportError
    ├── ConnectError         DnsFailure (DnsTimeout)  BlockedAddress  DialFailure  TlsFailure
    ├── ReadTimeout          DeadlineExceeded
    ├── ReadError            ConnectionClosed  ConnectionReset
    ├── RemoteProtocolError  ProtocolViolation  HeadersTooLarge
    ├── LocalProtocolError   InvalidRequest
    └── PoolTimeout          LocalFailure

Foreign code that holds an `httpx.AsyncClient` over our transport sees the errors that it knows; `send` reads the
attributes of AttemptFailure.
"""

from __future__ import annotations

import httpx

from dispatcher.model.outcome import OutcomeClass, Phase, Timings


class AttemptFailure(httpx.TransportError):
    """Base of all of them; `str()` is one sentence for a person.

    `known` is False where the request, or a part of it, may have reached the receiver without our learning its
    answer. `peer_ip` is the address dialled last, None if none was. `connected_at` is when the dial was done, in the
    loop's time, where it failed in the TLS handshake; `timings_ms` are how long each step took, once that is known.
    """

    kind: OutcomeClass = OutcomeClass.INTERNAL
    connected_at: float | None = None
    timings_ms: Timings | None = None

    def __init__(
        self,
        message: str,
        *,
        phase: Phase | None,
        known: bool = True,
        peer_ip: str | None = None,
        kind: OutcomeClass | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.known = known
        self.peer_ip = peer_ip
        if kind is not None:
            self.kind = kind


class DnsFailure(AttemptFailure, httpx.ConnectError):
    """The name has no usable answer, or none came in time."""

    kind = OutcomeClass.DNS

    def __init__(self, message: str) -> None:
        super().__init__(message, phase=Phase.DNS)


class DnsTimeout(DnsFailure):
    """No answer came in time: the fault may be the resolver's."""


class BlockedAddress(AttemptFailure, httpx.ConnectError):
    """An answer of the look-up may not be dialled, so nothing was. `address` is for the operator's eyes only."""

    kind = OutcomeClass.BLOCKED_ADDRESS

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} leads to an address that may not be dialled", phase=Phase.DNS)
        self.address = address


class DialFailure(AttemptFailure, httpx.ConnectError):
    """Refused, unreachable, or no answer to the SYN in time."""

    kind = OutcomeClass.CONNECT


class TlsFailure(AttemptFailure, httpx.ConnectError):
    """The handshake failed; `kind` is TLS_CERT, TLS_PROTOCOL or TLS_CLIENT_CERT."""

    kind = OutcomeClass.TLS_PROTOCOL


class DeadlineExceeded(AttemptFailure, httpx.ReadTimeout):
    """The attempt took longer than it may."""

    kind = OutcomeClass.DEADLINE


class ConnectionClosed(AttemptFailure, httpx.ReadError):
    """FIN before the final status line and headers."""

    kind = OutcomeClass.CLOSED


class ConnectionReset(AttemptFailure, httpx.ReadError):
    """RST before the final status line and headers."""

    kind = OutcomeClass.RESET


class ProtocolViolation(AttemptFailure, httpx.RemoteProtocolError):
    """What came is not an HTTP/1 answer."""

    kind = OutcomeClass.PROTOCOL


class HeadersTooLarge(AttemptFailure, httpx.RemoteProtocolError):
    """More than MAX_HEAD_BYTES of reason phrase and headers."""

    kind = OutcomeClass.HEADERS_TOO_LARGE


class InvalidRequest(AttemptFailure, httpx.LocalProtocolError):
    """A URL, header or method that can never work; nothing was sent."""

    kind = OutcomeClass.INVALID_CONFIG

    def __init__(self, message: str) -> None:
        super().__init__(message, phase=None)


class LocalFailure(AttemptFailure, httpx.PoolTimeout):
    """A cause on our side (no file descriptor, no free port, no resolver); nothing was sent."""

    kind = OutcomeClass.INTERNAL
