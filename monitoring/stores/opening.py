"""The monitoring store that the settings name."""

from __future__ import annotations

from typing import Protocol

from monitoring.stores import Store
from siteward import extensions
from siteward.kinds import Kinds
from siteward.settings import Settings


class OpenedStore(Store, Protocol):
    """A store that this process has opened and closes again."""

    def close(self) -> None:
        """Let go of files and connections; may be called twice."""


def open_monitoring(settings: Settings, kinds: Kinds) -> OpenedStore:
    """Open the store, chosen by the scheme of `monitoring.url`.

    Raises:
        monitoring.stores.StoreError: it cannot be opened.
        siteward.extensions.ExtensionError: no store is installed for the scheme.
    """
    url = settings.monitoring_url
    store: OpenedStore = extensions.load("siteward.stores", url.partition("://")[0])(url, settings, kinds)
    return store
