"""How each object looks from outside: what the API answers and the command line prints as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from dispatcher.flow import sealed
from dispatcher.flow.replay import written
from dispatcher.flow.statistics import PERCENTILES
from dispatcher.ids import format_id
from dispatcher.model.delivery import FAILED, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from dispatcher.flow.explain import Explained
    from dispatcher.flow.replay import Preview, Progress
    from dispatcher.flow.statistics import Ends, Fared, Statistics
    from dispatcher.ids import Prefix
    from dispatcher.model.endpoint import Endpoint
    from dispatcher.model.outcome import Outcome
    from dispatcher.signing import Keyring
    from dispatcher.store import replay_endpoints
    from dispatcher.store.counts import Backlog
    from dispatcher.store.erasures import Erasure
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery, LoggedEvent
    from dispatcher.store.pauses import Pause
    from dispatcher.store.replays import Replay
    from dispatcher.store.stats import Latest
    from dispatcher.store.tenants import ApiKey, Tenant
    from dispatcher.store.trail import Entry


def endpoint(one: Endpoint, keyring: Keyring) -> dict[str, Any]:
    """An endpoint without its secrets: of its own headers the names, of its authentication the username."""
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
        "signature": None if one.signature is None else list(one.signature),
        "auth": sealed.shown_auth(keyring, one),
        "headers": sealed.header_names(keyring, one),
        "method": one.method,
        "max_in_flight": one.max_in_flight,
        "rate_limit": one.rate_limit,
        "ordered": one.ordered,
        "origin": one.origin,
        "status": str(one.status),
        "status_reason": one.status_reason,
        "version": one.version,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
    }


def deleted_endpoint(endpoint_id: UUID, cancelled: int) -> dict[str, Any]:
    """What became of an endpoint that is deleted."""
    return {"id": format_id("ep", endpoint_id), "status": "deleted", "cancelled_deliveries": cancelled}


def pinged(outcome: Outcome) -> dict[str, Any]:
    """What came of a ping."""
    return {
        "ok": outcome.ok,
        "outcome": str(outcome.kind),
        "status_code": outcome.status_code,
        "duration_ms": round(outcome.duration_ms, 1),
        "error": outcome.error,
    }


def pause(one: Pause) -> dict[str, Any]:
    """A pause; what is None does not matter to what it holds."""
    scope = one.scope
    return {
        "id": format_id("pau", one.id),
        "tenant_id": None if scope.tenant_id is None else format_id("ten", scope.tenant_id),
        "endpoint_id": None if scope.endpoint_id is None else format_id("ep", scope.endpoint_id),
        "event_type": scope.event_type,
        "reason": one.reason,
        "created_by": one.created_by,
        "created_at": one.created_at,
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


def event(one: LoggedEvent) -> dict[str, Any]:
    """An event, its payload as it was written."""
    return {
        "id": format_id("evt", one.id),
        "type": one.type,
        "tenant_id": format_id("ten", one.tenant_id),
        "mode": one.mode,
        "object_id": one.object_id,
        "payload": None if one.payload is None else orjson.Fragment(one.payload),
        "payload_gone": one.payload_gone,
        "deliveries": one.fanout,
        "created_at": one.created_at,
    }


def erasure(one: Erasure) -> dict[str, Any]:
    """An erasure, and how far it is."""
    return {
        "id": format_id("ers", one.id),
        "object_id": one.object_id,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "reason": one.reason,
        "created_by": one.created_by,
        "created_at": one.created_at,
        "status": "done" if one.passes else "running",
        "events": one.events,
        "attempts": one.attempts,
        "cancelled_deliveries": one.cancelled,
        "in_flight_deliveries": one.in_flight,
        "next_look_at": one.next_pass_at,
    }


def explanation(one: LoggedEvent, endpoints: Iterable[Explained]) -> dict[str, Any]:
    """Where an event went and why, endpoint by endpoint."""
    return {
        "event_id": format_id("evt", one.id),
        "type": one.type,
        "tenant_id": format_id("ten", one.tenant_id),
        "created_at": one.created_at,
        "deliveries": one.fanout,
        "endpoints": [
            {
                "endpoint_id": format_id("ep", found.endpoint_id),
                "url": found.url,
                "tenant_id": format_id("ten", found.tenant_id),
                "verdict": str(found.verdict),
                "rule": found.rule,
                "delivery": None if found.delivery is None else _explained(found.delivery),
            }
            for found in endpoints
        ],
    }


def _explained(one: LoggedDelivery) -> dict[str, Any]:
    shown = delivery(one)
    return {name: shown[name] for name in ("id", "status", "next_attempt_at")} | {"held": one.held}


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


def stats(one: Statistics, latest: Latest) -> dict[str, Any]:
    """How an endpoint is doing; durations in milliseconds."""
    failure = latest.failure
    return {
        "window": one.window,
        "waiting": one.backlog.waiting,
        "in_flight": one.backlog.in_flight,
        "at_least": one.backlog.at_least,
        "oldest_waiting_at": one.backlog.oldest_waiting_at,
        **_ends(one.fared.ends),
        "attempts_p50_ms": one.fared.latency.ms.get(50),
        "attempts_p95_ms": one.fared.latency.ms.get(95),
        "attempts_to_success_mean": _rounded(one.fared.to_success_mean, 2),
        "cap": latest.cap,
        "last_attempt_at": latest.attempt_at,
        "last_success_at": latest.success_at,
        "last_failure": None
        if failure is None
        else {
            "at": failure.at,
            "outcome": failure.outcome,
            "status_code": failure.status_code,
            "error": failure.error,
        },
    }


def statistics(one: Statistics) -> dict[str, Any]:
    """How deliveries fare; rates from 0 to 1 with five digits."""
    return {
        "window": one.window,
        "from": one.since,
        "to": one.until,
        "step_s": int(one.step.total_seconds()),
        **_fared(one.fared),
        "backlog": _backlog(one.backlog, one.until),
        "series": [
            {
                "at": point.at,
                "attempts": point.attempts.total,
                "succeeded": point.attempts.succeeded,
                "delivered": point.ends.by_state[DeliveryState.DELIVERED],
                "failed": sum(point.ends.by_state[state] for state in FAILED),
            }
            for point in one.points
        ],
        "groups": [
            {
                "key": group.key,
                "name": group.name,
                **_fared(group.fared),
                "backlog": _backlog(group.backlog, one.until),
            }
            for group in one.groups
        ],
        "has_more": one.more,
    }


def _fared(one: Fared) -> dict[str, Any]:
    return {
        "attempts": {
            "total": one.attempts.total,
            "succeeded": one.attempts.succeeded,
            "success_rate": _rounded(one.attempts.success_rate, 5),
            "by_outcome": one.attempts.by_outcome,
        },
        "deliveries": _ends(one.ends),
        "latency_ms": {
            "attempts": one.latency.attempts,
            **{f"p{percent}": one.latency.ms.get(percent) for percent in PERCENTILES},
        },
        "attempts_to_success": {
            "mean": _rounded(one.to_success_mean, 2),
            "distribution": [{"attempts": made, "deliveries": n} for made, n in one.to_success.items()],
        },
    }


def _ends(ends: Ends) -> dict[str, Any]:
    return {**ends.by_state, "success_rate": _rounded(ends.success_rate, 5)}


def _backlog(one: Backlog, now: datetime) -> dict[str, Any]:
    lag_s = 0.0 if one.oldest_due_at is None else max(0.0, (now - one.oldest_due_at).total_seconds())
    return {
        "waiting": one.waiting,
        "in_flight": one.in_flight,
        "at_least": one.at_least,
        "oldest_waiting_at": one.oldest_waiting_at,
        "oldest_due_at": one.oldest_due_at,
        "lag_s": round(lag_s, 3),
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def replay(one: Replay) -> dict[str, Any]:
    """A replay or a cancellation, and how far it is."""
    return {
        "id": format_id("rpl", one.id),
        "kind": one.kind,
        "status": one.state,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "filter": _chosen(one.filter),
        "total": one.total,
        "replayed": one.replayed,
        "rate_per_second": one.rate,
        "rate_per_endpoint": one.rate_per_endpoint,
        "canary": one.canary,
        "to": one.goes_to,
        "status_reason": one.status_reason,
        "percent": 100.0 if one.state == "done" else round(100 * min(1.0, one.replayed / max(1, one.total or 1)), 1),
        "created_by": one.created_by,
        "created_at": one.created_at,
        "ended_at": one.ended_at,
    }


def replay_progress(one: Replay, found: Progress) -> dict[str, Any]:
    """The same with what has become of what it made."""
    return replay(one) | {
        "delivered": found.counts.delivered,
        "failed": found.counts.failed,
        "waiting": found.counts.waiting,
        "endpoints_running": found.running,
        "endpoints_stopped": found.stopped,
        "rate_now": None if found.pace is None else round(found.pace, 1),
        "estimated_end": found.estimated_end,
    }


def replay_endpoint(one: replay_endpoints.Progress) -> dict[str, Any]:
    """How far a replay is with one endpoint."""
    return {
        "endpoint_id": format_id("ep", one.id),
        "url": one.url,
        "status": one.state,
        "status_reason": one.status_reason,
        "total": one.total,
        "replayed": one.made,
        "delivered": one.delivered,
        "failed": one.failed,
        "waiting": one.waiting,
    }


def _chosen(kept: dict[str, Any]) -> dict[str, Any]:
    """A filter as it is kept, in the words in which it is asked for; None does not matter."""
    ids: tuple[tuple[str, Prefix], ...] = (
        ("tenant_id", "ten"),
        ("endpoint_id", "ep"),
        ("event_id", "evt"),
        ("replay_id", "rpl"),
    )
    delivery_ids = kept.get("delivery_ids")
    return {
        "status": ",".join(kept["states"]) if "states" in kept else None,
        "undelivered": kept.get("undelivered", False),
        "include_delivered": not kept.get("but_delivered", False),
        **{name: format_id(prefix, kept[name]) if name in kept else None for name, prefix in ids},
        **{
            name: kept.get(name)
            for name in (
                *("event_type", "object_id", "host", "outcome", "status_code"),
                *("attempts_min", "attempts_max", "error"),
            )
        },
        **{
            f"{what}_{when}": kept.get(f"{what}_{when}")
            for what in ("created", "ended")
            for when in ("after", "before")
        },
        "delivery_ids": None if delivery_ids is None else [format_id("dlv", one) for one in delivery_ids],
        "as_of": kept.get("as_of"),
    }


def preview(one: Preview, token: str, expires_at: datetime) -> dict[str, Any]:
    """What a replay or a cancellation would do, and the token that has exactly that done."""
    summary = one.summary
    return {
        "count": summary.count,
        "oldest": summary.oldest,
        "newest": summary.newest,
        "already_delivered": summary.already_delivered,
        "endpoints_disabled": summary.endpoints_disabled,
        "in_flight": summary.in_flight,
        "payload_gone": summary.payload_gone,
        "foreign": summary.foreign,
        "endpoints": [
            {
                "endpoint_id": format_id("ep", each.endpoint_id),
                "url": each.url,
                "count": each.count,
                "disabled": each.is_disabled,
                "already_delivered": each.already_delivered,
            }
            for each in summary.top
        ],
        "rate_per_second": one.options.rate,
        "rate_per_endpoint": one.options.rate_per_endpoint,
        "canary": one.options.canary,
        "to": written(one.options.goes_to),
        "estimated_seconds": round(one.estimated_s, 1),
        "preview_token": token,
        "expires_at": expires_at,
    }


def found(kind: str, summary: str, shown: dict[str, Any]) -> dict[str, Any]:
    """One thing that was found: what it is, what is to be said of it, itself."""
    return {"kind": kind, "id": shown["id"], "summary": summary, "object": shown}


def tenant(one: Tenant) -> dict[str, Any]:
    """A tenant without its secrets."""
    return {
        "id": format_id("ten", one.id),
        "name": one.name,
        "parent_id": None if one.parent_id is None else format_id("ten", one.parent_id),
        "profile": one.profile,
        "created_at": one.created_at,
    }


def key(one: ApiKey) -> dict[str, Any]:
    """A key without what is secret of it."""
    return {
        "id": format_id("key", one.id),
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "name": one.name,
        "scopes": sorted(one.scopes),
        "rate_limit": one.rate_limit,
        "created_at": one.created_at,
        "last_used_at": one.last_used_at,
        "revoked_at": one.revoked_at,
    }


def entry(one: Entry) -> dict[str, Any]:
    """An entry of the audit log."""
    return {
        "id": format_id("aud", one.id),
        "at": one.at,
        "actor": one.actor,
        "action": one.action,
        "object": one.object,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "before": one.before,
        "after": one.after,
    }
