"""Which event types an endpoint of a profile may ask for, and hears."""

from __future__ import annotations

import pytest

from dispatcher.model.profile import Profile


@pytest.mark.parametrize(
    ("patterns", "heard"), [(None, None), (["payment.*", "refund.paid"], ("payment.*", "refund.paid"))]
)
def test_where_the_choice_is_open_an_endpoint_hears_what_it_asks_for(
    patterns: list[str] | None, heard: tuple[str, ...] | None
) -> None:
    assert Profile(name="open", event_choice="open").heard(patterns) == heard


def test_which_patterns_are_offered_is_the_profiles_choice() -> None:
    closed = Profile(name="closed", event_choice="closed", catalogue=("payment.completed",))
    assert [closed.offers(pattern) for pattern in ("payment.completed", "payment.*", "refund.*")] == [True, True, False]
    assert Profile(name="open", event_choice="open").offers("refund.*")
    everything = Profile(name="all", event_choice="all")
    assert [everything.offers(pattern) for pattern in ("*", "refund.*")] == [True, False]
