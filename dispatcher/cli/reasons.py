"""Why a delivery has its status, in the words that people know: `503 Service Unavailable`, not `http_retryable`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from dispatcher.model import outcome
from dispatcher.model.outcome import OutcomeClass

if TYPE_CHECKING:
    from dispatcher.shapes import Delivery


def reason_of(delivery: Delivery) -> str:
    """Why it is held, what came of its last attempt, or why it ended; empty once it is delivered.

    An API of an earlier version does not have the last attempt's outcome: its reason is shown as it is.
    """
    reason = delivery["status_reason"]
    if reason is None or delivery["status"] == "delivered":
        return ""
    last, status_code = delivery.get("last_outcome"), delivery.get("last_status_code")
    if last and reason == outcome.reason(last, status_code):
        return outcome_words(last, status_code)
    return reason.removeprefix("the endpoint is ")  # and goes on with "disabled: " and why, which a list has room for


def outcome_words(kind: str, status_code: int | None) -> str:
    """The HTTP status with its phrase; without an answer the outcome, as `--outcome` takes it.

    >>> outcome_words("http_retryable", 503), outcome_words("http_4xx", 499), outcome_words("dns", None)
    ('503 Service Unavailable', '499', 'dns')
    >>> outcome_words("unexpected_2xx", 202)
    '202 Accepted, unexpected'
    """
    if status_code is None:
        return kind
    try:
        words = f"{status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:  # a status that no specification names
        words = str(status_code)
    return f"{words}, unexpected" if kind == OutcomeClass.UNEXPECTED_2XX else words
