"""`/v1/deliveries/{delivery_id}/story`: everything about one delivery, for whoever has to answer for it."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from dispatcher.api import audit_log, deliveries, forms
from dispatcher.api.context import ContextOf, Reader, reply
from dispatcher.flow import story as flow
from dispatcher.ids import format_id, parse_id
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.endpoint import EndpointStatus

if TYPE_CHECKING:
    from dispatcher.flow.evidence import SignatureCheck as Check
    from dispatcher.store.log import LoggedAttempt
    from dispatcher.store.story import Replayed

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])

_AT: Final = "2026-03-02T09:00:00.123456Z"
_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_SIGNATURE: Final = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="


class SentBody(BaseModel):
    """The bytes that were sent or, where nothing was yet, will be. Of a GET none: what it says stands in its URL."""

    text: str = Field(examples=['{"amount":1000}'])
    encoding: Literal["utf-8", "hex"] = Field(description="`hex` of a body that is no UTF-8.", examples=["utf-8"])
    size: int = Field(description="In bytes.", examples=[15])
    sha256: str = Field(description="In hex.", examples=[_SHA256])


class ToldEvent(BaseModel):
    """What happened."""

    id: str = Field(examples=["evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"])
    type: str = Field(examples=["payment.completed"])
    object_id: str | None = Field(examples=["pay_8f3k2"])
    mode: Literal["live", "test"] = Field(examples=["live"])
    created_at: datetime | None = Field(description="Null where the event is past its retention.", examples=[_AT])
    body: SentBody | None = Field(description="Null where it is gone.")
    payload_gone: Literal["erased", "retention"] | None = Field(
        description="Why the body is gone; null where it is not.", examples=[None]
    )


class ToldEndpoint(BaseModel):
    """Where it goes."""

    id: str = Field(examples=["ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"])
    url: str = Field(
        description="The endpoint's, or that of the event's target.", examples=["https://shop.example.com/webhooks"]
    )
    status: EndpointStatus = Field(examples=["active"])
    status_reason: str | None = Field(examples=[None])
    profile: str = Field(examples=["default"])


class StepTimes(BaseModel):
    """How long each step took, in milliseconds; null where it was not needed, as on a kept connection, or not known.

    Of an attempt that got no answer, the last step is that in which it failed, until it did.
    """

    dns_ms: float | None = Field(description="The look-up of the name.", examples=[1.2])
    connect_ms: float | None = Field(description="The TCP connection.", examples=[8.1])
    tls_ms: float | None = Field(description="The TLS handshake.", examples=[17.9])
    first_byte_ms: float | None = Field(description="From the request to the answer.", examples=[41.5])


class PlainWords(BaseModel):
    """What an outcome means."""

    summary: str = Field(examples=["The receiver answered 503 Service Unavailable."])
    likely_cause: str = Field(examples=["The receiver is overloaded, is being deployed, or is in maintenance."])
    tell_the_merchant: str = Field(examples=["Your server says that it is not available."])


class ToldAttempt(deliveries.Attempt):
    """One request to the endpoint, where its time went, and what it means."""

    timings: StepTimes
    explanation: PlainWords


class PastAttempt(BaseModel):
    """An attempt that was made."""

    number: int = Field(examples=[1])
    at: datetime = Field(examples=[_AT])


class FutureAttempt(BaseModel):
    """An attempt that will be made if those before it fail, later by what they need for that."""

    number: int = Field(examples=[2])
    earliest_at: datetime = Field(examples=["2026-03-02T09:00:05Z"])
    latest_at: datetime = Field(description="With the most jitter.", examples=["2026-03-02T09:00:05Z"])


class ToldSchedule(BaseModel):
    """When attempts are made, by the version of the schedule that was in force when the delivery was made."""

    name: str = Field(examples=["standard"])
    version: str = Field(examples=["3c9d0f5a6b7e"])
    attempts: int = Field(description="How many it has in all.", examples=[8])
    past: list[PastAttempt]
    planned: list[FutureAttempt]
    why_none: str | None = Field(
        description="Why no attempt is planned; null where one is.", examples=["It was delivered."]
    )
    expires_at: datetime | None = Field(
        description="No attempt starts after; null where it never expires, or has ended.", examples=[None]
    )


class RelatedDelivery(BaseModel):
    """Another delivery of the same event."""

    id: str = Field(examples=[deliveries.ID])
    status: DeliveryState = Field(examples=["delivered"])
    created_at: datetime = Field(examples=[_AT])
    endpoint_id: str = Field(examples=["ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968"])


class ToldReplays(BaseModel):
    """What it replays, and what replays it."""

    replay_of: RelatedDelivery | None = Field(description="Null where it replays nothing, or that is gone.")
    replayed_by: list[RelatedDelivery] = Field(description="The oldest first, at most 100.")


class SignatureCheck(BaseModel):
    """What one scheme signed of the last attempt, and how to check it. The commands are null where that is gone."""

    scheme: str = Field(examples=["standard_webhooks_v1"])
    header: str = Field(description="As it was sent.", examples=["webhook-signature"])
    value: str = Field(examples=[_SIGNATURE])
    signed: str = Field(
        description="What was signed.", examples=["evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e.1772442000.<body>"]
    )
    key: str = Field(
        description="What the commands need.",
        examples=["the endpoint's secret, whsec_…, in the variable WEBHOOK_SECRET"],
    )
    command: str | None = Field(
        description="For bash, with openssl.", examples=["printf %s … | openssl dgst -sha256 …"]
    )
    verify_command: str | None = Field(
        description="The same with `dispatcher verify`, which also says what is wrong.",
        examples=["printf %s … | dispatcher verify - --scheme standard_webhooks_v1 …"],
    )


class Story(BaseModel):
    """Everything about one delivery."""

    verdict: str = Field(
        description="Where the notification is, in one sentence.",
        examples=["Not delivered yet: the receiver answered 503; attempt 2 of 8 is due at 2026-03-02 09:00:05 UTC."],
    )
    delivery: deliveries.Delivery
    event: ToldEvent
    endpoint: ToldEndpoint
    attempts: list[ToldAttempt] = Field(description="The first one first.")
    schedule: ToldSchedule
    replays: ToldReplays
    audit: list[audit_log.Entry] = Field(
        description="What people did to it and, for operators, to its endpoint since it was made; the oldest first."
    )
    curl: str | None = Field(
        description="For bash: repeats the last attempt. Secret headers are masked. Null where nothing was sent, "
        "or the body is gone.",
        examples=["curl --include --globoff --path-as-is --request POST https://shop.example.com/webhooks …"],
    )
    signature_check: list[SignatureCheck] = Field(description="Of the last attempt that was sent.")


@router.get("/{delivery_id}/story", response_model=Story)
async def story(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """Everything about one delivery: where it is and why, in plain words, what comes next, and how to prove it.

    What a tenant's key is told of replays is limited to its own; what was done to the endpoint, operators are told.
    """
    id_ = parse_id("dlv", delivery_id)
    told = await context.transaction(
        lambda connection: flow.tell(
            connection, id_, profiles=context.profiles, now=context.clock.now(), own=caller.tenant_id
        )
    )
    return reply(form(told))


def form(told: flow.Story) -> dict[str, Any]:
    """The story as the API answers it."""
    one, plan = told.delivery, told.plan
    return {
        "verdict": told.verdict,
        "delivery": forms.delivery(one),
        "event": _event(told),
        "endpoint": {
            "id": format_id("ep", one.endpoint_id),
            "url": one.url,
            "status": str(told.endpoint.status),
            "status_reason": told.endpoint.status_reason,
            "profile": told.endpoint.profile,
        },
        "attempts": [_attempt(each) for each in told.attempts],
        "schedule": {
            "name": one.schedule,
            "version": one.schedule_version[:12],
            "attempts": plan.attempts,
            "past": [{"number": each.number, "at": each.started_at} for each in told.attempts],
            "planned": [
                {"number": each.number, "earliest_at": each.earliest, "latest_at": each.latest} for each in plan.planned
            ],
            "why_none": plan.why_none,
            "expires_at": plan.expires_at,
        },
        "replays": {
            "replay_of": None if told.replays is None else _related(told.replays),
            "replayed_by": [_related(each) for each in told.replayed_by],
        },
        "audit": [forms.entry(each) for each in told.audit],
        "curl": told.curl,
        "signature_check": [_check(each) for each in told.signatures],
    }


def _event(told: flow.Story) -> dict[str, Any]:
    one, event = told.delivery, told.event
    return {
        "id": format_id("evt", one.event_id),
        "type": one.event_type,
        "object_id": one.object_id,
        "mode": one.mode,
        "created_at": None if event is None else event.created_at,
        "body": None if told.body is None else _body(told.body),
        "payload_gone": "retention" if event is None else event.payload_gone,
    }


def _body(body: bytes) -> dict[str, Any]:
    try:
        text, encoding = body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = body.hex(), "hex"
    return {"text": text, "encoding": encoding, "size": len(body), "sha256": sha256(body).hexdigest()}


def _attempt(one: LoggedAttempt) -> dict[str, Any]:
    steps = ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms")
    times = one.timings or (None, None, None, None)
    advice = flow.explain(one)
    return forms.attempt(one) | {
        "timings": {step: None if took is None else round(took, 3) for step, took in zip(steps, times, strict=True)},
        "explanation": {
            "summary": advice.summary,
            "likely_cause": advice.likely_cause,
            "tell_the_merchant": advice.tell_the_merchant,
        },
    }


def _related(one: Replayed) -> dict[str, Any]:
    return {
        "id": format_id("dlv", one.id),
        "status": str(one.state),
        "created_at": one.created_at,
        "endpoint_id": format_id("ep", one.endpoint_id),
    }


def _check(one: Check) -> dict[str, Any]:
    return {
        "scheme": one.scheme,
        "header": one.header,
        "value": one.value,
        "signed": one.signed,
        "key": one.key,
        "command": one.command,
        "verify_command": one.verify,
    }
