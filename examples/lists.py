"""Every list of the command line, as a terminal of 80 and of 120 columns shows it.

    python -m examples.lists            prints them
    python -m examples.lists --write    puts them into docs/command-line.md

The commands are the real ones. Their client is answered with the objects below instead of by an API, and the clock
stands still, so that the output is always the same.
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch
from uuid import UUID

import httpx

from dispatcher.cli import cli, deliveries, listing, signing_keys, target
from dispatcher.cli.schedules import as_json
from dispatcher.client import Client
from dispatcher.clock import Clock
from dispatcher.ids import format_id
from dispatcher.model.outcome import reason
from dispatcher.profiles import Known, as_document, shipped_profiles_dir
from dispatcher.profiles import load_catalog as load_profiles
from dispatcher.retry import load_catalog as load_schedules
from dispatcher.retry import shipped_schedules_dir
from dispatcher.signing import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.ids import Prefix

WIDTHS: Final = (80, 120)
DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs/command-line.md"
MARKS: Final = ("<!-- lists begin -->\n", "<!-- lists end -->\n")
NOW: Final = datetime(2026, 3, 2, 3, 12, 40, tzinfo=UTC)

COMMANDS: Final = (
    "deliveries list --limit 9",
    "events list",
    "endpoints list",
    "replay list",
    "replay status rpl_019cac40-1e80-7b1d-8f00-2c8a6d1e0b52 --endpoints",
    "pause --list",
    "audit-log list",
    "erasures list",
    "event-types list",
    "sender-addresses list",
    "tenants list",
    "keys list",
    "signing-keys list",
    "schedules list",
    "profiles list",
    "find pay_8f3k2",
)
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


def id_(prefix: Prefix, ago_s: float, tail: int) -> str:
    """An id that was made so long ago. Its random half is `tail`, so that it is always the same."""
    ms = int((NOW - timedelta(seconds=ago_s)).timestamp() * 1000)
    scattered = tail * 0x9E3779B97F4A7C15 % 2**64
    return format_id(prefix, UUID(int=ms << 80 | 0x7 << 76 | (scattered >> 52) << 64 | 0x2 << 62 | scattered % 2**62))


def at(ago_s: float) -> str:
    """An instant so long ago, as the API writes it."""
    return (NOW - timedelta(seconds=ago_s)).isoformat().replace("+00:00", "Z")


_DAY: Final = 86_400
TENANT: Final = "ten_00000000-0000-7000-8000-000000000001"
SHOP: Final = id_("ten", 300 * _DAY, 1)
TILL: Final = id_("ten", 120 * _DAY, 2)
ORDERS: Final = id_("ep", 90 * _DAY, 3)
LEDGER: Final = id_("ep", 60 * _DAY, 4)
TILLS: Final = id_("ep", 20 * _DAY, 5)
OLD: Final = id_("ep", 299 * _DAY, 6)
OPERATOR: Final = id_("key", 200 * _DAY, 7)
URLS: Final = {
    ORDERS: "https://shop.example.com/webhooks/payments",
    LEDGER: "https://ledger.example.net/v2/notify?token=3f9a",
    TILLS: "https://tills.example.org/hook",
    OLD: "https://old-shop.example.com/",
}


def delivery(
    ago_s: float,
    tail: int,
    endpoint: str,
    status: str,
    attempts: int,
    outcome: tuple[str, int | None] | None,
    *,
    kind: str = "payment.completed",
    object_id: str | None = "pay_8f3k2",
    held: str | None = None,
    next_s: float | None = None,
    mode: str = "live",
) -> dict[str, Any]:
    """A delivery, as the API describes it."""
    last = (None, None) if outcome is None else outcome
    return {
        "id": id_("dlv", ago_s, tail),
        "event_id": id_("evt", ago_s + 0.004, tail // 10),
        "event_type": kind,
        "object_id": object_id,
        "mode": mode,
        "endpoint_id": endpoint,
        "url": URLS[endpoint],
        "tenant_id": SHOP,
        "status": status,
        "status_reason": held or (None if outcome is None else reason(*outcome)),
        "attempt_count": attempts,
        "last_outcome": last[0],
        "last_status_code": last[1],
        "next_attempt_at": None if next_s is None else at(-next_s),
        "schedule": {"name": "standard", "version": "60417363571e"},
        "replay_of": None,
        "created_at": at(ago_s),
        "ended_at": None if status in ("waiting", "in_flight") else at(ago_s - 1),
    }


DELIVERIES: Final = [
    delivery(4.21, 110, ORDERS, "in_flight", 0, None, object_id="pay_9c1m7"),
    delivery(31.5, 120, ORDERS, "waiting", 1, ("http_retryable", 503), object_id="pay_9c1k2", next_s=12),
    delivery(
        95.02, 130, LEDGER, "waiting", 3, ("tls_cert", None), kind="refund.created", object_id="ref_77c2", next_s=900
    ),
    delivery(
        340.7, 140, TILLS, "waiting", 0, None, kind="payment.dispute.opened", held="paused: the bank moves its hosts"
    ),
    delivery(341.9, 150, ORDERS, "delivered", 1, ("ok", 200)),
    delivery(2_100.1, 160, LEDGER, "delivered", 2, ("ok", 204), object_id="order-2026-000418-EUR"),
    delivery(5_400.3, 170, ORDERS, "rejected", 1, ("gone", 410), kind="payout.failed", object_id="po_5512"),
    delivery(8_640.8, 180, LEDGER, "exhausted", 8, ("deadline", None), object_id="pay_2k7d1"),
    delivery(9_903.6, 190, TILLS, "cancelled", 2, ("http_4xx", 404), held="void: the merchant called"),
]

EVENTS: Final = [
    {
        "id": id_("evt", ago_s, tail),
        "type": kind,
        "tenant_id": tenant,
        "mode": mode,
        "object_id": object_id,
        "payload": {"amount": 1000},
        "payload_gone": None,
        "deliveries": fanout,
        "created_at": at(ago_s),
    }
    for ago_s, tail, kind, tenant, mode, object_id, fanout in (
        (4.214, 11, "payment.completed", SHOP, "live", "pay_9c1m7", 1),
        (31.504, 12, "payment.completed", SHOP, "live", "pay_9c1k2", 1),
        (61.3, 21, "payment.completed", TILL, "test", "pay_test_1", 0),
        (95.024, 13, "refund.created", SHOP, "live", "ref_77c2", 2),
        (340.704, 14, "payment.dispute.opened", TILL, "live", "pay_8f3k2", 3),
    )
]


def endpoint(endpoint_id: str, ago_s: float, **more: Any) -> dict[str, Any]:
    """An endpoint, as the API describes it."""
    return {
        "id": endpoint_id,
        "tenant_id": SHOP,
        "url": URLS[endpoint_id],
        "name": None,
        "description": None,
        "event_types": None,
        "metadata": {},
        "profile": "default",
        "schedule": "standard",
        "signature": None,
        "auth": None,
        "headers": [],
        "method": "POST",
        "max_in_flight": 64,
        "rate_limit": None,
        "ordered": False,
        "origin": "registered",
        "status": "active",
        "status_reason": None,
        "version": 1,
        "created_at": at(ago_s),
        "updated_at": at(ago_s),
    } | more


ENDPOINTS: Final = [
    endpoint(TILLS, 20 * _DAY, name="tills of the Utrecht shop", tenant_id=TILL, event_types=["payment.*"]),
    endpoint(LEDGER, 60 * _DAY, name="ledger", event_types=["payment.*", "refund.*"], profile="standard-webhooks"),
    endpoint(ORDERS, 90 * _DAY, name="orders"),
    endpoint(OLD, 299 * _DAY, status="disabled", status_reason="the shop has moved"),
]


def statistics(endpoint_id: str, attempts: int, succeeded: int, waiting: int) -> dict[str, Any]:
    """An endpoint's share of the last hour's statistics."""
    ends = {"delivered": succeeded, "exhausted": 0, "rejected": 0, "expired": 0, "cancelled": 0, "success_rate": 1.0}
    rate = succeeded / attempts if attempts else None
    counted = {"total": attempts, "succeeded": succeeded, "success_rate": rate, "by_outcome": {"ok": succeeded}}
    backlog = {
        "waiting": waiting,
        "in_flight": 0,
        "waiting_is_minimum": False,
        "oldest_waiting_at": None,
        "oldest_due_at": None,
    }
    return {
        "key": endpoint_id,
        "name": URLS[endpoint_id],
        "attempts": counted,
        "deliveries": ends,
        "latency_ms": {"attempts": attempts, "p50": 41.5, "p90": 83.0, "p95": 197.4, "p99": 1116.68},
        "attempts_to_success": {"mean": 1.02, "distribution": []},
        "backlog": backlog | {"lag_s": 0.0},
    }


GROUPS: Final = [statistics(LEDGER, 412, 77, 1204), statistics(ORDERS, 5117, 5098, 1), statistics(TILLS, 0, 0, 38)]
STATISTICS: Final = {
    **{name: value for name, value in GROUPS[1].items() if name not in ("key", "name")},
    "window": "1h",
    "from": at(3_600),
    "to": at(0),
    "step_s": 300,
    "tenant_id": None,
    "endpoint_id": None,
    "event_type": None,
    "mode": "live",
    "by": "endpoint",
    "series": [],
    "groups": GROUPS,
    "has_more": False,
}


def replay(id_text: str, ago_s: float, **more: Any) -> dict[str, Any]:
    """A replay or a cancellation, as the API describes it."""
    conditions = (
        *(
            "status",
            "tenant_id",
            "endpoint_id",
            "event_id",
            "replay_id",
            "event_type",
            "mode",
            "object_id",
            "host",
            "outcome",
        ),
        *("status_code", "attempts_min", "attempts_max", "error", "created_after", "created_before"),
        *("ended_after", "ended_before", "delivery_ids", "as_of"),
    )
    return {
        "id": id_text,
        "kind": "replay",
        "status": "running",
        "tenant_id": None,
        "filter": {**dict.fromkeys(conditions), "undelivered": False, "include_delivered": False},
        "total": 128,
        "processed": 64,
        "rate_per_second": None,
        "rate_per_endpoint": None,
        "canary": None,
        "to": "same",
        "status_reason": None,
        "percent": 50.0,
        "created_by": OPERATOR,
        "created_at": at(ago_s),
        "ended_at": None,
    } | more


REPLAY: Final = "rpl_019cac40-1e80-7b1d-8f00-2c8a6d1e0b52"
REPLAYS: Final = [
    replay(REPLAY, 1_620, status_reason="waits for its receivers"),
    replay(
        id_("rpl", 7_200, 31), 7_200, kind="cancellation", status="done", total=40, processed=40,
        percent=100.0, created_by="cli:ada", ended_at=at(7_100),
    ),
    replay(
        id_("rpl", 2 * _DAY, 32), 2 * _DAY, status="paused", processed=3, percent=2.3, to=ORDERS, canary=3,
        status_reason="every first delivery to ledger.example.net failed",
    ),
]  # fmt: skip

REPLAY_ENDPOINTS: Final = [
    {
        "endpoint_id": endpoint_id,
        "url": URLS[endpoint_id],
        "status": status,
        "status_reason": why,
        "total": total,
        "processed": made,
        "delivered": delivered,
        "failed": failed,
        "waiting": waiting,
    }
    for endpoint_id, status, why, total, made, delivered, failed, waiting in (
        (LEDGER, "stopped", "the first 3 deliveries failed", 88, 3, 0, 3, 0),
        (ORDERS, "running", None, 40, 40, 37, 0, 3),
    )
]

PAUSES: Final = [
    {
        "id": id_("pau", ago_s, tail),
        "tenant_id": tenant,
        "endpoint_id": endpoint_id,
        "event_type": kind,
        "mode": None,
        "reason": why,
        "created_by": by,
        "created_at": at(ago_s),
    }
    for ago_s, tail, tenant, endpoint_id, kind, why, by in (
        (1_300, 41, TILL, None, "payment.*", "the bank moves its hosts", "cli:ada"),
        (40_000, 42, None, LEDGER, None, "asked for by the merchant", OPERATOR),
    )
]

TENANTS: Final = [
    {"id": tenant, "name": name, "parent_id": parent, "profile": profile, "created_at": at(days * _DAY)}
    for tenant, name, parent, profile, days in (
        (TILL, "shop-8127-tills", SHOP, None, 120),
        (SHOP, "shop-8127", None, "standard-webhooks", 300),
        (TENANT, "default", None, None, 420),
    )
]

KEYS: Final = [
    {
        "id": id_("key", days * _DAY, tail),
        "tenant_id": tenant,
        "name": name,
        "scopes": scopes,
        "rate_limit": limit,
        "created_at": at(days * _DAY),
        "last_used_at": None if used is None else at(used),
        "revoked_at": None if revoked is None else at(revoked),
    }
    for days, tail, tenant, name, scopes, limit, used, revoked in (
        (3, 51, SHOP, "till-12", ["events:write"], 50.0, 60, None),
        (40, 52, SHOP, "reports of the accountant", ["deliveries:read", "deliveries:replay"], None, None, 9_000),
        (200, 7, None, "on-call", ["admin"], None, 3_600, None),
    )
]

PUBLIC_KEYS: Final = [
    {
        "id": thumbprint,
        "kind": "ed25519",
        "public_key_pem": "",
        "jwk": {"kty": "OKP"},
        "whpk": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "schemes": ["standard_webhooks_v1a"],
        "signs_from": at(since),
        "signs_until": None if until is None else at(until),
        "published_until": None if until is None else at(until - _DAY),
    }
    for thumbprint, since, until in (
        ("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", -3_600, None),
        ("3f1Xz_0sT-8Yq1o2b3c4d5e6f7g8h9i0jKlMnOpQrSt", 90 * _DAY, -3_600),
    )
]

CHANGES: Final = [
    {
        "id": id_("aud", ago_s, tail),
        "at": at(ago_s),
        "actor": actor,
        "action": action,
        "object": changed,
        "tenant_id": SHOP,
        "before": before,
        "after": after,
    }
    for ago_s, tail, actor, action, changed, before, after in (
        (1_300, 61, "cli:ada", "pause.created", PAUSES[0]["id"], None, {"reason": "the bank moves its hosts"}),
        (
            7_300,
            62,
            OPERATOR,
            "endpoint.updated",
            LEDGER,
            {"name": None, "rate_limit": None},
            {"name": "ledger", "rate_limit": 50},
        ),
    )
]

ERASURES: Final = [
    {
        "id": id_("ers", 4_000, 71),
        "object_id": "pay_2k7d1",
        "tenant_id": SHOP,
        "reason": "asked for by the customer",
        "created_by": OPERATOR,
        "created_at": at(4_000),
        "status": "done",
        "events": 3,
        "attempts": 5,
        "cancelled_deliveries": 1,
        "in_flight_deliveries": 0,
        "next_check_at": None,
    }
]

EVENT_TYPES: Final = [
    {
        "name": name,
        "description": description,
        "schema": schema,
        "schema_refusal": None,
        "profiles": profiles_,
        "created_at": at(ago_s) if ago_s else None,
        "updated_at": at(ago_s) if ago_s else None,
    }
    for name, description, schema, profiles_, ago_s in (
        ("card.*", None, None, ["musepay"], None),
        ("payment.completed", "The payment has succeeded.", {"type": "object"}, ["terminal"], 9 * _DAY),
        ("refund.created", "A refund was asked for, by the merchant or by support.", None, [], 2 * _DAY),
    )
]

FOUND: Final = [
    {
        "kind": "event",
        "id": EVENTS[4]["id"],
        "summary": "payment.dispute.opened: went to 3 endpoints",
        "object": EVENTS[4],
    },
    *(
        {"kind": "delivery", "id": one["id"], "summary": f"{one['event_type']}: {one['status']}", "object": one}
        for one in DELIVERIES
        if one["object_id"] == "pay_8f3k2"
    ),
]


def schedules() -> list[dict[str, Any]]:
    """The shipped ones, as the API describes them."""
    return [dict(as_json(schedule)) for schedule in load_schedules(shipped_schedules_dir()).values()]


def profiles() -> list[dict[str, Any]]:
    """The shipped ones, as the API describes them."""
    known = Known(schedules=load_schedules(shipped_schedules_dir()), schemes=SCHEMES)
    found = load_profiles(shipped_profiles_dir(), known=known).values()
    return [{"name": one.name, "default": one.name == "default", "document": as_document(one)} for one in found]


@functools.cache
def answers() -> dict[str, tuple[str, dict[str, Any]]]:
    """The answer to each request, with the name of its shape in `dispatcher.shapes`."""
    more = {"has_more": True, "next_cursor": "deliveries.AZytzj9AfB6dK19qe4ydDg"}
    pages: dict[str, tuple[str, list[Any]]] = {
        "events": ("EventPage", EVENTS),
        "endpoints": ("EndpointPage", ENDPOINTS),
        "replays": ("ReplayPage", REPLAYS),
        f"replays/{REPLAY}/endpoints": ("ReplayEndpointPage", REPLAY_ENDPOINTS),
        "pauses": ("PausePage", PAUSES),
        "tenants": ("TenantPage", TENANTS),
        "keys": ("KeyPage", KEYS),
        "public_keys": ("PublicKeyPage", PUBLIC_KEYS),
        "schedules": ("SchedulePage", schedules()),
        "profiles": ("ProfilePage", profiles()),
        "find": ("FoundPage", FOUND),
        "audit_log": ("AuditPage", CHANGES),
        "erasures": ("ErasurePage", ERASURES),
        "event_types": ("EventTypePage", EVENT_TYPES),
        "sender_addresses": ("SenderAddressPage", [{"address": "192.0.2.0/28"}, {"address": "2001:db8::/48"}]),
    }
    whole = {
        path: (shape, {"data": rows, "has_more": False, "next_cursor": None}) for path, (shape, rows) in pages.items()
    }
    return whole | {
        "deliveries": ("DeliveryPage", {"data": DELIVERIES} | more),
        "statistics": ("Statistics", STATISTICS),
    }


@contextmanager
def answered() -> Iterator[None]:
    """Commands are answered with these objects, at this moment."""
    known = answers()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=known[request.url.path.removeprefix("/v1/")][1])

    @contextmanager
    def client() -> Iterator[Client]:
        with Client("http://api.example", api_key="key", transport=httpx.MockTransport(answer)) as made:
            yield made

    with ExitStack() as stack:
        stack.enter_context(patch.object(target, "client", client))
        for module in (deliveries, listing, signing_keys):
            stack.enter_context(patch.object(module, "SYSTEM", Clock(now=lambda: NOW)))
        yield


def shown(words: str, width: int) -> str:
    """What the command prints on a terminal of this width, without its colours."""
    out = io.StringIO()
    with patch.dict(os.environ, {"FORCE_COLOR": "1", "COLUMNS": str(width)}), redirect_stdout(out):
        cli.main(words.split(), prog_name="dispatcher", standalone_mode=False)
    return _ESCAPE.sub("", out.getvalue())


def chapters() -> Iterator[str]:
    """A chapter of the document for each list."""
    with answered():
        for words in COMMANDS:
            title = words.partition(" --limit")[0].replace(f" {REPLAY}", "")
            yield f"### {title}\n"
            for width in WIDTHS:
                yield f"At {width} columns:\n\n```console\n$ dispatcher {words}\n{shown(words, width)}```\n"


def main() -> None:
    """Print the chapters, or put them into the document."""
    text = "\n".join(chapters())
    if sys.argv[1:] != ["--write"]:
        print(text)
        return
    before, begin, rest = DOCUMENT.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    DOCUMENT.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
