"""A kind that gained fields: records of before have the declared defaults, whichever store is asked for whatever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest
from answers import SECOND, Fields
from examples import NOON
from opensearch_server import EACH, Nodes, Place
from questions import LATER, ZERO, assert_answers, batch

from monitoring.stores import Store
from monitoring.stores.duckdb.store import DuckStore
from monitoring.stores.opensearch import question
from siteward.query import Filter, Function, Query, Wanted
from siteward.records import Dimension, Event, Kind, Measure, Product, Snapshot, kind_of
from siteward.settings import MonitoringSettings


class Before(Event, kind="thing", identity=("time", "name")):
    """A thing."""

    name: Annotated[str, Dimension("name")]
    size: Annotated[int, Measure("size", unit="B")]


class After(Event, kind="thing", identity=("time", "name")):
    """A thing of which more is known."""

    name: Annotated[str, Dimension("name")]
    colour: Annotated[str, Dimension("colour")] = ""
    media: Annotated[str, Dimension("media")] = "disk"
    grade: Annotated[int, Dimension("grade")] = 0
    owner: Annotated[str, Dimension("owner; nobody knows whose the older ones are")]
    size: Annotated[int, Measure("size", unit="B")]
    cost: Annotated[int, Measure("cost", unit="B")] = 0
    share: Annotated[int, Measure("share", unit="B")] = 2**53 + 1
    load: Annotated[float, Measure("load", unit="1")] = 0.5
    files: Annotated[int | None, Measure("files", unit="1")] = None
    parts: Annotated[int, Measure("parts", unit="1")] = 2
    area = Product("size", "parts", unit="B")
    length = Product("size", "files", unit="B")


class SeenBefore(Snapshot, kind="seen"):
    """A thing at one instant."""

    name: Annotated[str, Dimension("name")]
    used: Annotated[int, Measure("used", unit="B")]


class SeenAfter(Snapshot, kind="seen"):
    """A thing at one instant, of which more is known."""

    name: Annotated[str, Dimension("name")]
    colour: Annotated[str, Dimension("colour")] = ""
    used: Annotated[int, Measure("used", unit="B")]
    cost: Annotated[int, Measure("cost", unit="B")] = 3
    files: Annotated[int | None, Measure("files", unit="1")] = None


BEFORE = {kind.name: kind for kind in map(kind_of, (Before, SeenBefore))}
AFTER = {kind.name: kind for kind in map(kind_of, (After, SeenAfter))}
THING, SEEN = AFTER["thing"], AFTER["seen"]


class Opened(Store, Protocol):
    def close(self) -> None: ...


Opener = Callable[[Mapping[str, Kind]], Opened]


@pytest.fixture(params=["duckdb", *EACH])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Opener, Callable[[], None]]]:
    """How one store is opened with the kinds of one time, and how what was written is made visible."""
    if request.param == "duckdb":
        yield lambda kinds: DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), kinds), lambda: None
        return
    nodes: Nodes = request.getfixturevalue("opensearch_nodes")
    with closing(Place(nodes.node(request.param))) as place:
        yield place.open, place.refresh


@pytest.fixture
def store(stores: tuple[Opener, Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A store that kept records of both kinds before they gained fields, and after."""

    def refuse(*_: object) -> None:
        pytest.fail("the records were fetched one by one")

    opener, refresh = stores
    for kinds, records in ((BEFORE, OLDER), (AFTER, YOUNGER)):
        with closing(opener(kinds)) as opened:
            for kind in kinds.values():
                opened.write(batch(kind, [record for record in records if record["_kind"] == kind.name]))
    refresh()
    monkeypatch.setattr(question, "ask_streamed", refuse)
    with closing(opener(AFTER)) as opened:
        yield opened


def record(kind: Kind, number: int, **values: Any) -> Fields:
    """One record of a kind, with the defaults of what is not given."""
    time = values.get("time", ZERO + number * SECOND)
    fields: Fields = {column.name: column.default for column in kind.columns}
    fields |= {"_kind": kind.name, "vo": "example", "time": time, "name": f"n{number % 5}", **values}
    return fields | {"_id": (time // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")}


def seen(number: int, minute: int, **values: Any) -> Fields:
    """One record of a cycle of two."""
    cycle = {"producer": "p", "cycle_size": 2, "time": ZERO + minute * 60 * SECOND, "used": 2**53 + number}
    return record(SEEN, number, **cycle, **values)


OLDER = [
    *(record(THING, number, size=2**53 + number) for number in range(12)),
    *(seen(2 * minute + part, minute, name=f"n{part}") for minute in range(4) for part in range(2)),
]
YOUNGER = [
    *(
        record(
            THING,
            number,
            size=number,
            colour=("", "red", "blue")[number % 3],
            media=("disk", "tape")[number % 2],
            grade=number % 4,
            owner=f"o{number % 2}",
            cost=2**53 + number,
            share=number,
            load=number / 8,
            files=number if number % 3 else None,
            parts=number % 3,
        )
        for number in range(12, 40)
    ),
    *(
        seen(2 * minute + part, minute, name=f"n{part}", colour=("", "red")[part], cost=minute, files=minute or None)
        for minute in range(4, 7)
        for part in range(2)
    ),
]
EXACT = ("count", "sum:cost", "mean:cost", "min:cost", "max:cost", "sum:size", "mean:load", "max:load", "sum:files")
GROUPS: Sequence[tuple[str, ...]] = (
    (),
    ("colour",),
    ("media", "colour"),
    ("grade", "owner"),
    ("name", "media", "grade"),
)


def ask(kind: Kind, *wanted: str, **parts: Any) -> Query:
    """A question about the hours after noon."""
    columns = [Wanted(Function(text.partition(":")[0]), text.partition(":")[2]) for text in wanted]
    return Query(kind=kind.name, wanted=tuple(columns), start=NOON, end=LATER, **parts)


def check(store: Store, kind: Kind, query: Query) -> None:
    """Ask, and compare with the plain computation."""
    assert_answers(store.query(query), kind, [each for each in [*OLDER, *YOUNGER] if each["_kind"] == kind.name])


def test_figures_fill_in_defaults(store: Store) -> None:
    """Sums, means, smallest and largest values, groups, the top ones and Other: all without fetching a record."""
    for by in GROUPS:
        for parts in ({}, {"width": 7}, {"top": 1}, {"top": 2, "width": 7}):
            check(store, THING, ask(THING, *EXACT, by=by, **parts))


def test_defaults_that_doubles_cannot_hold_are_exact(store: Store) -> None:
    """A default beyond 2^53 is summed and compared to its last digit."""
    check(store, THING, ask(THING, "sum:share", "mean:share", "min:share", "max:share", by=("colour",)))


def test_percentiles_fill_in_defaults(store: Store) -> None:
    """A record without the measure counts as one that has its default."""
    check(store, THING, ask(THING, "p50:cost", "p90:load", "p50:files", by=("name",)))


FILTERS = [
    Filter("colour", ("",)),
    Filter("colour", ("", "red")),
    Filter("colour", ("red",), negated=True),
    Filter("colour", ("",), negated=True),
    Filter("colour", ("*",), wildcard=True),
    Filter("media", ("d?sk", "x*"), wildcard=True),
    Filter("media", ("*k",), wildcard=True, negated=True),
    Filter("grade", (0, 1)),
    Filter("grade", (0,), negated=True),
    Filter("grade", minimum=0, maximum=1),
    Filter("cost", maximum=0),
    Filter("cost", minimum=1),
    Filter("load", minimum=float("-inf")),
    Filter("load", minimum=0.5, maximum=0.5),
    Filter("files", minimum=0),
    Filter("owner", ("o1",), negated=True),
]


@pytest.mark.parametrize("condition", FILTERS, ids=str)
def test_conditions_meet_defaults(store: Store, condition: Filter) -> None:
    """Whatever accepts a field's default accepts the records of before, in questions, values and single records."""
    check(store, THING, ask(THING, "count", "sum:cost", by=("colour", "grade"), filters=(condition,)))
    asked = ask(THING, "count", by=("media",), filters=(condition,))
    counts = {row.group[0]: row.values[0] or 0 for row in store.query(asked).rows}
    assert store.values("thing", "media", (condition,)) == sorted(counts, key=lambda value: (-counts[value], value))
    assert len(store.records("thing", filters=(condition,))) == sum(counts.values())


def test_values_fill_in_defaults(store: Store) -> None:
    """The records of before count among those with the default; only what has none is unknown."""
    assert store.values("thing", "media") == ["disk", "tape"]
    assert store.values("thing", "grade") == [0, 1, 2, 3]
    assert store.values("thing", "owner") == ["o0", "o1", None]
    assert store.values("thing", "colour", limit=1) == [""]


def test_snapshots_fill_in_defaults(store: Store) -> None:
    """Means over cycles and last values too, also where a series began before its kind gained a dimension."""
    wanted = ("mean:cost", "last:cost", "mean:files", "last:files", "mean:used", "last:used", "max:cost", "count")
    for by in ((), ("colour",), ("colour", "name"), ("name",)):
        for parts in ({}, {"width": 120}, {"top": 1}):
            check(store, SEEN, ask(SEEN, *wanted, by=by, **parts))


def test_what_the_cluster_cannot_put_together_comes_from_the_records(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of a factor that was gained, and percentiles of the group of a default, are exact all the same."""
    monkeypatch.undo()
    for wanted in ("sum:area", "max:area", "p90:cost"):
        check(store, THING, ask(THING, "count", wanted, by=("colour",)))
    check(store, THING, ask(THING, "sum:length", by=("colour",), top=1))
