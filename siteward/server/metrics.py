"""`/metrics`: the telemetry of every service of this installation, and the queues, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from siteward.broker import BrokerError, QueueStatus
from siteward.log import get_logger
from siteward.server.auth import Permission, requires
from siteward.server.auth.viewing import note_platform
from siteward.server.resources import Resources
from siteward.telemetry import (
    METRICS,
    QUEUE_BYTES,
    QUEUE_OLDEST,
    QUEUE_PARKED,
    QUEUE_READY,
    QUEUE_RECORDS,
    QUEUE_UNACKED,
    Metric,
    MetricType,
    Sample,
    shared_samples,
    telemetry,
)

APP: Final = "app"
"""This process's own value of the label `service`."""
QUEUE_METRICS: Final = (QUEUE_READY, QUEUE_UNACKED, QUEUE_PARKED, QUEUE_RECORDS, QUEUE_BYTES, QUEUE_OLDEST)
"""Asked of the broker at each scrape, and of nobody else."""

log = get_logger(__name__)


class Telemetry(Collector):
    """What all services have counted, and what stands in the queues now."""

    def __init__(self, resources: Resources) -> None:
        """Ask these resources at each scrape."""
        self._resources = resources

    def collect(self) -> Iterable[Family]:
        """Every metric family that has samples."""
        shared = shared_samples(self._resources.settings.folder / "telemetry")
        services = {**shared, APP: telemetry.samples()}
        for metric in METRICS:
            if metric not in QUEUE_METRICS:
                yield from _family(metric, services)
        yield from self._queues()

    def _queues(self) -> Iterator[Family]:
        try:
            queues = self._resources.broker.status()
        except BrokerError as error:
            # A scrape without the queues still says what the services count; /health/ready says that it is away.
            log.warning("queues not in this scrape", error=str(error))
            return
        now = datetime.now(UTC)
        families = {metric: _empty(metric, metric.labels) for metric in QUEUE_METRICS}
        for queue in queues:
            for metric, value in _of_queue(queue, now).items():
                if value is not None:
                    families[metric].add_metric([queue.queue], value)
        yield from (family for family in families.values() if family.samples)


def _of_queue(queue: QueueStatus, now: datetime) -> dict[Metric, float | None]:
    """The values of one queue; None for what the broker does not know."""
    oldest: float | None = 0.0 if queue.records == 0 else None
    if queue.oldest:
        oldest = max((now - queue.oldest).total_seconds(), 0.0)
    return {
        QUEUE_READY: queue.ready,
        QUEUE_UNACKED: queue.unacked,
        QUEUE_PARKED: queue.parked,
        QUEUE_RECORDS: queue.records,
        QUEUE_BYTES: queue.bytes,
        QUEUE_OLDEST: oldest,
    }


def _family(metric: Metric, services: dict[str, list[Sample]]) -> Iterator[Family]:
    """One metric over all services, or nothing where nobody has counted."""
    family = _empty(metric, ("service", *metric.labels))
    for service, samples in services.items():
        for sample in samples:
            # Files of another release may hold a metric with other labels.
            if sample.metric == metric.name and len(sample.labels) == len(metric.labels):
                family.add_metric([service, *sample.labels], sample.value)
    if family.samples:
        yield family


def _empty(metric: Metric, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    family = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    return family(metric.name, metric.help, labels=labels)


def router(resources: Resources) -> APIRouter:
    """The route `/metrics`."""
    routes = APIRouter()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Telemetry(resources))

    @routes.get("/metrics", dependencies=[Depends(requires(Permission.WATCH))], response_class=Response)
    def metrics(request: Request) -> Response:
        """Everything counted, in Prometheus' text format."""
        note_platform(request, Permission.WATCH)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes
