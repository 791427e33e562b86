"""Remote-write: the series of the endpoint sent to a server, for setups in which nobody can scrape."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from prometheus_client import CollectorRegistry

from monitoring.prometheus.connection import Connection, PrometheusError, trusted_by
from monitoring.prometheus.write_request import Labels, Sample, encoded, labels_of
from siteward.log import get_logger
from siteward.settings import PrometheusSettings, SettingsError

JOB: Final = "siteward-collector"
"""The label `job`, as in deploy/prometheus/prometheus.yml."""
AT_ONCE: Final = 2_000
"""Samples of one request."""
HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "siteward",
}
log = get_logger(__name__)


class RemoteWrite:
    """Sends what a scrape would see, again and again, in a thread of its own.

    What a server does not take is not sent again: series are running totals, and the next sending holds it too.
    """

    def __init__(self, settings: PrometheusSettings, registry: CollectorRegistry, port: int) -> None:
        """Start sending.

        Args:
            settings: where to, and how often.
            registry: all series.
            port: the endpoint's, to tell two collectors of one machine apart.

        Raises:
            siteward.settings.SettingsError: the address, its token or `ca` cannot be used.
        """
        trusted = trusted_by(settings)
        try:
            self._connection = Connection(settings.remote_write, settings.remote_write_token, settings.timeout, trusted)
        except ValueError as error:
            message = f"setting prometheus.remote_write (with remote_write_token_file): {error}"
            raise SettingsError(message) from error
        self._registry = registry
        self._more = {"job": JOB, "instance": f"{socket.gethostname()}:{port}"}
        self._every = settings.remote_write_every
        self._sent: set[Labels] = set()
        self._time = 0
        self._stop = Event()
        self._thread = Thread(target=self._run, name="remote-write", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send a last time, say that all series end, and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._try(self._samples)
        self._try(self._samples)
        self._try(lambda: [Sample(labels, stale=True) for labels in self._sent])

    def _try(self, make: Callable[[], list[Sample]]) -> None:
        try:
            self._send(make())
        except PrometheusError as error:
            log.warning("remote-write failed", error=str(error), permanent=error.permanent)
        except Exception as error:
            # Whatever it was: without this thread nothing would ever be sent again.
            log.exception("remote-write failed", error=type(error).__name__)

    def _samples(self) -> list[Sample]:
        """Every series now, and the end of those that are gone since the last time."""
        samples = [
            Sample(labels_of(sample.name, sample.labels, self._more), sample.value)
            for family in self._registry.collect()
            for sample in family.samples
        ]
        present = {sample.labels for sample in samples}
        gone = [Sample(labels, stale=True) for labels in self._sent - present]
        self._sent = present
        return samples + gone

    def _send(self, samples: list[Sample]) -> None:
        # Two samples of a series never have one time: the second would be refused as a duplicate.
        self._time = max(time.time_ns() // 1_000_000, self._time + 1)
        for some in _parts(samples):
            self._connection.post("", encoded(some, self._time), HEADERS)


def _parts(samples: list[Sample]) -> list[list[Sample]]:
    return [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
