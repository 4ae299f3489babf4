"""`/metrics`: how the system stands, for Prometheus. Totals only: no tenant, URL or name is in it."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dispatcher.api.connections import REASONS
from dispatcher.api.context import ContextOf
from dispatcher.api.traffic import BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from dispatcher.api.connections import Lobby
    from dispatcher.api.traffic import Traffic
    from dispatcher.store.metrics import Figures

router = APIRouter(tags=["health"])

METRICS: Final = {
    "dispatcher_deliveries": "live deliveries by state; beyond 10,000 the server's estimate",
    "dispatcher_held_deliveries": "those that wait for a disabled or paused endpoint; at most 10,000 are counted",
    "dispatcher_failed_deliveries": (
        "deliveries of live mode that ended without success in the last hour, by state; at most 10,000 are counted"
    ),
    "dispatcher_oldest_due_seconds": "how long the oldest due work has been waiting; 0 where nothing is due",
    "dispatcher_workers": "workers whose heartbeat is good",
    "dispatcher_worker_free_slots": "how many more deliveries they would take",
    "dispatcher_endpoints": "endpoints by status, deleted ones too",
    "dispatcher_pauses": "what is held by hand",
    "dispatcher_replays_running": "replays and cancellations under way",
    "dispatcher_events_total": "events accepted, by the day of their ids",
    "dispatcher_attempts_total": "attempts recorded, by the day of their deliveries' ids",
    "dispatcher_ended_deliveries_total": "deliveries ended, by the day of their ids",
    "dispatcher_api_requests_total": "requests that this API process has answered, by method, route and status",
    "dispatcher_api_request_duration_seconds": "how long they took until their answers began, by route",
    "dispatcher_api_connections": "connections that callers have open to this API process",
    "dispatcher_api_unfinished_bytes": "what the bodies of unfinished requests hold in this API process",
    "dispatcher_api_closed_connections_total": "connections that this API process closed for a limit, by reason",
}
"""Every metric with what it means: `docs/metrics.md` has the same table."""

_COUNTED: Final = {
    "dispatcher_events_total": "events",
    "dispatcher_attempts_total": "attempts",
    "dispatcher_ended_deliveries_total": "ended_deliveries",
}

_FAILURES: Final = ("cancelled", "exhausted", "expired", "rejected")
_STATUSES: Final = ("active", "deleted", "disabled")


class _Snapshot:
    """What a registry collects from: the figures of one moment."""

    def __init__(self, figures: Figures, traffic: Traffic, lobby: Lobby) -> None:
        self._figures = figures
        self._traffic = traffic
        self._lobby = lobby

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        states = {"waiting": figures.waiting, "in_flight": figures.in_flight}
        yield _by("dispatcher_deliveries", "state", states)
        yield _one("dispatcher_held_deliveries", figures.held)
        yield _by("dispatcher_failed_deliveries", "state", dict.fromkeys(_FAILURES, 0) | figures.failed)
        yield _one("dispatcher_oldest_due_seconds", figures.oldest_due_s)
        yield _one("dispatcher_workers", figures.workers)
        yield _one("dispatcher_worker_free_slots", figures.room)
        yield _by("dispatcher_endpoints", "status", dict.fromkeys(_STATUSES, 0) | figures.endpoints)
        yield _one("dispatcher_pauses", figures.pauses)
        yield _one("dispatcher_replays_running", figures.replays)
        for name, table in _COUNTED.items():
            counter = CounterMetricFamily(name, METRICS[name], labels=["day"])
            for day, count in figures.inserted.get(table, {}).items():
                counter.add_metric([day], count)
            yield counter
        yield _answers(self._traffic)
        yield _answer_seconds(self._traffic)
        yield from _connections(self._lobby)


def _one(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, METRICS[name], value=value)


def _by(name: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name], labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _answers(traffic: Traffic) -> Metric:
    name = "dispatcher_api_requests_total"
    family = CounterMetricFamily(name, METRICS[name], labels=["method", "route", "status"])
    for (method, route, status), count in sorted(traffic.answers.items()):
        family.add_metric([method, route, str(status)], count)
    return family


def _connections(lobby: Lobby) -> Iterable[Metric]:
    yield _one("dispatcher_api_connections", len(lobby.open))
    yield _one("dispatcher_api_unfinished_bytes", lobby.held_bytes)
    name = "dispatcher_api_closed_connections_total"
    family = CounterMetricFamily(name, METRICS[name], labels=["reason"])
    for reason in REASONS:
        family.add_metric([reason], lobby.closed[reason])
    yield family


def _answer_seconds(traffic: Traffic) -> Metric:
    name = "dispatcher_api_request_duration_seconds"
    family = HistogramMetricFamily(name, METRICS[name], labels=["route"])
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for route, counts in sorted(traffic.buckets.items()):
        # A bucket of Prometheus's holds all that is below it.
        family.add_metric([route], list(zip(bounds, accumulate(counts), strict=True)), traffic.seconds[route])
    return family


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request, context: ContextOf) -> Response:
    """Get the metrics of the system and of this process, without a key."""
    figures = await context.figures()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(figures, context.traffic, request.app.state.lobby))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
