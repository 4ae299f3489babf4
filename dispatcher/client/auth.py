"""How a request says whose it is: a key that it carries, or a signature by a secret that it does not."""

from __future__ import annotations

import base64
import binascii
import hmac
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import httpx

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Generator

SECRET_PREFIX: Final = "hmsec_"  # noqa: S105 - what a secret starts with
SECRET_BYTES: Final = 32


class BearerAuth(httpx.Auth):
    """`Authorization: Bearer <key>`."""

    def __init__(self, api_key: str) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise InvalidInput("/api_key", "***", "an API key, as it was given when it was made")
        self._header = f"Bearer {api_key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the header."""
        request.headers["authorization"] = self._header
        yield request


class HmacAuth(httpx.Auth):
    r"""`x-api-key`, `x-timestamp` and `x-signature`, made anew each time a request is sent.

    Signed is `{x-timestamp}\n{METHOD}\n{path?query}\n{SHA-256 of the body in lower-case hex}`, by HMAC-SHA256 with
    the 32 bytes that `signing_secret` writes as `hmsec_` and base64; `x-signature` is base64. Raises InvalidInput for
    an invalid secret.
    """

    requires_request_body = True

    def __init__(self, api_key_id: str, signing_secret: str, *, clock: Clock = SYSTEM) -> None:
        if not api_key_id.startswith("key_") or not api_key_id.isascii() or not api_key_id.isprintable():
            raise InvalidInput("/api_key_id", repr(api_key_id)[:80], "the key's id, key_ and a UUID")
        self._key_id = api_key_id
        self._secret = _read_secret(signing_secret)
        self._clock = clock
        self._last = datetime.min.replace(tzinfo=UTC)
        self._turn = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the headers."""
        timestamp = self._instant().isoformat(timespec="microseconds").replace("+00:00", "Z")
        text = canonical(timestamp, request.method, request.url.raw_path, request.content)
        signature = hmac.digest(self._secret, text, "sha256")
        request.headers["x-api-key"] = self._key_id
        request.headers["x-timestamp"] = timestamp
        request.headers["x-signature"] = base64.b64encode(signature).decode()
        yield request

    def _instant(self) -> datetime:
        """Now, and never the same twice: a signature is accepted once, also that of an equal request."""
        with self._turn:
            self._last = max(self._clock.now().astimezone(UTC), self._last + timedelta(microseconds=1))
            return self._last


def canonical(timestamp: str, method: str, target: bytes, body: bytes) -> bytes:
    r"""What is signed.

    >>> canonical("2026-01-01T00:00:00Z", "GET", b"/v1/events?limit=1", b"")[:45]
    b'2026-01-01T00:00:00Z\nGET\n/v1/events?limit=1\ne'
    """
    return b"\n".join((timestamp.encode(), method.encode(), target, sha256(body).hexdigest().encode()))


def _read_secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) != SECRET_BYTES:
        raise InvalidInput("/signing_secret", "***", f"{SECRET_PREFIX} and the base64 of {SECRET_BYTES} bytes")
    return secret
