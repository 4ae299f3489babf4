"""A Delivery's states, and the values that move it from one to the next.

    waiting ──claim──► in_flight ──record──► delivered | exhausted | rejected | expired
       ▲                   │
       └──retry, refund────┘         waiting ──cancel──► cancelled

`docs/states.md` draws the machine; the CHECKs of the tables enforce it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from dispatcher.model.event import StoredEvent
    from dispatcher.model.outcome import Outcome


class DeliveryState(StrEnum):
    """Where a delivery stands. The first two are live, the others final."""

    WAITING = "waiting"  # → in_flight (claim), cancelled, expired
    IN_FLIGHT = "in_flight"  # → waiting (retry, refund, release), or any final state
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # the schedule ran out
    REJECTED = "rejected"  # a permanent answer, or a configuration that can never work
    EXPIRED = "expired"
    CANCELLED = "cancelled"


LIVE: Final = (DeliveryState.WAITING, DeliveryState.IN_FLIGHT)
FAILED: Final = (DeliveryState.EXHAUSTED, DeliveryState.REJECTED, DeliveryState.EXPIRED)


@dataclass(slots=True)  # as StoredEvent
class Claim:
    """One worker's right to attempt one delivery, with all that the POST needs of it.

    `seq` fences: what is recorded under an older number changes nothing. `attempts` counts the charged attempts
    so far, so this one has the number `attempts + 1`; `refunds` counts those given back. `endpoint_version` says
    which state of the endpoint the claim saw. `expired` is true where `expires_at` had passed when claimed.
    `target_url` and `target_method` are the delivery's own, over the endpoint's, where the event had a target.
    """

    delivery_id: UUID
    endpoint_id: UUID
    endpoint_version: int
    seq: int
    attempts: int
    refunds: int
    schedule_id: int
    expired: bool
    event: StoredEvent
    target_url: str | None = None
    target_method: str | None = None

    @property
    def number(self) -> int:
        """The number of the attempt to make; the first send is 1."""
        return self.attempts + 1


@dataclass(slots=True)  # as StoredEvent
class Attempt:
    """One POST as the log keeps it.

    `started_at` is stamped by the worker's clock; headers are raw pairs;
    `body_sha256` is None where the attempt was lost with its worker.
    """

    id: UUID
    worker_id: UUID
    started_at: datetime
    method: str
    url: str
    request_headers: list[tuple[bytes, bytes]]
    body_sha256: bytes | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The delivery goes back to `waiting`.

    Due at: base + `wait_s`, but no sooner than the failure + `retry_after_s`, if given. The base is the failure of
    this attempt or, with `from_first_attempt`, the start of attempt 1. Without it `wait_s` contains
    `retry_after_s` already. `charged` says whether this attempt counts; one that does not keeps its number, and
    the next one carries it too. `retry_after_s` is the receiver's wish as granted, in seconds.
    """

    wait_s: float
    charged: bool
    from_first_attempt: bool
    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The delivery ends in `state`, one of the final ones, and is never attempted again."""

    state: Literal["delivered", "exhausted", "rejected", "expired", "cancelled"]
    reason: str
    disable_endpoint: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The claim is given back unused: nothing was sent, nothing is logged."""


@dataclass(slots=True)  # as StoredEvent
class Result:
    """What is recorded of a claim: the attempt, if one was made, and what becomes of the delivery.

    `ended_monotonic_s` is the worker's monotonic clock at the attempt's end: the time that a result waits to be
    recorded is taken off `wait_s`, or a database outage would stretch the schedule. `blocked_limit` is given where the
    attempt met an address that may not be dialled: after how many in a row the endpoint is disabled.
    """

    claim: Claim
    attempt: Attempt | None
    change: RetryAt | Stop | Released
    ended_monotonic_s: float
    blocked_limit: int | None = None
