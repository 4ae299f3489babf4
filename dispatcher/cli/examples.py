"""An example of each command, which its help ends with. A test reads every one as the command line does."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_DELIVERY: Final = "dlv_01890a5d-ac96-774b-bcce-b302099a8057"
_ENDPOINT: Final = "ep_01890a5d-ac96-774b-bcce-b302099a8057"
_EVENT: Final = "evt_01890a5d-ac96-774b-bcce-b302099a8057"
_KEY: Final = "key_01890a5d-ac96-774b-bcce-b302099a8057"
_REPLAY: Final = "rpl_01890a5d-ac96-774b-bcce-b302099a8057"
_TENANT: Final = "ten_01890a5d-ac96-774b-bcce-b302099a8057"

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "up": "--port 8420",
        "api": "",
        "worker": "",
        "scheduler": "",
        "migrate": "--dry-run",
        "doctor": "",
        "prune": "--dry-run",
        "audit verify": "--since 7d",
        "tenants create": "shop",
        "tenants list": "",
        "tenants show": _TENANT,
        "tenants rotate-secret": f"{_TENANT} --overlap 48h",
        "tenants retention": f"{_TENANT} --payloads 14",
        "signing-keys list": "",
        "signing-keys export-jwks": "",
        "signing-keys generate": "ed25519 --signs-in 48h",
        "signing-keys import": "key.pem",
        "signing-keys rotate": "ed25519",
        "signing-keys retire": "3f1Xz_0sT-8Yq1o2b3c4d5e6f7g8h9i0jKlMnOpQrSt",
        "config show": "",
        "config check": "",
        "sign": "body.json --secret-file secret.txt",
        "verify": "body.json --headers-file headers.txt --secret-file secret.txt",
        "schedules list": "",
        "schedules show": "standard",
        "schedules lint": "schedules/mine.toml",
        "schedules preview": "standard --start 2026-01-31T12:00:00Z",
        "schedules simulate": "standard --down 0s..3h",
        "profiles list": "",
        "profiles show": "default",
        "profiles lint": "profiles/mine.toml",
        "erase": "pay_9 --dry-run",
        "trigger": "payment.completed --wait",
        "listen": "--forward-to http://localhost:3000/hook",
        "find": "pay_9",
        "stats": "--window 7d",
        "pause": f'--endpoint {_ENDPOINT} --reason "maintenance"',
        "unpause": f"--endpoint {_ENDPOINT}",
        "events send": "events.jsonl",
        "events list": "--object pay_9",
        "events show": _EVENT,
        "events explain": _EVENT,
        "deliveries list": "--status failed --since 24h",
        "deliveries show": _DELIVERY,
        "deliveries export": "--since 7d --file deliveries.csv",
        "deliveries tail": "--status failed",
        "deliveries retry": _DELIVERY,
        "deliveries cancel": f"{_DELIVERY} --dry-run",
        "endpoints create": "https://shop.example.com/hooks --event-type 'payment.*'",
        "endpoints import": "endpoints.jsonl",
        "endpoints update": f"{_ENDPOINT} --rate-limit 20",
        "endpoints delete": _ENDPOINT,
        "endpoints ping": _ENDPOINT,
        "endpoints rotate-secret": f"{_ENDPOINT} --overlap 48h",
        "endpoints recover": f"{_ENDPOINT} --since 24h",
        "endpoints list": "--status disabled",
        "endpoints show": _ENDPOINT,
        "endpoints stats": f"{_ENDPOINT} --window 7d",
        "endpoints enable": _ENDPOINT,
        "endpoints disable": f'{_ENDPOINT} --reason "moves on Friday"',
        "replay preview": f"--endpoint {_ENDPOINT} --since 24h",
        "replay start": f"--endpoint {_ENDPOINT} --since 24h --rate 10",
        "replay list": "",
        "replay status": f"{_REPLAY} --follow",
        "replay pause": _REPLAY,
        "replay resume": _REPLAY,
        "replay cancel": _REPLAY,
        "keys create": "till --scope events:write",
        "keys list": "",
        "keys revoke": _KEY,
    }
)
"""What follows `dispatcher` and the command."""
