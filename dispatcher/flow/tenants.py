"""Makes tenants, and the secrets by which deliveries to targets of their events are signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow.register import OVERLAP
from dispatcher.flow.requests import SECRET_PURPOSE
from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model import limits
from dispatcher.model.endpoint import SealedSecret, rotated
from dispatcher.signing import generate_secret
from dispatcher.store import tenants as store
from dispatcher.store import trail

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.signing import Keyring, Secret
    from dispatcher.store.tenants import Tenant

DEPTH: Final = limits.TENANT_DEPTH
"""How many tenants a chain of parents may have: an event is looked up in all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """What is asked for. `profile` None: that of the installation."""

    name: str
    parent_id: UUID | None = None
    profile: str | None = None


def create(
    connection: Connection,
    keyring: Keyring,
    asked: NewTenant,
    *,
    profiles: Collection[str],
    by: str,
    clock: Clock = SYSTEM,
) -> tuple[Tenant, Secret]:
    """The new tenant and its secret, which is shown this once; `by` is who asks for it.

    Raises InvalidInput for a parent or a profile that is not there, or a chain of parents that is too long, and
    Conflict for a name that is taken. A tenant keeps its parent, so that chains stay as long as they were.
    """
    if asked.parent_id is not None:
        above = store.depth(connection, asked.parent_id)
        found = format_id("ten", asked.parent_id)
        if above == 0:
            raise InvalidInput("/parent_id", found, "a tenant that exists")
        if above >= DEPTH:
            raise InvalidInput("/parent_id", f"{found}, the last of {above}", f"a chain of at most {DEPTH} tenants")
    if asked.profile is not None and asked.profile not in profiles:
        raise InvalidInput("/profile", repr(asked.profile)[:80], ", ".join(sorted(profiles)))
    tenant_id = uuid7(clock.now())
    secret = generate_secret()
    if not store.add(
        connection,
        tenant_id,
        name=asked.name,
        parent_id=asked.parent_id,
        profile=asked.profile,
        secrets=[_seal(keyring, secret, tenant_id)],
    ):
        raise Conflict(f"there is a tenant {asked.name!r} already", code="TENANT_NAME_TAKEN")
    tenant = find(connection, tenant_id)
    parent = None if tenant.parent_id is None else format_id("ten", tenant.parent_id)
    after = {"name": tenant.name, "parent_id": parent, "profile": tenant.profile}
    _note(connection, "created", tenant_id, after, by=by)
    return tenant, secret


def find(connection: Connection, tenant_id: UUID, *, own: UUID | None = None) -> Tenant:
    """The tenant. Raises NotFound where it is not there, or not the one that is `own`, if given."""
    tenant = store.find(connection, tenant_id)
    if tenant is None or own not in (None, tenant_id):
        raise NotFound(f"there is no tenant {format_id('ten', tenant_id)}")
    return tenant


def rotate_secret(
    connection: Connection,
    keyring: Keyring,
    tenant_id: UUID,
    *,
    by: str,
    overlap: timedelta = OVERLAP,
    own: UUID | None = None,
    clock: Clock = SYSTEM,
) -> tuple[Tenant, Secret]:
    """The tenant and its new secret; the old ones sign beside it for `overlap`. Raises NotFound as `find` does.

    Rotations of one tenant take turns, or the later one would forget the secret that the other has just shown.
    """
    tenant = find(connection, tenant_id, own=own)
    store.lock_out_endpoints(connection, tenant_id)
    secret = generate_secret()
    before = store.secrets_of(connection, [tenant_id])[tenant_id]
    after = rotated(before, _seal(keyring, secret, tenant_id), now=clock.now(), overlap=overlap)
    store.set_secrets(connection, tenant_id, after)
    _note(connection, "secret_rotated", tenant_id, {"overlap_s": overlap.total_seconds()}, by=by)
    return tenant, secret


def ensure_secret(connection: Connection, keyring: Keyring, *, by: str, tenant_id: UUID = DEFAULT_TENANT) -> bool:
    """Gives a tenant that has no secret one; whether it had none. The migration that makes the default tenant has no
    keyring to seal one with. Nobody is told this one: who wants to know it rotates it.
    """
    tenant = store.find(connection, tenant_id)
    if tenant is None or tenant.has_secret:
        return False
    store.lock_out_endpoints(connection, tenant_id)
    if store.secrets_of(connection, [tenant_id])[tenant_id]:
        return False
    store.set_secrets(connection, tenant_id, [_seal(keyring, generate_secret(), tenant_id)])
    _note(connection, "secret_made", tenant_id, None, by=by)
    return True


def _seal(keyring: Keyring, secret: Secret, tenant_id: UUID) -> SealedSecret:
    return SealedSecret(keyring.seal(secret, tenant=tenant_id, endpoint="", purpose=SECRET_PURPOSE))


def _note(connection: Connection, verb: str, tenant_id: UUID, after: dict[str, Any] | None, *, by: str) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"tenant.{verb}",
        object=format_id("ten", tenant_id),
        tenant_id=tenant_id,
        before=None,
        after=after,
    )
