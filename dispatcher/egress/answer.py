"""What a receiver answered, before anybody judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.model.outcome import BodyEnd


@dataclass(slots=True)
class Answer:
    """A final status line and headers, with as much of the body as was kept.

    `headers` and `body` are bytes as they came, never decoded or decompressed. `error` says why the body is not
    complete. Times are in milliseconds; `dns_ms`, `connect_ms` and `tls_ms` are None on a kept connection.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    body_end: BodyEnd
    error: str | None = None
    peer_ip: str | None = None
    http_version: bytes = b"HTTP/1.1"
    reason: bytes = b""
    ttfb_ms: float | None = None
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
