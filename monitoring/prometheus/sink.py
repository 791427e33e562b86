"""The sink `prometheus`: counts batches into live series, which an endpoint shows and remote-write may send."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Final

from monitoring.prometheus.counters import Counters
from monitoring.prometheus.cycles import Cycles
from monitoring.prometheus.exposition import Endpoint, registry_of
from monitoring.prometheus.families import KindFamilies, families_of
from monitoring.prometheus.points import Counted, Counting, Limits, Point
from monitoring.prometheus.remote_write import RemoteWrite
from monitoring.prometheus.window import Why
from siteward.records import Kind, Shape
from siteward.server.auth.watching import Watchers
from siteward.settings import PrometheusSettings
from siteward.sinks import Batch, Outcome, Written
from siteward.telemetry import PROMETHEUS_LEFT_OUT, PROMETHEUS_OVER_BUDGET, PROMETHEUS_SERIES, telemetry

SECOND: Final = 1_000_000


class PrometheusSink:
    """Live series of all kinds. They live in this process only, so writing is quick and commits nothing.

    Whoever needs every record asks the monitoring store or the ledger: series are rates since this process started.
    """

    def __init__(
        self, settings: PrometheusSettings, kinds: Mapping[str, Kind], watchers: Watchers | None = None
    ) -> None:
        """Start from zero and listen. Who may see the series beside scrapers with the token is closed with the sink.

        Raises:
            siteward.settings.SettingsError: a setting cannot be used, or the address is taken.
        """
        limits = Limits(int(settings.late * SECOND), int(settings.stale * SECOND), settings.series)
        self._families = families_of(kinds, settings.labels, settings.measures)
        self._counting = {name: _counting(families, limits) for name, families in self._families.items()}
        self._lock = Lock()
        for name in kinds:
            for why in Why:
                # What counts trouble is zero before there is any, so that the first trouble is seen as a change.
                telemetry.add(PROMETHEUS_LEFT_OUT, 0, name, why)
        with ExitStack() as opened:
            if watchers is not None:
                opened.callback(watchers.close)
            registry = registry_of(self.points)
            self._endpoint = Endpoint(settings, registry, watchers)
            opened.callback(self._endpoint.close)
            if settings.remote_write:
                remote = RemoteWrite(settings, registry, self._endpoint.port)
                opened.callback(remote.close)
            self._opened = opened.pop_all()

    @property
    def port(self) -> int:
        """Where the endpoint listens."""
        return self._endpoint.port

    def write(self, batch: Batch) -> Written:
        """Count a batch. Records that enter no series are stored nonetheless: they are counted as left out."""
        now = time.time_ns() // 1000
        with self._lock:
            counting = self._counting[batch.kind.name]
            self._tell(batch.kind.name, counting.expire(now))
            counted = counting.write(batch, now)
            self._tell(batch.kind.name, counted)
        outcomes = [Outcome.STORED] * len(batch)
        for position in counted.replayed:
            outcomes[position] = Outcome.DUPLICATE
        return Written(outcomes)

    def points(self) -> list[tuple[tuple[str, ...], Point]]:
        """Every point now, with the names of its labels."""
        now = time.time_ns() // 1000
        found: list[tuple[tuple[str, ...], Point]] = []
        with self._lock:
            for name, counting in self._counting.items():
                self._tell(name, counting.expire(now))
                labels = self._families[name].labels
                coarse = tuple(labels[position] for position in self._families[name].coarse)
                histograms = self._families[name].histograms
                points = counting.points(now)
                found += [(coarse if point.family in histograms else labels, point) for point in points]
        return found

    def close(self) -> None:
        """Stop listening and sending; the series are gone."""
        self._opened.close()

    def _tell(self, kind: str, counted: Counted) -> None:
        for why, records in counted.left_out.items():
            telemetry.add(PROMETHEUS_LEFT_OUT, records, kind, why)
        for series, records in counted.over_budget.items():
            if records:
                telemetry.add(PROMETHEUS_OVER_BUDGET, records, kind, series)
        telemetry.set(PROMETHEUS_SERIES, self._counting[kind].series, kind)


def _counting(families: KindFamilies, limits: Limits) -> Counting:
    return (Cycles if families.kind.shape is Shape.SNAPSHOT else Counters)(families, limits)
