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


def bearer(authorization: str) -> str:
    """The key in an Authorization header, as `Bearer <key>` or alone; empty where there is none.

    >>> bearer("Bearer k"), bearer("k")
    ('k', 'k')
    """
    return authorization[7:] if authorization[:7].lower() == "bearer " else authorization


def unknown_key() -> Unauthorized:
    """The same words for no key, a wrong one and a revoked one."""
    return Unauthorized(f"found no key, or one that is not valid; allowed: {_ALLOWED}")


@dataclass(frozen=True, slots=True)
class SignedHeaders:
    """What a signed request says before its body: all that can be checked without it."""

    api_key: str
    timestamp: str
    signature: bytes

    @classmethod
    def read(cls, headers: Mapping[str, str], clock: Clock) -> SignedHeaders:
        """The headers, which are lower case. Raises Unauthorized for a malformed signature or a time too far off."""
        signature = strict_base64(headers.get("x-signature", ""))
        if signature is None or len(signature) != sha256().digest_size:
            raise Unauthorized(
                "found an x-signature that is not the base64 of 32 bytes; allowed: base64 of HMAC-SHA256"
            )
        timestamp = headers.get("x-timestamp", "")
        _check_time(timestamp, clock)
        return cls(headers["x-api-key"], timestamp, signature)

    def find_key(self, connection: Connection, keyring: Keyring) -> tuple[ApiKey, bytes]:
        """The key that is named, by its id or itself, and its signing secret. Raises Unauthorized."""
        if self.api_key.startswith("key_"):
            try:
                key = tenants.find_key_by_id(connection, parse_id("key", self.api_key))
            except InvalidInput:
                key = None
        else:
            key = tenants.find_key(connection, self.api_key)
        if key is None or key.revoked_at is not None or key.signing_secret is None:
            raise unknown_key()
        try:
            return key, open_signing_secret(keyring, key.signing_secret, key.id)
        except SealError as error:
            raise unknown_key() from error

    def verify(self, secret: bytes, *, method: str, target: str, body: bytes) -> None:
        """Passes a request that is signed by `secret`. Raises Unauthorized."""
        expected = hmac.digest(secret, canonical(self.timestamp, method, target, body), "sha256")
        if not hmac.compare_digest(expected, self.signature):
            raise Unauthorized(
                "found an x-signature that is not of this request by this key; allowed: base64 of HMAC-SHA256 over "
                "timestamp, method, path with query, and the body's SHA-256 in hex, joined by line feeds"
            )

    def take(self, connection: Connection) -> None:
        """Accepts the signature this once. Raises Unauthorized where it was seen before."""
        if not tenants.take_signature(connection, self.signature, lifetime_s=REMEMBERED_S):
            raise Unauthorized("found a signature that was seen before; allowed: each request signed anew")


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
