"""What a status means."""

from __future__ import annotations

from typing import Literal, TypeAlias

from dispatcher.model.outcome import OutcomeClass

SuccessRule: TypeAlias = Literal["any_2xx"] | frozenset[int]

_CLASSES = {
    408: OutcomeClass.HTTP_RETRYABLE,
    410: OutcomeClass.GONE,
    413: OutcomeClass.TOO_LARGE,
    414: OutcomeClass.TOO_LARGE,
    425: OutcomeClass.HTTP_RETRYABLE,
    429: OutcomeClass.THROTTLED,
    431: OutcomeClass.TOO_LARGE,
}


def classify(status: int, *, has_retry_after: bool, success: SuccessRule) -> OutcomeClass:
    """Return the class of a final status.

    >>> classify(204, has_retry_after=False, success="any_2xx")
    <OutcomeClass.OK: 'ok'>
    >>> classify(204, has_retry_after=False, success=frozenset({200}))
    <OutcomeClass.UNEXPECTED_2XX: 'unexpected_2xx'>
    """
    if 200 <= status < 300:
        accepted = success == "any_2xx" or status in success
        return OutcomeClass.OK if accepted else OutcomeClass.UNEXPECTED_2XX
    if status < 200:
        return OutcomeClass.PROTOCOL
    if status < 400:
        return OutcomeClass.REDIRECT_REFUSED
    if status < 500:
        return _CLASSES.get(status, OutcomeClass.HTTP_4XX)
    if status == 503 and has_retry_after:
        return OutcomeClass.THROTTLED
    return OutcomeClass.HTTP_RETRYABLE
