"""Deliveries: one event on its way to one endpoint, and every attempt of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from typing_extensions import TypedDict

from dispatcher.model.outcome import OutcomeClass as _OutcomeClass
from dispatcher.model.outcome import Phase as _Phase
from dispatcher.shapes.about import About, request
from dispatcher.shapes.values import (
    AttemptId,
    DeliveryId,
    EndpointId,
    EventId,
    EventTypeName,
    Instant,
    InstantGiven,
    Mode,
    ObjectId,
    Paged,
    ReplayId,
    TenantId,
    Text,
)

DeliveryStatus: TypeAlias = Literal[
    "waiting", "in_flight", "delivered", "exhausted", "rejected", "expired", "cancelled"
]
"""The states of `dispatcher.model.delivery`."""

OutcomeClass = Annotated[str, About(example="http_retryable", one_of=[kind.value for kind in _OutcomeClass])]
Phase = Annotated[str, About(one_of=[phase.value for phase in _Phase])]

_STATUSES: Final = "(waiting|in_flight|delivered|exhausted|rejected|expired|cancelled|failed)"

_Headers = list[Annotated[list[str], About(min_length=2, max_length=2)]]


class PinnedSchedule(TypedDict):
    """The schedule, as it was when the delivery was made."""

    name: Annotated[str, About(example="standard")]
    version: Annotated[str, About(example="3c9d0f5a6b7e")]


class Delivery(TypedDict):
    """One event on its way to one endpoint."""

    id: DeliveryId
    event_id: EventId
    event_type: Annotated[str, About(example="payment.completed")]
    object_id: Annotated[str | None, About(example="pay_8f3k2")]
    mode: Annotated[Mode, About(example="live")]
    endpoint_id: EndpointId
    url: Annotated[str, About("The endpoint's, or that of the event's target.", "https://shop.example.com/webhooks")]
    tenant_id: TenantId
    status: Annotated[DeliveryStatus, About(example="waiting")]
    status_reason: Annotated[
        str | None,
        About("Why it is held, what came of the last attempt, or why it has ended.", "http_retryable 503"),
    ]
    attempt_count: Annotated[int, About("Attempts that counted.", 1)]
    next_attempt_at: Annotated[
        Instant | None, About("Null where none is planned, or it is held.", "2026-03-02T09:00:05Z")
    ]
    schedule: PinnedSchedule
    replay_of: Annotated[DeliveryId | None, About("The delivery that this one replays.", None)]
    created_at: Instant
    ended_at: Annotated[Instant | None, About("Null while it lives.", None)]


class DeliveryPage(Paged):
    """A page of deliveries, the newest first, or the oldest."""

    data: list[Delivery]


class SentRequest(TypedDict):
    """What was sent, but its body: that is the event's."""

    method: Annotated[str, About(example="POST")]
    url: Annotated[str, About(example="https://shop.example.com/webhooks")]
    headers: Annotated[_Headers, About("Names and values.", [["content-type", "application/json"]])]


class ReceivedResponse(TypedDict):
    """What came back; empty where nothing did."""

    headers: Annotated[_Headers, About("Names and values.", [["content-type", "text/plain"]])]
    body: Annotated[str, About("What of it was kept.", "try again later")]
    body_encoding: Annotated[Literal["utf-8", "hex"], About("`hex` of a body that is not UTF-8.", "utf-8")]
    body_end: Annotated[str, About("How it ended.", "complete")]
    body_truncated: Annotated[bool, About("There was more of it, or may have been.", False)]


class Attempt(TypedDict):
    """One request to the endpoint, and what was decided on it."""

    id: AttemptId
    number: Annotated[int, About("From 1. One that did not count has its successor's.", 1)]
    started_at: Instant
    duration_ms: Annotated[float, About(example=12.5)]
    outcome: OutcomeClass
    phase: Annotated[Phase | None, About("How far it got.", "body")]
    outcome_known: Annotated[
        bool, About("False where the request may have arrived without our learning the answer.", True)
    ]
    status_code: Annotated[int | None, About(example=503)]
    error: Annotated[str | None, About(example=None)]
    peer_ip: Annotated[str | None, About(example="192.0.2.1")]
    request: SentRequest
    response: ReceivedResponse
    body_sha256: Annotated[
        str | None,
        About(
            "Of the body that was sent, in hex; null where a worker died with it.",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ]
    retry_after_s: Annotated[float | None, About("What the receiver asked for.", None)]
    decision: Annotated[str, About(example="retry in 5 s")]


class AttemptPage(Paged):
    """Every attempt of a delivery, the first one first."""

    data: list[Attempt]


class DeliveryConditions(TypedDict, total=False):
    """Which deliveries: what all that is given chooses. Search, replay, cancellation and export share these."""

    tenant_id: Annotated[TenantId | None, About("Whose; for operators.")]
    endpoint_id: Annotated[EndpointId | None, About("Those to it.")]
    event_id: Annotated[EventId | None, About("Those of it.")]
    event_type: Annotated[EventTypeName | None, About("Of this type exactly.")]
    object_id: Annotated[ObjectId | None, About("The payment, order or refund that the event is about.")]
    host: Annotated[
        Annotated[str, About(min_length=1, max_length=253)] | None,
        About("Where the endpoint is.", "shop.example.com"),
    ]
    outcome: Annotated[OutcomeClass | None, About("Of the last attempt.")]
    status_code: Annotated[Annotated[int, About(ge=0, le=99_999)] | None, About("The last HTTP status.", 503)]
    attempts_min: Annotated[Annotated[int, About(ge=0, le=100)] | None, About("At least so many attempts.", 3)]
    attempts_max: Annotated[Annotated[int, About(ge=0, le=100)] | None, About("At most so many attempts.", 8)]
    error: Annotated[
        Annotated[str, About(min_length=1, max_length=200)] | None,
        About("Words of the last attempt's error, the last of which may be a beginning.", "certificate expired"),
    ]
    created_after: Annotated[InstantGiven | None, About("Only those made then or later.", "2026-03-02T09:00:00Z")]
    created_before: Annotated[InstantGiven | None, About("Only those made before.", "2026-03-09T09:00:00Z")]


class DeliveryFilter(DeliveryConditions, total=False):
    """The same, also by their states."""

    status: Annotated[
        Annotated[str, About(max_length=200, pattern=f"^{_STATUSES}(,{_STATUSES})*$")] | None,
        About("One, or several with commas between. `failed` is every end but delivered and cancelled.", "failed"),
    ]


class DeliverySearch(DeliveryFilter, total=False):
    """Which deliveries to list, and in which order; also those that a replay has made."""

    replay_id: Annotated[ReplayId | None, About("Those that it has made.")]
    sort: Annotated[Literal["newest", "oldest"] | None, About("Which come first; null: the newest.", "newest")]


@request
class DeliveryCancellation(TypedDict, total=False):
    """Why a delivery is cancelled."""

    reason: Annotated[Text | None, About("Shown with the delivery.", "the merchant has closed")]
