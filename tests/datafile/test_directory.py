"""Names that no data file has."""

from __future__ import annotations

from dispatcher.datafile import unknown


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    known = ["exponential", "standard"]
    assert str(unknown("schedule", "standrad", known)) == "no schedule 'standrad'; did you mean standard?"


def test_an_unknown_name_like_no_other_is_answered_with_all() -> None:
    assert str(unknown("profile", "zzzz", ["a", "b"])) == "no profile 'zzzz'; there are: a, b"
    assert str(unknown("profile", "a", [])) == "no profile 'a'; there are: none"
