"""Sample events: what a payment platform would say, with ids that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dispatcher.cli.output import instant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

_PREFIXES: Final[Mapping[str, str]] = {
    "payment": "pay",
    "refund": "ref",
    "order": "ord",
    "card": "card",
    "chargeback": "cb",
    "payout": "po",
}


def sample_id(event_type: str, token: str) -> str:
    """An id such as the event's object would have.

    >>> sample_id("refund.completed", "5f0c"), sample_id("fx.rate", "5f0c")
    ('ref_sample_5f0c', 'obj_sample_5f0c')
    """
    return f"{_PREFIXES.get(event_type.partition('.')[0], 'obj')}_sample_{token}"


def sample(event_type: str, *, object_id: str, at: datetime) -> dict[str, Any]:
    """The payload of an event of this type about this object; a generic one for a type that nobody foresaw.

    `metadata` has a `checkoutId` where a payment has one. Amounts are in the currency's smallest unit.
    """
    family = event_type.partition(".")[0]
    make = _FAMILIES.get(family, _anything)
    return {**make(object_id), **_MORE.get(event_type, {}), "occurred_at": instant(at.replace(microsecond=0))}


def _payment(object_id: str) -> dict[str, Any]:
    return {
        "payment_id": object_id,
        "order_id": "order-10042",
        "amount": 1250,
        "currency": "EUR",
        "method": "card",
        "card": {"brand": "visa", "last4": "4242", "three_d_secure": True},
        "description": "Trail shoes",
        "metadata": {"checkoutId": "chk_sample", "store": "web"},
    }


def _refund(object_id: str) -> dict[str, Any]:
    return {
        "refund_id": object_id,
        "payment_id": "pay_sample_0001",
        "amount": 1250,
        "currency": "EUR",
        "reason": "returned",
        "metadata": {"checkoutId": "chk_sample"},
    }


def _order(object_id: str) -> dict[str, Any]:
    return {
        "order_id": object_id,
        "status": "paid",
        "amount": 1250,
        "currency": "EUR",
        "items": [{"name": "Trail shoes", "quantity": 1, "amount": 1250}],
        "payments": ["pay_sample_0001"],
    }


def _card(object_id: str) -> dict[str, Any]:
    return {
        "card_id": object_id,
        "kind": "virtual",
        "brand": "visa",
        "last4": "4242",
        "expires": "2030-12",
        "currency": "EUR",
        "status": "active",
    }


def _chargeback(object_id: str) -> dict[str, Any]:
    return {
        "chargeback_id": object_id,
        "payment_id": "pay_sample_0001",
        "amount": 1250,
        "currency": "EUR",
        "reason": {"code": "13.1", "text": "goods_not_received"},
    }


def _payout(object_id: str) -> dict[str, Any]:
    return {
        "payout_id": object_id,
        "amount": 482_050,
        "currency": "EUR",
        "bank": {"iban_last4": "0300", "bic": "ABNANL2A"},
        "reference": "SETTLE-SAMPLE",
    }


def _anything(object_id: str) -> dict[str, Any]:
    return {"id": object_id, "sample": True}


_FAMILIES: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    "payment": _payment,
    "refund": _refund,
    "order": _order,
    "card": _card,
    "chargeback": _chargeback,
    "payout": _payout,
}

_MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "payment.authorized": {"status": "authorized", "authorization": "429788"},
    "payment.completed": {"status": "completed", "authorization": "429788", "fee": 42},
    "payment.failed": {"status": "failed", "decline": {"code": "51", "reason": "insufficient_funds"}},
    "payment.cancelled": {"status": "cancelled", "cancelled_by": "customer"},
    "payment.timeout": {"status": "timeout", "terminal_id": "till-3", "silent_for_s": 90},
    "refund.created": {"status": "pending"},
    "refund.completed": {"status": "completed", "arn": "74537604221222132710572"},
    "refund.failed": {"status": "failed", "error": "account_closed"},
    "order.created": {"status": "open", "payments": []},
    "order.completed": {"status": "completed"},
    "order.cancelled": {"status": "cancelled"},
    "card.blocked": {"status": "blocked", "reason": "lost"},
    "chargeback.opened": {"status": "opened"},
    "chargeback.won": {"status": "won"},
    "chargeback.lost": {"status": "lost"},
    "payout.sent": {"status": "sent"},
    "payout.failed": {"status": "failed", "error": {"code": "AC04", "text": "closed account"}},
}
