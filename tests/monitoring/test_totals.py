"""Properties of answers: equal to a plain computation, and independent of how records came and how they are grouped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from answers import EVENTS, SNAPSHOTS, Fields, expected
from examples import NOON
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import (
    LATER,
    amounts,
    assert_same,
    batch,
    cycles,
    event_filters,
    event_wanted,
    events,
    queries,
    snapshot_wanted,
)

from monitoring.stores.duckdb.store import DuckStore
from siteward.query import Filter, Function, Query, Wanted
from siteward.records import Kind
from siteward.settings import MonitoringSettings

many = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    """One store for all examples; each example empties it."""
    path: Path = tmp_path_factory.mktemp("totals") / "store.duckdb"
    store = DuckStore(path, MonitoringSettings(), {EVENTS.name: EVENTS, SNAPSHOTS.name: SNAPSHOTS})
    yield store
    store.close()


def fill(store: DuckStore, kind: Kind, batches: Sequence[Sequence[Fields]]) -> None:
    store.forget(kind.name, LATER)
    for records in batches:
        store.write(batch(kind, records))


@many
@given(records=events(), query=queries(EVENTS, event_wanted, event_filters))
def test_events_are_answered_as_computed_by_hand(shared: DuckStore, records: list[Fields], query: Query) -> None:
    """Any question about any events has the answer of the plain computation."""
    fill(shared, EVENTS, [records])
    assert_same(shared.query(query), expected(EVENTS, records, query))


@many
@given(records=cycles(), query=queries(SNAPSHOTS, snapshot_wanted, st.sampled_from([(), (Filter("site", ("S",)),)])))
def test_snapshots_are_answered_as_computed_by_hand(shared: DuckStore, records: list[Fields], query: Query) -> None:
    """Any question about any cycles, partial ones too, has the answer of the plain computation."""
    fill(shared, SNAPSHOTS, [records])
    assert_same(shared.query(query), expected(SNAPSHOTS, records, query))


@many
@given(
    records=events(),
    by=st.lists(st.sampled_from([column.name for column in EVENTS.dimensions]), unique=True),
    width=st.sampled_from([0, 1, 61, 3600, 86_400, 604_800]),
    top=st.integers(0, 3),
)
def test_totals_do_not_depend_on_grouping_width_or_top(
    shared: DuckStore, records: list[Fields], by: list[str], width: int, top: int
) -> None:
    """The rows' sums and counts add up to the totals, and these to the records, whatever the question's form."""
    fill(shared, EVENTS, [records])
    wanted = (Wanted(Function.COUNT), Wanted(Function.SUM, "amount"), Wanted(Function.SUM, "area"))
    query = Query(kind=EVENTS.name, wanted=wanted, start=NOON, end=LATER, by=tuple(by), width=width, top=top)
    answer = shared.query(query)
    for place in range(3):
        known = [row.values[place] for row in answer.rows if row.values[place] is not None]
        assert sum(value for value in known if value is not None) == (answer.totals[place] or 0)
    assert answer.totals[:2] == (len(records), sum(record["amount"] for record in records) if records else None)


@many
@given(records=events(), data=st.data())
def test_totals_do_not_depend_on_how_records_came(
    shared: DuckStore, records: list[Fields], data: st.DataObject
) -> None:
    """Order, batching, repetition and outdated revisions, before or after the newest, change no answer."""
    newest = [{**record, "revision": 5} for record in records]
    sent = newest + data.draw(st.lists(st.sampled_from(newest), max_size=10) if newest else st.just([]))
    for record in data.draw(st.lists(st.sampled_from(records), max_size=10) if records else st.just([])):
        sent.append({**record, "amount": data.draw(amounts), "revision": data.draw(st.integers(0, 4))})
    sent = data.draw(st.permutations(sent))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(sent)), max_size=4)) | {0, len(sent)})
    fill(shared, EVENTS, [sent[low:high] for low, high in pairwise(cuts)])
    query = Query(
        kind=EVENTS.name,
        wanted=(Wanted(Function.COUNT), Wanted(Function.SUM, "amount"), Wanted(Function.MEAN, "area")),
        start=NOON,
        end=LATER,
        by=("site", "good"),
        width=3600,
    )
    assert_same(shared.query(query), expected(EVENTS, newest, query))
