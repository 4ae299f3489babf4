"""Registers endpoints and changes them: what the API and the command line share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import Conflict, InvalidInput, NotFound
from dispatcher.flow import registration, sealed
from dispatcher.flow.requests import SECRET_PURPOSE
from dispatcher.ids import DEFAULT_TENANT, format_id, uuid7
from dispatcher.model import limits
from dispatcher.model.endpoint import REGISTRATION_FIELDS, Endpoint, EndpointStatus, SealedSecret, rotated
from dispatcher.signing import Keyring, Secret, generate_secret
from dispatcher.store import deliveries, endpoints, schedules, tenants, trail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from uuid import UUID

    from sqlalchemy import Connection

    from dispatcher.model.profile import Profile

OVERLAP: Final = timedelta(hours=24)
"""How long a rotated secret still signs, so that receivers can change theirs without losing an event."""

SYSTEM_ACTOR: Final = "system"
"""Who registers where nobody is named."""

_BATCH: Final = 1000

_SEVERAL: Final = 2

_OF_TARGETS: Final = frozenset({"name", "description", "metadata", "schedule", "max_in_flight", "rate_limit"})
"""What can be changed of the endpoint of event targets: the rest stands on its deliveries, or is its tenant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """What is asked for. What is None is as the profile has it; `profile` None is the tenant's.

    `secrets` are those that the endpoint has elsewhere, the newest first; without any, it gets a new one.
    """

    url: str
    tenant_id: UUID = DEFAULT_TENANT
    profile: str | None = None
    name: str | None = None
    description: str | None = None
    event_types: Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    schedule: str | None = None
    signature: Sequence[str] | None = None
    auth: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    method: str | None = None
    max_in_flight: int | None = None
    rate_limit: float | None = None
    ordered: bool | None = None
    status: str | None = None
    secrets: Sequence[Secret] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """What registering needs besides a connection."""

    keyring: Keyring
    profiles: Mapping[str, Profile]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    default_profile: str = "default"
    clock: Clock = SYSTEM

    def create(
        self, connection: Connection, asked: NewEndpoint, *, by: str = SYSTEM_ACTOR
    ) -> tuple[Endpoint, Secret | None]:
        """The new endpoint and its secret, which is shown this once; None where its profile knows no secrets.

        The caller has pinged what `plan` returned, where its profile asks for that. Registrations that are counted take
        turns for each tenant. Raises what `plan` raises.
        """
        profile = self._profile_for(connection, asked)
        if profile.endpoint_limit is not None or profile.warn_above is not None:
            tenants.lock(connection, asked.tenant_id)
        planned = self.plan(connection, asked)
        secrets = list(asked.secrets)
        if not secrets and profile.secret:
            secrets = [generate_secret()]
        endpoint = replace(planned, secrets=tuple(self._seal(one, planned) for one in secrets))
        endpoints.create(connection, endpoint, heard=profile.heard(endpoint.event_types))
        endpoint = find(connection, endpoint.id)
        _note(connection, "imported" if asked.secrets else "created", endpoint, None, self._facts(endpoint), by=by)
        return endpoint, secrets[0] if secrets else None

    def check_choice(self, connection: Connection, asked: NewEndpoint) -> None:
        """For tenants who register for themselves.

        Raises InvalidInput where the operator gave the tenant a profile and another one is asked for, or its limit and
        its ping would be no rules.
        """
        tenant = tenants.find(connection, asked.tenant_id)
        if tenant is not None and tenant.profile is not None and asked.profile not in (None, tenant.profile):
            raise InvalidInput("/profile", repr(asked.profile)[:80], f"{tenant.profile}, which is the tenant's")

    def plan(self, connection: Connection, asked: NewEndpoint) -> Endpoint:
        """The endpoint as it would be, without secrets; nothing is stored.

        Raises InvalidInput naming the field, and Conflict where the tenant has as many as it may.
        """
        profile = self._profile_for(connection, asked)
        limit = profile.endpoint_limit
        if limit is not None and endpoints.count(connection, asked.tenant_id, profile.name) >= limit:
            raise Conflict(
                f"found {limit} endpoints of this {profile.scope}; allowed: {limit} under the profile {profile.name!r}",
                code="ENDPOINT_LIMIT_REACHED",
            )
        if asked.secrets and not profile.secret:
            raise InvalidInput("/secret", f"a secret under the profile {profile.name!r}", "none: it knows no secrets")
        status = asked.status or EndpointStatus.ACTIVE
        if status not in (EndpointStatus.ACTIVE, EndpointStatus.DISABLED):
            raise InvalidInput("/status", repr(status)[:80], "active or disabled")
        now = self.clock.now()
        base = Endpoint(
            id=uuid7(now),
            tenant_id=asked.tenant_id,
            url="",
            profile=profile.name,
            schedule=profile.schedule,
            method=profile.methods[0],
            max_in_flight=limits.IN_FLIGHT,
            status=EndpointStatus(status),
            status_reason="created disabled" if status == EndpointStatus.DISABLED else None,
            created_at=now,
            updated_at=now,
        )
        given = {name: value for name in REGISTRATION_FIELDS if (value := getattr(asked, name)) is not None}
        registration.check_fields(given, profile, is_new=True)
        return self._apply(connection, base, given, profile)

    def warnings(self, connection: Connection, endpoint: Endpoint) -> list[str]:
        """What its owner should know of an endpoint that has just been registered."""
        profile = self.profile_of(endpoint)
        if profile.warn_above is None:
            return []
        count = endpoints.count(connection, endpoint.tenant_id, profile.name)
        if count <= profile.warn_above:
            return []
        return [f"this {profile.scope} has {count} endpoints now; recommended: at most {profile.warn_above}"]

    def plan_url(self, connection: Connection, asked: NewEndpoint) -> tuple[Endpoint | None, Endpoint]:
        """The tenant's one endpoint as it is, None if there is none yet, and as it would be with the URL of `asked`.

        Nothing is stored. Raises Conflict where the tenant has several endpoints under its profile, and what `plan` and
        `plan_update` raise.
        """
        profile = self._profile_for(connection, asked)
        ids = endpoints.registered(connection, asked.tenant_id, profile.name, limit=_SEVERAL)
        if len(ids) == _SEVERAL:
            count = endpoints.count(connection, asked.tenant_id, profile.name)
            found = f"found {count} endpoints of this {profile.scope} under the profile {profile.name!r}"
            raise Conflict(f"{found}; allowed: at most one", code="SEVERAL_ENDPOINTS")
        if not ids:
            return None, self.plan(connection, asked)
        return self.plan_update(connection, ids[0], {"url": asked.url}, tenant_id=asked.tenant_id)

    def set_url(
        self, connection: Connection, asked: NewEndpoint, *, by: str = SYSTEM_ACTOR
    ) -> tuple[Endpoint, Secret | None]:
        """Registers the tenant's one endpoint, or replaces its URL; the secret is None where nothing was registered.

        What waits for the endpoint goes to the new URL. The same URL again changes nothing. Calls for one tenant take
        turns. Raises what `plan_url` raises.
        """
        tenants.lock(connection, asked.tenant_id)
        before, after = self.plan_url(connection, asked)
        if before is None:
            return self.create(connection, asked, by=by)
        if before.url == after.url:
            return before, None
        return self.update(connection, before.id, {"url": asked.url}, tenant_id=asked.tenant_id, by=by), None

    def plan_update(
        self, connection: Connection, endpoint_id: UUID, changes: Mapping[str, Any], *, tenant_id: UUID | None = None
    ) -> tuple[Endpoint, Endpoint]:
        """The endpoint as it is and as it would be; nothing is stored. What `changes` does not name stays.

        None takes a value back to what it would be at registration. Raises NotFound, InvalidInput naming the field, and
        Conflict where the endpoint's profile is not known here.
        """
        before = find(connection, endpoint_id, tenant_id=tenant_id)
        if not changes:
            return before, before
        profile = self.profile_of(before)
        if before.origin is not None:
            for name in changes.keys() - _OF_TARGETS:
                raise InvalidInput(f"/{name}", "the endpoint of events' own targets", ", ".join(sorted(_OF_TARGETS)))
        registration.check_fields(changes, profile, is_new=False)
        return before, self._apply(connection, before, changes, profile)

    def update(
        self,
        connection: Connection,
        endpoint_id: UUID,
        changes: Mapping[str, Any],
        *,
        tenant_id: UUID | None = None,
        by: str = SYSTEM_ACTOR,
    ) -> Endpoint:
        """The endpoint with the changes. Those of one endpoint take turns. Raises what `plan_update` raises."""
        endpoints.lock(connection, endpoint_id)
        before, after = self.plan_update(connection, endpoint_id, changes, tenant_id=tenant_id)
        if not changes:
            return before
        endpoints.update(connection, after, heard=self.profile_of(after).heard(after.event_types))
        if after.ordered != before.ordered:
            endpoints.set_order(connection, endpoint_id, ordered=after.ordered)
        found = find(connection, endpoint_id)
        was, is_ = self._facts(before), self._facts(found)
        _note(
            connection,
            "updated",
            found,
            {name: was[name] for name in changes},
            {name: is_[name] for name in changes},
            by=by,
        )
        return found

    def rotate_secret(
        self,
        connection: Connection,
        endpoint_id: UUID,
        *,
        overlap: timedelta = OVERLAP,
        tenant_id: UUID | None = None,
        by: str = SYSTEM_ACTOR,
    ) -> Secret:
        """A new secret; the old ones sign beside it for `overlap`.

        Rotations of one endpoint take turns, or the later one would forget the secret that the other has just shown.
        Raises NotFound, and Conflict for an endpoint without a secret of its own.
        """
        endpoints.lock(connection, endpoint_id)
        endpoint = find(connection, endpoint_id, tenant_id=tenant_id)
        if endpoint.origin is not None:
            raise Conflict("events with targets of their own are signed with their tenant's secret", code="NO_SECRET")
        if not self.profile_of(endpoint).secret:
            raise Conflict(f"the profile {endpoint.profile!r} knows no secrets of endpoints", code="NO_SECRET")
        secret = generate_secret()
        kept = rotated(endpoint.secrets, self._seal(secret, endpoint), now=self.clock.now(), overlap=overlap)
        endpoints.set_secrets(connection, endpoint_id, kept)
        _note(connection, "secret_rotated", endpoint, None, {"overlap_s": overlap.total_seconds()}, by=by)
        return secret

    def profile_of(self, endpoint: Endpoint) -> Profile:
        """The profile of an endpoint that is registered. Raises Conflict where it is not known here."""
        profile = self.profiles.get(endpoint.profile)
        if profile is None:
            raise Conflict(f"the endpoint's profile {endpoint.profile!r} is not known here", code="PROFILE_MISSING")
        return profile

    def _profile_for(self, connection: Connection, asked: NewEndpoint) -> Profile:
        """The profile that is asked for, else the tenant's, else the installation's. Raises InvalidInput."""
        tenant = tenants.find(connection, asked.tenant_id)
        if tenant is None:
            raise InvalidInput("/tenant_id", format_id("ten", asked.tenant_id), "a tenant that exists")
        name = asked.profile or tenant.profile or self.default_profile
        profile = self.profiles.get(name)
        if profile is None:
            raise InvalidInput("/profile", repr(name)[:80], ", ".join(sorted(self.profiles)))
        return profile

    def _apply(
        self, connection: Connection, endpoint: Endpoint, asked: Mapping[str, Any], profile: Profile
    ) -> Endpoint:
        """The endpoint with the fields that are asked for, each checked."""
        values = {
            name: self._checked(connection, name, value, endpoint, profile)
            for name, value in asked.items()
            if name != "status"
        }
        found = replace(endpoint, **values)
        if asked.keys() & {"auth", "headers"}:
            names = sealed.header_names(self.keyring, found) or ()
            registration.check_authorization(names, has_auth=found.auth is not None)
        return found

    def _checked(self, connection: Connection, name: str, value: Any, endpoint: Endpoint, profile: Profile) -> Any:
        """One field as it is stored. Raises InvalidInput."""
        match name:
            case "url":
                return registration.url(value, profile, self.networks)
            case "name" | "description":
                return registration.line(name, value)
            case "event_types":
                return registration.event_types(value, profile)
            case "metadata":
                return registration.metadata(value)
            case "schedule":
                return registration.schedule(value, profile, schedules.names(connection))
            case "signature":
                return registration.signature(value, profile)
            case "auth":
                auth = registration.auth(value, profile)
                return None if auth is None else sealed.seal_auth(self.keyring, endpoint, auth)
            case "headers":
                return sealed.seal_headers(self.keyring, endpoint, registration.headers(value, profile))
            case "method":
                return registration.method(value, profile)
            case "max_in_flight":
                return registration.max_in_flight(value)
            case "rate_limit":
                return registration.rate_limit(value)
            case "ordered":
                return bool(value)
        raise InvalidInput(f"/{name}", "a field that does not exist", ", ".join(REGISTRATION_FIELDS))

    def _seal(self, secret: Secret, endpoint: Endpoint) -> SealedSecret:
        place = {"tenant": endpoint.tenant_id, "endpoint": endpoint.id}
        return SealedSecret(self.keyring.seal(secret, purpose=SECRET_PURPOSE, **place))

    def _facts(self, endpoint: Endpoint) -> dict[str, Any]:
        """What the audit log may have of it: no secret, and of headers only their names."""
        facts = {name: getattr(endpoint, name) for name in REGISTRATION_FIELDS}
        return facts | {
            "profile": endpoint.profile,
            "auth": sealed.shown_auth(self.keyring, endpoint),
            "headers": sealed.header_names(self.keyring, endpoint),
        }


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


def enable(
    connection: Connection, endpoint_id: UUID, *, tenant_id: UUID | None = None, by: str = SYSTEM_ACTOR
) -> Endpoint:
    """Sends again what was held meanwhile. Raises NotFound."""
    return _set_status(connection, endpoint_id, EndpointStatus.ACTIVE, None, tenant_id=tenant_id, by=by)


def disable(
    connection: Connection, endpoint_id: UUID, reason: str, *, tenant_id: UUID | None = None, by: str = SYSTEM_ACTOR
) -> Endpoint:
    """Holds its deliveries from now on: they wait, with the reason, until it is enabled or they expire.

    Raises NotFound, and InvalidInput for a reason that cannot be kept.
    """
    registration.line("reason", reason)
    return _set_status(connection, endpoint_id, EndpointStatus.DISABLED, reason, tenant_id=tenant_id, by=by)


def _set_status(
    connection: Connection,
    endpoint_id: UUID,
    status: EndpointStatus,
    reason: str | None,
    *,
    tenant_id: UUID | None,
    by: str,
) -> Endpoint:
    endpoints.lock(connection, endpoint_id)
    before = find(connection, endpoint_id, tenant_id=tenant_id)
    if (before.status, before.status_reason) == (status, reason):
        return before
    endpoints.set_status(connection, endpoint_id, status, reason)
    verb = "enabled" if status is EndpointStatus.ACTIVE else "disabled"
    after = find(connection, endpoint_id)
    _note(connection, verb, after, _status_of(before), _status_of(after), by=by)
    return after


def delete(connection: Connection, endpoint_id: UUID, *, tenant_id: UUID | None = None, by: str = SYSTEM_ACTOR) -> int:
    """Deletes it and cancels what was waiting for it; returns how many. Raises NotFound.

    What is in flight meanwhile is recorded as ever; should it be retried, the pruning cancels it.
    """
    endpoints.lock(connection, endpoint_id)
    before = find(connection, endpoint_id, tenant_id=tenant_id)
    endpoints.set_status(connection, endpoint_id, EndpointStatus.DELETED, "deleted")
    cancelled = 0
    while batch := deliveries.cancel_all_of(connection, endpoint_id, "the endpoint was deleted", batch=_BATCH):
        cancelled += batch
    after = {"status": EndpointStatus.DELETED, "cancelled_deliveries": cancelled}
    _note(connection, "deleted", before, _status_of(before), after, by=by)
    return cancelled


def _status_of(endpoint: Endpoint) -> dict[str, Any]:
    return {"status": endpoint.status, "status_reason": endpoint.status_reason}


def _note(
    connection: Connection,
    verb: str,
    endpoint: Endpoint,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    *,
    by: str,
) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"endpoint.{verb}",
        object=format_id("ep", endpoint.id),
        tenant_id=endpoint.tenant_id,
        before=before,
        after=after,
    )
