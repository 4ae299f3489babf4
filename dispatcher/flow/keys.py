"""Makes and revokes the keys that authenticate calls to the API."""

from __future__ import annotations

import os
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, Forbidden, InvalidInput, NotFound
from dispatcher.ids import format_id, uuid7
from dispatcher.model.access import Scope
from dispatcher.store import tenants as store
from dispatcher.store import trail

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.signing import Keyring
    from dispatcher.store.tenants import ApiKey

KEY_PREFIX: Final = "dsk_"
SIGNING_PREFIX: Final = "hmsec_"

REQUEST_SIGNING: Final = "request-signing"
"""What a key's signing secret is sealed for."""

_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What is asked for. `tenant_id` None is an operator's; `rate_limit` is in requests a second, None for none."""

    name: str
    tenant_id: UUID | None = None
    scopes: Collection[Scope] = (Scope.ADMIN,)
    rate_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a key once. No repr shows it."""

    key: str
    signing_secret: str

    def __repr__(self) -> str:
        return "Told(…)"


def create(
    connection: Connection,
    keyring: Keyring,
    asked: NewKey,
    *,
    may: Collection[Scope],
    by: str,
    clock: Clock = SYSTEM,
) -> tuple[ApiKey, Told]:
    """The new key, and what of it is shown this once; `may` are the scopes of who asks for it.

    Raises InvalidInput for a tenant that is not there, Forbidden for a scope that the asking key lacks.
    """
    lacking = set(asked.scopes) - set(may)
    if lacking and Scope.ADMIN not in may:
        raise Forbidden(f"this key cannot give {', '.join(sorted(lacking))}; allowed: {', '.join(sorted(may))}")
    if asked.tenant_id is not None and not store.exists(connection, asked.tenant_id):
        raise InvalidInput("/tenant_id", format_id("ten", asked.tenant_id), "a tenant that exists")
    key_id = uuid7(clock.now())
    signing = os.urandom(_BYTES)
    told = Told(KEY_PREFIX + urlsafe_b64encode(os.urandom(_BYTES)).rstrip(b"=").decode(), write_signing_secret(signing))
    store.add_key(
        connection,
        key_id,
        told.key,
        name=asked.name,
        tenant_id=asked.tenant_id,
        scopes=set(asked.scopes),
        rate_limit=asked.rate_limit,
        signing_secret=seal_signing_secret(keyring, signing, key_id),
    )
    key = store.find_key_by_id(connection, key_id)
    assert key is not None
    after = {"name": key.name, "scopes": sorted(key.scopes), "rate_limit": key.rate_limit}
    _note(connection, "created", key, None, after, by=by)
    return key, told


def revoke(
    connection: Connection, key_id: UUID, *, by: str, tenant_id: UUID | None = None, asking: UUID | None = None
) -> None:
    """Makes a key worthless, from the next request on; one that is revoked already stays so.

    Raises NotFound where it is not there, or another tenant's (`tenant_id`, if given), and Conflict where it is the
    one that asks (`asking`): whoever revokes their only key locks themselves out.
    """
    key = store.find_key_by_id(connection, key_id)
    if key is None or tenant_id not in (None, key.tenant_id):
        raise NotFound(f"there is no key {format_id('key', key_id)}")
    if key_id == asking:
        raise Conflict("this is the key that makes the call; revoke it by another one", code="KEY_IN_USE")
    if store.revoke_key(connection, key_id):
        _note(connection, "revoked", key, {"name": key.name}, None, by=by)


def _note(
    connection: Connection,
    verb: str,
    key: ApiKey,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    *,
    by: str,
) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"key.{verb}",
        object=format_id("key", key.id),
        tenant_id=key.tenant_id,
        before=before,
        after=after,
    )


def open_signing_secret(keyring: Keyring, sealed: str, key_id: UUID) -> bytes:
    """The HMAC key. Raises SealError."""
    return keyring.open(sealed, tenant="", endpoint=key_id, purpose=REQUEST_SIGNING).reveal()


def seal_signing_secret(keyring: Keyring, secret: bytes, key_id: UUID) -> str:
    """The HMAC key as it is kept with its API key."""
    return keyring.seal(secret, tenant="", endpoint=key_id, purpose=REQUEST_SIGNING)


def write_signing_secret(secret: bytes) -> str:
    """The text that a client is given."""
    return SIGNING_PREFIX + b64encode(secret).decode()
