"""Every operation of the client, called once, and the request that the contract says it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

NONE: Any = object()
TENANT = "ten_00000000-0000-7000-8000-000000000001"
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PAGE = {"data": [], "has_more": False, "next_cursor": None}


@dataclass(frozen=True)
class Operation:
    """`call` takes either client; `template` is the route, `path` the one that is asked for."""

    call: Callable[[Any], Any]
    method: str
    template: str
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = NONE
    answer: Any = field(default_factory=dict)

    @property
    def asked(self) -> str:
        return self.path or self.template


ENDPOINT = "ep_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"
TOKEN = "prv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d12"
WAITING = {"endpoint_id": ENDPOINT, "created_after": "2026-03-02T09:00:00+00:00"}
FILTER = {"status": "failed", **WAITING}
EVENT = {"type": "payment.completed", "payload": {"amount": 1000}}


def _filter() -> dict[str, Any]:
    return {**FILTER, "created_after": NOW}


OPERATIONS = [
    Operation(
        lambda c: c.tenants.create(name="shop", profile="terminal"),
        "POST",
        "/v1/tenants",
        body={"name": "shop", "profile": "terminal"},
    ),
    Operation(lambda c: c.tenants.list(), "GET", "/v1/tenants", query={"limit": "50"}, answer=PAGE),
    Operation(lambda c: c.tenants.get("ten_1"), "GET", "/v1/tenants/{}", "/v1/tenants/ten_1"),
    Operation(
        lambda c: c.tenants.rotate_secret("ten_1", overlap_s=3600),
        "POST",
        "/v1/tenants/{}/rotate_secret",
        "/v1/tenants/ten_1/rotate_secret",
        body={"overlap_s": 3600},
    ),
    Operation(
        lambda c: c.keys.create(name="till", tenant_id=TENANT, scopes=["events:write"]),
        "POST",
        "/v1/keys",
        body={"name": "till", "tenant_id": TENANT, "scopes": ["events:write"]},
    ),
    Operation(
        lambda c: c.keys.list(tenant_id="ten_1", cursor="c"),
        "GET",
        "/v1/keys",
        query={"tenant_id": "ten_1", "limit": "50", "cursor": "c"},
        answer=PAGE,
    ),
    Operation(
        lambda c: c.audit_log.list(object="ep_1", tenant_id="ten_1"),
        "GET",
        "/v1/audit_log",
        query={"object": "ep_1", "tenant_id": "ten_1", "limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.keys.revoke("key_1"), "DELETE", "/v1/keys/{}", "/v1/keys/key_1", answer=None),
    Operation(
        lambda c: c.events.create(**EVENT, object_id="pay_1", mode="test", not_before=NOW, tenant_id=None),
        "POST",
        "/v1/events",
        body={**EVENT, "object_id": "pay_1", "mode": "test", "not_before": "2026-03-02T09:00:00+00:00"},
    ),
    Operation(
        lambda c: c.events.create_many([EVENT, EVENT], tenant_id="ten_1", idempotency_key="k"),
        "POST",
        "/v1/events/batch",
        query={"tenant_id": "ten_1"},
        body={"events": [EVENT, EVENT]},
        answer={"data": []},
    ),
    Operation(
        lambda c: c.events.list(object_id="pay_1", created_before=NOW, limit=3),
        "GET",
        "/v1/events",
        query={"object_id": "pay_1", "created_before": "2026-03-02T09:00:00+00:00", "limit": "3"},
        answer=PAGE,
    ),
    Operation(lambda c: c.events.get("evt_1"), "GET", "/v1/events/{}", "/v1/events/evt_1"),
    Operation(lambda c: c.events.text("evt_1"), "GET", "/v1/events/{}", "/v1/events/evt_1", answer="{}"),
    Operation(lambda c: c.events.explain("evt_1"), "GET", "/v1/events/{}/explain", "/v1/events/evt_1/explain"),
    Operation(
        lambda c: c.endpoints.create(url="https://a.example/", event_types=["payment.*"], name=None),
        "POST",
        "/v1/endpoints",
        body={"url": "https://a.example/", "event_types": ["payment.*"]},
    ),
    Operation(
        lambda c: c.endpoints.import_many([{"url": "https://a.example/", "secrets": ["whsec_c2VjcmV0"]}]),
        "POST",
        "/v1/endpoints/import",
        body={"endpoints": [{"url": "https://a.example/", "secrets": ["whsec_c2VjcmV0"]}]},
        answer={"data": []},
    ),
    Operation(
        lambda c: c.endpoints.list(tenant_id="ten_1", status="disabled", profile="terminal"),
        "GET",
        "/v1/endpoints",
        query={"tenant_id": "ten_1", "status": "disabled", "profile": "terminal", "limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.endpoints.get("ep_1"), "GET", "/v1/endpoints/{}", "/v1/endpoints/ep_1"),
    Operation(
        lambda c: c.endpoints.update("ep_1", description=None, max_in_flight=3),
        "PATCH",
        "/v1/endpoints/{}",
        "/v1/endpoints/ep_1",
        body={"description": None, "max_in_flight": 3},
    ),
    Operation(
        lambda c: c.endpoints.set_url("https://a.example/", tenant_id=TENANT),
        "PUT",
        "/v1/notification_url",
        body={"url": "https://a.example/", "tenant_id": TENANT},
    ),
    Operation(lambda c: c.endpoints.delete("ep_1"), "DELETE", "/v1/endpoints/{}", "/v1/endpoints/ep_1"),
    Operation(lambda c: c.endpoints.enable("ep_1"), "POST", "/v1/endpoints/{}/enable", "/v1/endpoints/ep_1/enable"),
    Operation(
        lambda c: c.endpoints.disable("ep_1", reason="moving"),
        "POST",
        "/v1/endpoints/{}/disable",
        "/v1/endpoints/ep_1/disable",
        body={"reason": "moving"},
    ),
    Operation(lambda c: c.endpoints.ping("ep_1"), "POST", "/v1/endpoints/{}/ping", "/v1/endpoints/ep_1/ping"),
    Operation(
        lambda c: c.endpoints.rotate_secret("ep_1", overlap_s=3600),
        "POST",
        "/v1/endpoints/{}/rotate_secret",
        "/v1/endpoints/ep_1/rotate_secret",
        body={"overlap_s": 3600},
    ),
    Operation(
        lambda c: c.endpoints.recover("ep_1", since=NOW),
        "POST",
        "/v1/endpoints/{}/recover",
        "/v1/endpoints/ep_1/recover",
        body={"since": "2026-03-02T09:00:00+00:00"},
    ),
    Operation(lambda c: c.endpoints.stats("ep_1"), "GET", "/v1/endpoints/{}/stats", "/v1/endpoints/ep_1/stats"),
    Operation(
        lambda c: c.pauses.create(event_type="payment.*", reason="audit"),
        "POST",
        "/v1/pauses",
        body={"event_type": "payment.*", "reason": "audit"},
    ),
    Operation(
        lambda c: c.erasures.create(object_id="pay_1", reason="asked for"),
        "POST",
        "/v1/erasures",
        body={"object_id": "pay_1", "reason": "asked for"},
    ),
    Operation(
        lambda c: c.erasures.list(tenant_id="ten_1"),
        "GET",
        "/v1/erasures",
        query={"tenant_id": "ten_1", "limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.erasures.get("ers_1"), "GET", "/v1/erasures/{}", "/v1/erasures/ers_1"),
    Operation(lambda c: c.pauses.list(), "GET", "/v1/pauses", query={"limit": "50"}, answer=PAGE),
    Operation(lambda c: c.pauses.delete("pau_1"), "DELETE", "/v1/pauses/{}", "/v1/pauses/pau_1", answer=None),
    Operation(
        lambda c: c.pauses.delete_scope(all=True),
        "DELETE",
        "/v1/pauses",
        query={"all": "true"},
        answer=None,
    ),
    Operation(
        lambda c: c.pauses.delete_scope(tenant_id="ten_1", event_type="payment.*"),
        "DELETE",
        "/v1/pauses",
        query={"tenant_id": "ten_1", "event_type": "payment.*"},
        answer=None,
    ),
    Operation(
        lambda c: c.deliveries.list(**_filter()),
        "GET",
        "/v1/deliveries",
        query={**FILTER, "limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.deliveries.get("dlv_1"), "GET", "/v1/deliveries/{}", "/v1/deliveries/dlv_1"),
    Operation(
        lambda c: c.deliveries.attempts("dlv_1"),
        "GET",
        "/v1/deliveries/{}/attempts",
        "/v1/deliveries/dlv_1/attempts",
        answer=PAGE,
    ),
    Operation(lambda c: c.deliveries.story("dlv_1"), "GET", "/v1/deliveries/{}/story", "/v1/deliveries/dlv_1/story"),
    Operation(
        lambda c: c.deliveries.advance("dlv_1"), "POST", "/v1/deliveries/{}/advance", "/v1/deliveries/dlv_1/advance"
    ),
    Operation(lambda c: c.deliveries.retry("dlv_1"), "POST", "/v1/deliveries/{}/retry", "/v1/deliveries/dlv_1/retry"),
    Operation(
        lambda c: c.deliveries.cancel("dlv_1"), "POST", "/v1/deliveries/{}/cancel", "/v1/deliveries/dlv_1/cancel"
    ),
    Operation(
        lambda c: c.cancellations.preview(**_filter() | {"status": "waiting"}),
        "POST",
        "/v1/cancellations/preview",
        body=FILTER | {"status": "waiting"},
    ),
    Operation(
        lambda c: c.cancellations.create(preview_token=TOKEN, **_filter() | {"status": None}),
        "POST",
        "/v1/cancellations",
        body={**WAITING, "preview_token": TOKEN},
    ),
    Operation(
        lambda c: c.resolve_id("dlv_0189", limit=5), "GET", "/v1/ids/{}", "/v1/ids/dlv_0189", query={"limit": "5"}
    ),
    Operation(lambda c: c.find("pay 1/2"), "GET", "/v1/find", query={"q": "pay 1/2"}, answer=PAGE),
    Operation(
        lambda c: c.statistics(
            window="7d", endpoint_id="ep_1", event_type="a.b", mode="test", by="event_type", limit=3
        ),
        "GET",
        "/v1/statistics",
        query={
            "window": "7d",
            "endpoint_id": "ep_1",
            "event_type": "a.b",
            "mode": "test",
            "by": "event_type",
            "limit": "3",
        },
    ),
    Operation(lambda c: c.replays.preview(**_filter()), "POST", "/v1/replays/preview", body=FILTER),
    Operation(
        lambda c: c.replays.create(preview_token=TOKEN, rate_per_second=10, **_filter()),
        "POST",
        "/v1/replays",
        body={**FILTER, "preview_token": TOKEN, "rate_per_second": 10},
    ),
    Operation(
        lambda c: c.replays.list(kind="replay", tenant_id="ten_1"),
        "GET",
        "/v1/replays",
        query={"kind": "replay", "tenant_id": "ten_1", "limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.replays.get("rpl_1"), "GET", "/v1/replays/{}", "/v1/replays/rpl_1"),
    Operation(
        lambda c: c.replays.endpoints("rpl_1"),
        "GET",
        "/v1/replays/{}/endpoints",
        "/v1/replays/rpl_1/endpoints",
        query={"limit": "50"},
        answer=PAGE,
    ),
    Operation(lambda c: c.replays.pause("rpl_1"), "POST", "/v1/replays/{}/pause", "/v1/replays/rpl_1/pause"),
    Operation(lambda c: c.replays.resume("rpl_1"), "POST", "/v1/replays/{}/resume", "/v1/replays/rpl_1/resume"),
    Operation(lambda c: c.replays.cancel("rpl_1"), "POST", "/v1/replays/{}/cancel", "/v1/replays/rpl_1/cancel"),
    Operation(lambda c: c.schedules.list(), "GET", "/v1/schedules", answer=PAGE),
    Operation(lambda c: c.schedules.get("standard"), "GET", "/v1/schedules/{}", "/v1/schedules/standard"),
    Operation(
        lambda c: c.schedules.preview("standard", start=NOW),
        "GET",
        "/v1/schedules/{}/preview",
        "/v1/schedules/standard/preview",
        query={"start": "2026-03-02T09:00:00+00:00"},
    ),
    Operation(
        lambda c: c.schedules.simulate(waits=["0s", "5m"], jitter=0.1),
        "POST",
        "/v1/schedules/simulate",
        body={"waits": ["0s", "5m"], "jitter": 0.1},
    ),
    Operation(lambda c: c.profiles(), "GET", "/v1/profiles", answer=PAGE),
    Operation(lambda c: c.profile("terminal"), "GET", "/v1/profiles/{}", "/v1/profiles/terminal"),
    Operation(lambda c: c.event_types.list(), "GET", "/v1/event_types", answer=PAGE),
    Operation(lambda c: c.event_types.get("a.b"), "GET", "/v1/event_types/{}", "/v1/event_types/a.b"),
    Operation(
        lambda c: c.event_types.put("payment.completed", schema={"type": "object"}),
        "PUT",
        "/v1/event_types/{}",
        "/v1/event_types/payment.completed",
        body={"schema": {"type": "object"}},
    ),
    Operation(
        lambda c: c.event_types.delete("payment.completed"),
        "DELETE",
        "/v1/event_types/{}",
        "/v1/event_types/payment.completed",
        answer=None,
    ),
    Operation(lambda c: c.public_keys(), "GET", "/v1/public_keys", answer=PAGE),
    Operation(lambda c: c.jwks(), "GET", "/.well-known/jwks.json", answer={"keys": []}),
    Operation(lambda c: c.sender_addresses(), "GET", "/v1/sender_addresses", answer=PAGE),
    Operation(lambda c: c.healthz(), "GET", "/healthz"),
    Operation(lambda c: c.readyz(), "GET", "/readyz"),
    Operation(lambda c: c.metrics(), "GET", "/metrics", answer="up 1\n"),
]
