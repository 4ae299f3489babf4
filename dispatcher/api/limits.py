"""How large a request may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

from dispatcher.model.event import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = MAX_PAYLOAD_BYTES + 16 * 1024
"""The payload's limit, and room for the fields around it."""


class BodyLimit:
    """Refuses a longer body with 413 while it is read, so before anything keeps or parses it, whoever sends it."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, f"found more than {self._limit} bytes; allowed: {self._limit}")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)
