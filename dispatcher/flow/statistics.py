"""How deliveries fare: success rates, latencies, attempts to success and backlogs, of a window that ends now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from dispatcher.flow import register
from dispatcher.ids import format_id
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.event import Mode
from dispatcher.model.outcome import OutcomeClass
from dispatcher.store import counts
from dispatcher.store.counts import Backlog, By, Counted, Counts, Grain, Span
from dispatcher.store.pauses import Scope

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

Window: TypeAlias = Literal["1h", "24h", "7d", "30d"]

ENDS: Final = (
    DeliveryState.DELIVERED,
    DeliveryState.EXHAUSTED,
    DeliveryState.REJECTED,
    DeliveryState.EXPIRED,
    DeliveryState.CANCELLED,
)

UNANSWERED: Final = frozenset(kind for kind in OutcomeClass if not kind.dialled)
"""Nobody was dialled, so how long these took says nothing of the receiver. A time-out and a refused connection do."""

PERCENTILES: Final = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a window is cut: `length`, the grain of the counts behind it, and the distance of its points."""

    length: timedelta
    grain: Grain
    width: timedelta
    step: timedelta


_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_FIVE_MINUTES: Final = timedelta(minutes=5)
_CUTS: Final[dict[Window, _Cut]] = {
    "1h": _Cut(_HOUR, "5min", _FIVE_MINUTES, _FIVE_MINUTES),
    "24h": _Cut(_DAY, "hour", _HOUR, _HOUR),
    "7d": _Cut(7 * _DAY, "hour", _HOUR, 4 * _HOUR),
    "30d": _Cut(30 * _DAY, "day", _DAY, _DAY),
}
WINDOWS: Final[tuple[Window, ...]] = tuple(_CUTS)

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts that were recorded, by outcome."""

    by_outcome: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_outcome.values())

    @property
    def succeeded(self) -> int:
        """Those that were accepted."""
        return self.by_outcome.get(OutcomeClass.OK, 0)

    @property
    def success_rate(self) -> float | None:
        """Of all, from 0 to 1; None where there were none."""
        return _rate(self.succeeded, self.total)


@dataclass(frozen=True, slots=True)
class Ends:
    """The deliveries that ended, by state: every final one is there."""

    by_state: dict[str, int]

    @property
    def success_rate(self) -> float | None:
        """Delivered, of all that ended by themselves, from 0 to 1; None where none did."""
        cancelled = self.by_state[DeliveryState.CANCELLED]
        return _rate(self.by_state[DeliveryState.DELIVERED], sum(self.by_state.values()) - cancelled)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the attempts at which somebody was dialled, in milliseconds, by number (50, 90, 95, 99).

    Each is the geometric middle of a span that is a quarter of an octave wide, so it is within 9 % (a factor of
    2^(1/8)) of the attempt at that rank; below a millisecond it is 1.1. Empty where `attempts` is 0.
    """

    attempts: int
    ms: dict[int, float]


@dataclass(frozen=True, slots=True)
class Fared:
    """How some deliveries fared. `to_success` has how many were delivered by their number of attempts."""

    attempts: Attempts
    ends: Ends
    latency: Latency
    to_success: dict[int, int]

    @property
    def to_success_mean(self) -> float | None:
        """How many attempts counted for one that was delivered."""
        return _rate(sum(made * n for made, n in self.to_success.items()), sum(self.to_success.values()))


@dataclass(frozen=True, slots=True)
class Point:
    """What was recorded from `at` until the next point."""

    at: datetime
    attempts: Attempts
    ends: Ends


@dataclass(frozen=True, slots=True)
class Group:
    """One endpoint, type or tenant. `key` is its id or name, `name` an endpoint's URL or a tenant's name."""

    key: str
    name: str | None
    fared: Fared
    backlog: Backlog


@dataclass(frozen=True, slots=True)
class Statistics:
    """The whole answer. `since` is the window's start, rounded down to `step`; `more` where groups were left out."""

    window: Window
    since: datetime
    until: datetime
    step: timedelta
    fared: Fared
    backlog: Backlog
    points: list[Point]
    groups: list[Group]
    more: bool


def statistics(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    endpoint_id: UUID | None = None,
    event_type: str | None = None,
    mode: Mode = Mode.LIVE,
    window: Window = "24h",
    by: By = "none",
    limit: int = 10,
    now: datetime | None = None,
) -> Statistics:
    """How the chosen deliveries of one mode fare, with the `limit` groups that have the most failures.

    An attempt and an end count at the moment they were recorded, by the database's clock (`now`: another one). Exact at
    once, whatever was folded. Raises NotFound for an endpoint that is not there, or not the tenant's.
    """
    if endpoint_id is not None:
        register.find(connection, endpoint_id, tenant_id=tenant_id)
    until = now or counts.server_now(connection)
    cut = _CUTS[window]
    since = _rounded_down(until - cut.length, cut.step)
    scope = Scope(tenant_id, endpoint_id, event_type, mode)
    counted = counts.read(connection, scope, Span(since, until, cut.grain, cut.width, cut.step), by=by, limit=limit)
    backlogs = counts.backlog(connection, scope, by=by)
    keys = list(counted.groups)
    keys += [key for key in backlogs.groups if key not in counted.groups][: limit - len(keys)]
    names = counts.names(connection, by, keys)
    return Statistics(
        window=window,
        since=since,
        until=until,
        step=cut.step,
        fared=_fared(counted.total),
        backlog=backlogs.total,
        points=_points(counted, since, until, cut.step),
        groups=[
            Group(
                _shown(by, key),
                names.get(key),
                _fared(counted.groups.get(key, Counter())),
                backlogs.groups.get(key, Backlog()),
            )
            for key in keys
        ],
        more=counted.more or len(counted.groups.keys() | backlogs.groups.keys()) > len(keys),
    )


def _shown(by: By, key: str) -> str:
    match by:
        case "endpoint":
            return format_id("ep", key)
        case "tenant":
            return format_id("ten", key)
        case _:
            return key


def _rounded_down(at: datetime, step: timedelta) -> datetime:
    return (at - (at - _EPOCH) % step).astimezone(UTC)


def _points(counted: Counted, since: datetime, until: datetime, step: timedelta) -> list[Point]:
    """Every point of the window, those where nothing happened too."""
    found = []
    at = since
    while at <= until:
        there = counted.points.get(at, Counter())
        found.append(Point(at, _attempts(there), _ends(there)))
        at += step
    return found


def _fared(counted: Counts) -> Fared:
    to_success: Counter[int] = Counter()
    spans: Counter[int] = Counter()
    for (kind, what, size), n in counted.items():
        if kind == "end" and what == DeliveryState.DELIVERED:
            to_success[size] += n
        elif kind == "attempt" and what not in UNANSWERED:
            spans[size] += n
    return Fared(_attempts(counted), _ends(counted), latency(spans), dict(sorted(to_success.items())))


def _attempts(counted: Counts) -> Attempts:
    """Of lost ones none where the window holds only that one was not lost after all, and not that it was."""
    found: Counter[str] = Counter()
    for (kind, what, _), n in counted.items():
        if kind == "attempt":
            found[what] += n
    return Attempts({what: n for what, n in sorted(found.items()) if n > 0})


def _ends(counted: Counts) -> Ends:
    found: Counter[str] = Counter()
    for (kind, what, _), n in counted.items():
        if kind == "end":
            found[what] += n
    return Ends({state.value: found[state] for state in ENDS})


def latency(spans: Counter[int]) -> Latency:
    """The percentiles of attempts that were counted by the span of their duration (see LATENCY in store.deliveries).

    By the nearest rank: of 100 attempts, the 95th is the 95th.

    >>> latency(Counter({4: 90, 40: 10})).ms
    {50: 2.18, 90: 2.18, 95: 1116.68, 99: 1116.68}
    """
    total = sum(spans.values())
    ranked: dict[int, float] = {}
    passed = 0
    for span, n in sorted(spans.items()):
        passed += n
        for percent in PERCENTILES:
            if percent not in ranked and passed >= ceil(total * percent / 100):
                ranked[percent] = round(2.0 ** ((span + 0.5) / 4), 2)
    return Latency(total, ranked)


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
