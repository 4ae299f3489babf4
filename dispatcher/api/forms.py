"""How each object looks from outside: what the API answers and the command line prints as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.ids import format_id
from dispatcher.model.delivery import DeliveryState

if TYPE_CHECKING:
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery


def endpoint(one: Endpoint) -> dict[str, Any]:
    """An endpoint without its secrets."""
    return {
        "id": format_id("ep", one.id),
        "tenant_id": format_id("ten", one.tenant_id),
        "url": one.url,
        "name": one.name,
        "description": one.description,
        "event_types": None if one.event_types is None else list(one.event_types),
        "metadata": one.metadata,
        "profile": one.profile,
        "schedule": one.schedule,
        "max_in_flight": one.max_in_flight,
        "status": str(one.status),
        "status_reason": one.status_reason,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
    }


def delivery(one: LoggedDelivery) -> dict[str, Any]:
    """A delivery; `next_attempt_at` is None where none is planned, or it is held."""
    return {
        "id": format_id("dlv", one.id),
        "event_id": format_id("evt", one.event_id),
        "event_type": one.event_type,
        "object_id": one.object_id,
        "mode": one.mode,
        "endpoint_id": format_id("ep", one.endpoint_id),
        "url": one.url,
        "tenant_id": format_id("ten", one.tenant_id),
        "status": str(one.state),
        "status_reason": one.held or one.reason,
        "attempt_count": one.attempts,
        "next_attempt_at": one.due_at if one.state is DeliveryState.WAITING and one.held is None else None,
        "schedule": {"name": one.schedule, "version": one.schedule_version[:12]},
        "replay_of": None if one.replay_of is None else format_id("dlv", one.replay_of),
        "created_at": one.created_at,
        "ended_at": one.ended_at,
    }


def attempt(one: LoggedAttempt) -> dict[str, Any]:
    """An attempt; the answer's body as text where it is UTF-8, as hex where it is not."""
    try:
        body, encoding = one.response_body.decode(), "utf-8"
    except UnicodeDecodeError:
        body, encoding = one.response_body.hex(), "hex"
    return {
        "id": format_id("att", one.id),
        "number": one.number,
        "started_at": one.started_at,
        "duration_ms": round(one.duration_ms, 1),
        "outcome": one.outcome,
        "phase": one.phase,
        "outcome_known": one.outcome_known,
        "status_code": one.status_code,
        "error": one.error,
        "peer_ip": one.peer_ip,
        "request": {"method": one.method, "url": one.url, "headers": one.request_headers},
        "response": {
            "headers": one.response_headers,
            "body": body,
            "body_encoding": encoding,
            "body_end": one.body_end,
            "body_truncated": one.body_end != "complete",
        },
        "body_sha256": None if one.body_sha256 is None else one.body_sha256.hex(),
        "retry_after_s": one.retry_after_s,
        "decision": one.decision,
    }
