"""Every order of claims, POSTs, records, rescues and faults, up to a bound: see tests/support/protocol_model.py."""

from __future__ import annotations

import pytest

from tests.support.protocol_model import Rules, Size, explore

# The number of states is pinned: a smaller search would be a weaker claim, and nobody would notice.
SEARCHES = {
    "a delivery that outlives five workers": (Size(crashes=5), 1_286),
    "crashes and an overrun": (Size(crashes=2, lapses=1), 12_527),
    "one fault of each kind": (Size(crashes=1, lapses=1, lost_answers=1), 23_091),
    "crashes and lost answers": (Size(crashes=2, lost_answers=2), 4_901),
    "two deliveries and a crash": (Size(deliveries=2, crashes=1), 4_506),
    "two deliveries and an overrun": (Size(deliveries=2, attempts=1, lapses=1), 17_515),
    "two deliveries, a crash and a lost answer": (Size(deliveries=2, attempts=1, crashes=1, lost_answers=1), 4_330),
}


@pytest.mark.parametrize(("size", "states"), SEARCHES.values(), ids=SEARCHES.keys())
def test_the_protocol_keeps_its_promises_in_every_order_of_events(size: Size, states: int) -> None:
    found = explore(Rules(), size)
    assert found.broken is None, " → ".join(found.trace)
    assert found.states == states


WEAKENED = {
    "claiming what is in flight": (Rules(claims_only_waiting=False), Size(), "a POST after the end"),
    "claims without numbers": (Rules(claim_raises_seq=False), Size(lapses=1), "two claims with one number"),
    "counting attempts at the claim": (
        Rules(charges_at_record=False),
        Size(attempts=1, lapses=1),
        "exhausted before N attempts",
    ),
    "no fence": (Rules(fenced_by_seq=False), Size(lapses=1), "a POST after the end"),
    "recording whatever the state": (Rules(fenced_by_state=False), Size(lost_answers=1), "exhausted before N attempts"),
    "a row for each record": (Rules(one_row_a_claim=False), Size(lost_answers=1), "two attempts for one claim"),
    "keeping claims that were never heard of": (
        Rules(gives_up_unknown_claims=False),
        Size(lost_answers=1),
        "no end is reachable",
    ),
    "forgiving every lost worker": (Rules(bounded_refunds=False), Size(attempts=1, crashes=4), "more than N + 3 POSTs"),
}


@pytest.mark.parametrize(("rules", "size", "broken"), WEAKENED.values(), ids=WEAKENED.keys())
def test_each_fence_is_needed(rules: Rules, size: Size, broken: str) -> None:
    found = explore(rules, size)
    assert found.broken == broken, " → ".join(found.trace)
