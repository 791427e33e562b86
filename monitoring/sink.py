"""The sink `monitoring`: batches from the broker go into the monitoring store."""

from __future__ import annotations

from monitoring.stores.opening import open_monitoring
from siteward.kinds import Kinds
from siteward.settings import Settings
from siteward.sinks import Sink


def open_sink(settings: Settings, kinds: Kinds) -> Sink:
    """The monitoring store as a sink: it writes and closes as the contract asks.

    The collector opens it before anybody queries, so that it is usually the collector that owns the file.

    Raises:
        monitoring.stores.StoreError: the store cannot be opened now.
    """
    return open_monitoring(settings, kinds)
