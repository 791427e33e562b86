"""Kinds of communities with long names and many texts, on every database: what is declared is booked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from examples import batch_of
from ledger_databases import prepared
from sqlalchemy import MetaData
from usage_model import FIRST, LATER
from viewers import answered

from accounting.snapshot_tables import tables_for
from siteward.records import DeclarationError, Kind, kind_from_table, microseconds
from siteward.records.doors import row_from_mapping
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

Open = Callable[[], Database]
LONGEST: Final = 63
"""Characters of a name in PostgreSQL; MariaDB takes one more."""
KIND: Final = "k" * 36
MEASURE: Final = "m" * 54
OPTIONAL: Final[dict[str, Any]] = {"doc": "d", "unit": "1", "optional": True}


def long_kind(**changes: Any) -> Kind:
    """With the longest names that there are, two of which differ in the last character only."""
    table: dict[str, Any] = {
        "doc": "Of long names.",
        "shape": "event",
        "dimensions": {"d" * 63: {"doc": "d"}},
        "measures": {f"{MEASURE}{number}": OPTIONAL for number in (1, 2)},
        "products": {"p" * 55: {"factors": [f"{MEASURE}1", f"{MEASURE}2"], "unit": "1"}},
        "ratios": {"r" * 59: {"numerator": f"{MEASURE}1", "denominator": f"{MEASURE}2", "unit": "1"}},
    }
    return kind_from_table(changes.pop("name", KIND), table | changes)


def counters_kind() -> Kind:
    """Of a shape that has columns of its own."""
    return long_kind(
        shape="snapshot",
        since="s" * 63,
        identity=["d" * 63, "time"],
        measures={f"{MEASURE}1": OPTIONAL | {"counter": True, "optional": False}, f"{MEASURE}2": OPTIONAL},
        ratios={},
    )


@pytest.mark.parametrize(
    "kind", [long_kind(), long_kind(shape="snapshot"), long_kind(shape="interval"), counters_kind()]
)
def test_the_longest_names_fit_into_every_database(kind: Kind) -> None:
    """Of tables, columns and indices of each shape; none is cut to another one's."""
    tables = tables_for(kind, MetaData()).all
    names = [table.name for table in tables] + [str(index.name) for table in tables for index in table.indexes]
    assert max(map(len, names)) <= LONGEST
    for table in tables:
        assert max(len(column.name) for column in table.columns) <= LONGEST


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"name": "k" * 37}, "kind .* has a name of 37 characters; the ledger takes 36"),
        ({"dimensions": {"d" * 64: {"doc": "d"}}}, "field .* has a name of 64 characters; the ledger takes 63"),
        (
            {"measures": {"m" * 56: OPTIONAL}, "products": {}, "ratios": {}},
            "measure .* 56 characters; the ledger takes 55",
        ),
        ({"products": {"p" * 56: {"factors": [f"{MEASURE}1"], "unit": "1"}}}, "product .* takes 55"),
        (
            {"ratios": {"r" * 60: {"numerator": f"{MEASURE}1", "denominator": f"{MEASURE}2", "unit": "1"}}},
            "ratio .* takes 59",
        ),
    ],
)
def test_longer_names_are_refused_when_they_are_declared(changes: dict[str, Any], hint: str) -> None:
    """The same on every database, and before anything is made; a kind that is not booked may have them."""
    with pytest.raises(DeclarationError, match=hint):
        long_kind(**changes)
    assert not long_kind(booked=False, **changes).booked


def booked(open_database: Open, kind: Kind, *records: dict[str, Any], by: tuple[str, ...] = ()) -> Any:
    """What a ledger answers that has some records: the sum of the last measure."""
    ledger = prepared(open_database(), kind, microseconds(LATER))
    given = {"vo": "x", "time": FIRST}
    rows = [row_from_mapping(kind, given | record, microseconds(LATER)) for record in records]
    assert ledger.write(batch_of(kind, rows)).outcomes == [Outcome.STORED] * len(records)
    wanted = (WantedUsage(Quantity.SUM, kind.measures[-1].name),)
    query = UsageQuery(kind=kind.name, wanted=wanted, start=FIRST, end=LATER, attribution=Attribution.BY_END, by=by)
    return answered(ledger, query)


def test_the_longest_names_are_booked(open_database: Open) -> None:
    """And two that are the same up to the last character are two."""
    name = "d" * 63
    records = [{name: "one", f"{MEASURE}1": 1, f"{MEASURE}2": 20}, {name: "two", f"{MEASURE}1": 3}]
    found = booked(open_database, long_kind(), *records, by=(name,))
    assert {row.group: row.values for row in found.rows} == {("one",): (20,), ("two",): (0,)}


@pytest.mark.parametrize(("count", "length", "bucketed"), [(70, 255, True), (20, 1000, True), (70, 255, False)])
def test_many_long_texts_are_booked(open_database: Open, count: int, length: int, bucketed: bool) -> None:  # noqa: FBT001
    """More than one row of MariaDB holds: each to its last character, and told apart by it."""
    dimensions = {
        f"text{number}": {"doc": "d", "max_length": length, "bucketed": bucketed or not number}
        for number in range(count)
    }
    kind = long_kind(
        name="wide", dimensions=dimensions, measures={"used": {"doc": "d", "unit": "1"}}, products={}, ratios={}
    )
    texts = dict.fromkeys(dimensions, "é" * length)
    other = texts | {"text0": "é" * (length - 1) + "e"}
    found = booked(open_database, kind, texts | {"used": 1}, other | {"used": 2}, by=("text0",))
    assert {row.group: row.values for row in found.rows} == {(texts["text0"],): (1,), (other["text0"],): (2,)}


def test_a_kind_becomes_wide(open_database: Open) -> None:
    """What it gains is kept apart from the rows that there are, which stay as they were made."""
    few, many = ({f"text{number}": {"doc": "d", "optional": True} for number in range(count)} for count in (55, 75))
    parts: dict[str, Any] = {"measures": {"used": {"doc": "d", "unit": "1"}}, "products": {}, "ratios": {}}
    parts["identity"] = ["text0", "time"]
    booked(open_database, long_kind(name="wide", dimensions=few, **parts), {"text0": "a", "used": 1})
    wide = long_kind(name="wide", dimensions=many, **parts)
    found = booked(open_database, wide, {"text74": "é" * 255, "used": 2}, by=("text0", "text74"))
    assert {row.group: row.values for row in found.rows} == {("a", ""): (1,), ("", "é" * 255): (2,)}
