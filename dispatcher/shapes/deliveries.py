"""Deliveries: one event on its way to one endpoint, and every attempt of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from typing_extensions import TypedDict

from dispatcher.model.outcome import OutcomeClass as _OutcomeClass
from dispatcher.model.outcome import Phase as _Phase
from dispatcher.shapes.about import About, request
from dispatcher.shapes.schedules import RelativeTo
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

Decision: TypeAlias = Literal["retry", "delivered", "exhausted", "rejected", "expired", "cancelled"]
"""What was decided after an attempt: another one, or a final status."""

OutcomeClass = Annotated[str, About(example="http_retryable", one_of=[kind.value for kind in _OutcomeClass])]
Phase = Annotated[str, About(one_of=[phase.value for phase in _Phase])]

_STATUSES: Final = f"({'|'.join(get_args(DeliveryStatus))}|failed)"

_Headers = list[Annotated[list[str], About(min_length=2, max_length=2)]]


class PinnedSchedule(TypedDict):
    """The schedule, as it was when the delivery was created."""

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
    url: Annotated[
        str, About("The URL of the endpoint, or of the event's target.", "https://shop.example.com/webhooks")
    ]
    tenant_id: TenantId
    status: Annotated[DeliveryStatus, About(example="waiting")]
    status_reason: Annotated[
        str | None,
        About(
            "Why the delivery is held, the result of the last attempt, or why the delivery ended.", "http_retryable 503"
        ),
    ]
    attempt_count: Annotated[int, About("The number of attempts that were charged.", 1)]
    last_outcome: Annotated[
        OutcomeClass | None, About("The outcome of the last attempt; null before the first one.", "http_retryable")
    ]
    last_status_code: Annotated[
        int | None, About("The HTTP status of the last attempt; null if there was no answer.", 503)
    ]
    next_attempt_at: Annotated[
        Instant | None,
        About("When the next attempt is due; null if none is planned or the delivery is held.", "2026-03-02T09:00:05Z"),
    ]
    schedule: PinnedSchedule
    replay_of: Annotated[
        DeliveryId | None, About("The delivery that this one replays; null if it is not a replay.", None)
    ]
    created_at: Instant
    ended_at: Annotated[Instant | None, About("When the delivery ended; null while it has not ended.", None)]


class DeliveryPage(Paged):
    """A page of deliveries, the newest first, or the oldest."""

    data: list[Delivery]


class SentRequest(TypedDict):
    """The request without its body, which is shown with the event."""

    method: Annotated[str, About(example="POST")]
    url: Annotated[str, About(example="https://shop.example.com/webhooks")]
    headers: Annotated[_Headers, About("Pairs of name and value.", [["content-type", "application/json"]])]


class ReceivedResponse(TypedDict):
    """The response; empty if there was none."""

    headers: Annotated[_Headers, About("Pairs of name and value.", [["content-type", "text/plain"]])]
    body: Annotated[str, About("The part of the body that was stored.", "try again later")]
    body_encoding: Annotated[Literal["utf-8", "hex"], About("`hex` if the body is not UTF-8.", "utf-8")]
    body_end: Annotated[str, About("How the body ended.", "complete")]
    body_truncated: Annotated[bool, About("True if there was more of the body, or may have been.", False)]


class Attempt(TypedDict):
    """One request to the endpoint, and the decision about it."""

    id: AttemptId
    number: Annotated[
        int, About("Counted from 1. An attempt that was not charged has the same number as the next one.", 1)
    ]
    started_at: Instant
    duration_ms: Annotated[float, About(example=12.5)]
    outcome: OutcomeClass
    phase: Annotated[Phase | None, About("The last step that the attempt reached.", "body")]
    outcome_known: Annotated[
        bool, About("False if the request may have arrived although no answer was received.", True)
    ]
    status_code: Annotated[int | None, About(example=503)]
    error: Annotated[str | None, About(example=None)]
    peer_ip: Annotated[str | None, About(example="192.0.2.1")]
    request: SentRequest
    response: ReceivedResponse
    body_sha256: Annotated[
        str | None,
        About(
            "SHA-256 of the body that was sent, in hex; null if the worker was lost with it.",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ]
    retry_after_s: Annotated[
        float | None, About("The wait that the receiver asked for by Retry-After, in seconds.", None)
    ]
    decision: Annotated[
        Decision,
        About("`retry` if another attempt was planned, or the status in which the delivery ended.", "retry"),
    ]
    charged: Annotated[
        bool, About("True if this is one of the attempts that the schedule allows; false if the cause was ours.", True)
    ]
    wait_s: Annotated[
        float | None, About("How long to wait before the next attempt, in seconds; null without a retry.", 5.0)
    ]
    wait_relative_to: Annotated[
        RelativeTo | None,
        About(
            "What `wait_s` is counted from: the failure of this attempt, or the start of the first attempt. Null "
            "without a retry.",
            "previous_failure",
        ),
    ]


class AttemptPage(Paged):
    """Every attempt of a delivery, the first one first."""

    data: list[Attempt]


class DeliveryConditions(TypedDict, total=False):
    """Conditions that choose deliveries; all that are given must match. Search, replay and cancellation share them."""

    tenant_id: Annotated[TenantId | None, About("Only deliveries of this tenant; for operators.")]
    endpoint_id: Annotated[EndpointId | None, About("Only deliveries to this endpoint.")]
    event_id: Annotated[EventId | None, About("Only deliveries of this event.")]
    event_type: Annotated[EventTypeName | None, About("Only events of exactly this type.")]
    mode: Annotated[Mode | None, About("Only events of this mode: real ones, or those of a sandbox.", "test")]
    object_id: Annotated[ObjectId | None, About("The payment, order or refund that the event is about.")]
    host: Annotated[
        Annotated[str, About(min_length=1, max_length=253)] | None,
        About("Only deliveries to this host.", "shop.example.com"),
    ]
    outcome: Annotated[OutcomeClass | None, About("The outcome of the last attempt.")]
    status_code: Annotated[
        Annotated[int, About(ge=0, le=99_999)] | None, About("The HTTP status of the last attempt.", 503)
    ]
    attempts_min: Annotated[
        Annotated[int, About(ge=0, le=100)] | None, About("Only deliveries with at least this many attempts.", 3)
    ]
    attempts_max: Annotated[
        Annotated[int, About(ge=0, le=100)] | None, About("Only deliveries with at most this many attempts.", 8)
    ]
    error: Annotated[
        Annotated[str, About(min_length=1, max_length=200)] | None,
        About("Words in the error of the last attempt; the last word may be incomplete.", "certificate expired"),
    ]
    created_after: Annotated[
        InstantGiven | None, About("Only objects that were created at this time or later.", "2026-03-02T09:00:00Z")
    ]
    created_before: Annotated[
        InstantGiven | None, About("Only objects that were created before this time.", "2026-03-09T09:00:00Z")
    ]


class DeliveryFilter(DeliveryConditions, total=False):
    """The same, also by their states."""

    status: Annotated[
        Annotated[str, About(max_length=200, pattern=f"^{_STATUSES}(,{_STATUSES})*$")] | None,
        About("One status, or several separated by commas. `failed` means exhausted, rejected or expired.", "failed"),
    ]


class DeliverySearch(DeliveryFilter, total=False):
    """Which deliveries to list, and in which order; also those that a replay has made."""

    replay_id: Annotated[ReplayId | None, About("Only deliveries that this replay created.")]
    sort: Annotated[
        Literal["newest", "oldest"] | None, About("Which deliveries come first; null means the newest.", "newest")
    ]


@request
class DeliveryCancellation(TypedDict, total=False):
    """Why a delivery is cancelled."""

    reason: Annotated[Text | None, About("A reason that is shown with the delivery.", "the merchant has closed")]
