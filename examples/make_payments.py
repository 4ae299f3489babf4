"""Writes `payments.jsonl`: a day of a small payment platform, the same one every time.

python -m examples.make_payments > examples/payments.jsonl
"""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

PAYMENTS = 180
START = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)

CARDS = (("visa", "4242"), ("visa", "1881"), ("mastercard", "4444"), ("mastercard", "5100"), ("amex", "0005"))
METHODS = ("card", "card", "card", "ideal", "sepa_debit", "bancontact", "paypal")
GOODS = ("Espresso machine", "Trail shoes", "Desk lamp", "Annual plan", "Concert ticket", "Notebook", "Bicycle light")
DECLINES = (("51", "insufficient_funds"), ("05", "do_not_honour"), ("54", "expired_card"), ("91", "issuer_unavailable"))
DISPUTES = (("10.4", "fraudulent"), ("13.1", "goods_not_received"), ("13.3", "not_as_described"))
CURRENCIES = (("EUR", 5), ("EUR", 5), ("GBP", 4), ("USD", 5), ("SEK", 50))


def main() -> None:
    """Prints one event a line, in the form of POST /v1/events."""
    for event in events():
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")


def events() -> list[dict[str, Any]]:
    """All events, in the order in which they happened."""
    rng = random.Random(20260302)
    found: list[tuple[datetime, dict[str, Any]]] = []
    for number in range(PAYMENTS):
        at = START + timedelta(minutes=number * 4, seconds=rng.randrange(300))
        found += _payment(rng, number, at)
    for batch in range(14):
        at = START + timedelta(hours=1 + batch)
        found += _payout(rng, batch, at)
    return [event for _, event in sorted(found, key=lambda item: item[0])]


def _payment(rng: random.Random, number: int, at: datetime) -> list[tuple[datetime, dict[str, Any]]]:
    payment_id = f"pay_{rng.getrandbits(48):012x}"
    currency, step = rng.choice(CURRENCIES)
    amount = rng.randrange(200, 40_000) // step * step
    method = rng.choice(METHODS)
    base: dict[str, Any] = {
        "payment_id": payment_id,
        "order_id": f"order-{10_000 + number}",
        "amount": amount,
        "currency": currency,
        "method": method,
        "description": rng.choice(GOODS),
        "metadata": {"checkoutId": f"chk_{rng.getrandbits(32):08x}", "store": rng.choice(["web", "app", "till-3"])},
    }
    if method == "card":
        brand, last4 = rng.choice(CARDS)
        base["card"] = {"brand": brand, "last4": last4, "three_d_secure": rng.random() < 0.7}
    fate = rng.random()
    if fate < 0.08:
        code, reason = rng.choice(DECLINES)
        return [_event(at, "payment.failed", payment_id, base | {"decline": {"code": code, "reason": reason}})]
    if fate < 0.12:
        return [_event(at, "payment.cancelled", payment_id, base | {"cancelled_by": "customer"})]
    found = [_event(at, "payment.authorized", payment_id, base | {"authorization": f"{rng.randrange(10**6):06d}"})]
    settled = at + timedelta(seconds=rng.randrange(5, 90))
    found.append(_event(settled, "payment.completed", payment_id, base | {"fee": amount * 14 // 1000 + 25}))
    if rng.random() < 0.22:
        refund_id = f"ref_{rng.getrandbits(48):012x}"
        refund = {
            "refund_id": refund_id,
            "payment_id": payment_id,
            "amount": amount if rng.random() < 0.6 else amount // 2,
            "currency": currency,
            "reason": rng.choice(["returned", "duplicate", "out_of_stock"]),
        }
        asked = settled + timedelta(minutes=rng.randrange(10, 240))
        found.append(_event(asked, "refund.created", refund_id, refund))
        failed = rng.random() < 0.15
        ended = refund | ({"error": "account_closed"} if failed else {"arn": f"{rng.randrange(10**22):023d}"})
        kind = "refund.failed" if failed else "refund.completed"
        found.append(_event(asked + timedelta(minutes=3), kind, refund_id, ended))
    if method == "card" and rng.random() < 0.25:
        chargeback_id = f"cb_{rng.getrandbits(48):012x}"
        code, reason = rng.choice(DISPUTES)
        dispute = {
            "chargeback_id": chargeback_id,
            "payment_id": payment_id,
            "amount": amount,
            "currency": currency,
            "reason": {"code": code, "text": reason},
            "respond_by": (settled + timedelta(days=10)).date().isoformat(),
        }
        opened = settled + timedelta(hours=rng.randrange(2, 8))
        found.append(_event(opened, "chargeback.opened", chargeback_id, dispute))
        if rng.random() < 0.5:
            kind = rng.choice(["chargeback.won", "chargeback.lost"])
            found.append(_event(opened + timedelta(hours=1), kind, chargeback_id, dispute))
    return found


def _payout(rng: random.Random, batch: int, at: datetime) -> list[tuple[datetime, dict[str, Any]]]:
    payout_id = f"po_{rng.getrandbits(48):012x}"
    payout: dict[str, Any] = {
        "payout_id": payout_id,
        "amount": rng.randrange(100_000, 2_500_000),
        "currency": "EUR",
        "bank": {"iban_last4": f"{rng.randrange(10**4):04d}", "bic": rng.choice(["ABNANL2A", "DEUTDEFF", "BNPAFRPP"])},
        "reference": f"SETTLE {START:%Y%m%d}-{batch:02d}",
    }
    found = [_event(at, "payout.sent", payout_id, payout)]
    if batch % 5 == 4:
        failed = payout | {"error": {"code": "AC04", "text": "closed account"}}
        found.append(_event(at + timedelta(minutes=40), "payout.failed", payout_id, failed))
    return found


def _event(at: datetime, kind: str, object_id: str, payload: dict[str, Any]) -> tuple[datetime, dict[str, Any]]:
    payload = payload | {"occurred_at": at.isoformat().replace("+00:00", "Z")}
    return at, {"type": kind, "object_id": object_id, "mode": "live", "payload": payload}


if __name__ == "__main__":
    main()
