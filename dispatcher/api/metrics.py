"""`/metrics`: how the system stands, for Prometheus. Totals only: no tenant, URL or name is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dispatcher.api.context import ContextOf
from dispatcher.store import metrics as store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from dispatcher.store.metrics import Figures

router = APIRouter(tags=["health"])

METRICS: Final = {
    "dispatcher_deliveries": "live deliveries by state; beyond 10,000 the server's estimate",
    "dispatcher_oldest_due_seconds": "how long the oldest due work has been waiting; 0 where nothing is due",
    "dispatcher_workers": "workers whose heartbeat is good",
    "dispatcher_room": "how many more deliveries they would take",
    "dispatcher_endpoints": "endpoints by status, deleted ones too",
    "dispatcher_pauses": "what is held by hand",
    "dispatcher_replays_running": "replays and cancellations under way",
    "dispatcher_events_total": "events accepted, since the server's statistics were reset",
    "dispatcher_attempts_total": "attempts recorded, since then",
    "dispatcher_ended_deliveries_total": "deliveries ended, since then",
    "dispatcher_api_answers_total": "answers of this API process, by status",
}
"""Every metric with what it means: `docs/metrics.md` has the same table."""

_COUNTED: Final = {
    "dispatcher_events_total": "events",
    "dispatcher_attempts_total": "attempts",
    "dispatcher_ended_deliveries_total": "ended_deliveries",
}


class _Snapshot:
    """What a registry collects from: the figures of one moment."""

    def __init__(self, figures: Figures, answers: Mapping[int, int]) -> None:
        self._figures = figures
        self._answers = answers

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        states = {"waiting": figures.waiting, "in_flight": figures.in_flight}
        yield _by("dispatcher_deliveries", "state", states)
        yield _one("dispatcher_oldest_due_seconds", figures.oldest_due_s)
        yield _one("dispatcher_workers", figures.workers)
        yield _one("dispatcher_room", figures.room)
        yield _by("dispatcher_endpoints", "status", figures.endpoints)
        yield _one("dispatcher_pauses", figures.pauses)
        yield _one("dispatcher_replays_running", figures.replays)
        for name, table in _COUNTED.items():
            yield CounterMetricFamily(name, METRICS[name], value=figures.inserted.get(table, 0))
        answers = CounterMetricFamily(
            "dispatcher_api_answers_total", METRICS["dispatcher_api_answers_total"], labels=["status"]
        )
        for status, count in sorted(self._answers.items()):
            answers.add_metric([str(status)], count)
        yield answers


def _one(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, METRICS[name], value=value)


def _by(name: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name], labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(context: ContextOf) -> Response:
    """Totals of the system and of this process, without a key."""
    figures = await context.transaction(store.read)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(figures, context.answers))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
