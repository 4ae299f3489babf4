"""Public names that have changed before 1.0. An old one is refused, and the error names the new one.

Fields of answers and metrics are here for the table in docs/compatibility.md: nobody sends us those.
"""

from __future__ import annotations

from typing import Final

SETTINGS: Final = {
    "DISPATCHER_HUNG_AFTER_S": "DISPATCHER_HANG_TIMEOUT_S",
    "DISPATCHER_WORKER_TERM_S": "DISPATCHER_WORKER_LEASE_S",
}

REQUEST_FIELDS: Final = {
    "takes_s": "attempt_duration_s",
}

ANSWER_FIELDS: Final = {
    "at_least": "waiting_is_minimum",
    "cap": "current_max_in_flight",
    "foreign": "not_visible",
    "next_look_at": "next_check_at",
    "rate_now": "current_rate",
    "replayed": "processed",
    "tell_the_merchant": "merchant_message",
    "why_none": "no_attempt_reason",
}

OPTIONS: Final = {
    "--takes": "--attempt-duration",
}

ACCEPTED_OPTIONS: Final = {
    "--object": "--object-id",
    "--type": "--event-type",
}
"""Old options that commands which have the new one still take, with a line on stderr."""

METRICS: Final = {
    "dispatcher_api_answer_seconds": "dispatcher_api_request_duration_seconds",
    "dispatcher_api_answers_total": "dispatcher_api_requests_total",
    "dispatcher_room": "dispatcher_worker_free_slots",
}


def hint(old: str, names: dict[str, str]) -> str:
    """What to say of a name that no longer exists; empty where it never did.

    >>> hint("--takes", OPTIONS)
    'it is now --attempt-duration'
    """
    return f"it is now {names[old]}" if old in names else ""
