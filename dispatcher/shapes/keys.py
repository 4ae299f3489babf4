"""Keys: what authenticates requests."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypeAlias

from typing_extensions import TypedDict

from dispatcher.model import access
from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import Instant, KeyId, Paged, TenantId

Scope: TypeAlias = Literal["events:write", "endpoints:write", "deliveries:read", "deliveries:replay", "admin"]
"""Those of `dispatcher.model.access`."""


@request
class NewKey(TypedDict, total=False):
    """A key to be created."""

    name: Required[
        Annotated[
            Annotated[str, About(min_length=1, max_length=200, pattern=access.NAME)],
            About("A name for people, without control characters.", "till-12"),
        ]
    ]
    tenant_id: Annotated[
        TenantId | None,
        About(
            "The tenant that the key acts for. Where it is left out: the caller's own; an operator's key then "
            "makes one more operator's key."
        ),
    ]
    scopes: Annotated[
        list[Scope],
        About(
            "What the key may do. The default is `admin`, which allows everything.",
            ["events:write", "deliveries:read"],
            min_length=1,
            max_length=20,
        ),
    ]
    rate_limit: Annotated[
        float | None, About("The most requests per second; null means no limit.", 50, ge=0.01, le=100000)
    ]


class Key(TypedDict):
    """A key, without its secrets."""

    id: KeyId
    tenant_id: Annotated[TenantId | None, About("The tenant that it acts for; null for an operator's.")]
    name: Annotated[str, About(example="till-12")]
    scopes: Annotated[list[Scope], About(example=["deliveries:read", "events:write"])]
    rate_limit: Annotated[float | None, About("The most requests per second; null means no limit.", 50)]
    created_at: Instant
    last_used_at: Annotated[Instant | None, About("When the key was last used, to the minute.", "2026-03-02T09:15:00Z")]
    revoked_at: Annotated[Instant | None, About(example=None)]


class CreatedKey(Key):
    """A key with its secrets, which are shown only once: a repeat with the same Idempotency-Key does not have them."""

    key: NotRequired[Annotated[str, About("The key, for the header `Authorization: Bearer`.", access.EXAMPLE_KEY)]]
    signing_secret: NotRequired[
        Annotated[
            str,
            About(
                "The secret for requests that are signed with HMAC.",
                "hmsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            ),
        ]
    ]


class KeyPage(Paged):
    """A page of keys, the newest first."""

    data: list[Key]
