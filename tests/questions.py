"""Records and questions of every sort, for properties of answers, and how answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from answers import SECOND, Fields, above, below, expected
from examples import NOON
from hypothesis import strategies as st
from msgspec import structs

from siteward.query import Answer, Filter, Function, Query, Value, Wanted
from siteward.records import Kind, microseconds
from siteward.sinks import Batch

ZERO = microseconds(NOON)
LATER = NOON + timedelta(days=400)


def batch(kind: Kind, records: Sequence[Fields]) -> Batch:
    return Batch(
        kind=kind,
        ids=[record["_id"] for record in records],
        columns={name: [record[name] for record in records] for name in kind.names},
        producers=["test"] * len(records),
        messages=[b"\0" * 16] * len(records),
        received=ZERO,
    )


times = (st.integers(0, 600) | st.integers(0, 3 * 86_400)).map(lambda second: ZERO + second * SECOND)
amounts = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-50, 50))


@st.composite
def events(draw: st.DrawFn) -> list[Fields]:
    """Different events, with amounts that doubles hold, that they hold one by one, or of any size."""
    most = draw(st.sampled_from([50, 2**52, 0]))
    sizes = st.integers(draw(st.sampled_from([0, -most])), most) | st.just(most) if most else amounts
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
                    "amount": sizes,
                    "factor": st.none() | st.integers(0, 1000),
                    "weight": st.none() | st.floats(-1000, 1000),
                    "simulated": st.just(value=False),
                    "revision": st.just(0),
                }
            ),
            min_size=draw(st.sampled_from([0, 8])),
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
    min_size=1,
    max_size=4,
)
snapshot_wanted = st.lists(
    st.builds(
        Wanted,
        st.sampled_from([Function.MEAN, Function.LAST, Function.MIN, Function.MAX, Function.P90]),
        st.sampled_from(["used", "files", "level", "limit", "peak"]),
    ),
    min_size=1,
    max_size=4,
)
event_filters = st.sampled_from(
    [
        (),
        (Filter("site", ("S", "")),),
        (Filter("code", (1, 2), negated=True),),
        (Filter("code", (None, 1)),),
        (Filter("code", (None,), negated=True), Filter("good", (None, False))),
        (Filter("good", (True,)), Filter("amount", minimum=-10, maximum=2**62)),
        (Filter("name", ("?%", "*_*"), wildcard=True),),
        (Filter("weight", maximum=0.5),),
    ]
)


@st.composite
def queries(draw: st.DrawFn, kind: Kind, wanted: st.SearchStrategy[Any], filters: st.SearchStrategy[Any]) -> Query:
    """Any question about a kind, ranked by any of its columns."""
    dimensions = [column.name for column in kind.dimensions]
    start = NOON + timedelta(seconds=draw(st.integers(-100, 500)))
    return Query(
        kind=kind.name,
        wanted=tuple(draw(st.permutations([Wanted(Function.COUNT), *draw(wanted)]))),
        start=start,
        end=start + timedelta(seconds=draw(st.sampled_from([1, 150, 90_000, 400_000, 400_000]))),
        by=tuple(draw(st.lists(st.sampled_from(dimensions), unique=True, max_size=3))),
        filters=draw(filters),
        width=draw(st.sampled_from([0, 60, 7, 3600, 86_400])),
        top=draw(st.sampled_from([0, 1, 2])),
    )


def is_blurred(kind: Kind, records: Sequence[Fields], query: Query) -> bool:
    """Whether groups at the cut differ by no more than the last digits of their floats, in which stores may differ."""
    if not query.top or not query.by:
        return False
    asked = structs.replace(query, wanted=query.wanted[:1], width=0, top=0)
    values = sorted(row.values[0] for row in expected(kind, records, asked).rows if row.values[0] is not None)
    if len(values) <= query.top:
        return False
    first, last = values[-query.top - 1 : -query.top + 1 or None]
    return isinstance(first, float) and first == pytest.approx(last, rel=1e-9, abs=1e-6)


def assert_same(found: Answer, wanted: Answer) -> None:
    """Integers exactly, floats but for the last digits."""
    assert _cells(found) == _cells(wanted)
    assert found.groups == wanted.groups
    for have, want in zip(_values(found), _values(wanted), strict=True):
        for value, due in zip(have, want, strict=True):
            assert_equal(value, due)


def assert_answers(found: Answer, kind: Kind, records: Sequence[Fields]) -> None:
    """The plain computation's answer, and percentiles within the error that the answer states."""
    exact = expected(kind, records, found.query)
    if not found.errors:
        assert_same(found, exact)
        return
    low, high = (expected(kind, records, found.query, neighbour) for neighbour in (below, above))
    assert _cells(found) == _cells(exact)
    assert found.groups == exact.groups
    for rows in zip(_values(found), _values(exact), _values(low), _values(high), strict=True):
        for value, due, least, most, error in zip(*rows, found.errors, strict=True):
            if not error or value is None or least is None or most is None:
                assert_equal(value, due)
            else:
                assert least * (1 - error) <= value <= most * (1 + error)


def assert_equal(value: Value, due: Value) -> None:
    """One value."""
    if isinstance(value, int) or due is None:
        assert value == due
    else:
        assert value == pytest.approx(due, rel=1e-9, abs=1e-6)


def _cells(answer: Answer) -> list[tuple[Any, ...]]:
    return [(row.time, row.group, row.other) for row in answer.rows]


def _values(answer: Answer) -> list[tuple[Value, ...]]:
    return [*(row.values for row in answer.rows), answer.totals]
