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
    from monitoring.prometheus.promql import open_promql  # noqa: PLC0415  # as the next.
    from monitoring.prometheus.sink import PrometheusSink  # noqa: PLC0415  # who only asks Prometheus needs none of it.
    from siteward.server.auth.watching import Watchers  # noqa: PLC0415  # as the ones before.

    # Nothing is asked yet; an address that cannot be is told now, not with the first question.
    open_promql(settings.prometheus)
    return PrometheusSink(settings.prometheus, kinds, Watchers(settings) if settings.issuers else None)
