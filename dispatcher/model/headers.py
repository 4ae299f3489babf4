"""The headers of a request that the platform sets itself."""

from __future__ import annotations

from typing import Final

CONNECTION: Final = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers of one connection (RFC 9110 section 7.6.1, RFC 9112), and Expect, which holds a body back."""

MESSAGE: Final = frozenset({"content-length", "content-type", "host", "user-agent"})
"""Headers that every request has, or every one with a body."""

OURS: Final = CONNECTION | MESSAGE
"""Headers that nobody else may set."""
