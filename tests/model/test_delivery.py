"""A claim: what a worker may attempt."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatcher.ids import DEFAULT_TENANT
from dispatcher.model.delivery import Claim
from dispatcher.model.event import StoredEvent


def test_the_attempt_to_make_has_the_number_behind_those_that_were_charged() -> None:
    event = StoredEvent(DEFAULT_TENANT, "payment.paid", "live", b"1", datetime(2026, 3, 2, tzinfo=UTC))
    claim = Claim(
        DEFAULT_TENANT, DEFAULT_TENANT, 1, seq=5, attempts=2, refunds=1, schedule_id=1, expired=False, event=event
    )
    assert claim.number == 3
