"""How the decision about an attempt reads at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.shapes import Attempt


def decision_text(attempt: Attempt) -> str:
    """The decision in a few words.

    >>> shown = {"decision": "retry", "charged": True, "wait_s": 300.0, "wait_relative_to": "previous_failure"}
    >>> decision_text(shown)
    'retry in 300 s'
    >>> decision_text(shown | {"wait_relative_to": "first_attempt"})
    'retry 300 s after the first attempt'
    >>> decision_text(shown | {"charged": False, "wait_s": 0.0})
    'not charged, retry in 0 s'
    >>> decision_text(shown | {"decision": "exhausted", "wait_s": None, "wait_relative_to": None})
    'exhausted'
    """
    text: str = attempt["decision"]
    if attempt["wait_s"] is not None:
        first = attempt["wait_relative_to"] == "first_attempt"
        text += f" {attempt['wait_s']:g} s after the first attempt" if first else f" in {attempt['wait_s']:g} s"
    return text if attempt["charged"] else f"not charged, {text}"
