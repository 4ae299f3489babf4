"""A delivery's story: everything about it, for whoever has to answer for it."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.audit_log import AuditEntry
from dispatcher.shapes.deliveries import Attempt, Delivery, DeliveryStatus
from dispatcher.shapes.values import DeliveryId, EndpointId, EventId, Instant, Mode, PayloadGone


class SentBody(TypedDict):
    """The bytes that were sent or, before the first attempt, will be. A GET has none: its content is in the URL."""

    text: Annotated[str, About(example='{"amount":1000}')]
    encoding: Annotated[Literal["utf-8", "hex"], About("`hex` if the body is not UTF-8.", "utf-8")]
    size: Annotated[int, About("The size in bytes.", 15)]
    sha256: Annotated[
        str, About("SHA-256 of the body, in hex.", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    ]


class StoryEvent(TypedDict):
    """The event of the delivery."""

    id: EventId
    type: Annotated[str, About(example="payment.completed")]
    object_id: Annotated[str | None, About(example="pay_8f3k2")]
    mode: Annotated[Mode, About(example="live")]
    created_at: Annotated[
        Instant | None,
        About("When the event was accepted; null if it is past its retention.", "2026-03-02T09:00:00.123456Z"),
    ]
    body: Annotated[SentBody | None, About("The body; null if it is not stored any more.")]
    payload_gone: Annotated[
        PayloadGone | None, About("Why the body is not stored any more; null if it is stored.", None)
    ]


class StoryEndpoint(TypedDict):
    """The endpoint of the delivery."""

    id: EndpointId
    url: Annotated[
        str, About("The URL of the endpoint, or of the event's target.", "https://shop.example.com/webhooks")
    ]
    status: Annotated[Literal["active", "disabled", "deleted"], About(example="active")]
    status_reason: Annotated[str | None, About(example=None)]
    profile: Annotated[str, About(example="default")]


class StepTimes(TypedDict):
    """How long each step took, in milliseconds; null if it was not needed, as on a kept connection, or is not known.

    Of an attempt that got no answer, the last step is that in which it failed, until it did.
    """

    dns_ms: Annotated[float | None, About("The look-up of the name.", 1.2)]
    connect_ms: Annotated[float | None, About("The TCP connection.", 8.1)]
    tls_ms: Annotated[float | None, About("The TLS handshake.", 17.9)]
    first_byte_ms: Annotated[float | None, About("From the request to the answer.", 41.5)]


class OutcomeAdvice(TypedDict):
    """What an outcome means."""

    summary: Annotated[str, About(example="The receiver answered 503 Service Unavailable.")]
    likely_cause: Annotated[str, About(example="The receiver is overloaded, is being deployed, or is in maintenance.")]
    merchant_message: Annotated[str, About(example="Your server says that it is not available.")]


class StoryAttempt(Attempt):
    """One request to the endpoint, where its time went, and what it means."""

    timings: StepTimes
    explanation: OutcomeAdvice


class PastAttempt(TypedDict):
    """An attempt that was made."""

    number: Annotated[int, About(example=1)]
    at: Instant


class FutureAttempt(TypedDict):
    """An attempt that will be made if those before it fail; their own durations come on top."""

    number: Annotated[int, About(example=2)]
    earliest_at: Instant
    latest_at: Annotated[Instant, About("The latest time, with the most jitter.", "2026-03-02T09:00:05Z")]


class StorySchedule(TypedDict):
    """When attempts are made, by the version of the schedule that was current when the delivery was created."""

    name: Annotated[str, About(example="standard")]
    version: Annotated[str, About(example="3c9d0f5a6b7e")]
    attempts: Annotated[int, About("The number of attempts of the whole schedule.", 8)]
    past: list[PastAttempt]
    planned: list[FutureAttempt]
    no_attempt_reason: Annotated[
        str | None, About("Why no attempt is planned; null if one is planned.", "It was delivered.")
    ]
    expires_at: Annotated[
        Instant | None,
        About("No attempt starts after this time; null if the delivery never expires or has ended.", None),
    ]


class RelatedDelivery(TypedDict):
    """Another delivery of the same event."""

    id: DeliveryId
    status: Annotated[DeliveryStatus, About(example="delivered")]
    created_at: Instant
    endpoint_id: EndpointId


class StoryReplays(TypedDict):
    """The delivery that this one replays, and those that replay it."""

    replay_of: Annotated[RelatedDelivery | None, About("The delivery that this one replays; null if there is none.")]
    replayed_by: Annotated[
        list[RelatedDelivery], About("The deliveries that replay this one, the oldest first; at most 100.")
    ]


class SignatureCheck(TypedDict):
    """What one scheme signed in the last attempt, and how to check it; no commands if that is not stored any more."""

    scheme: Annotated[str, About(example="standard_webhooks_v1")]
    header: Annotated[str, About("The header, as it was sent.", "webhook-signature")]
    value: Annotated[str, About(example="v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=")]
    signed: Annotated[str, About("What was signed.", "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e.1772442000.<body>")]
    key: Annotated[
        str, About("The key that the commands need.", "the endpoint's secret, whsec_…, in the variable WEBHOOK_SECRET")
    ]
    command: Annotated[
        str | None,
        About(
            "A command for bash that checks it with openssl; null if what was signed is gone.",
            "printf %s … | openssl dgst -sha256 …",
        ),
    ]
    verify_command: Annotated[
        str | None,
        About(
            "A command that checks it with `dispatcher verify`, which also says what is wrong.",
            "printf %s … | dispatcher verify - --scheme standard_webhooks_v1 …",
        ),
    ]


class Story(TypedDict):
    """Everything about one delivery."""

    verdict: Annotated[
        str,
        About(
            "Where the notification is, in one sentence.",
            "Not delivered yet: the receiver answered 503; attempt 2 of 8 is due at 2026-03-02 09:00:05 UTC.",
        ),
    ]
    delivered: Annotated[
        bool, About("True if the delivery or its latest replay to the same endpoint was delivered.", False)
    ]
    delivery: Delivery
    event: StoryEvent
    endpoint: StoryEndpoint
    attempts: Annotated[list[StoryAttempt], About("The attempts, the first one first.")]
    schedule: StorySchedule
    replays: StoryReplays
    audit: Annotated[
        list[AuditEntry],
        About("What people did to it and, for operators, to its endpoint since it was made; the oldest first."),
    ]
    curl: Annotated[
        str | None,
        About(
            "For bash: repeats the last attempt. Secret headers are masked. Null where nothing was sent, or the "
            "body is gone.",
            "curl --include --globoff --path-as-is --request POST https://shop.example.com/webhooks …",
        ),
    ]
    signature_check: Annotated[list[SignatureCheck], About("The signatures of the last attempt that was sent.")]
