"""What is sealed of an endpoint beside its signing secrets: headers of its own, and how it authenticates.

Their values are written here and read by `dispatcher.flow.requests` alone; what may be shown of them is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from dispatcher.flow.requests import AUTH_PURPOSE, HEADERS_PURPOSE
from dispatcher.signing import SealError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatcher.model.endpoint import Endpoint
    from dispatcher.signing import Keyring


def seal_headers(keyring: Keyring, endpoint: Endpoint, headers: Sequence[tuple[str, str]]) -> str | None:
    """The headers as they are kept; None where there are none."""
    return _seal(keyring, endpoint, list(headers), HEADERS_PURPOSE) if headers else None


def seal_auth(keyring: Keyring, endpoint: Endpoint, auth: Mapping[str, str]) -> str:
    """Username and password as they are kept."""
    return _seal(keyring, endpoint, dict(auth), AUTH_PURPOSE)


def header_names(keyring: Keyring, endpoint: Endpoint) -> list[str] | None:
    """The names of the endpoint's own headers; None where the keyring does not open them."""
    if endpoint.headers is None:
        return []
    found = _open(keyring, endpoint, endpoint.headers, HEADERS_PURPOSE)
    return None if found is None else [name for name, _ in found]


def shown_auth(keyring: Keyring, endpoint: Endpoint) -> dict[str, str | None] | None:
    """How the endpoint authenticates, without the password; the username None where the keyring does not open it."""
    if endpoint.auth is None:
        return None
    found = _open(keyring, endpoint, endpoint.auth, AUTH_PURPOSE)
    return {"type": "basic", "username": None if found is None else found["username"]}


def _seal(keyring: Keyring, endpoint: Endpoint, value: object, purpose: str) -> str:
    return keyring.seal(orjson.dumps(value), tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=purpose)


def _open(keyring: Keyring, endpoint: Endpoint, sealed: str, purpose: str) -> Any:
    try:
        opened = keyring.open(sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=purpose)
    except SealError:  # one lost key must not hide the endpoints themselves
        return None
    return orjson.loads(opened.reveal())
