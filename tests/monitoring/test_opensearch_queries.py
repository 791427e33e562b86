"""Asking OpenSearch where it would rather give less: every group, every record, every digit, or a refusal in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from answers import EVENTS, SECOND, SNAPSHOTS, Fields
from examples import NOON
from msgspec import structs
from opensearch_server import EACH, Nodes, Place
from questions import ZERO, assert_answers, assert_same, batch

from monitoring.stores import StoreError
from monitoring.stores.duckdb.store import DuckStore
from monitoring.stores.opensearch import cycles, question, ranking, streaming
from monitoring.stores.opensearch.aggregations import ERROR
from monitoring.stores.opensearch.conditions import (
    KEPT_CLAUSES,
    MOST_TERMS,
    Clause,
    among,
    count_clauses,
    in_groups,
    meeting,
)
from monitoring.stores.opensearch.indices import months, path_of
from monitoring.stores.opensearch.store import OpenSearchStore
from monitoring.stores.opensearch.totals import EXACT, Inexact, split_sum, whole_extreme, whole_sum
from monitoring.stores.opensearch.view import View
from monitoring.stores.questions import check_filters
from siteward.query import Answer, Filter, Function, Query, QueryError, Value, Wanted
from siteward.records import Kind, kind_from_table
from siteward.settings import MonitoringSettings

LIKE: dict[str, Any] = {"doc": "Like the other.", "shape": "event", "dimensions": {"name": {"doc": "name"}}}
KINDS = {kind.name: kind for kind in (EVENTS, SNAPSHOTS)}
LARGEST = 2**63 - 1


@pytest.fixture(scope="module", params=EACH)
def node_place(request: pytest.FixtureRequest, opensearch_nodes: Nodes) -> Iterator[Place]:
    """A place for all tests of this file."""
    with closing(Place(opensearch_nodes.node(request.param))) as place:
        yield place


@pytest.fixture
def place(node_place: Place) -> Iterator[Place]:
    """The place without any index."""
    yield node_place
    for index in node_place.indices():
        node_place.ask("DELETE", f"/{index}")


@pytest.fixture
def store(place: Place) -> Iterator[OpenSearchStore]:
    """An empty store."""
    with closing(place.open(KINDS)) as store:
        yield store


def event(number: int, **changes: Any) -> Fields:
    """One event, by default a second after the one before it."""
    fields: Fields = {column.name: column.default for column in EVENTS.columns}
    fields |= {"vo": "example", "time": ZERO + number * SECOND, "name": f"n{number}", "amount": number, **changes}
    return fields | {"_id": (fields["time"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")}


def snapshot(number: int, producer: str, minute: int, size: int, **values: Any) -> Fields:
    """One record of a cycle."""
    fields: Fields = {column.name: column.default for column in SNAPSHOTS.columns}
    fields |= {"vo": "example", "site": "S", "element": f"e{number}", "producer": producer, "cycle_size": size}
    fields |= {"time": ZERO + minute * 60 * SECOND, "used": number, "level": 0.0, "limit": number, "peak": 0, **values}
    return fields | {"_id": (fields["time"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")}


def fill(store: OpenSearchStore, place: Place, kind: Kind, records: Sequence[Fields]) -> None:
    store.write(batch(kind, records))
    place.refresh()


def query_of(kind: Kind, *wanted: str, **parts: Any) -> Query:
    """A question about the days around noon."""
    columns = [Wanted(Function(text.partition(":")[0]), text.partition(":")[2]) for text in wanted]
    window = {"start": NOON - timedelta(days=1), "end": NOON + timedelta(days=1)}
    return Query(kind=kind.name, wanted=tuple(columns), **window | parts)


def check(store: OpenSearchStore, kind: Kind, records: Sequence[Fields], query: Query) -> Answer:
    """Ask, and compare with the plain computation."""
    answer = store.query(query)
    assert_answers(answer, kind, list(records))
    return answer


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the records are fetched one by one."""

    def refuse(*_: object) -> None:
        pytest.fail("the records were fetched one by one")

    monkeypatch.setattr(question, "ask_streamed", refuse)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of very few buckets and records, and few clauses at once."""
    monkeypatch.setattr("monitoring.stores.opensearch.aggregations.MOST_BUCKETS", 3)
    monkeypatch.setattr("monitoring.stores.opensearch.aggregations.MOST_SKETCHES", 2)
    monkeypatch.setattr("monitoring.stores.opensearch.snapshots.MOST_CLAUSES", 12)
    monkeypatch.setattr("monitoring.stores.opensearch.asking.MOST_HITS", 3)
    monkeypatch.setattr("monitoring.stores.opensearch.asking.LEAST_HITS", 1)
    monkeypatch.setattr("monitoring.stores.opensearch.conditions.MOST_TERMS", 4)


@pytest.mark.usefixtures("small_pages", "computed")
def test_every_group_is_found_whatever_the_page(store: OpenSearchStore, place: Place) -> None:
    """Groups go on over pages, unknown values at a page's end included; top-N and Other are exact."""
    records = [
        event(n, site=f"S{n % 5}", good=n % 7 > 3 if n % 7 else None, code=None if n % 3 else n % 4, factor=n)
        for n in range(60)
    ]
    fill(store, place, EVENTS, records)
    for by in (("site", "code"), ("name",), ("code", "good"), ("good", "site")):
        for top in (0, 4):
            for width in (0, 11):
                wanted = ("sum:amount", "p90:factor", "mean:factor", "max:area", "count")
                check(store, EVENTS, records, query_of(EVENTS, *wanted, by=by, top=top, width=width))


def test_more_groups_than_a_terms_aggregation_has(store: OpenSearchStore, place: Place) -> None:
    """Twelve thousand groups, more than one page: all are counted, the top is exact, and Other has the rest."""
    records = [event(n, name=f"n{n}") for n in range(12_000)]
    fill(store, place, EVENTS, records)
    answer = store.query(query_of(EVENTS, "sum:amount", "count", by=("name",), top=2))
    assert [row.values for row in answer.rows] == [(11_998, 1), (11_999, 1), (sum(range(11_998)), 11_998)]
    assert (answer.groups, answer.totals) == (12_000, (sum(range(12_000)), 12_000))
    assert len(store.query(query_of(EVENTS, "count", by=("name",))).rows) == 12_000
    assert len(store.values(EVENTS.name, "name", limit=11_000)) == 11_000
    assert len(store.records(EVENTS.name, limit=11_000)) == 11_000


@pytest.mark.usefixtures("small_pages")
def test_records_of_one_instant_are_cut_by_their_ids(store: OpenSearchStore, place: Place) -> None:
    """Where the limit falls among records of the same instant, those with the largest ids come first."""
    records = [event(n, time=ZERO + n // 8 * SECOND) for n in range(40)]
    fill(store, place, EVENTS, records)
    ordered = sorted(records, key=lambda record: (record["time"], record["_id"]), reverse=True)
    for limit in (1, 2, 3, 5, 8, 9, 20, 39, 40, 100):
        found = store.records(EVENTS.name, limit=limit)
        assert [record.id for record in found] == [record["_id"].hex() for record in ordered[:limit]]


@pytest.mark.usefixtures("computed")
def test_sums_of_bytes_are_exact_beyond_doubles(store: OpenSearchStore, place: Place) -> None:
    """Sums, means, smallest and largest values beyond 2^53 are exact without fetching a record."""
    records = [event(n, amount=LARGEST - n, site=f"S{n % 2}") for n in range(9)]
    records += [event(n, amount=-(2**63) + n, site="T") for n in range(9, 11)]
    fill(store, place, EVENTS, records)
    wanted = ("sum:amount", "mean:amount", "min:amount", "max:amount")
    answer = check(store, EVENTS, records, query_of(EVENTS, *wanted, by=("site",), top=2, width=3600))
    assert answer.totals[0] == sum(record["amount"] for record in records)
    assert answer.totals[2:] == (-(2**63) + 9, LARGEST)
    assert answer.errors == ()


def test_what_a_cluster_cannot_compute_is_computed_from_the_records(store: OpenSearchStore, place: Place) -> None:
    """Products beyond 64 bits, large sums of what is no number of bytes, percentiles below zero: exact all the same."""
    records = [event(n, amount=LARGEST - n, factor=2**60 + n, site=f"S{n % 3}") for n in range(10)]
    fill(store, place, EVENTS, records)
    for wanted in ("sum:area", "max:area", "sum:factor", "p50:amount"):
        assert check(store, EVENTS, records, query_of(EVENTS, wanted, by=("site",), top=1)).errors == ()


def test_percentiles_say_how_far_they_may_be_off(store: OpenSearchStore, place: Place) -> None:
    """A percentile lies within the stated error of its neighbours, whole groups and Other alike; the rest is exact."""
    records = [event(n, factor=n**3 if n % 4 else 0, site=f"S{n % 5}") for n in range(300)]
    fill(store, place, EVENTS, records)
    wanted = ("sum:factor", "p50:factor", "p90:factor", "p95:factor", "p99:factor")
    answer = check(store, EVENTS, records, query_of(EVENTS, *wanted, by=("site",), top=2))
    assert answer.errors == (0.0, ERROR, ERROR, ERROR, ERROR)
    assert store.query(query_of(EVENTS, "sum:factor")).errors == ()


@pytest.mark.parametrize(
    "levels", [[10.0 ** (-8 * n) for n in range(5)], [5e-324, 9.0, 1e-98, 2e-309, 7.0]], ids=["far apart", "tiny"]
)
def test_percentiles_of_values_too_far_apart_are_exact(
    store: OpenSearchStore, place: Place, levels: Sequence[float]
) -> None:
    """Where no histogram covers the values, the records themselves are asked."""
    records = [snapshot(n, "p", n, 1, level=level) for n, level in enumerate(levels)]
    fill(store, place, SNAPSHOTS, records)
    assert check(store, SNAPSHOTS, records, query_of(SNAPSHOTS, "p90:level")).errors == ()


def test_too_many_records_for_an_exact_answer_are_refused(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are fetched up to a limit; beyond it the question is refused with what to do."""
    monkeypatch.setattr(streaming, "MOST_RECORDS", 5)
    fill(store, place, EVENTS, [event(n) for n in range(6)])
    assert store.query(query_of(EVENTS, "p50:amount", end=NOON + timedelta(seconds=5))).totals == (2.0,)
    with pytest.raises(QueryError, match=r"needs 6 records one by one.*shorter window"):
        store.query(query_of(EVENTS, "p50:amount"))


def test_too_many_rows_or_cycles_are_refused(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody reads, or cycles without end, are errors that say so."""
    monkeypatch.setattr(question, "MOST_ROWS", 5)
    monkeypatch.setattr("monitoring.stores.answers.MOST_ROWS", 5)
    monkeypatch.setattr(cycles, "MOST_CYCLES", 5)
    fill(store, place, EVENTS, [event(n) for n in range(6)])
    fill(store, place, SNAPSHOTS, [snapshot(0, "p", minute, 1) for minute in range(6)])
    with pytest.raises(QueryError, match="more than 5 rows"):
        store.query(query_of(EVENTS, "count", by=("name",)))
    with pytest.raises(QueryError, match="more than 5 cycles"):
        store.query(query_of(SNAPSHOTS, "mean:used"))


@pytest.mark.usefixtures("small_pages", "computed")
def test_many_producers_with_partial_cycles(store: OpenSearchStore, place: Place) -> None:
    """Cycles of many producers, each with gaps of its own, are kept apart whatever the number of requests."""
    records = [
        snapshot(10 * producer + element, f"p{producer}", minute, 2 + (producer == minute), files=minute or None)
        for producer in range(5)
        for minute in range(producer, 6)
        for element in range(2)
    ]
    for number, record in enumerate(records):
        record["_id"] = record["_id"][:6] + number.to_bytes(10, "big")
    fill(store, place, SNAPSHOTS, records)
    wanted = ("mean:used", "last:used", "mean:files", "last:files", "last:limit", "last:level", "last:peak", "count")
    for parts in ({"by": ("element",)}, {"by": ("producer",), "width": 120}, {"by": ("element",), "top": 3}):
        assert check(store, SNAPSHOTS, records, query_of(SNAPSHOTS, *wanted, **parts)).incomplete == 5


@pytest.mark.usefixtures("computed")
def test_more_groups_and_producers_than_one_request_takes(store: OpenSearchStore, place: Place) -> None:
    """Hundreds of top groups and of producers with cycles of their own fit into the clauses that a request may have."""
    records = [snapshot(n, f"p{n}", n, 1 + (n % 9 == 0)) for n in range(480)]
    fill(store, place, SNAPSHOTS, records)
    for top in (199, 3):
        parts = {"by": ("producer", "element"), "top": top, "filters": (Filter("used", minimum=1),)}
        answer = check(store, SNAPSHOTS, records, query_of(SNAPSHOTS, "last:used", "mean:used", "count", **parts))
        assert answer.incomplete == 54


@pytest.mark.usefixtures("small_pages", "computed")
def test_more_top_groups_than_one_request_takes(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that all groups are walked, and those of Other put together: events, cycles and their last values."""
    monkeypatch.setattr(question, "MOST_CLAUSES", KEPT_CLAUSES + 6)
    records = [event(n, site=f"S{n}", factor=n if n % 4 else None, weight=n / 8) for n in range(40)]
    fill(store, place, EVENTS, records)
    wanted = (
        "sum:amount",
        "mean:amount",
        "min:factor",
        "max:area",
        "sum:weight",
        "mean:factor",
        "count",
        "rate:amount",
    )
    for parts in ({}, {"width": 7}, {"width": 86_400}):
        check(store, EVENTS, records, query_of(EVENTS, *wanted, by=("name", "site"), top=30, **parts))
    cycles_ = [
        snapshot(
            10 * minute + n,
            f"p{n % 2}",
            minute,
            5 + (minute == n == 1),
            element=f"e{n}",
            site=f"S{minute if n > 6 else 0}",
            files=None if (minute + n) % 3 else n,
            peak=n,
        )
        for minute in range(4)
        for n in range(10)
    ]
    fill(store, place, SNAPSHOTS, cycles_)
    lasts = ("count", "mean:used", "last:used", "mean:files", "last:files", "last:limit", "last:level", "last:peak")
    for parts in ({}, {"width": 120}):
        check(store, SNAPSHOTS, cycles_, query_of(SNAPSHOTS, *lasts, by=("element", "site"), top=8, **parts))


def test_thousands_of_top_groups_and_an_exact_other(
    store: OpenSearchStore, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20,000 groups over three dimensions any number may be the top ones: DuckDB's answer, and no record fetched."""
    monkeypatch.setattr(streaming, "MOST_RECORDS", 5)
    records = [
        event(
            n % 3600 * 10 + n % 7,
            name=f"n{n % 50}",
            site=f"S{n // 50 % 20}",
            code=n // 1000 % 20 or None,
            amount=2**50 + n * n % 9973,
            factor=n % 5 or None,
            _id=(ZERO // 1000).to_bytes(6, "big") + n.to_bytes(10, "big"),
        )
        for n in range(25_000)
    ]
    fill(store, place, EVENTS, records)
    wanted = ("sum:amount", "count", "mean:amount", "min:amount", "max:amount", "sum:factor", "max:area")
    with closing(DuckStore(tmp_path / "same.duckdb", MonitoringSettings(), KINDS)) as duckdb:
        duckdb.write(batch(EVENTS, records))
        for parts in ({"top": 500}, {"top": 5000}, {"top": 500, "width": 3 * 3600}):
            asked = query_of(EVENTS, *wanted, by=("name", "site", "code"), **parts)
            answer = store.query(asked)
            assert answer.groups == 20_000
            assert_same(answer, duckdb.query(asked))


def test_groups_are_ranked_by_exact_percentiles(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups whose percentiles no histogram tells apart are ranked by their records, and by no others."""
    fetched: list[int] = []
    ask = streaming.ask_streamed

    def counted(view: View, asked: Query, clauses: Sequence[Clause]) -> Answer:
        answer = ask(view, asked, clauses)
        fetched.append(answer.groups)
        return answer

    monkeypatch.setattr(ranking, "ask_streamed", counted)
    near = [event(n, site=f"S{n % 9}", factor=1_000_000 + n % 9 + n // 9) for n in range(270)]
    far = [event(270 + n, site=f"T{n % 2}", factor=n % 2 * 10**7) for n in range(2 * ranking.ENOUGH)]
    unknown = [event(2000, site="U", factor=None)]
    records = [*near, *far, *unknown]
    fill(store, place, EVENTS, records)
    for top in (1, 3, 9, 10, 11, 12):
        check(store, EVENTS, records, query_of(EVENTS, "p50:factor", "count", by=("site",), top=top))
    assert fetched == [9, 9], "the group far above and those far below need no look, nor does the whole of what is near"


def test_beyond_the_limit_histograms_rank(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too many records are near the cut the ranking is as exact as its column, whose error the answer states."""
    monkeypatch.setattr(streaming, "MOST_RECORDS", 5)
    records = [event(n, site=f"S{n % 9}", factor=1_000_000 + n % 9 + n // 9) for n in range(270)]
    fill(store, place, EVENTS, records)
    answer = store.query(query_of(EVENTS, "p50:factor", "count", by=("site",), top=3))
    assert answer.errors == (ERROR, 0.0)
    assert (answer.groups, [row.values[1] for row in answer.rows]) == (9, [30, 30, 30, 180])


def test_rows_and_totals_are_of_one_state(store: OpenSearchStore, place: Place) -> None:
    """While records arrive, the rows of every answer add up to its totals."""
    fill(store, place, EVENTS, [event(0)])
    stop = Event()

    def write() -> None:
        for number in range(1, 100_000):
            if stop.is_set():
                return
            fill(store, place, EVENTS, [event(number, site=f"S{number % 3}")])

    writer = Thread(target=write)
    writer.start()
    try:
        seen: set[tuple[Value, ...]] = set()
        while len(seen) < 15:
            answer = store.query(query_of(EVENTS, "count", "sum:amount", by=("site",), top=1))
            for place_ in range(2):
                assert sum(row.values[place_] or 0 for row in answer.rows) == answer.totals[place_]
            seen.add(answer.totals)
    finally:
        stop.set()
        writer.join()


def test_a_cluster_that_keeps_no_more_states_answers(store: OpenSearchStore, place: Place) -> None:
    """Where the cluster keeps as many states as it may, questions are answered from what is there now."""
    records = [event(n, time=ZERO - n * 40 * 86_400 * SECOND) for n in range(3)]
    fill(store, place, EVENTS, records)
    setting = "search.max_open_pit_context"
    place.ask("PUT", "/_cluster/settings", {"persistent": {setting: 1}})
    try:
        start = NOON - timedelta(days=400)
        check(store, EVENTS, records, query_of(EVENTS, "sum:amount", by=("name",), top=1, start=start))
    finally:
        place.ask("PUT", "/_cluster/settings", {"persistent": {setting: None}})


def test_a_closed_index_is_an_error(store: OpenSearchStore, place: Place) -> None:
    """An index that somebody closed makes the answers that need it errors, and no others."""
    fill(store, place, EVENTS, [event(0), event(1, time=ZERO - 40 * 86_400 * SECOND)])
    closed = place.indices()[0]
    place.ask("POST", f"/{closed}/_close")
    with pytest.raises(StoreError, match=rf"{closed} is closed.*open or delete it"):
        store.query(query_of(EVENTS, "count", start=NOON - timedelta(days=90)))
    assert store.query(query_of(EVENTS, "count")).totals == (1,)
    place.ask("DELETE", f"/{closed}")


def test_kinds_whose_names_begin_alike_are_kept_apart(place: Place) -> None:
    """The indices of one kind are not taken for those of another."""
    kinds = {kind.name: kind for kind in (EVENTS, kind_from_table("test-event-more", LIKE))}
    with closing(place.open(kinds)) as store:
        fill(store, place, EVENTS, [event(0)])
        other = {"vo": "example", "time": ZERO, "name": "x", "simulated": False, "revision": 0, "_id": b"\1" * 16}
        fill(store, place, kinds["test-event-more"], [other])
        assert store.query(query_of(EVENTS, "count", start=NOON - timedelta(days=9000))).totals == (1,)
        assert len(store.records(EVENTS.name)) == 1
        assert store.values(EVENTS.name, "name") == ["n0"]


def test_patterns_that_no_cluster_takes_are_refused(store: OpenSearchStore, place: Place) -> None:
    """Filters that are too many or too complex are a QueryError; half a character is one too."""
    fill(store, place, EVENTS, [event(0)])
    many = tuple(f"{number}*" for number in range(2000))
    for values in (many, ("*a?" * 4000,)):
        with pytest.raises(QueryError, match="too many or too complex"):
            store.query(query_of(EVENTS, "count", filters=(Filter("name", values, wildcard=True),)))
    with pytest.raises(QueryError, match="cannot be sent"):
        store.query(query_of(EVENTS, "count", filters=(Filter("name", ("\ud800",)),)))
    assert store.query(query_of(EVENTS, "count", filters=(Filter("code", (2**70,), negated=True),))).totals == (1,)


def test_nothing_stored_is_an_empty_answer(store: OpenSearchStore) -> None:
    """Before the first record there is no index, and every answer is empty."""
    answer = store.query(query_of(EVENTS, "count", "sum:amount", by=("site",), width=60, top=2))
    assert (answer.rows, answer.totals, answer.groups) == ((), (0, None), 0)
    assert store.query(query_of(SNAPSHOTS, "mean:used")).totals == (None,)
    assert store.values(EVENTS.name, "site") == []
    assert store.records(EVENTS.name, ids=[b"\1" * 16]) == []


def test_an_index_that_goes_while_it_is_asked(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where retention deletes what a question is about to look at, the answer lacks it and is no error."""
    fill(store, place, EVENTS, [event(0)])
    monkeypatch.setattr(
        "monitoring.stores.opensearch.asking.found_indices", lambda *_: [f"{place.prefix}-gone-2026.03"]
    )
    assert store.query(query_of(EVENTS, "count", by=("site",))).totals == (0,)
    assert store.values(EVENTS.name, "site") == []
    assert store.records(EVENTS.name) == []


def test_no_state_is_left_behind(store: OpenSearchStore, place: Place) -> None:
    """What the cluster kept for a question is let go of, also where the asking ended early."""
    fill(store, place, EVENTS, [event(n) for n in range(20)])
    store.query(query_of(EVENTS, "count", "p50:amount", by=("name",)))
    store.records(EVENTS.name, limit=1)
    found = place.ask("GET", "/_nodes/stats/indices/search")["nodes"]
    (search,) = (node["indices"]["search"] for node in found.values())
    assert (search["scroll_current"], search["point_in_time_current"]) == (0, 0)


def stats(*values: int) -> dict[str, Any]:
    """What a cluster would say of some values."""
    known = [float(value) for value in values]
    extremes = {"min": min(known, default=None), "max": max(known, default=None)}
    return {"count": len(known), "sum": float(sum(known)), **extremes}


def test_only_certain_sums_are_taken() -> None:
    """A sum that a double may have rounded is none; two parts each within doubles are the whole."""
    assert whole_sum(stats()) == 0
    assert whole_sum(stats(2**52, 2**52 - 1)) == EXACT - 1
    assert whole_sum(stats(2**52, 2**52)) is None
    assert whole_sum(stats(2**52, -(2**52))) is None
    values = (LARGEST, -(2**63), 2**53 + 1)
    low, high = [value & (2**26 - 1) for value in values], [value >> 26 for value in values]
    assert split_sum(stats(*low), stats(*high)) == sum(values)
    assert whole_extreme(float(EXACT - 1)) == EXACT - 1
    with pytest.raises(Inexact):
        whole_extreme(float(EXACT))


def test_groups_are_few_clauses() -> None:
    """A thousand groups of one dimension are two clauses; of several, one more for each combination of the others."""
    groups = [(number,) for number in range(1000)] + [(None,)]
    assert count_clauses(in_groups(EVENTS, ("code",), groups)) == 2
    pairs = [(site, number) for site in ("a", None) for number in range(10)]
    assert count_clauses(in_groups(EVENTS, ("site", "code"), pairs)) == 4


def test_ranges_stay_within_64_bits() -> None:
    """Bounds of whole numbers are whole and within what a field holds; beyond it nothing is found."""
    (found,) = meeting(EVENTS, [Filter("amount", minimum=0.5, maximum=1e30)])
    assert found == {"range": {"amount": {"gte": 1, "lte": LARGEST}}}
    assert meeting(EVENTS, [Filter("amount", minimum=1e30)]) == [{"match_none": {}}]
    assert meeting(EVENTS, [Filter("weight", maximum=float("-inf"))]) == [{"match_none": {}}]
    assert meeting(EVENTS, [Filter("weight", maximum=float("inf"))]) == [{"exists": {"field": "weight"}}]


def test_bounds_beyond_every_number_are_refused() -> None:
    """An integer of hundreds of digits is a fault of the question, in words."""
    with pytest.raises(QueryError, match="too large"):
        check_filters(EVENTS, [Filter("amount", minimum=10**400)])


def test_many_values_are_several_clauses() -> None:
    """More values than one query takes are cut, and every part counts."""
    clause = among("code", range(2 * MOST_TERMS + 1))
    assert count_clauses([clause]) == 3
    assert sum(len(part["terms"]["code"]) for part in clause["bool"]["should"]) == 2 * MOST_TERMS + 1
    assert among("code", [1]) == {"terms": {"code": [1]}}


def test_indices_too_many_for_a_path_give_each_record_once(
    store: OpenSearchStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a path names indices by years, months are still apart, and a stranger of that year is not asked."""
    records = [event(n, time=ZERO - n * 20 * 86_400 * SECOND) for n in range(7)]
    fill(store, place, EVENTS, records)
    place.ask("PUT", f"/{place.prefix}-{EVENTS.name}-2026.01-copy/_doc/x?refresh=true", {"siteward": {"time": ZERO}})
    monkeypatch.setattr("monitoring.stores.opensearch.indices.LONGEST_PATH", 10)
    found = store.records(EVENTS.name)
    assert [record.id for record in found] == [record["_id"].hex() for record in records]
    asked = query_of(EVENTS, "count")
    answer = store.query(structs.replace(asked, start=NOON - timedelta(days=400), end=NOON + timedelta(days=1)))
    assert answer.totals == (7,)


def test_many_indices_are_named_by_years() -> None:
    """A request's path stays short, and months with days of their own are one step of newest first."""
    family = "p-test-event"
    few = [f"{family}-2026.0{month}" for month in (1, 2)]
    assert path_of("p", EVENTS, few) == ",".join(few)
    many = [f"{family}-{year}.{month:02}" for year in range(1990, 2026) for month in range(1, 13)]
    assert path_of("p", EVENTS, many).startswith(f"{family}-1990.*,{family}-1991.*,")
    mixed = [f"{family}-2026.02", f"{family}-2026.03", f"{family}-2026.03.05"]
    assert months("p", EVENTS, mixed) == [mixed[1:], mixed[:1]]
