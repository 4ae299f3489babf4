"""Replays and cancellations: deliveries made again, or ended, chosen by a filter."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from typing_extensions import TypedDict

from dispatcher.model.delivery import LIVE, DeliveryState
from dispatcher.shapes.about import About, request
from dispatcher.shapes.deliveries import DeliveryConditions
from dispatcher.shapes.values import (
    UUID,
    Actor,
    EndpointId,
    EventId,
    Instant,
    InstantGiven,
    Mode,
    Paged,
    PreviewToken,
    ReplayId,
    TenantId,
)

DELIVERY_IDS: Final = 1000
"""Deliveries that a filter can name one by one."""

RATES: Final = (0.01, 10_000.0)
"""Deliveries a second."""

CANARY: Final = 100
"""Deliveries of an endpoint that can go first."""

_ENDED: Final = f"({'|'.join(state for state in DeliveryState if state not in LIVE)}|failed)"
_TO: Final = f"^(same|matching|ep_{UUID})$"
_DELIVERY_ID: Final = f"^dlv_{UUID}$"

Rate = Annotated[float, About(ge=RATES[0], le=RATES[1])]
PreviewTokenGiven = Annotated[
    PreviewToken | None,
    About("The token of a preview by the same tenant that is at most an hour old and has not been used yet."),
]


class ChosenByIds(DeliveryConditions, total=False):
    """Conditions, one of which names deliveries one by one."""

    delivery_ids: Annotated[
        Annotated[list[Annotated[str, About(pattern=_DELIVERY_ID)]], About(min_length=1, max_length=DELIVERY_IDS)]
        | None,
        About("Only the deliveries with these ids.", ["dlv_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0f"]),
    ]


@request
class WaitingFilter(ChosenByIds, total=False):
    """Chooses among the waiting deliveries; all given conditions must match."""

    status: Annotated[
        Annotated[str, About(pattern="^waiting$")] | None, About("Only `waiting` is possible.", "waiting")
    ]


@request
class EndedFilter(ChosenByIds, total=False):
    """Chooses among ended deliveries; all given conditions must match. Without a status, the failed ones."""

    status: Annotated[
        Annotated[str, About(max_length=200, pattern=f"^{_ENDED}(,{_ENDED})*$")] | None,
        About("One status, or several separated by commas. `failed` means exhausted, rejected or expired.", "failed"),
    ]
    undelivered: Annotated[
        bool | None, About("True chooses every delivery that has not been delivered; null means false.", False)
    ]
    include_delivered: Annotated[
        bool | None,
        About(
            "Also those that have been delivered, if no status is given, and those whose event has reached the "
            "endpoint "
            "by another delivery; null: these are left out.",
            False,
        ),
    ]
    ended_after: Annotated[
        InstantGiven | None, About("Only deliveries that ended at this time or later.", "2026-03-02T08:00:00Z")
    ]
    ended_before: Annotated[
        InstantGiven | None, About("Only deliveries that ended before this time.", "2026-03-02T09:00:00Z")
    ]


@request
class ReplayPreview(EndedFilter, total=False):
    """A replay to be previewed. The token in the answer starts exactly this replay."""

    rate_per_second: Annotated[Rate | None, About("The most deliveries per second; null means no limit.", 50)]
    rate_per_endpoint: Annotated[Rate | None, About("The most deliveries per second to each endpoint.", 5)]
    canary: Annotated[
        Annotated[int, About(ge=1, le=CANARY)] | None,
        About(
            "So many of each endpoint go first. If all of them fail their first attempt, the endpoint is stopped "
            "until the replay is resumed; if one is delivered, the rest follows.",
            3,
        ),
    ]
    to: Annotated[
        Annotated[str, About(pattern=_TO)] | None,
        About(
            "Null or `same`: the endpoints that they went to. `matching`: the endpoints that want the events "
            "today, as if they were new; also events that nobody wanted. An endpoint's id: only there.",
            "same",
        ),
    ]


@request
class NewReplay(ReplayPreview, total=False):
    """A replay of a preview's deliveries, or of those chosen here; if both are given, they must be the same."""

    preview_token: PreviewTokenGiven


@request
class NewCancellation(WaitingFilter, total=False):
    """A cancellation of a preview's deliveries, or of those chosen here; if both are given, they must be the same."""

    preview_token: PreviewTokenGiven


class PreviewedEndpoint(TypedDict):
    """The deliveries of a preview to one endpoint."""

    endpoint_id: EndpointId
    url: Annotated[str, About(example="https://shop.example.com/hook")]
    count: Annotated[int, About("The number of deliveries.", 128)]
    disabled: Annotated[
        bool, About("True if the endpoint is disabled: the deliveries would wait until it is enabled.", False)
    ]
    already_delivered: Annotated[int, About("Deliveries whose event has reached the endpoint already.", 0)]


class Preview(TypedDict):
    """What a replay or a cancellation would do. Deliveries that come later are not included."""

    count: Annotated[int, About("The number of deliveries.", 128)]
    oldest: Annotated[Instant | None, About("When the oldest of them was created.", "2026-03-02T09:00:00Z")]
    newest: Annotated[Instant | None, About("When the newest of them was created.", "2026-03-02T09:00:00Z")]
    already_delivered: Annotated[
        int, About("Deliveries whose event has reached the endpoint already; in `count` only if they are included.", 0)
    ]
    endpoints_disabled: Annotated[int, About("The number of disabled endpoints, whose deliveries would wait.", 0)]
    in_flight: Annotated[int, About("Deliveries that are in flight; not in `count`. A replay has none.", 0)]
    payload_gone: Annotated[int, About("Deliveries whose payload is not stored any more; not in `count`.", 0)]
    not_visible: Annotated[
        int, About("Those whose event is of a tenant that the endpoint in `to` may not hear; not in `count`.", 0)
    ]
    endpoints: Annotated[
        list[PreviewedEndpoint], About("The endpoints with the most deliveries, at most ten; only for a replay.")
    ]
    rate_per_second: Annotated[float | None, About("As it was requested.", 50)]
    rate_per_endpoint: Annotated[float | None, About("As it was requested.", None)]
    canary: Annotated[int | None, About("As it was requested.", None)]
    to: Annotated[str, About("`same`, `matching`, or an endpoint's id.", "same")]
    estimated_seconds: Annotated[
        float, About("The shortest duration that its rates and the endpoints' rate limits allow, in seconds.", 2.6)
    ]
    preview_token: Annotated[PreviewToken, About("The token that starts exactly this, once.")]
    expires_at: Annotated[Instant, About("When the token expires.", "2026-03-02T10:00:00Z")]


class ReplayFilter(TypedDict):
    """The conditions of a replay; null means any value."""

    status: Annotated[str | None, About(example="exhausted,rejected,expired")]
    undelivered: Annotated[bool, About(example=False)]
    include_delivered: Annotated[bool, About(example=False)]
    tenant_id: Annotated[TenantId | None, About(example=None)]
    endpoint_id: Annotated[EndpointId | None, About(example=None)]
    event_id: Annotated[EventId | None, About(example=None)]
    replay_id: Annotated[ReplayId | None, About(example=None)]
    event_type: Annotated[str | None, About(example="payment.completed")]
    mode: Annotated[Mode | None, About(example=None)]
    object_id: Annotated[str | None, About(example=None)]
    host: Annotated[str | None, About(example=None)]
    outcome: Annotated[str | None, About(example=None)]
    status_code: Annotated[int | None, About(example=None)]
    attempts_min: Annotated[int | None, About(example=None)]
    attempts_max: Annotated[int | None, About(example=None)]
    error: Annotated[str | None, About(example=None)]
    created_after: Annotated[Instant | None, About(example="2026-03-02T09:00:00Z")]
    created_before: Annotated[Instant | None, About(example=None)]
    ended_after: Annotated[Instant | None, About("Only deliveries that ended at this time or later.", None)]
    ended_before: Annotated[Instant | None, About("Only deliveries that ended before this time.", None)]
    delivery_ids: Annotated[list[str] | None, About(example=None)]
    as_of: Annotated[
        Instant | None, About("Deliveries that ended at this time or later are not included.", "2026-03-02T09:00:00Z")
    ]


class Replay(TypedDict):
    """A replay or a cancellation and its progress."""

    id: ReplayId
    kind: Annotated[Literal["replay", "cancellation"], About(example="replay")]
    status: Annotated[Literal["running", "paused", "done", "cancelled"], About(example="running")]
    tenant_id: Annotated[TenantId | None, About("The tenant that it acts for; null for an operator's.")]
    filter: ReplayFilter
    total: Annotated[int | None, About("The number of deliveries when it was requested.", 128)]
    processed: Annotated[int, About("How many deliveries have been processed.", 64)]
    rate_per_second: Annotated[float | None, About("The most deliveries per second; null means no limit.", 50)]
    rate_per_endpoint: Annotated[
        float | None, About("The most deliveries per second to each endpoint; null means no limit.", None)
    ]
    canary: Annotated[int | None, About("How many deliveries of each endpoint go first; null means none.", None)]
    to: Annotated[str, About("`same`, `matching`, or an endpoint's id.", "same")]
    status_reason: Annotated[str | None, About("What it waits for, or why it is paused; null otherwise.", None)]
    percent: Annotated[float, About("How much of `total` is done, in percent.", 50.0)]
    created_by: Actor
    created_at: Instant
    ended_at: Annotated[Instant | None, About("When it ended; null while it runs or is paused.", None)]


class ReplayProgress(Replay):
    """A replay or a cancellation, its progress, and the results of its deliveries."""

    delivered: Annotated[int, About("How many of its deliveries have been delivered.", 60)]
    failed: Annotated[int, About("How many of its deliveries have ended without being delivered.", 1)]
    waiting: Annotated[int, About("How many of its deliveries wait for an attempt or are in flight.", 3)]
    endpoints_running: Annotated[int, About("The number of endpoints for which deliveries remain to be created.", 2)]
    endpoints_stopped: Annotated[
        int,
        About(
            "The number of endpoints that were stopped because all their first deliveries failed; resuming tries "
            "the next ones.",
            0,
        ),
    ]
    current_rate: Annotated[
        float | None, About("Deliveries created per second over the last seconds; null unless it runs.", 49.8)
    ]
    estimated_end: Annotated[
        Instant | None,
        About(
            "When all deliveries may have been created; null while this cannot be estimated.", "2026-03-02T09:01:00Z"
        ),
    ]


class ReplayEndpoint(TypedDict):
    """The progress of a replay for one endpoint."""

    endpoint_id: EndpointId
    url: Annotated[str, About(example="https://shop.example.com/hook")]
    status: Annotated[Literal["running", "stopped", "done"], About(example="running")]
    status_reason: Annotated[str | None, About("Why it is stopped, or what it waits for; null otherwise.", None)]
    total: Annotated[int, About("The number of deliveries when it was requested.", 64)]
    processed: Annotated[int, About(example=32)]
    delivered: Annotated[int, About(example=30)]
    failed: Annotated[int, About(example=0)]
    waiting: Annotated[int, About("Deliveries that wait for an attempt or are in flight.", 2)]


class ReplayPage(Paged):
    """A page of replays and cancellations, the newest first."""

    data: list[Replay]


class ReplayEndpointPage(Paged):
    """A page of a replay's endpoints."""

    data: list[ReplayEndpoint]
