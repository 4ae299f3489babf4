"""Events: what happened."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, Required

from typing_extensions import TypedDict

from dispatcher.model.event import Verdict
from dispatcher.model.parse import MAX_BATCH
from dispatcher.shapes.about import About, request
from dispatcher.shapes.deliveries import DeliveryStatus
from dispatcher.shapes.problems import Refusal
from dispatcher.shapes.values import (
    DeliveryId,
    EndpointId,
    EventId,
    EventTypeName,
    Instant,
    InstantGiven,
    Method,
    Mode,
    Paged,
    PayloadGone,
    TenantId,
)

TARGET_EXAMPLE: Final = "https://shop.example.com/orders/8127/paid"


@request
class EventTarget(TypedDict):
    """Where one event goes, instead of to endpoints."""

    url: Annotated[str, About(example=TARGET_EXAMPLE, min_length=1, max_length=2048)]
    method: NotRequired[Annotated[Method | None, About(example="POST")]]


@request
class NewEvent(TypedDict, total=False):
    """An event to be sent. A producer's own `id` is an idempotency key too, so only one of the two is given.

    In Python, a payload of `bytes` is JSON text that is sent as it is.
    """

    type: Required[EventTypeName]
    payload: Required[
        Annotated[Any, About("Any JSON value, of at most 256 KiB. It is sent as it is written here.", {"amount": 1000})]
    ]
    tenant_id: Annotated[TenantId | None, About("The tenant that the event belongs to; for operators.")]
    id: Annotated[
        EventId | None,
        About("`evt_` and a UUIDv7 within a day of now: the producer's own, and an idempotency key.", None),
    ]
    idempotency_key: Annotated[
        str | None,
        About(
            "Printable characters. It means the same as the header, and cannot be given together with an `id`.",
            "order-8127-paid",
            min_length=1,
            max_length=255,
        ),
    ]
    mode: Annotated[Mode | None, About("Null means live.", "live")]
    object_id: Annotated[
        str | None,
        About(
            "Printable characters: the payment, order or refund that it is about, to be searched by.",
            "pay_8f3k2",
            min_length=1,
            max_length=200,
        ),
    ]
    not_before: Annotated[InstantGiven | None, About("No attempt starts before this time.", "2026-03-02T09:00:00Z")]
    expires_at: Annotated[InstantGiven | None, About("No attempt starts after this time.", "2026-03-09T09:00:00Z")]
    target: Annotated[
        EventTarget | None,
        About(
            "Where the event goes instead of to the tenant's endpoints, if the tenant's profile allows it.",
            {"url": TARGET_EXAMPLE},
        ),
    ]


@request
class NewBatch(TypedDict):
    """Events to be sent, each judged by itself."""

    events: Annotated[list[NewEvent], About(min_length=1, max_length=MAX_BATCH)]


class EventFilter(TypedDict, total=False):
    """Which events; all that is given must match."""

    tenant_id: str | None
    event_type: str | None
    object_id: str | None
    mode: Mode | None
    created_after: InstantGiven | None
    created_before: InstantGiven | None


class AcceptedEvent(TypedDict):
    """An event that is committed."""

    id: EventId
    type: Annotated[str, About(example="payment.completed")]
    tenant_id: TenantId
    mode: Annotated[Mode, About(example="live")]
    object_id: Annotated[str | None, About(example="pay_8f3k2")]
    duplicate: Annotated[
        bool, About("True if the event had been accepted before; `id` is then the id of the first one.", False)
    ]
    deliveries: Annotated[int | None, About("The number of endpoints that the event goes to; null for a duplicate.", 1)]


class BatchItem(TypedDict):
    """What became of one event of a batch."""

    index: Annotated[int, About("The position in the batch, from 0.", 0)]
    status: Annotated[Literal["accepted", "duplicate", "failed"], About(example="accepted")]
    id: Annotated[EventId | None, About("The id; null if it failed.")]
    deliveries: Annotated[
        int | None, About("The number of endpoints that the event goes to; null for a duplicate or a failure.", 1)
    ]
    error: Annotated[Refusal | None, About("Why it failed; null if it did not.", None)]


class BatchResult(TypedDict):
    """The result of a batch: of each event, in their order."""

    accepted: Annotated[int, About(example=1)]
    duplicates: Annotated[int, About(example=0)]
    failed: Annotated[int, About(example=0)]
    data: list[BatchItem]


class Event(TypedDict):
    """An event that was accepted."""

    id: EventId
    type: Annotated[str, About(example="payment.completed")]
    tenant_id: TenantId
    mode: Annotated[Mode, About(example="live")]
    object_id: Annotated[str | None, About(example="pay_8f3k2")]
    payload: Annotated[Any, About("The payload as it was accepted: any JSON value.", {"amount": 1000})]
    payload_gone: Annotated[
        PayloadGone | None,
        About("Why the payload is not stored any more, and `payload` is null; null if it is stored.", None),
    ]
    deliveries: Annotated[int, About("The number of endpoints that the event went to when it was accepted.", 1)]
    created_at: Instant


class ExplainedDelivery(TypedDict):
    """The latest delivery of the event to an endpoint."""

    id: DeliveryId
    status: Annotated[DeliveryStatus, About(example="waiting")]
    next_attempt_at: Annotated[
        Instant | None,
        About("When the next attempt is due; null if none is planned or the delivery is held.", "2026-03-02T09:00:05Z"),
    ]
    held: Annotated[str | None, About("Why the delivery is held; null if it is not.", None)]


class ExplainedEndpoint(TypedDict):
    """What became of an event at one endpoint."""

    endpoint_id: EndpointId
    url: Annotated[str, About(example="https://shop.example.com/webhooks")]
    tenant_id: TenantId
    verdict: Annotated[
        str,
        About(
            "The result. With the first four values there is a delivery, otherwise there is none.",
            "filtered",
            one_of=[verdict.value for verdict in Verdict],
        ),
    ]
    rule: Annotated[
        str,
        About(
            "The rule that decided, as it was when the event was accepted.",
            "event_types payment.* does not match refund.failed (version 2 of the endpoint)",
        ),
    ]
    delivery: ExplainedDelivery | None


class Explanation(TypedDict):
    """Where an event went and why: each endpoint of its tenant and of the tenants above, also those deleted since."""

    event_id: EventId
    type: Annotated[str, About(example="refund.failed")]
    tenant_id: TenantId
    created_at: Instant
    deliveries: Annotated[int, About("The number of endpoints that the event went to when it was accepted.", 0)]
    endpoints: list[ExplainedEndpoint]


class EventPage(Paged):
    """A page of events, the newest first."""

    data: list[Event]
