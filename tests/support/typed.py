"""Every command as it is typed, for tests that try all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dispatcher.ids import format_id, uuid7
from dispatcher.retry import shipped_schedules_dir

EP, DLV, RPL, TEN, KEY_ID = (format_id(kind, uuid7()) for kind in ("ep", "dlv", "rpl", "ten", "key"))
EVT = format_id("evt", uuid7())
ERS = format_id("ers", uuid7())
IDS = (EP, DLV, RPL, TEN, KEY_ID, EVT, ERS)
LINE = json.dumps({"type": "payment.completed", "payload": {"amount": 1}})
SCHEDULE = str(shipped_schedules_dir() / "standard.toml")


@dataclass(frozen=True)
class Typed:
    """A command as it is typed, and the request that it comes to: the last one, after those that look first."""

    words: str
    asks: str = ""
    stdin: str = ""


TYPED = {
    "up": Typed("--port 0"),
    "api": Typed(""),
    "worker": Typed(""),
    "scheduler": Typed(""),
    "migrate": Typed(""),
    "doctor": Typed(""),
    "prune": Typed(""),
    "audit verify": Typed("--all"),
    "tenants retention": Typed(f"{TEN} --payloads 9"),
    "signing-keys generate": Typed("ed25519"),
    "signing-keys import": Typed("-", stdin="PEM"),
    "signing-keys rotate": Typed("ed25519"),
    "signing-keys retire": Typed("x --yes"),
    "config show": Typed(""),
    "config check": Typed(""),
    "sign": Typed("- --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", stdin="{}"),
    "verify": Typed(
        "- --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --header webhook-id:1 --header webhook-timestamp:1 "
        "--header webhook-signature:v1,x",
        stdin="{}",
    ),
    "schedules lint": Typed(""),
    "profiles lint": Typed(""),
    "erasures list": Typed("", "GET /v1/erasures"),
    "erasures show": Typed(ERS, f"GET /v1/erasures/{ERS}"),
    "audit-log list": Typed(f"--object {EP}", "GET /v1/audit_log"),
    "event-types list": Typed("", "GET /v1/event_types"),
    "event-types show": Typed("payment.completed", "GET /v1/event_types/payment.completed"),
    "event-types put": Typed(
        "payment.completed --description a --schema -", "PUT /v1/event_types/payment.completed", "{}"
    ),
    "event-types delete": Typed("payment.completed --yes", "DELETE /v1/event_types/payment.completed"),
    "sender-addresses list": Typed("", "GET /v1/sender_addresses"),
    "erase": Typed("pay_9 --yes", "POST /v1/erasures"),
    "trigger": Typed("payment.completed", "POST /v1/events"),
    "listen": Typed("", "GET /v1/events"),
    "find": Typed("pay_9", "GET /v1/find"),
    "stats": Typed("", "GET /v1/statistics"),
    "pause": Typed("all --yes", "POST /v1/pauses"),
    "unpause": Typed("all", "DELETE /v1/pauses"),
    "events send": Typed("", "POST /v1/events/batch", LINE),
    "events list": Typed("", "GET /v1/events"),
    "events show": Typed(EVT, f"GET /v1/events/{EVT}"),
    "events explain": Typed(EVT, f"GET /v1/events/{EVT}/explain"),
    "deliveries list": Typed("", "GET /v1/deliveries"),
    "deliveries show": Typed(DLV, f"GET /v1/deliveries/{DLV}/story"),
    "deliveries export": Typed("", "GET /v1/deliveries"),
    "deliveries tail": Typed("", "GET /v1/deliveries"),
    "deliveries retry": Typed("--status failed --yes", "POST /v1/replays"),
    "deliveries advance": Typed(DLV, f"POST /v1/deliveries/{DLV}/advance"),
    "deliveries cancel": Typed(f"{DLV}", f"POST /v1/deliveries/{DLV}/cancel"),
    "endpoints create": Typed("https://shop.example.com/hook", "POST /v1/endpoints"),
    "endpoints import": Typed("", "POST /v1/endpoints/import", '{"url": "https://a.example/", "secret": "whsec_x"}'),
    "endpoints update": Typed(f"{EP} --name a", f"PATCH /v1/endpoints/{EP}"),
    "endpoints set-url": Typed("https://shop.example.com/hook", "PUT /v1/notification_url"),
    "endpoints delete": Typed(f"{EP} --yes", f"DELETE /v1/endpoints/{EP}"),
    "endpoints ping": Typed(EP, f"POST /v1/endpoints/{EP}/ping"),
    "endpoints rotate-secret": Typed(EP, f"POST /v1/endpoints/{EP}/rotate_secret"),
    "endpoints recover": Typed(f"{EP} --since 1h --yes", f"POST /v1/endpoints/{EP}/recover"),
    "endpoints list": Typed("", "GET /v1/endpoints"),
    "endpoints show": Typed(EP, f"GET /v1/endpoints/{EP}"),
    "endpoints stats": Typed(EP, f"GET /v1/endpoints/{EP}/stats"),
    "endpoints enable": Typed(EP, f"POST /v1/endpoints/{EP}/enable"),
    "endpoints disable": Typed(EP, f"POST /v1/endpoints/{EP}/disable"),
    "replay preview": Typed("", "POST /v1/replays/preview"),
    "replay start": Typed("--all --yes", "POST /v1/replays"),
    "replay list": Typed("", "GET /v1/replays"),
    "replay status": Typed(RPL, f"GET /v1/replays/{RPL}"),
    "replay pause": Typed(RPL, f"POST /v1/replays/{RPL}/pause"),
    "replay resume": Typed(RPL, f"POST /v1/replays/{RPL}/resume"),
    "replay cancel": Typed(RPL, f"POST /v1/replays/{RPL}/cancel"),
    "tenants create": Typed("shop", "POST /v1/tenants"),
    "tenants list": Typed("", "GET /v1/tenants"),
    "tenants show": Typed(TEN, f"GET /v1/tenants/{TEN}"),
    "tenants rotate-secret": Typed(TEN, f"POST /v1/tenants/{TEN}/rotate_secret"),
    "keys create": Typed("ops", "POST /v1/keys"),
    "keys list": Typed("", "GET /v1/keys"),
    "keys revoke": Typed(f"{KEY_ID} --yes", f"DELETE /v1/keys/{KEY_ID}"),
    "schedules list": Typed("", "GET /v1/schedules"),
    "schedules show": Typed("standard", "GET /v1/schedules/standard"),
    "schedules preview": Typed("standard", "GET /v1/schedules/standard"),
    "schedules simulate": Typed("standard", "GET /v1/schedules/standard"),
    "profiles list": Typed("", "GET /v1/profiles"),
    "profiles show": Typed("default", "GET /v1/profiles/default"),
    "signing-keys list": Typed("", "GET /v1/public_keys"),
    "signing-keys export-jwks": Typed("", "GET /.well-known/jwks.json"),
}
