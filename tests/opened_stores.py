"""Every implementation of the store contract, empty, for the suites that run on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pytest
from answers import EVENTS, SNAPSHOTS
from examples import JOB
from opensearch_server import SECURE, Nodes, Place

from monitoring.stores import Store
from monitoring.stores.duckdb.shared import SharedStore
from monitoring.stores.duckdb.store import DuckStore
from monitoring.stores.opensearch import bulk
from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.settings import MonitoringSettings

KINDS = {kind.name: kind for kind in (JOB, EVENTS, SNAPSHOTS)}


class Opened(Store, Protocol):
    def close(self) -> None: ...


class Fresh:
    """A store in a place of OpenSearch where whatever was written is found at once, and not within a second."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store = place.open(KINDS)
        self.write = self._store.write
        self.close = self._store.close

    def query(self, query: Query) -> Answer:
        self._place.refresh()
        return self._store.query(query)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        self._place.refresh()
        return self._store.values(kind, field, filters, limit)

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        self._place.refresh()
        return self._store.records(kind, ids=ids, start=start, end=end, filters=filters, limit=limit)

    def forget(self, kind: str, before: datetime) -> int:
        return self._store.forget(kind, before)


def open_direct(folder: Path) -> Iterator[Opened]:
    """DuckDB, in this process."""
    store = DuckStore(folder / "store.duckdb", MonitoringSettings(), KINDS)
    yield store
    store.close()


def open_through_socket(folder: Path) -> Iterator[Opened]:
    """DuckDB, asked through its owner's socket."""
    path = folder / "store.duckdb"
    with (
        SharedStore(path, MonitoringSettings(), KINDS) as owner,
        SharedStore(path, MonitoringSettings(), KINDS) as client,
    ):
        assert owner.is_owner
        assert not client.is_owner
        yield client


def open_on_a_cluster(version: str, nodes: Nodes) -> Iterator[Opened]:
    """OpenSearch, in a place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        # A collector would write again; thirty new indices take a busy machine longer than one write lasts.
        patch.setattr(bulk, "BUDGET", 60.0)
        with closing(Place(nodes.node(version))) as place, closing(Fresh(place)) as store:
            yield store


EMBEDDED: dict[str, Callable[[Path], Iterator[Opened]]] = {
    "duckdb": open_direct,
    "duckdb-socket": open_through_socket,
}
IMPLEMENTATIONS = [
    *EMBEDDED,
    "opensearch-3.3.2",
    pytest.param("opensearch-2.19.3", marks=pytest.mark.soak),
    f"opensearch-{SECURE}",
]


def opened(name: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """An empty store of an implementation."""
    if name in EMBEDDED:
        yield from EMBEDDED[name](folder)
    else:
        yield from open_on_a_cluster(name.removeprefix("opensearch-"), request.getfixturevalue("opensearch_nodes"))
