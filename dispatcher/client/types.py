"""What goes in and what comes out, as the API's JSON has it. Instants that come out are RFC 3339 text in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, NotRequired, Required, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")

Instant: TypeAlias = datetime | str
"""Going in: an aware datetime, or RFC 3339 text."""

Mode: TypeAlias = Literal["live", "test"]
Scope: TypeAlias = Literal["events:write", "endpoints:write", "deliveries:read", "deliveries:replay", "admin"]
EndpointStatus: TypeAlias = Literal["active", "disabled"]
DeliveryStatus: TypeAlias = Literal[
    "waiting", "in_flight", "delivered", "exhausted", "rejected", "expired", "cancelled", "failed"
]
"""`failed`, in a filter, is every end but delivered and cancelled."""


class Page(TypedDict, Generic[T]):
    """Some of the objects, the newest first."""

    data: list[T]
    has_more: bool
    next_cursor: str | None


class Fault(TypedDict):
    """One thing that is wrong with a request."""

    pointer: str
    detail: str


class Paged(TypedDict, total=False):
    """Which page: at most `limit` objects, after the `next_cursor` of the page before."""

    limit: int
    cursor: str


# Tenants and keys


class Tenant(TypedDict):
    """Who owns endpoints and events."""

    id: str
    name: str
    parent_id: str | None
    profile: str | None
    created_at: str


class CreatedTenant(Tenant):
    """With what is told once: the secret that signs deliveries to targets of its events."""

    secret: NotRequired[str]


class NewTenant(TypedDict, total=False):
    """A tenant to be made; a parent's endpoints also receive its events."""

    name: Required[str]
    parent_id: str
    profile: str


class Key(TypedDict):
    """An API key, without what is secret of it. `tenant_id` None is an operator's."""

    id: str
    name: str
    tenant_id: str | None
    scopes: list[Scope]
    rate_limit: float | None
    created_at: str
    last_used_at: str | None
    revoked_at: str | None


class CreatedKey(Key):
    """With what is told once; `signing_secret` is for requests signed by HMAC."""

    key: NotRequired[str]
    signing_secret: NotRequired[str]


class NewKey(TypedDict, total=False):
    """A key to be made; without a tenant an operator's. `rate_limit` is in requests a second."""

    name: Required[str]
    tenant_id: str
    scopes: list[Scope]
    rate_limit: float


class Change(TypedDict):
    """One entry of the audit log: who changed what. `actor` is a key's id, or `cli:` and an account's name."""

    id: str
    at: str
    actor: str
    action: str
    object: str
    tenant_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


# Events


class Target(TypedDict):
    """Where one event goes instead of to endpoints."""

    url: str
    method: NotRequired[Literal["POST", "GET"]]


class NewEvent(TypedDict, total=False):
    """An event to be sent.

    `payload` is any JSON value, or `bytes` that are JSON text and are sent as they are. `id` is `evt_` and a UUIDv7 of
    the producer's own, within a day of now; it doubles as the idempotency key, so only one of the two is given.
    """

    type: Required[str]
    payload: Required[Any]
    tenant_id: str | None
    id: str | None
    idempotency_key: str | None
    mode: Mode | None
    object_id: str | None
    not_before: Instant | None
    expires_at: Instant | None
    target: Target | None


class AcceptedEvent(TypedDict):
    """What became of an event: `duplicate` if it was accepted before, and then `deliveries` is None."""

    id: str
    type: str
    tenant_id: str
    mode: Mode
    object_id: str | None
    duplicate: bool
    deliveries: int | None


class Refusal(TypedDict):
    """Why an event was refused; pointers are into the event."""

    code: str
    detail: str
    errors: list[Fault]


class BatchItem(TypedDict):
    """What became of one event of many: its place in its batch from 0, its id, or the problem it was refused for."""

    index: int
    status: Literal["accepted", "duplicate", "failed"]
    id: str | None
    deliveries: int | None
    error: Refusal | None


class Event(TypedDict):
    """What happened."""

    id: str
    tenant_id: str
    type: str
    mode: Mode
    object_id: str | None
    created_at: str
    payload: NotRequired[Any]
    payload_gone: NotRequired[Literal["erased", "retention"] | None]
    deliveries: NotRequired[Any]


class EventFilter(TypedDict, total=False):
    """Which events; all that is given must match."""

    tenant_id: str | None
    event_type: str | None
    object_id: str | None
    mode: Mode | None
    created_after: Instant | None
    created_before: Instant | None


class Explanation(TypedDict):
    """For each endpoint, what became of an event there, and which rule decided."""

    event_id: str
    type: str
    endpoints: list[dict[str, Any]]


# Endpoints


class BasicAuth(TypedDict):
    """How the receiver knows us; never shown again."""

    type: Literal["basic"]
    username: str
    password: str


class EndpointChanges(TypedDict, total=False):
    """What can be changed of an endpoint. What is not given stays; None takes a value away."""

    url: str
    name: str | None
    description: str | None
    event_types: list[str] | None
    metadata: dict[str, Any] | None
    schedule: str | None
    signature: list[str] | None
    auth: BasicAuth | None
    headers: dict[str, str] | None
    method: Literal["POST", "GET"] | None
    max_in_flight: int | None
    rate_limit: float | None
    ordered: bool | None


class NewEndpoint(EndpointChanges, total=False):
    """An endpoint to be registered: its `url` at least. Without `event_types` it receives all."""

    tenant_id: str | None
    profile: str | None
    status: EndpointStatus | None


class ImportedEndpoint(NewEndpoint, total=False):
    """An endpoint that exists at another provider, with the secret that it has there, or several, the newest first."""

    secret: str | None
    secrets: list[str] | None


class ImportItem(TypedDict):
    """What became of one endpoint of an import: its place from 0, its id, or why it was refused."""

    index: int
    status: Literal["created", "failed"]
    id: str | None
    warnings: list[str]
    error: Refused | None


class Refused(TypedDict):
    """Why one object of many was refused; pointers are into it."""

    code: str
    detail: str
    errors: list[Fault]


class AuthShown(TypedDict):
    """How deliveries authenticate themselves, without the password."""

    type: Literal["basic"]
    username: str | None


class Endpoint(TypedDict):
    """A registered URL, without what is secret of it; `headers` are names. `origin` is of targets of events."""

    id: str
    tenant_id: str
    url: str
    name: str | None
    description: str | None
    event_types: list[str] | None
    metadata: dict[str, Any]
    profile: str
    schedule: str
    signature: list[str] | None
    auth: AuthShown | None
    headers: list[str] | None
    method: Literal["POST", "GET"]
    max_in_flight: int
    rate_limit: float | None
    ordered: bool
    origin: str | None
    status: EndpointStatus
    status_reason: str | None
    version: int
    created_at: str
    updated_at: str


class CreatedEndpoint(Endpoint):
    """With what is told once: the secret that its deliveries are signed with, None where its profile knows none."""

    secret: NotRequired[str | None]
    warnings: list[str]


class DeletedEndpoint(TypedDict):
    """What became of an endpoint that is deleted, and of what waited for it."""

    id: str
    status: Literal["deleted"]
    cancelled_deliveries: int


class Ping(TypedDict):
    """What the endpoint answered to a ping."""

    ok: bool
    outcome: str
    status_code: int | None
    error: str | None
    duration_ms: float


class LastFailure(TypedDict):
    """The latest attempt that did not succeed."""

    at: str
    outcome: str
    status_code: int | None
    error: str | None


class EndpointStats(TypedDict):
    """How an endpoint is doing: what lives is of now, the rest of what was recorded in the window."""

    window: Literal["1h", "24h", "7d", "30d"]
    waiting: int
    in_flight: int
    at_least: bool
    oldest_waiting_at: str | None
    delivered: int
    exhausted: int
    rejected: int
    expired: int
    cancelled: int
    success_rate: float | None
    attempts_p50_ms: float | None
    attempts_p95_ms: float | None
    attempts_to_success_mean: float | None
    cap: int
    last_attempt_at: str | None
    last_success_at: str | None
    last_failure: LastFailure | None


# Statistics


class AttemptCounts(TypedDict):
    """The attempts that were recorded; the rate is from 0 to 1, None of none."""

    total: int
    succeeded: int
    success_rate: float | None
    by_outcome: dict[str, int]


class EndCounts(TypedDict):
    """The deliveries that ended; the rate is delivered of those that were not cancelled."""

    delivered: int
    exhausted: int
    rejected: int
    expired: int
    cancelled: int
    success_rate: float | None


class Latency(TypedDict):
    """Percentiles in milliseconds, each within 9 %."""

    attempts: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class Made(TypedDict):
    """How many deliveries arrived with so many attempts."""

    attempts: int
    deliveries: int


class ToSuccess(TypedDict):
    """How many attempts counted for deliveries that arrived."""

    mean: float | None
    distribution: list[Made]


class Backlog(TypedDict):
    """What is not done now; with `at_least`, more waits than was counted."""

    waiting: int
    in_flight: int
    at_least: bool
    oldest_waiting_at: str | None
    oldest_due_at: str | None
    lag_s: float


class StatisticsPoint(TypedDict):
    """What was recorded from `at` to the next point."""

    at: str
    attempts: int
    succeeded: int
    delivered: int
    failed: int


class StatisticsGroup(TypedDict):
    """One endpoint, event type or tenant."""

    key: str
    name: str | None
    attempts: AttemptCounts
    deliveries: EndCounts
    latency_ms: Latency
    attempts_to_success: ToSuccess
    backlog: Backlog


Statistics = TypedDict(
    "Statistics",
    {
        "window": Literal["1h", "24h", "7d", "30d"],
        "from": str,
        "to": str,
        "step_s": int,
        "tenant_id": str | None,
        "endpoint_id": str | None,
        "event_type": str | None,
        "by": Literal["endpoint", "event_type", "tenant", "none"],
        "attempts": AttemptCounts,
        "deliveries": EndCounts,
        "latency_ms": Latency,
        "attempts_to_success": ToSuccess,
        "backlog": Backlog,
        "series": list[StatisticsPoint],
        "groups": list[StatisticsGroup],
        "has_more": bool,
    },
)
"""How the chosen deliveries fare."""


# Deliveries


class ScheduleVersion(TypedDict):
    """Which schedule a delivery pinned."""

    name: str
    version: str


class Delivery(TypedDict):
    """One event to one endpoint."""

    id: str
    event_id: str
    event_type: str
    object_id: str | None
    mode: Mode
    endpoint_id: str
    url: str
    tenant_id: str
    status: DeliveryStatus
    status_reason: str | None
    attempt_count: int
    next_attempt_at: str | None
    schedule: ScheduleVersion
    replay_of: str | None
    created_at: str
    ended_at: str | None


class SentRequest(TypedDict):
    """What was sent; headers are [name, value] pairs."""

    method: str
    url: str
    headers: list[list[str]]


class ReceivedResponse(TypedDict):
    """What the receiver said; `body` is text, or hex where `body_encoding` says so."""

    headers: list[list[str]]
    body: str
    body_encoding: Literal["utf-8", "hex"]
    body_end: str
    body_truncated: bool


class Attempt(TypedDict):
    """One POST, or a GET."""

    id: str
    number: int
    started_at: str
    duration_ms: float
    outcome: str
    phase: str | None
    outcome_known: bool
    status_code: int | None
    error: str | None
    peer_ip: str | None
    request: SentRequest
    response: ReceivedResponse
    body_sha256: str | None
    retry_after_s: float | None
    decision: str


class SentBody(TypedDict):
    """The bytes of a body; `text` is hex where `encoding` says so, `size` in bytes."""

    text: str
    encoding: Literal["utf-8", "hex"]
    size: int
    sha256: str


class ToldEvent(TypedDict):
    """What happened, and the body as it was sent; None where it is gone, and then `payload_gone` says why."""

    id: str
    type: str
    object_id: str | None
    mode: Mode
    created_at: str | None
    body: SentBody | None
    payload_gone: Literal["erased", "retention"] | None


class ToldEndpoint(TypedDict):
    """Where a delivery goes."""

    id: str
    url: str
    status: Literal["active", "disabled", "deleted"]
    status_reason: str | None
    profile: str


class StepTimes(TypedDict):
    """How long each step of an attempt took; None where it was not needed or is not known."""

    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None


class PlainWords(TypedDict):
    """What an outcome means."""

    summary: str
    likely_cause: str
    tell_the_merchant: str


class ToldAttempt(Attempt):
    """An attempt, where its time went, and what it means."""

    timings: StepTimes
    explanation: PlainWords


class PastAttempt(TypedDict):
    """An attempt that was made."""

    number: int
    at: str


class FutureAttempt(TypedDict):
    """An attempt that will be made if those before it fail: with the least jitter, and with the most."""

    number: int
    earliest_at: str
    latest_at: str


class ToldSchedule(TypedDict):
    """When attempts are made; `why_none` says why none is planned."""

    name: str
    version: str
    attempts: int
    past: list[PastAttempt]
    planned: list[FutureAttempt]
    why_none: str | None
    expires_at: str | None


class RelatedDelivery(TypedDict):
    """Another delivery of the same event."""

    id: str
    status: DeliveryStatus
    created_at: str
    endpoint_id: str


class ToldReplays(TypedDict):
    """What a delivery replays, and what replays it."""

    replay_of: RelatedDelivery | None
    replayed_by: list[RelatedDelivery]


class SignatureCheck(TypedDict):
    """What one scheme signed, and the commands that check it; None where what was signed is gone."""

    scheme: str
    header: str
    value: str
    signed: str
    key: str
    command: str | None
    verify_command: str | None


class Story(TypedDict):
    """Everything about one delivery; `verdict` says in one sentence where it is, `curl` repeats the last attempt."""

    verdict: str
    delivery: Delivery
    event: ToldEvent
    endpoint: ToldEndpoint
    attempts: list[ToldAttempt]
    schedule: ToldSchedule
    replays: ToldReplays
    audit: list[Change]
    curl: str | None
    signature_check: list[SignatureCheck]


class DeliveryFilter(TypedDict, total=False):
    """Which deliveries; all that is given must match."""

    status: DeliveryStatus | None
    tenant_id: str | None
    endpoint_id: str | None
    event_id: str | None
    event_type: str | None
    object_id: str | None
    host: str | None
    outcome: str | None
    status_code: int | None
    attempts_min: int | None
    attempts_max: int | None
    error: str | None
    created_after: Instant | None
    created_before: Instant | None


class DeliverySearch(DeliveryFilter, total=False):
    """Which deliveries to list, and in which order: also those that a replay has made."""

    replay_id: str | None
    sort: Literal["newest", "oldest"] | None


# Replays and cancellations


class WaitingFilter(DeliveryFilter, total=False):
    """Which of the deliveries that wait; also by their own ids, up to 1,000."""

    delivery_ids: list[str] | None


class EndedFilter(WaitingFilter, total=False):
    """Which of the deliveries that have ended: the failed, unless it says else."""

    undelivered: bool | None
    include_delivered: bool | None


class ReplayPreview(EndedFilter, total=False):
    """A replay to be previewed: rates in deliveries a second, how many of each endpoint go first, and where it goes.

    `to` is `same`, `matching` or an endpoint's id.
    """

    rate_per_second: float | None
    rate_per_endpoint: float | None
    canary: int | None
    to: str | None


class NewReplay(ReplayPreview, total=False):
    """A replay to be started: what was previewed, or what is chosen."""

    preview_token: str | None


class NewCancellation(WaitingFilter, total=False):
    """A cancellation to be started."""

    preview_token: str | None


class PreviewedEndpoint(TypedDict):
    """How much of it goes to one endpoint."""

    endpoint_id: str
    url: str
    count: int
    disabled: bool
    already_delivered: int


class Preview(TypedDict):
    """What would be done; `preview_token` has exactly this done until `expires_at`."""

    count: int
    oldest: str | None
    newest: str | None
    already_delivered: int
    endpoints_disabled: int
    in_flight: int
    payload_gone: int
    foreign: int
    endpoints: list[PreviewedEndpoint]
    rate_per_second: float | None
    rate_per_endpoint: float | None
    canary: int | None
    to: str
    estimated_seconds: float
    preview_token: str
    expires_at: str


class Replay(TypedDict):
    """Work over many deliveries, and how far it is."""

    id: str
    kind: Literal["replay", "cancellation"]
    status: Literal["running", "paused", "done", "cancelled"]
    tenant_id: str | None
    filter: dict[str, Any]
    total: int | None
    replayed: int
    rate_per_second: float | None
    rate_per_endpoint: float | None
    canary: int | None
    to: str
    status_reason: str | None
    percent: float
    created_by: str
    created_at: str
    ended_at: str | None


class ReplayProgress(Replay):
    """The same, with what has become of what it made; `rate_now` is deliveries a second lately."""

    delivered: int
    failed: int
    waiting: int
    endpoints_running: int
    endpoints_stopped: int
    rate_now: float | None
    estimated_end: str | None


class ReplayEndpoint(TypedDict):
    """How far a replay is with one endpoint; `status_reason` says what it waits for."""

    endpoint_id: str
    url: str
    status: Literal["running", "stopped", "done"]
    status_reason: str | None
    total: int
    replayed: int
    delivered: int
    failed: int
    waiting: int


# Pauses


class PauseScope(TypedDict, total=False):
    """What is held: all that matches all that is given, or everything, by `all` alone. `event_type` may be payment.*.

    Everything is that of every tenant or, with a tenant's key, of its own.
    """

    all: bool
    tenant_id: str | None
    endpoint_id: str | None
    event_type: str | None


class NewPause(PauseScope, total=False):
    """What to hold, and why."""

    reason: str | None


class Pause(TypedDict):
    """What is held. It is sent when the pause ends."""

    id: str
    tenant_id: str | None
    endpoint_id: str | None
    event_type: str | None
    reason: str
    created_by: str
    created_at: str


# Erasures


class NewErasure(TypedDict, total=False):
    """What is to be erased: events of one tenant or, for operators, of `all_tenants`."""

    object_id: Required[str]
    tenant_id: str | None
    all_tenants: bool
    reason: str | None


class Erasure(TypedDict):
    """An erasure, and how far it is."""

    id: str
    object_id: str
    tenant_id: str | None
    reason: str | None
    created_by: str
    created_at: str
    status: Literal["running", "done"]
    events: int
    attempts: int
    cancelled_deliveries: int
    in_flight_deliveries: int
    next_look_at: str | None


# Schedules, profiles, event types


class Schedule(TypedDict):
    """When attempts are made."""

    name: str
    description: str | None
    source: str | None
    version: str
    relative_to: Literal["previous_failure", "first_attempt"]
    waits: list[str]
    waits_s: list[float]
    jitter: float
    attempts: int
    total_s: float


class NewSimulation(TypedDict, total=False):
    """What is simulated: a schedule by its `name`, or one of its own by its `waits`, and what the receiver answers."""

    name: str
    waits: list[str]
    relative_to: Literal["previous_failure", "first_attempt"]
    jitter: float
    outcomes: list[SimulatedAnswer]
    down: list[Down]
    profile: str
    takes_s: float


class PlannedAttempt(TypedDict):
    """One attempt of a delivery of which every attempt fails at once."""

    number: int
    wait_s: float
    offset_s: float
    latest_offset_s: float
    at: str
    latest_at: str


class SchedulePreview(TypedDict):
    """A schedule laid out in time."""

    name: str
    version: str
    start: str
    attempts: list[PlannedAttempt]
    total_s: float


class Down(TypedDict):
    """A span in which the receiver fails; two instants."""

    begin: str
    end: str


class SimulatedAnswer(TypedDict, total=False):
    """What a simulated attempt meets; without a status no answer."""

    status_code: int | None
    retry_after_s: float | None


class SimulatedAttempt(TypedDict):
    """One attempt of a simulated delivery."""

    number: int
    offset_s: float
    at: str
    ok: bool


class Simulation(TypedDict):
    """How a simulated delivery goes."""

    name: str | None
    version: str
    start: str
    attempts: list[SimulatedAttempt]
    ended: Literal["delivered", "exhausted", "rejected"]
    reason: str
    delay_s: float


class EventType(TypedDict):
    """A type of the catalogue; `schema` is a JSON Schema that payloads must meet.

    `schema_refusal` says why events of the type are refused until its schema is replaced.
    """

    name: str
    description: str | None
    schema: Any
    schema_refusal: str | None
    profiles: list[str]
    created_at: str | None
    updated_at: str | None


class SenderAddress(TypedDict):
    """An address, or a network, that deliveries come from."""

    address: str


class PublicKey(TypedDict):
    """One of the platform's keys, in every form that receivers read."""

    id: str
    kind: Literal["rsa", "ed25519"]
    public_key_pem: str
    jwk: dict[str, str]
    whpk: str | None
    schemes: list[str]
    signs_from: str
    signs_until: str | None
    published_until: str | None


class Jwks(TypedDict):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]


class Found(TypedDict):
    """One thing that an id, an object id, a URL or a host names; `object` is as its kind's own operation answers it."""

    kind: Literal["event", "endpoint", "delivery", "attempt", "replay", "tenant", "key"]
    id: str
    summary: str
    object: dict[str, Any]


class Health(TypedDict):
    """`status` is ok; of `readyz`, `schema` is the database's revision."""

    status: str
    schema: NotRequired[str]
