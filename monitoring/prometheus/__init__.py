"""Live metrics of records for Prometheus: the sink that counts them, its endpoint, and what Prometheus is asked."""

from __future__ import annotations

from collections.abc import Mapping

from siteward.records import Kind
from siteward.settings import Settings
from siteward.sinks import Sink


def open_sink(settings: Settings, kinds: Mapping[str, Kind]) -> Sink:
    """The sink `prometheus`, listening on `[prometheus]` host and port.

    Raises:
        siteward.settings.SettingsError: a setting cannot be used, or the address is taken.
    """
    from monitoring.prometheus.sink import PrometheusSink  # noqa: PLC0415  # who only asks Prometheus needs none of it.

    return PrometheusSink(settings.prometheus, kinds)
