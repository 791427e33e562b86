"""DuckDB, OpenSearch and the plain computation answer the same questions about the same records alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import pytest
from answers import EVENTS, SNAPSHOTS, Fields
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from opensearch_server import EACH, Nodes, Place
from questions import (
    LATER,
    assert_answers,
    batch,
    cycles,
    event_filters,
    event_wanted,
    events,
    is_blurred,
    queries,
    snapshot_wanted,
)

from monitoring.stores.duckdb.store import DuckStore
from monitoring.stores.opensearch.store import OpenSearchStore
from siteward.query import Filter, Query
from siteward.records import Kind
from siteward.settings import MonitoringSettings

KINDS: Final = {kind.name: kind for kind in (EVENTS, SNAPSHOTS)}
few = settings(max_examples=40, deadline=None, derandomize=True, database=None)
"""The same examples each time: a change is never blamed for what it did not do."""
many = settings(few, max_examples=400, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
"""Other examples each time; one that fails is printed with the decorator that draws it again."""
some_events = {"records": events(), "query": queries(EVENTS, event_wanted, event_filters)}
some_cycles = {
    "records": cycles(),
    "query": queries(SNAPSHOTS, snapshot_wanted, st.sampled_from([(), (Filter("site", ("S",)),)])),
}


class Both:
    """The same records in both stores."""

    def __init__(self, duckdb: DuckStore, opensearch: OpenSearchStore, place: Place) -> None:
        self._stores = duckdb, opensearch
        self._place = place

    def fill(self, kind: Kind, records: Sequence[Fields]) -> None:
        """Hold these records only."""
        self._stores[0].forget(kind.name, LATER)
        for index in self._place.indices():
            self._place.ask("DELETE", f"/{index}")
        for store in self._stores:
            store.write(batch(kind, records))
        self._place.refresh()

    def check(self, kind: Kind, records: Sequence[Fields], query: Query) -> None:
        """Ask both; not where the last digits of floats would choose the top groups."""
        assume(not is_blurred(kind, records, query))
        self.fill(kind, records)
        for store in self._stores:
            assert_answers(store.query(query), kind, records)


def opened(version: str, nodes: Nodes, folder: pytest.TempPathFactory) -> Iterator[Both]:
    with (
        closing(Place(nodes.node(version))) as place,
        closing(place.open(KINDS)) as opensearch,
        closing(DuckStore(folder.mktemp("both") / "store.duckdb", MonitoringSettings(), KINDS)) as duckdb,
    ):
        yield Both(duckdb, opensearch, place)


@pytest.fixture(scope="module")
def both(opensearch_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two stores that every example fills anew."""
    yield from opened("3.3.2", opensearch_nodes, tmp_path_factory)


@pytest.fixture(scope="module", params=EACH)
def each(
    request: pytest.FixtureRequest, opensearch_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """The same with each version."""
    yield from opened(request.param, opensearch_nodes, tmp_path_factory)


@few
@given(**some_events)
def test_events_are_answered_alike(both: Both, records: list[Fields], query: Query) -> None:
    """Any question about any events has one answer, whichever store is asked."""
    both.check(EVENTS, records, query)


@few
@given(**some_cycles)
def test_snapshots_are_answered_alike(both: Both, records: list[Fields], query: Query) -> None:
    """Any question about any cycles, partial ones too, has one answer, whichever store is asked."""
    both.check(SNAPSHOTS, records, query)


@pytest.mark.soak
@many
@given(**some_events)
def test_many_events_are_answered_alike(each: Both, records: list[Fields], query: Query) -> None:
    """The same, for long and with every version."""
    each.check(EVENTS, records, query)


@pytest.mark.soak
@many
@given(**some_cycles)
def test_many_snapshots_are_answered_alike(each: Both, records: list[Fields], query: Query) -> None:
    """The same, for long and with every version."""
    each.check(SNAPSHOTS, records, query)
