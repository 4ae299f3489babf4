"""Tenants: who owns endpoints and events."""

from __future__ import annotations

from typing import Annotated, NotRequired, Required

from typing_extensions import TypedDict

from dispatcher.model import access, limits
from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Instant, Paged, TenantId

Name = Annotated[str, About(min_length=1, max_length=200, pattern=access.NAME)]


@request
class NewTenant(TypedDict, total=False):
    """A tenant to be created."""

    name: Required[Annotated[Name, About("A unique name, without control characters.", "shop-8127")]]
    parent_id: Annotated[
        TenantId | None,
        About(f"Whose endpoints also receive this one's events; {limits.TENANT_DEPTH} tenants deep at most. It stays."),
    ]
    profile: Annotated[
        str | None,
        About(
            "The profile of endpoints that do not name one; null means that of the installation.",
            "standard-webhooks",
            max_length=200,
        ),
    ]


class Tenant(TypedDict):
    """Who owns endpoints and events."""

    id: TenantId
    name: Annotated[str, About(example="shop-8127")]
    parent_id: Annotated[TenantId | None, About(example=None)]
    profile: Annotated[str | None, About(example="standard-webhooks")]
    created_at: Instant


class CreatedTenant(Tenant):
    """A tenant with its secret, which is shown only once."""

    secret: NotRequired[
        Annotated[
            str,
            About(
                "What deliveries to targets of its events are signed with. A repeat under the same Idempotency-"
                "Key does not have it.",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ),
        ]
    ]


class TenantPage(Paged):
    """A page of tenants, the newest first."""

    data: list[Tenant]
