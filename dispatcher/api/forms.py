"""How each object looks from outside: what the API answers and the command line prints as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import orjson

from dispatcher.flow import sealed
from dispatcher.flow.replay_choice import format_destination
from dispatcher.ids import format_id
from dispatcher.model.delivery import FAILED, DeliveryState
from dispatcher.shapes.values import instant, instant_or_none

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from dispatcher.flow import statistics as flow
    from dispatcher.flow.explain import Explained
    from dispatcher.flow.find import Kind
    from dispatcher.flow.replay import Progress
    from dispatcher.flow.replay_choice import Preview as Previewed
    from dispatcher.ids import Prefix
    from dispatcher.model.endpoint import Endpoint as Registered
    from dispatcher.model.outcome import Outcome
    from dispatcher.shapes import (
        Attempt,
        AuditEntry,
        Backlog,
        Decision,
        DeletedEndpoint,
        Delivery,
        DeliveryStatus,
        EndCounts,
        Endpoint,
        EndpointStats,
        EndpointStatus,
        Erasure,
        Event,
        ExplainedDelivery,
        Explanation,
        Found,
        Key,
        Method,
        Mode,
        Pause,
        PayloadGone,
        Ping,
        Preview,
        RelativeTo,
        Replay,
        ReplayEndpoint,
        ReplayFilter,
        ReplayProgress,
        Scope,
        ShownAuth,
        Statistics,
        StatisticsFigures,
        Tenant,
    )
    from dispatcher.signing import Keyring
    from dispatcher.store import counts, erasures, pauses, replay_endpoints, replays, tenants
    from dispatcher.store.log import LoggedAttempt, LoggedDelivery, LoggedEvent
    from dispatcher.store.stats import Latest
    from dispatcher.store.trail import Entry


_WAIT_RELATIVE_TO: Final[dict[bool, RelativeTo]] = {False: "previous_failure", True: "first_attempt"}
"""By whether the wait counts from the first attempt."""


def _stored(at: datetime | None) -> datetime:
    """An instant that every stored object has."""
    assert at is not None
    return at


def endpoint(one: Registered, keyring: Keyring) -> Endpoint:
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
        "auth": cast("ShownAuth | None", sealed.shown_auth(keyring, one)),
        "headers": sealed.header_names(keyring, one),
        "method": cast("Method", one.method),
        "max_in_flight": one.max_in_flight,
        "rate_limit": one.rate_limit,
        "ordered": one.ordered,
        "origin": one.origin,
        "status": cast("EndpointStatus", one.status),
        "status_reason": one.status_reason,
        "version": one.version,
        "created_at": instant(_stored(one.created_at)),
        "updated_at": instant(_stored(one.updated_at)),
    }


def deleted_endpoint(endpoint_id: UUID, cancelled: int) -> DeletedEndpoint:
    """What became of an endpoint that is deleted."""
    return {"id": format_id("ep", endpoint_id), "status": "deleted", "cancelled_deliveries": cancelled}


def ping(outcome: Outcome) -> Ping:
    """What came of a ping."""
    return {
        "ok": outcome.ok,
        "outcome": str(outcome.kind),
        "status_code": outcome.status_code,
        "duration_ms": round(outcome.duration_ms, 1),
        "error": outcome.error,
    }


def pause(one: pauses.Pause) -> Pause:
    """A pause; what is None does not matter to what it holds."""
    scope = one.scope
    return {
        "id": format_id("pau", one.id),
        "tenant_id": None if scope.tenant_id is None else format_id("ten", scope.tenant_id),
        "endpoint_id": None if scope.endpoint_id is None else format_id("ep", scope.endpoint_id),
        "event_type": scope.event_type,
        "mode": None if scope.mode is None else scope.mode.value,
        "reason": one.reason,
        "created_by": one.created_by,
        "created_at": instant(one.created_at),
    }


def delivery(one: LoggedDelivery) -> Delivery:
    """A delivery; `next_attempt_at` is None where none is planned, or it is held."""
    return {
        "id": format_id("dlv", one.id),
        "event_id": format_id("evt", one.event_id),
        "event_type": one.event_type,
        "object_id": one.object_id,
        "mode": cast("Mode", one.mode),
        "endpoint_id": format_id("ep", one.endpoint_id),
        "url": one.url,
        "tenant_id": format_id("ten", one.tenant_id),
        "status": cast("DeliveryStatus", one.state),
        "status_reason": one.held or one.reason,
        "attempt_count": one.attempts,
        "last_outcome": one.last_outcome,
        "last_status_code": one.last_status_code,
        "next_attempt_at": instant_or_none(
            one.due_at if one.state is DeliveryState.WAITING and one.held is None else None
        ),
        "schedule": {"name": one.schedule, "version": one.schedule_version[:12]},
        "replay_of": None if one.replay_of is None else format_id("dlv", one.replay_of),
        "created_at": instant(one.created_at),
        "ended_at": instant_or_none(one.ended_at),
    }


def event(one: LoggedEvent) -> Event:
    """An event, its payload as it was written."""
    return {
        "id": format_id("evt", one.id),
        "type": one.type,
        "tenant_id": format_id("ten", one.tenant_id),
        "mode": cast("Mode", one.mode),
        "object_id": one.object_id,
        "payload": None if one.payload is None else orjson.Fragment(one.payload),
        "payload_gone": cast("PayloadGone", one.payload_gone),
        "deliveries": one.fanout,
        "created_at": instant(one.created_at),
    }


def erasure(one: erasures.Erasure) -> Erasure:
    """An erasure, and how far it is."""
    return {
        "id": format_id("ers", one.id),
        "object_id": one.object_id,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "reason": one.reason,
        "created_by": one.created_by,
        "created_at": instant(one.created_at),
        "status": "done" if one.passes else "running",
        "events": one.events,
        "attempts": one.attempts,
        "cancelled_deliveries": one.cancelled,
        "in_flight_deliveries": one.in_flight,
        "next_check_at": instant_or_none(one.next_pass_at),
    }


def explanation(one: LoggedEvent, endpoints: Iterable[Explained]) -> Explanation:
    """Where an event went and why, endpoint by endpoint."""
    return {
        "event_id": format_id("evt", one.id),
        "type": one.type,
        "tenant_id": format_id("ten", one.tenant_id),
        "created_at": instant(one.created_at),
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


def _explained(one: LoggedDelivery) -> ExplainedDelivery:
    shown = delivery(one)
    return {
        "id": shown["id"],
        "status": shown["status"],
        "next_attempt_at": shown["next_attempt_at"],
        "held": one.held,
    }


def attempt(one: LoggedAttempt) -> Attempt:
    """An attempt; the answer's body as text where it is UTF-8, as hex where it is not."""
    encoding: Literal["utf-8", "hex"] = "utf-8"
    try:
        body = one.response_body.decode()
    except UnicodeDecodeError:
        body, encoding = one.response_body.hex(), "hex"
    return {
        "id": format_id("att", one.id),
        "number": one.number,
        "started_at": instant(one.started_at),
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
        "decision": cast("Decision", one.decision),
        "charged": one.charged,
        "wait_s": one.wait_s,
        "wait_relative_to": None if one.wait_s is None else _WAIT_RELATIVE_TO[one.from_first_attempt],
    }


def stats(one: flow.Statistics, latest: Latest, mode: Mode) -> EndpointStats:
    """How an endpoint is doing; durations in milliseconds."""
    failure = latest.failure
    return {
        "window": one.window,
        "mode": mode,
        "waiting": one.backlog.waiting,
        "in_flight": one.backlog.in_flight,
        "waiting_is_minimum": one.backlog.at_least,
        "oldest_waiting_at": instant_or_none(one.backlog.oldest_waiting_at),
        **_ends(one.fared.ends),
        "attempts_p50_ms": one.fared.latency.ms.get(50),
        "attempts_p95_ms": one.fared.latency.ms.get(95),
        "attempts_to_success_mean": _rounded(one.fared.to_success_mean, 2),
        "current_max_in_flight": latest.cap,
        "last_attempt_at": instant_or_none(latest.attempt_at),
        "last_success_at": instant_or_none(latest.success_at),
        "last_failure": None
        if failure is None
        else {
            "at": instant(failure.at),
            "outcome": failure.outcome,
            "status_code": failure.status_code,
            "error": failure.error,
        },
    }


def statistics(
    one: flow.Statistics,
    *,
    tenant_id: str | None,
    endpoint_id: str | None,
    event_type: str | None,
    mode: Mode,
    by: Literal["endpoint", "event_type", "tenant", "none"],
) -> Statistics:
    """How deliveries fare; rates from 0 to 1 with five digits."""
    return {
        "window": one.window,
        "from": instant(one.since),
        "to": instant(one.until),
        "step_s": int(one.step.total_seconds()),
        "tenant_id": tenant_id,
        "endpoint_id": endpoint_id,
        "event_type": event_type,
        "mode": mode,
        "by": by,
        **_fared(one.fared),
        "backlog": _backlog(one.backlog, one.until),
        "series": [
            {
                "at": instant(point.at),
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


def _fared(one: flow.Fared) -> StatisticsFigures:
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
            "p50": one.latency.ms.get(50),
            "p90": one.latency.ms.get(90),
            "p95": one.latency.ms.get(95),
            "p99": one.latency.ms.get(99),
        },
        "attempts_to_success": {
            "mean": _rounded(one.to_success_mean, 2),
            "distribution": [{"attempts": made, "deliveries": n} for made, n in one.to_success.items()],
        },
    }


def _ends(ends: flow.Ends) -> EndCounts:
    return {
        "delivered": ends.by_state[DeliveryState.DELIVERED],
        "exhausted": ends.by_state[DeliveryState.EXHAUSTED],
        "rejected": ends.by_state[DeliveryState.REJECTED],
        "expired": ends.by_state[DeliveryState.EXPIRED],
        "cancelled": ends.by_state[DeliveryState.CANCELLED],
        "success_rate": _rounded(ends.success_rate, 5),
    }


def _backlog(one: counts.Backlog, now: datetime) -> Backlog:
    lag_s = 0.0 if one.oldest_due_at is None else max(0.0, (now - one.oldest_due_at).total_seconds())
    return {
        "waiting": one.waiting,
        "in_flight": one.in_flight,
        "waiting_is_minimum": one.at_least,
        "oldest_waiting_at": instant_or_none(one.oldest_waiting_at),
        "oldest_due_at": instant_or_none(one.oldest_due_at),
        "lag_s": round(lag_s, 3),
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def replay(one: replays.Replay) -> Replay:
    """A replay or a cancellation, and how far it is."""
    return {
        "id": format_id("rpl", one.id),
        "kind": one.kind,
        "status": one.state,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "filter": _chosen(one.filter),
        "total": one.total,
        "processed": one.replayed,
        "rate_per_second": one.rate,
        "rate_per_endpoint": one.rate_per_endpoint,
        "canary": one.canary,
        "to": one.goes_to,
        "status_reason": one.status_reason,
        "percent": 100.0 if one.state == "done" else round(100 * min(1.0, one.replayed / max(1, one.total or 1)), 1),
        "created_by": one.created_by,
        "created_at": instant(one.created_at),
        "ended_at": instant_or_none(one.ended_at),
    }


def replay_progress(one: replays.Replay, found: Progress) -> ReplayProgress:
    """The same with what has become of what it made."""
    return {
        **replay(one),
        "delivered": found.counts.delivered,
        "failed": found.counts.failed,
        "waiting": found.counts.waiting,
        "endpoints_running": found.running,
        "endpoints_stopped": found.stopped,
        "current_rate": None if found.pace is None else round(found.pace, 1),
        "estimated_end": instant_or_none(found.estimated_end),
    }


def replay_endpoint(one: replay_endpoints.Progress) -> ReplayEndpoint:
    """How far a replay is with one endpoint."""
    return {
        "endpoint_id": format_id("ep", one.id),
        "url": one.url,
        "status": one.state,
        "status_reason": one.status_reason,
        "total": one.total,
        "processed": one.made,
        "delivered": one.delivered,
        "failed": one.failed,
        "waiting": one.waiting,
    }


def _chosen(kept: dict[str, Any]) -> ReplayFilter:
    """A filter as it is kept, in the words in which it is asked for; None does not matter."""

    def id_of(name: str, prefix: Prefix) -> str | None:
        return format_id(prefix, kept[name]) if name in kept else None

    return {
        "status": ",".join(kept["states"]) if "states" in kept else None,
        "undelivered": kept.get("undelivered", False),
        "include_delivered": not kept.get("but_delivered", False),
        "tenant_id": id_of("tenant_id", "ten"),
        "endpoint_id": id_of("endpoint_id", "ep"),
        "event_id": id_of("event_id", "evt"),
        "replay_id": id_of("replay_id", "rpl"),
        "event_type": kept.get("event_type"),
        "mode": kept.get("mode"),
        "object_id": kept.get("object_id"),
        "host": kept.get("host"),
        "outcome": kept.get("outcome"),
        "status_code": kept.get("status_code"),
        "attempts_min": kept.get("attempts_min"),
        "attempts_max": kept.get("attempts_max"),
        "error": kept.get("error"),
        "created_after": kept.get("created_after"),
        "created_before": kept.get("created_before"),
        "ended_after": kept.get("ended_after"),
        "ended_before": kept.get("ended_before"),
        "delivery_ids": [format_id("dlv", id_) for id_ in kept["delivery_ids"]] if "delivery_ids" in kept else None,
        "as_of": kept.get("as_of"),
    }


def preview(one: Previewed, token: str, expires_at: datetime) -> Preview:
    """What a replay or a cancellation would do, and the token that has exactly that done."""
    summary = one.summary
    return {
        "count": summary.count,
        "oldest": instant_or_none(summary.oldest),
        "newest": instant_or_none(summary.newest),
        "already_delivered": summary.already_delivered,
        "endpoints_disabled": summary.endpoints_disabled,
        "in_flight": summary.in_flight,
        "payload_gone": summary.payload_gone,
        "not_visible": summary.not_visible,
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
        "to": format_destination(one.options.goes_to),
        "estimated_seconds": round(one.estimated_s, 1),
        "preview_token": token,
        "expires_at": instant(expires_at),
    }


def found(kind: Kind, summary: str, shown: Mapping[str, Any]) -> Found:
    """One thing that was found: what it is, what is to be said of it, itself."""
    return {"kind": kind, "id": shown["id"], "summary": summary, "object": dict(shown)}


def tenant(one: tenants.Tenant) -> Tenant:
    """A tenant without its secrets."""
    return {
        "id": format_id("ten", one.id),
        "name": one.name,
        "parent_id": None if one.parent_id is None else format_id("ten", one.parent_id),
        "profile": one.profile,
        "created_at": instant(one.created_at),
    }


def key(one: tenants.ApiKey) -> Key:
    """A key without what is secret of it."""
    return {
        "id": format_id("key", one.id),
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "name": one.name,
        "scopes": cast("list[Scope]", sorted(one.scopes)),
        "rate_limit": one.rate_limit,
        "created_at": instant(one.created_at),
        "last_used_at": instant_or_none(one.last_used_at),
        "revoked_at": instant_or_none(one.revoked_at),
    }


def audit_entry(one: Entry) -> AuditEntry:
    """An entry of the audit log."""
    return {
        "id": format_id("aud", one.id),
        "at": instant(one.at),
        "actor": one.actor,
        "action": one.action,
        "object": one.object,
        "tenant_id": None if one.tenant_id is None else format_id("ten", one.tenant_id),
        "before": one.before,
        "after": one.after,
    }
