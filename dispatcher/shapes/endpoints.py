"""Endpoints: registered URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, Required, TypeAlias

from typing_extensions import TypedDict

from dispatcher.model import limits
from dispatcher.shapes.about import About, FirstThatFits, request
from dispatcher.shapes.problems import Refusal
from dispatcher.shapes.values import EndpointId, EventTypeChoice, Instant, Method, Paged, TenantId, Text

EndpointStatus: TypeAlias = Literal["active", "disabled"]

MAX_IMPORTED: Final = 1000
"""Endpoints in one import."""

SECRET_EXAMPLE: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the one of the specification

_URL: Final = "https://shop.example.com/webhooks"


def _schemes() -> Mapping[str, Any]:
    from dispatcher.signing import SCHEMES  # noqa: PLC0415 - only the server makes the document

    return {"enum": list(SCHEMES)}


SchemeName = Annotated[str, About(document=_schemes)]
Url = Annotated[str, About("The URL; the profile decides which URLs are allowed.", _URL, min_length=1, max_length=2048)]
Headers = Annotated[
    dict[str, Annotated[str, About(max_length=limits.HEADER_BYTES, pattern=limits.HEADER_VALUE)]],
    About(max_length=limits.HEADERS, document={"propertyNames": {"pattern": limits.HEADER_NAME}}),
]


@request
class BasicAuth(TypedDict):
    """How a delivery authenticates itself to the receiver (RFC 7617). The password is never shown again."""

    type: Annotated[Literal["basic"], About(example="basic")]
    username: Annotated[str, About(example="shop", min_length=1, max_length=255, pattern=limits.USERNAME)]
    password: Annotated[str, About(example="correct horse", max_length=1024, pattern=limits.PASSWORD)]


class EndpointChoices(TypedDict, total=False):
    """What an endpoint's owner chooses, as far as its profile leaves a choice; null is what the profile has."""

    name: Annotated[Text | None, About("A text for people.", "orders")]
    description: Annotated[Text | None, About("A text for people.", "The shop in Utrecht")]
    event_types: Annotated[
        Annotated[list[EventTypeChoice], About(min_length=1, max_length=1000)] | None,
        About(
            "Event types, or `payment.*` for a family of types; null means all types that the profile offers.",
            ["payment.*"],
        ),
    ]
    metadata: Annotated[
        dict[str, Any] | None,
        About(
            f"Yours to keep; at most {limits.METADATA_BYTES // 1024} KiB as JSON.",
            {"store": "Utrecht"},
        ),
    ]
    schedule: Annotated[str | None, About("The name of the retry schedule.", "standard", min_length=1, max_length=200)]
    signature: Annotated[
        Annotated[list[SchemeName], About(min_length=1, max_length=8)] | None,
        About("The signature schemes. Every delivery is signed with all of them.", ["standard_webhooks_v1"]),
    ]
    auth: Annotated[
        BasicAuth | None,
        About(
            "How deliveries authenticate themselves. The password is never shown again.",
            {"type": "basic", "username": "shop", "password": "correct horse"},
        ),
    ]
    headers: Annotated[
        Headers | None,
        About(
            "Headers that are sent with every delivery; headers that the platform sets itself are refused. The "
            "values are never shown again.",
            {"x-shop": "8127"},
        ),
    ]
    method: Annotated[
        Method | None,
        About(
            "A GET request has no body; the query string describes the event, and path and query are signed.", "POST"
        ),
    ]
    max_in_flight: Annotated[
        int | None,
        About(
            f"How many deliveries may be attempted at once; null: {limits.IN_FLIGHT}.",
            64,
            ge=1,
            le=limits.MAX_IN_FLIGHT,
        ),
    ]
    rate_limit: Annotated[
        float | None,
        About(
            "The most attempts per second; null means no limit.", 50, ge=limits.RATE_LIMIT[0], le=limits.RATE_LIMIT[1]
        ),
    ]
    ordered: Annotated[
        bool | None,
        About("True sends one delivery after the other, in the order of their events; null means false.", False),
    ]


@request
class NewEndpoint(EndpointChoices, total=False):
    """A URL to be registered."""

    url: Required[Url]
    tenant_id: Annotated[
        TenantId | None, About("The tenant that owns the endpoint; without it, the caller's own tenant.")
    ]
    profile: Annotated[
        str | None,
        About(
            "The name of the profile; null means the tenant's profile, or that of the installation.",
            "default",
            min_length=1,
            max_length=200,
        ),
    ]
    status: Annotated[
        EndpointStatus | None, About("Null means active. Deliveries to a disabled endpoint wait.", "active")
    ]


@request
class EndpointChanges(EndpointChoices, total=False):
    """Changes of an endpoint. A member that is left out stays as it is; null resets it to the profile's value."""

    url: Url


@request
class NotificationUrl(TypedDict, total=False):
    """The URL of a tenant that has one."""

    url: Required[Url]
    tenant_id: Annotated[TenantId | None, About("The tenant; without it, the caller's own.")]


class ShownAuth(TypedDict):
    """How a delivery authenticates itself, without the password."""

    type: Annotated[Literal["basic"], About(example="basic")]
    username: Annotated[str | None, About("The user name; null if the keyring cannot decrypt it.", "shop")]


class Endpoint(TypedDict):
    """A registered URL, without its secrets."""

    id: EndpointId
    tenant_id: TenantId
    url: Annotated[str, About(example=_URL)]
    name: Annotated[str | None, About(example="orders")]
    description: Annotated[str | None, About(example="The shop in Utrecht")]
    event_types: Annotated[
        list[str] | None,
        About("The types that the endpoint receives; null means all types that its profile offers.", ["payment.*"]),
    ]
    metadata: Annotated[dict[str, Any], About(example={"store": "Utrecht"})]
    profile: Annotated[str, About(example="default")]
    schedule: Annotated[str, About(example="standard")]
    signature: Annotated[list[str] | None, About("The signature schemes; null means those of the profile.", None)]
    auth: Annotated[ShownAuth | None, About(example={"type": "basic", "username": "shop"})]
    headers: Annotated[
        list[str] | None,
        About("The names of the endpoint's own headers; null if the keyring cannot decrypt them.", ["x-shop"]),
    ]
    method: Annotated[Method, About(example="POST")]
    max_in_flight: Annotated[int, About(example=64)]
    rate_limit: Annotated[float | None, About("The most attempts per second; null means no limit.", None)]
    ordered: Annotated[bool, About(example=False)]
    origin: Annotated[
        str | None,
        About(
            "Of the endpoint that events' own targets at this origin have made: their URLs stand on the deliveries, "
            "and its secret is its tenant's.",
            None,
        ),
    ]
    status: Annotated[EndpointStatus, About(example="active")]
    status_reason: Annotated[str | None, About("Why the endpoint is disabled.", None)]
    version: Annotated[int, About("Increases with every change.", 1)]
    created_at: Instant
    updated_at: Instant


class EndpointPage(Paged):
    """A page of endpoints, the newest first."""

    data: list[Endpoint]


class CreatedEndpoint(Endpoint):
    """An endpoint with its secret, which is shown only once."""

    secret: NotRequired[
        Annotated[
            str | None,
            About(
                "What its deliveries are signed with; null where its profile knows no secrets, and where only the URL "
                "was replaced. A repeat under the same Idempotency-Key does not have it.",
                SECRET_EXAMPLE,
            ),
        ]
    ]
    warnings: Annotated[list[str], About("Warnings for the owner of the endpoint.", [])]


class DeletedEndpoint(TypedDict):
    """A deleted endpoint, and the number of its deliveries that were cancelled."""

    id: EndpointId
    status: Annotated[Literal["deleted"], About(example="deleted")]
    cancelled_deliveries: Annotated[int, About("The number of waiting deliveries that were cancelled.", 0)]


@request
class Disabling(TypedDict, total=False):
    """Why an endpoint is disabled."""

    reason: Annotated[Text | None, About("A reason that is shown with the endpoint.", "the shop is moving")]


@request
class Rotation(TypedDict, total=False):
    """How a secret is replaced."""

    overlap_s: Annotated[
        float | None,
        About(
            "How long the old secret signs beside the new one, in seconds; null means a day.",
            86400,
            ge=0,
            le=30 * 86400,
        ),
    ]


class Ping(TypedDict):
    """The result of a ping."""

    ok: Annotated[bool, About("Whether a delivery with this answer would count as delivered.", True)]
    outcome: Annotated[str, About("The outcome, as for an attempt.", "ok")]
    status_code: Annotated[int | None, About("The HTTP status; null if there was no answer.", 200)]
    duration_ms: Annotated[float, About(example=12.5)]
    error: Annotated[str | None, About("Why there was no complete answer; null if there was one.", None)]


_Secret = Annotated[str, About(max_length=200)]


@request
class ImportedEndpoint(NewEndpoint, total=False):
    """An endpoint with its secret, or its secrets while they rotate: the newest first, all of which sign."""

    secret: Annotated[_Secret | None, About(example=SECRET_EXAMPLE)]
    secrets: Annotated[Annotated[list[_Secret], About(min_length=1, max_length=5)] | None, About(example=None)]


@request
class EndpointImport(TypedDict):
    """Endpoints that exist elsewhere."""

    endpoints: Annotated[
        list[Annotated[ImportedEndpoint | Any, FirstThatFits()]],
        About(
            "Each is judged by itself: one that is invalid is told of in the answer, and stops no other.",
            [{"url": _URL, "secret": SECRET_EXAMPLE}],
            min_length=1,
            max_length=MAX_IMPORTED,
        ),
    ]


class ImportItem(TypedDict):
    """What became of one endpoint of an import."""

    index: Annotated[int, About("The position in the request, from 0.", 0)]
    status: Annotated[Literal["created", "failed"], About(example="created")]
    id: Annotated[EndpointId | None, About("The id; null if it failed.")]
    warnings: Annotated[list[str], About("Warnings for the owner of the endpoint.", [])]
    error: Annotated[Refusal | None, About("Why it failed; null if it did not.", None)]


class ImportResult(TypedDict):
    """What became of an import: of each endpoint, in their order. No secret is in it."""

    created: Annotated[int, About(example=1)]
    failed: Annotated[int, About(example=0)]
    data: list[ImportItem]
