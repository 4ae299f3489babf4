"""What is done about one endpoint's deliveries, and how it is doing."""

from __future__ import annotations

from typing import Annotated, Required

from typing_extensions import TypedDict

from dispatcher.shapes.about import About, request
from dispatcher.shapes.deliveries import OutcomeClass
from dispatcher.shapes.statistics import EndCounts, Window
from dispatcher.shapes.values import Instant, InstantGiven, Mode


@request
class Recovery(TypedDict, total=False):
    """The period in which deliveries to the endpoint failed, whenever they were created."""

    since: Required[Annotated[InstantGiven, About(example="2026-03-02T08:00:00Z")]]
    until: Annotated[InstantGiven | None, About("The end of the period; the default is now.", "2026-03-02T09:00:00Z")]
    mode: Annotated[Mode | None, About("Only deliveries of this mode; null means both.", "live")]


class LastFailure(TypedDict):
    """The latest attempt that did not succeed."""

    at: Instant
    outcome: Annotated[OutcomeClass, About(example="http_retryable")]
    status_code: Annotated[int | None, About(example=503)]
    error: Annotated[str | None, About(example=None)]


class EndpointStats(EndCounts):
    """Statistics of an endpoint: waiting and in-flight deliveries as of now, all else as recorded in the window.

    All is of one mode. The last attempt, success and failure are those of the newest 500 deliveries that have ended and
    as many that live, whatever the window. `GET /v1/statistics` with its `endpoint_id` tells more.
    """

    window: Annotated[Window, About(example="24h")]
    mode: Annotated[Mode, About(example="live")]
    waiting: Annotated[int, About(example=0)]
    in_flight: Annotated[int, About(example=0)]
    waiting_is_minimum: Annotated[
        bool, About("True if more deliveries wait than were counted: at most 100,000 are counted.", False)
    ]
    oldest_waiting_at: Annotated[Instant | None, About("When the oldest waiting delivery was created.", None)]
    attempts_p50_ms: Annotated[
        float | None, About("The median duration of an attempt in milliseconds, accurate to 9 %.", 41.5)
    ]
    attempts_p95_ms: Annotated[
        float | None, About("The 95th percentile of an attempt's duration in milliseconds, accurate to 9 %.", 212.0)
    ]
    attempts_to_success_mean: Annotated[
        float | None, About("The mean number of attempts of a delivery that succeeded.", 1.02)
    ]
    current_max_in_flight: Annotated[
        int, About("How many attempts may be in flight now; fewer while the endpoint is slow.", 16)
    ]
    last_attempt_at: Annotated[Instant | None, About(example="2026-03-02T09:00:00Z")]
    last_success_at: Annotated[Instant | None, About(example="2026-03-02T09:00:00Z")]
    last_failure: LastFailure | None
