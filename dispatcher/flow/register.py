"""Registers endpoints and changes them: what the API and the command line share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.clock import SYSTEM, Clock
from dispatcher.egress import parse_url
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.flow.deliver import SECRET_PURPOSE
from dispatcher.flow.rules import url_policy
from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model.endpoint import Endpoint, EndpointStatus, SealedSecret, validate_event_types
from dispatcher.signing import Keyring, Secret, generate_secret
from dispatcher.store import deliveries, endpoints, schedules, tenants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.profile import Profile

OVERLAP: Final = timedelta(hours=24)
"""How long a rotated secret still signs, so that receivers can change theirs without losing an event."""

DEFAULT_SCHEDULE: Final = "standard"

_BATCH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """What is asked for. `event_types` None means all."""

    url: str
    tenant_id: UUID = DEFAULT_TENANT
    name: str | None = None
    description: str | None = None
    event_types: Sequence[str] | None = None
    metadata: dict[str, Any] | None = None
    schedule: str = DEFAULT_SCHEDULE
    max_in_flight: int = 64
    status: str = EndpointStatus.ACTIVE


@dataclass(frozen=True, slots=True)
class Register:
    """What registering needs besides a connection."""

    keyring: Keyring
    profiles: Mapping[str, Profile]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    default_profile: str = "default"
    clock: Clock = SYSTEM

    def create(self, connection: Connection, asked: NewEndpoint) -> tuple[Endpoint, Secret]:
        """The new endpoint and its secret, which is shown this once. Raises InvalidInput naming the field."""
        target = parse_url(asked.url, url_policy(self.profiles[self.default_profile], self.networks))
        if not tenants.exists(connection, asked.tenant_id):
            raise InvalidInput("/tenant_id", format_id("ten", asked.tenant_id), "a tenant that exists")
        names = schedules.names(connection)
        if asked.schedule not in names:
            raise InvalidInput("/schedule", repr(asked.schedule)[:80], ", ".join(names))
        if not 1 <= asked.max_in_flight <= 1000:
            raise InvalidInput("/max_in_flight", str(asked.max_in_flight), "1 to 1000")
        if asked.status not in (EndpointStatus.ACTIVE, EndpointStatus.DISABLED):
            raise InvalidInput("/status", repr(asked.status)[:80], "active or disabled")
        for field in ("name", "description"):
            value = getattr(asked, field)
            if value is not None and (len(value) > 500 or "\0" in value):
                raise InvalidInput(f"/{field}", f"{len(value)} characters", "at most 500 characters, no NUL")
        _check_metadata(asked.metadata or {})
        now = self.clock.now()
        endpoint_id = uuid7(now)
        secret = generate_secret()
        endpoint = Endpoint(
            id=endpoint_id,
            tenant_id=asked.tenant_id,
            url=target.canonical,
            schedule=asked.schedule,
            name=asked.name,
            description=asked.description,
            metadata=asked.metadata or {},
            event_types=validate_event_types(asked.event_types),
            max_in_flight=asked.max_in_flight,
            secrets=(self._seal(secret, asked.tenant_id, endpoint_id),),
            status=EndpointStatus(asked.status),
            status_reason="created disabled" if asked.status == EndpointStatus.DISABLED else None,
            created_at=now,
            updated_at=now,
        )
        endpoints.create(connection, endpoint)
        return endpoint, secret

    def rotate_secret(
        self, connection: Connection, endpoint_id: UUID, *, overlap: timedelta = OVERLAP, tenant_id: UUID | None = None
    ) -> Secret:
        """A new secret; the old ones sign beside it for `overlap`. Raises NotFound.

        Rotations of one endpoint take turns, or the later one would forget the secret that the other has just shown.
        """
        endpoints.lock(connection, endpoint_id)
        endpoint = find(connection, endpoint_id, tenant_id=tenant_id)
        now = self.clock.now()
        secret = generate_secret()
        kept = tuple(
            SealedSecret(old.sealed, min(old.expires_at or now + overlap, now + overlap))
            for old in endpoint.secrets
            if old.expires_at is None or old.expires_at > now
        )
        endpoints.set_secrets(
            connection, endpoint_id, (self._seal(secret, endpoint.tenant_id, endpoint_id), *(kept if overlap else ()))
        )
        return secret

    def _seal(self, secret: Secret, tenant_id: UUID, endpoint_id: UUID) -> SealedSecret:
        return SealedSecret(self.keyring.seal(secret, tenant=tenant_id, endpoint=endpoint_id, purpose=SECRET_PURPOSE))


def _check_metadata(metadata: dict[str, Any]) -> None:
    """Raises InvalidInput for what the database cannot keep as JSON: NUL, lone surrogates, integers beyond 64 bits."""
    try:
        stored = orjson.dumps(metadata)
    except TypeError as error:
        raise InvalidInput("/metadata", str(error), "JSON values that can be stored") from error
    if b"\\u0000" in stored:
        raise InvalidInput("/metadata", "the character NUL", "JSON values that can be stored")


def find(connection: Connection, endpoint_id: UUID, *, tenant_id: UUID | None = None) -> Endpoint:
    """The endpoint. Raises NotFound where it is not there, deleted, or another tenant's (`tenant_id`, if given)."""
    endpoint = endpoints.fetch(connection, [endpoint_id]).get(endpoint_id)
    if (
        endpoint is None
        or endpoint.status is EndpointStatus.DELETED
        or (tenant_id is not None and endpoint.tenant_id != tenant_id)
    ):
        raise NotFound(f"there is no endpoint {format_id('ep', endpoint_id)}")
    return endpoint


def enable(connection: Connection, endpoint_id: UUID, *, tenant_id: UUID | None = None) -> Endpoint:
    """Sends again what was held meanwhile. Raises NotFound."""
    find(connection, endpoint_id, tenant_id=tenant_id)
    endpoints.set_status(connection, endpoint_id, EndpointStatus.ACTIVE, None)
    return find(connection, endpoint_id)


def disable(connection: Connection, endpoint_id: UUID, reason: str, *, tenant_id: UUID | None = None) -> Endpoint:
    """Holds its deliveries from now on: they wait, with the reason, until it is enabled or they expire.

    Raises NotFound.
    """
    find(connection, endpoint_id, tenant_id=tenant_id)
    endpoints.set_status(connection, endpoint_id, EndpointStatus.DISABLED, reason)
    return find(connection, endpoint_id)


def delete(connection: Connection, endpoint_id: UUID, *, tenant_id: UUID | None = None) -> int:
    """Deletes it and cancels what was waiting for it; returns how many. Raises NotFound.

    What is in flight meanwhile is recorded as ever; should it be retried, the pruning cancels it.
    """
    find(connection, endpoint_id, tenant_id=tenant_id)
    endpoints.set_status(connection, endpoint_id, EndpointStatus.DELETED, "deleted")
    cancelled = 0
    while batch := deliveries.cancel_all_of(connection, endpoint_id, "the endpoint was deleted", batch=_BATCH):
        cancelled += batch
    return cancelled
