"""The bytes of one request."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from dispatcher.egress.failures import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.egress.url import TargetUrl

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110, section 5.6.2
_CONTROLS = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"  # all but the tab
_HOST, _CONTENT_LENGTH, _TRANSFER_ENCODING = b"host", b"content-length", b"transfer-encoding"
_FRAMING = frozenset({_HOST, _CONTENT_LENGTH, _TRANSFER_ENCODING})
_REMEMBERED_NAMES = 1_024
# Name as written → its lower-case form where framing depends on it, else b"". Only checked names are here.
_names: dict[bytes, bytes] = {}


class PreparedRequest(httpx.Request):
    """A request that remembers its checked URL, so that it is not parsed again.

    A redirect or a hook of a foreign client builds a new request or sets a new URL; then `checked_target` is None.
    """

    def __init__(self, method: str, target: TargetUrl, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(method, _httpx_url(target.canonical), headers=headers, stream=httpx.ByteStream(body))
        self.read()
        self._target = target
        self._checked_url = self.url

    @property
    def checked_target(self) -> TargetUrl | None:
        """The URL that was checked, None if the request no longer goes there."""
        return self._target if self.url is self._checked_url else None


@lru_cache(maxsize=4_096)
def _httpx_url(canonical: str) -> httpx.URL:
    return httpx.URL(canonical)


def build_request(
    target: TargetUrl,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    method: str = "POST",
) -> httpx.Request:
    """Return a request to `target`; Host and Content-Length are added.

    `headers` are checked when the request is sent, so that a bad one becomes an outcome (`invalid_config`) and
    not an exception here. `headers` must hold neither Host nor Content-Length.
    """
    framing = (b"Host", target.authority), (b"Content-Length", b"%d" % len(body))
    return PreparedRequest(method, target, [*framing, *headers], body)


def encode_head(request: httpx.Request, target: TargetUrl, body_bytes: int) -> bytes:
    """Return request line and headers, up to and with the empty line.

    Host and Content-Length are added where they are missing. Raises InvalidRequest for whatever a receiver could
    read as another request: a control character in a value, an invalid name, a Host that is not the
    URL's, a Content-Length that is not the body's.
    """
    parts = [b"%b %b HTTP/1.1\r\n" % (_method(request.method), target.target)]
    has_host = has_length = False
    for name, value in request.headers.raw:
        role = _names.get(name)
        if role is None:
            role = _check_name(name)
        if role:
            if role is _TRANSFER_ENCODING:
                continue  # the body is at hand whole, so its length is known
            if role is _HOST:
                if has_host or value.lower() != target.authority:
                    raise InvalidRequest("the Host header is not the URL's host")
                has_host = True
            else:
                if has_length or value != b"%d" % body_bytes:
                    raise InvalidRequest("the Content-Length header is not the body's length")
                has_length = True
        parts.append(b"%b: %b\r\n" % (name, value))
    if not has_host:
        parts.append(b"Host: %b\r\n" % target.authority)
    if not has_length and (body_bytes or request.method in {"POST", "PUT", "PATCH"}):
        parts.append(b"Content-Length: %d\r\n" % body_bytes)
    lines = len(parts)
    head = b"".join(parts)
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * lines:
        raise InvalidRequest("a header's value holds a control character")
    return head + b"\r\n"


def _method(method: str) -> bytes:
    if method == "POST":
        return b"POST"
    encoded = method.encode("ascii", errors="replace")
    if _TOKEN.match(encoded) is None or "?" in method or method == "CONNECT":
        raise InvalidRequest(f"the method {method!r} cannot be sent")
    return encoded


def _check_name(name: bytes) -> bytes:
    if _TOKEN.match(name) is None:
        raise InvalidRequest(f"the header name {name[:64]!r} is not a token")
    lowered = name.lower()
    role = next((framing for framing in _FRAMING if framing == lowered), b"")
    if len(_names) >= _REMEMBERED_NAMES:
        _names.clear()
    _names[name] = role
    return role


def check_headers(request: httpx.Request) -> None:
    """Raise InvalidRequest where a header could be read as another request; for a transport that is not ours."""
    for name, value in request.headers.raw:
        if name not in _names:
            _check_name(name)
        if len(value.translate(None, _CONTROLS)) != len(value):
            raise InvalidRequest("a header's value holds a control character")
