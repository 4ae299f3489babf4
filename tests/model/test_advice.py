"""Every outcome has plain words, for the operator and for the merchant."""

from __future__ import annotations

import doctest
import re

import pytest

from dispatcher.egress import classify
from dispatcher.model import advice
from dispatcher.model.advice import advise
from dispatcher.model.outcome import OutcomeClass, Phase
from dispatcher.model.outcome_class import Advice

INTERNALS = re.compile(
    r"\b(worker|scheduler|postgres\w*|database|redis|celery|python|traceback|claim\w*|lane|tenant|queue)s?\b",
    re.IGNORECASE,
)


def all_advice() -> list[tuple[str, Advice]]:
    found = [
        (f"{kind} {phase} {known}", advise(kind, phase=phase, known=known))
        for kind in OutcomeClass
        for phase in (None, *Phase)
        for known in (True, False)
    ]
    for status in range(200, 700):
        for success in (frozenset({200}), "any_2xx"):
            for asked in (False, True):
                kind = classify(status, has_retry_after=asked, success=success)  # type: ignore[arg-type]
                found.append((f"{kind} {status}", advise(kind, status_code=status, phase=Phase.BODY)))
    return found


def test_there_is_something_to_say_of_every_outcome() -> None:
    for what, one in all_advice():
        for text in (one.summary, one.likely_cause, one.merchant_message):
            assert text.strip() == text != "", what
            assert text.endswith("."), what
            assert text[0].isupper(), what
            assert INTERNALS.search(text) is None, what


@pytest.mark.parametrize(
    "status", [301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422, 429, 500, 502, 503, 504]
)
def test_what_a_notable_status_means_is_said_of_it_alone(status: int) -> None:
    kind = classify(status, has_retry_after=False, success="any_2xx")
    found = advise(kind, status_code=status)
    assert str(status) in found.summary
    others = {
        advise(classify(one, has_retry_after=False, success="any_2xx"), status_code=one).summary
        for one in range(300, 600)
        if one != status
    }
    assert found.summary not in others


def test_a_status_without_words_of_its_own_is_named() -> None:
    assert advise(OutcomeClass.HTTP_4XX, status_code=418).summary == "The receiver refused the request (418)."
    asked = advise(OutcomeClass.THROTTLED, status_code=503)
    assert asked.summary == "The receiver asked to be sent less, with 503 Service Unavailable."


def test_how_far_it_got_matters() -> None:
    said = {
        advise(OutcomeClass.DEADLINE, phase=phase).summary for phase in (Phase.TLS, Phase.WRITE, Phase.HEADERS, None)
    }
    assert len(said) == 3


def test_of_an_unknown_answer_the_merchant_hears_that_it_may_have_arrived() -> None:
    assert "may have arrived" in advise(OutcomeClass.RESET, known=False).merchant_message
    assert "may have arrived" not in advise(OutcomeClass.CONNECT).merchant_message


def test_the_examples_are_true() -> None:
    assert doctest.testmod(advice).failed == 0
