r"""Whose request this is: a bearer key, or a request signed by HMAC as the Terminal system's clients sign theirs.

The canonical text that is signed is `{x-timestamp}\n{METHOD}\n{path?query as sent}\n{SHA-256 of the body in hex}`;
`docs/authentication.md` signs one in three languages.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dispatcher.errors import InvalidInput, Unauthorized
from dispatcher.flow.keys import open_signing_secret
from dispatcher.ids import format_id, parse_id
from dispatcher.model.access import ALL, Scope
from dispatcher.signing import SealError
from dispatcher.signing.secrets import strict_base64
from dispatcher.store import tenants

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.clock import Clock
    from dispatcher.signing import Keyring
    from dispatcher.store.tenants import ApiKey

TOLERANCE_S: Final = 300
"""How far `x-timestamp` may be from our clock, either way."""

REMEMBERED_S: Final = 3 * TOLERANCE_S
"""How long a signature is refused when it comes again: as long as its time counts, and as long as the clocks of our own
processes could differ."""

_NO_KEY: Final = b"\0" * 32

_ALLOWED: Final = "Authorization: Bearer <key>, or x-api-key, x-timestamp and x-signature"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. `tenant_id` None is an operator; `actor` is what the audit log says; `key` is None on this machine."""

    tenant_id: UUID | None
    scopes: frozenset[Scope]
    actor: str
    key: ApiKey | None = None


def of_key(key: ApiKey) -> Identity:
    """Whoever holds this key."""
    return Identity(key.tenant_id, key.scopes, format_id("key", key.id), key)


def local(actor: str) -> Identity:
    """An operator on this machine, who reached the application without a network."""
    return Identity(None, ALL, actor)


def canonical(timestamp: str, method: str, target: str, body: bytes) -> bytes:
    """What a client signs.

    >>> canonical("2026-01-01T00:00:00Z", "GET", "/v1/events?limit=1", b"").decode().splitlines()[:3]
    ['2026-01-01T00:00:00Z', 'GET', '/v1/events?limit=1']
    """
    return f"{timestamp}\n{method}\n{target}\n{sha256(body).hexdigest()}".encode()


def by_bearer(connection: Connection, authorization: str) -> ApiKey:
    """The key in an Authorization header, as `Bearer <key>` or alone. Raises Unauthorized."""
    key = authorization[7:] if authorization[:7].lower() == "bearer " else authorization
    found = tenants.find_key(connection, key) if key else None
    if found is None:
        raise Unauthorized(f"found no key, or one that is not valid; allowed: {_ALLOWED}")
    tenants.note_use(connection, found.id)
    return found


def by_signature(
    connection: Connection,
    headers: Mapping[str, str],
    *,
    method: str,
    target: str,
    body: bytes,
    keyring: Keyring,
    clock: Clock,
) -> ApiKey:
    """The key whose holder signed this request, which is accepted this once. Raises Unauthorized.

    `headers` are lower case. An unknown key costs the same computation as a known one.
    """
    given = headers.get("x-signature", "")
    timestamp = headers.get("x-timestamp", "")
    signature = strict_base64(given)
    if signature is None or len(signature) != sha256().digest_size:
        raise Unauthorized("found an x-signature that is not the base64 of 32 bytes; allowed: base64 of HMAC-SHA256")
    _check_time(timestamp, clock)
    key, secret = _key_and_secret(connection, headers["x-api-key"], keyring)
    expected = hmac.digest(secret, canonical(timestamp, method, target, body), "sha256")
    if not hmac.compare_digest(expected, signature) or key is None:
        raise Unauthorized(
            "found an x-signature that is not of this request by this key; allowed: base64 of HMAC-SHA256 over "
            "timestamp, method, path with query, and the body's SHA-256 in hex, joined by line feeds"
        )
    if not tenants.take_signature(connection, signature, lifetime_s=REMEMBERED_S):
        raise Unauthorized("found a signature that was seen before; allowed: each request signed anew")
    tenants.note_use(connection, key.id)
    return key


def _check_time(timestamp: str, clock: Clock) -> None:
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Unauthorized(
            f"found {timestamp[:40]!r} in x-timestamp; allowed: ISO 8601 with a time zone, such as 2026-01-01T00:00:00Z"
        )
    try:
        off_s = abs((clock.now() - at).total_seconds())
    except OverflowError:
        off_s = float("inf")
    if off_s > TOLERANCE_S:
        raise Unauthorized(f"found an x-timestamp {off_s:.0f} s from our clock; allowed: {TOLERANCE_S} s")


def _key_and_secret(connection: Connection, given: str, keyring: Keyring) -> tuple[ApiKey | None, bytes]:
    """The key named by its id or itself; without one, or one that cannot sign, a secret that signs nothing."""
    if given.startswith("key_"):
        try:
            key = tenants.find_key_by_id(connection, parse_id("key", given))
        except InvalidInput:
            key = None
    else:
        key = tenants.find_key(connection, given)
    if key is None or key.revoked_at is not None or key.signing_secret is None:
        return None, _NO_KEY
    try:
        return key, open_signing_secret(keyring, key.signing_secret, key.id)
    except SealError:
        return None, _NO_KEY
