"""The store on OpenSearch: an index per kind and period, any number of processes, the same answers as DuckDB's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitoring.stores.opensearch.store import OpenSearchStore
    from siteward.kinds import Kinds
    from siteward.settings import Settings


def open_store(url: str, settings: Settings, kinds: Kinds) -> OpenSearchStore:
    """Open the store of a cluster, chosen by `opensearch://…` or, with TLS, `opensearchs://…`.

    Raises:
        monitoring.stores.StoreError: the cluster does not answer; permanent where the URL, a certificate, or what the
            cluster holds cannot be used.
    """
    from monitoring.stores.opensearch.addresses import address_of, client_of  # noqa: PLC0415  # costs much to import.
    from monitoring.stores.opensearch.store import OpenSearchStore  # noqa: PLC0415  # the same.

    address = address_of(url, settings.monitoring)
    client = client_of(address, settings.monitoring)
    try:
        return OpenSearchStore(client, address.shown, settings.monitoring, kinds)
    except BaseException:
        client.close()
        raise
