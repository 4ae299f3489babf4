"""`/v1/deliveries/{delivery_id}/story`: everything about one delivery, for whoever has to answer for it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Literal, cast

from fastapi import APIRouter, Response

from dispatcher.api import forms
from dispatcher.api.caller import Reader
from dispatcher.api.context import ContextOf, reply
from dispatcher.flow import story as flow
from dispatcher.ids import format_id, parse_id
from dispatcher.shapes import RelatedDelivery, SentBody, SignatureCheck, Story, StoryAttempt, StoryEvent
from dispatcher.shapes.values import instant, instant_or_none

if TYPE_CHECKING:
    from dispatcher.flow.evidence import SignatureCheck as Check
    from dispatcher.shapes import DeliveryStatus, Mode, PayloadGone
    from dispatcher.store.log import LoggedAttempt
    from dispatcher.store.story import Replayed

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])


@router.get("/{delivery_id}/story", response_model=Story)
async def show_story(delivery_id: str, context: ContextOf, caller: Reader) -> Response:
    """Get a delivery's story: where it is and why, what comes next, and how to prove it.

    What a tenant's key is told of replays is limited to its own; what was done to the endpoint, operators are told.
    """
    id_ = parse_id("dlv", delivery_id)
    told = await context.transaction(
        lambda connection: flow.tell(
            connection, id_, profiles=context.profiles, now=context.clock.now(), own=caller.tenant_id
        )
    )
    return reply(form(told))


def form(told: flow.Story) -> Story:
    """The story as the API answers it."""
    one, plan = told.delivery, told.plan
    return {
        "verdict": told.verdict,
        "delivered": told.delivered,
        "delivery": forms.delivery(one),
        "event": _event(told),
        "endpoint": {
            "id": format_id("ep", one.endpoint_id),
            "url": one.url,
            "status": cast("Literal['active', 'disabled', 'deleted']", told.endpoint.status),
            "status_reason": told.endpoint.status_reason,
            "profile": told.endpoint.profile,
        },
        "attempts": [_attempt(each) for each in told.attempts],
        "schedule": {
            "name": one.schedule,
            "version": one.schedule_version[:12],
            "attempts": plan.attempts,
            "past": [{"number": each.number, "at": instant(each.started_at)} for each in told.attempts],
            "planned": [
                {"number": each.number, "earliest_at": instant(each.earliest), "latest_at": instant(each.latest)}
                for each in plan.planned
            ],
            "no_attempt_reason": plan.no_attempt_reason,
            "expires_at": instant_or_none(plan.expires_at),
        },
        "replays": {
            "replay_of": None if told.replays is None else _related(told.replays),
            "replayed_by": [_related(each) for each in told.replayed_by],
        },
        "audit": [forms.audit_entry(each) for each in told.audit],
        "curl": told.curl,
        "signature_check": [_check(each) for each in told.signatures],
    }


def _event(told: flow.Story) -> StoryEvent:
    one, event = told.delivery, told.event
    return {
        "id": format_id("evt", one.event_id),
        "type": one.event_type,
        "object_id": one.object_id,
        "mode": cast("Mode", one.mode),
        "created_at": None if event is None else instant(event.created_at),
        "body": None if told.body is None else _body(told.body),
        "payload_gone": "retention" if event is None else cast("PayloadGone", event.payload_gone),
    }


def _body(body: bytes) -> SentBody:
    encoding: Literal["utf-8", "hex"] = "utf-8"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text, encoding = body.hex(), "hex"
    return {"text": text, "encoding": encoding, "size": len(body), "sha256": sha256(body).hexdigest()}


def _attempt(one: LoggedAttempt) -> StoryAttempt:
    dns, connect, tls, first_byte = (
        None if took is None else round(took, 3) for took in one.timings or (None, None, None, None)
    )
    advice = flow.explain(one)
    return {
        **forms.attempt(one),
        "timings": {"dns_ms": dns, "connect_ms": connect, "tls_ms": tls, "first_byte_ms": first_byte},
        "explanation": {
            "summary": advice.summary,
            "likely_cause": advice.likely_cause,
            "merchant_message": advice.merchant_message,
        },
    }


def _related(one: Replayed) -> RelatedDelivery:
    return {
        "id": format_id("dlv", one.id),
        "status": cast("DeliveryStatus", one.state),
        "created_at": instant(one.created_at),
        "endpoint_id": format_id("ep", one.endpoint_id),
    }


def _check(one: Check) -> SignatureCheck:
    return {
        "scheme": one.scheme,
        "header": one.header,
        "value": one.value,
        "signed": one.signed,
        "key": one.key,
        "command": one.command,
        "verify_command": one.verify,
    }
