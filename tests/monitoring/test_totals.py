"""Properties of answers: equal to a plain computation, and independent of how records came and how they are grouped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from answers import EVENTS, SECOND, SNAPSHOTS, Fields, expected
from examples import NOON
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.stores.duckdb.store import DuckStore
from siteward.query import Answer, AnswerRow, Filter, Function, Query, Value, Wanted
from siteward.records import Kind, microseconds
from siteward.settings import MonitoringSettings
from siteward.sinks import Batch

ZERO = microseconds(NOON)
LATER = NOON + timedelta(days=400)
many = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    """One store for all examples; each example empties it."""
    path: Path = tmp_path_factory.mktemp("totals") / "store.duckdb"
    store = DuckStore(path, MonitoringSettings(), {EVENTS.name: EVENTS, SNAPSHOTS.name: SNAPSHOTS})
    yield store
    store.close()


def batch(kind: Kind, records: Sequence[Fields]) -> Batch:
    return Batch(
        kind=kind,
        ids=[record["_id"] for record in records],
        columns={name: [record[name] for record in records] for name in kind.names},
        producers=["test"] * len(records),
        messages=[b"\0" * 16] * len(records),
        received=ZERO,
    )


def fill(store: DuckStore, kind: Kind, batches: Sequence[Sequence[Fields]]) -> None:
    store.forget(kind.name, LATER)
    for records in batches:
        store.write(batch(kind, records))


times = st.integers(0, 3 * 86_400).map(lambda second: ZERO + second * SECOND)
amounts = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-50, 50))


@st.composite
def events(draw: st.DrawFn) -> list[Fields]:
    """Different events."""
    records: list[Fields] = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "vo": st.sampled_from(["one", "two"]),
                    "time": times,
                    "name": st.sampled_from(["a", "b", "c%", "d_d"]),
                    "site": st.sampled_from(["", "S", "T"]),
                    "good": st.none() | st.booleans(),
                    "code": st.none() | st.integers(-2, 2),
                    "amount": amounts,
                    "factor": st.none() | st.integers(0, 1000),
                    "weight": st.none() | st.floats(-1000, 1000),
                    "simulated": st.just(value=False),
                    "revision": st.just(0),
                }
            ),
            max_size=25,
        )
    )
    for number, record in enumerate(records):
        record["_id"] = (record["time"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")
    return records


@st.composite
def cycles(draw: st.DrawFn) -> list[Fields]:
    """Cycles of two producers, some of them partial, some without one of their series."""
    records: list[Fields] = []
    for producer in ("p", "q"):
        for minute in draw(st.sets(st.integers(0, 6), max_size=5)):
            series = draw(st.sets(st.tuples(st.sampled_from("ST"), st.sampled_from("abc")), min_size=1))
            size = len(series) + draw(st.sampled_from([0, 0, 0, 1]))
            for site, element in sorted(series):
                time = ZERO + minute * 60 * SECOND
                records.append(
                    {
                        "_id": (time // 1000).to_bytes(6, "big") + len(records).to_bytes(10, "big"),
                        "vo": draw(st.sampled_from(["one", "two"])),
                        "time": time,
                        "producer": producer,
                        "cycle_size": size,
                        "site": site,
                        "element": element,
                        "used": draw(st.integers(0, 2**60)),
                        "files": draw(st.none() | st.integers(0, 10)),
                        "level": draw(st.floats(0, 10)),
                        "limit": draw(st.integers(0, 10)),
                        "peak": draw(st.integers(0, 10)),
                        "simulated": False,
                        "revision": 0,
                    }
                )
    return records


event_wanted = st.lists(
    st.one_of(
        st.just(Wanted(Function.COUNT)),
        st.builds(
            Wanted,
            st.sampled_from([f for f in Function if f not in {Function.COUNT, Function.LAST}]),
            st.sampled_from(["amount", "factor", "weight", "area"]),
        ),
    ),
    max_size=4,
)
snapshot_wanted = st.lists(
    st.builds(
        Wanted,
        st.sampled_from([Function.MEAN, Function.LAST, Function.MIN, Function.MAX, Function.P90]),
        st.sampled_from(["used", "files", "level", "limit", "peak"]),
    ),
    max_size=4,
)
event_filters = st.sampled_from(
    [
        (),
        (Filter("site", ("S", "")),),
        (Filter("code", (1, 2), negated=True),),
        (Filter("good", (True,)), Filter("amount", minimum=-10, maximum=2**62)),
        (Filter("name", ("?%", "*_*"), wildcard=True),),
        (Filter("weight", maximum=0.5),),
    ]
)


@st.composite
def queries(draw: st.DrawFn, kind: Kind, wanted: st.SearchStrategy[Any], filters: st.SearchStrategy[Any]) -> Query:
    """Any question about a kind; ranked by the count, which floats cannot blur."""
    dimensions = [column.name for column in kind.dimensions]
    start = NOON + timedelta(seconds=draw(st.integers(-100, 500)))
    return Query(
        kind=kind.name,
        wanted=(Wanted(Function.COUNT), *draw(wanted)),
        start=start,
        end=start + timedelta(seconds=draw(st.sampled_from([1, 150, 90_000, 400_000]))),
        by=tuple(draw(st.lists(st.sampled_from(dimensions), unique=True, max_size=3))),
        filters=draw(filters),
        width=draw(st.sampled_from([0, 60, 7, 3600, 86_400])),
        top=draw(st.sampled_from([0, 1, 2])),
    )


def assert_same(found: Answer, wanted: Answer) -> None:
    """Integers exactly, floats but for the last digits."""
    assert [(row.time, row.group, row.other) for row in found.rows] == [
        (row.time, row.group, row.other) for row in wanted.rows
    ]
    have_rows: list[AnswerRow | tuple[Value, ...]] = [*found.rows, found.totals]
    want_rows: list[AnswerRow | tuple[Value, ...]] = [*wanted.rows, wanted.totals]
    for have, want in zip(have_rows, want_rows, strict=True):
        for value, due in zip(_values(have), _values(want), strict=True):
            if isinstance(value, int) or due is None:
                assert value == due
            else:
                assert value == pytest.approx(due, rel=1e-9, abs=1e-6)
    assert found.groups == wanted.groups


def _values(row: AnswerRow | tuple[Value, ...]) -> tuple[Value, ...]:
    return row if isinstance(row, tuple) else row.values


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
