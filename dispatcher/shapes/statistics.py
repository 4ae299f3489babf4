"""Statistics: how deliveries fare."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import EndpointId, Instant, Mode, TenantId

Window: TypeAlias = Literal["1h", "24h", "7d", "30d"]


class AttemptCounts(TypedDict):
    """The attempts that were recorded in the window."""

    total: Annotated[int, About(example=1000)]
    succeeded: Annotated[int, About(example=981)]
    success_rate: Annotated[
        float | None, About("The share of attempts that succeeded, from 0 to 1; null if there were none.", 0.981)
    ]
    by_outcome: Annotated[dict[str, int], About(example={"http_retryable": 19, "ok": 981})]


class EndCounts(TypedDict):
    """The deliveries that ended in the window, by state."""

    delivered: Annotated[int, About(example=981)]
    exhausted: Annotated[int, About(example=3)]
    rejected: Annotated[int, About(example=0)]
    expired: Annotated[int, About(example=0)]
    cancelled: Annotated[int, About(example=0)]
    success_rate: Annotated[
        float | None,
        About(
            "The share of delivered deliveries among those that ended and were not cancelled, from 0 to 1; null "
            "if there were none.",
            0.99695,
        ),
    ]


class Latency(TypedDict):
    """How long attempts took that reached an address, in milliseconds, accurate to 9 %; null if there were none."""

    attempts: Annotated[int, About("The number of attempts that were measured.", 1000)]
    p50: Annotated[float | None, About(example=41.5)]
    p90: Annotated[float | None, About(example=83.0)]
    p95: Annotated[float | None, About(example=197.4)]
    p99: Annotated[float | None, About(example=1116.68)]


class DeliveriesByAttempts(TypedDict):
    """How many deliveries arrived with so many attempts."""

    attempts: Annotated[int, About(example=1)]
    deliveries: Annotated[int, About(example=970)]


class AttemptsToSuccess(TypedDict):
    """How many attempts counted for deliveries that arrived in the window."""

    mean: Annotated[float | None, About(example=1.02)]
    distribution: list[DeliveriesByAttempts]


class Backlog(TypedDict):
    """Deliveries that are not done now. Held deliveries count as waiting."""

    waiting: Annotated[int, About(example=12)]
    in_flight: Annotated[int, About(example=3)]
    waiting_is_minimum: Annotated[
        bool, About("True if more deliveries wait than were counted: at most 100,000 are counted.", False)
    ]
    oldest_waiting_at: Annotated[
        Instant | None,
        About(
            "When the oldest waiting delivery was created; with `waiting_is_minimum`, the oldest that was counted.",
            "2026-03-02T09:00:00Z",
        ),
    ]
    oldest_due_at: Annotated[
        Instant | None,
        About("When the first waiting delivery is due; this may be in the future.", "2026-03-02T09:00:00Z"),
    ]
    lag_s: Annotated[float, About("How long the oldest due delivery has been due, in seconds; 0 if none is due.", 0.0)]


class StatisticsPoint(TypedDict):
    """What was recorded in the `step_s` seconds from `at`."""

    at: Instant
    attempts: Annotated[int, About(example=50)]
    succeeded: Annotated[int, About(example=48)]
    delivered: Annotated[int, About(example=48)]
    failed: Annotated[int, About("Deliveries that were exhausted, rejected or expired.", 1)]


class StatisticsFigures(TypedDict):
    """Figures of some deliveries."""

    attempts: AttemptCounts
    deliveries: EndCounts
    latency_ms: Latency
    attempts_to_success: AttemptsToSuccess


class StatisticsGroup(StatisticsFigures):
    """One endpoint, event type or tenant."""

    key: Annotated[str, About("The id, or the name of the event type.", "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968")]
    name: Annotated[
        str | None,
        About(
            "The URL of an endpoint or the name of a tenant; null for an event type.",
            "https://shop.example.com/webhooks",
        ),
    ]
    backlog: Backlog


_From = TypedDict(
    "_From",
    {"from": Annotated[Instant, About("The window's start, rounded down to `step_s`.", "2026-03-01T09:00:00Z")]},
)


class Statistics(_From, StatisticsFigures):
    """Statistics of the chosen deliveries."""

    window: Annotated[Window, About(example="24h")]
    to: Annotated[Instant, About("Now, by the database's clock.", "2026-03-02T09:12:34.567890Z")]
    step_s: Annotated[int, About("The time between two points of `series`, in seconds.", 3600)]
    tenant_id: Annotated[TenantId | None, About("The tenant that was requested; null means all.", None)]
    endpoint_id: Annotated[EndpointId | None, About(example=None)]
    event_type: Annotated[str | None, About(example=None)]
    mode: Annotated[Mode, About(example="live")]
    by: Annotated[Literal["endpoint", "event_type", "tenant", "none"], About(example="none")]
    backlog: Backlog
    series: Annotated[
        list[StatisticsPoint], About("The whole window, from its start; the last point is not complete yet.")
    ]
    groups: Annotated[
        list[StatisticsGroup],
        About(
            "The one with the most failed attempts first, then failed deliveries, then the most attempts; then those "
            "of which only something waits."
        ),
    ]
    has_more: Annotated[bool, About("True if some groups were left out.", False)]
