"""Counting: exact as a rate since start, whatever comes late, twice, from a file or over the budget."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Any

import pytest
from answers import SNAPSHOTS
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.prometheus.budget import OTHER, Budget
from monitoring.prometheus.counters import BUCKET_SERIES, SETTLE, Counters
from monitoring.prometheus.cycles import FIRST_PATIENCE, Cycles
from monitoring.prometheus.families import BOUNDS, families_of
from monitoring.prometheus.points import Buckets, Counting, Limits
from monitoring.prometheus.window import Why, Window
from siteward.records import Combine, Kind, kind_from_table
from siteward.sinks import Batch

SECOND = 1_000_000
START = 1_793_000_000 * SECOND
LIMITS = Limits(late=300 * SECOND, stale=86_400 * SECOND, series=10_000)
EVENT = kind_from_table(
    "thing",
    {
        "doc": "Anything that happens.",
        "shape": "event",
        "dimensions": {"site": {"doc": "site"}, "code": {"doc": "code", "type": "integer", "optional": True}},
        "measures": {
            "size": {"doc": "size", "unit": "B"},
            "took": {"doc": "took", "unit": "s", "optional": True},
            "factor": {"doc": "factor", "unit": "1"},
        },
        "products": {"area": {"factors": ["took", "factor"], "unit": "s"}},
    },
)
Fields = dict[str, Any]
many = settings(max_examples=120, deadline=None, derandomize=True, database=None)


def thing(number: int, time: int, **changes: Any) -> Fields:
    fields = {"vo": "v", "site": f"S{number % 3}", "code": None, "size": 2**40 + number, "took": number, "factor": 2}
    return {"_id": number.to_bytes(16, "big"), "time": time, "simulated": False, "revision": 0, **fields, **changes}


def seen(producer: str, time: int, site: str, **changes: Any) -> Fields:
    """A record of a cycle; its id follows from what makes it another record."""
    element = changes.get("element", "e")
    identifier = blake2b(repr((producer, time, site, element)).encode(), digest_size=16).digest()
    measures = {"used": 10, "files": None, "level": 0.5, "limit": 7, "peak": 3}
    fields = {"vo": "v", "producer": producer, "time": time, "site": site, "element": element, "cycle_size": 1}
    return {"_id": identifier, "simulated": False, "revision": 0, **fields, **measures, **changes}


def batch(kind: Kind, records: Sequence[Fields], producer: str = "test") -> Batch:
    return Batch(
        kind=kind,
        ids=[record["_id"] for record in records],
        columns={name: [record[name] for record in records] for name in kind.names},
        producers=[producer] * len(records),
        messages=[bytes(16)] * len(records),
        received=START,
    )


def counters(limits: Limits = LIMITS) -> Counters:
    return Counters(families_of({"thing": EVENT}, {})["thing"], limits)


def cycles(limits: Limits = LIMITS, labels: dict[str, list[str]] | None = None) -> Cycles:
    return Cycles(families_of({SNAPSHOTS.name: SNAPSHOTS}, labels or {})[SNAPSHOTS.name], limits)


def values(counting: Counting, name: str, now: int) -> dict[tuple[str, ...], Any]:
    return {point.labels: point.value for point in counting.points(now) if point.family.name == name}


def settled(counting: Counting, now: int, name: str) -> dict[tuple[str, ...], Any]:
    """Values after the zero that every new series shows first."""
    values(counting, name, now)
    return values(counting, name, now + SETTLE)


class Prometheus:
    """What increase() makes of scrapes: growth between two, from zero after a reset, nothing for a first value."""

    def __init__(self) -> None:
        self.grown: defaultdict[str, Any] = defaultdict(int)
        self._last: dict[tuple[str, tuple[str, ...]], Any] = {}

    def scrape(self, counting: Counting, now: int) -> None:
        counting.expire(now)
        present = {}
        for point in counting.points(now):
            value = point.value.total if isinstance(point.value, Buckets) else point.value
            present[point.family.name, point.labels] = value
            before = self._last.get((point.family.name, point.labels))
            if before is not None:
                self.grown[point.family.name] += value - before if value >= before else value
        self._last = present


Step = tuple[str, list[tuple[int, int]], int]
"""What comes (live, or from an import), the records' numbers with their ages in seconds, and seconds until the next."""
steps = st.lists(
    st.tuples(
        st.sampled_from(["live", "live", "live", "import:swf"]),
        st.lists(st.tuples(st.integers(0, 40), st.integers(-400, 400)), max_size=12),
        st.sampled_from([1, 15, 40, 400]),
    ),
    max_size=12,
)


@given(steps, st.sampled_from([8, 60, 10_000]), st.sampled_from([60, 86_400]))
@many
def test_rates_are_exact(plan: list[Step], series: int, stale: int) -> None:
    """What increase() adds up over all scrapes is every live record once, to the last unit, over budget or not."""
    counting = counters(Limits(300 * SECOND, stale * SECOND, series))
    prometheus, now = Prometheus(), START
    ids: set[tuple[int, int]] = set()
    expected: Counter[str] = Counter()
    left_out: Counter[Why] = Counter()
    total = 0
    for producer, numbers, seconds in plan:
        # A record's time is part of its id.
        records = [
            thing(number, now - age * SECOND, _id=(now - age * SECOND).to_bytes(8, "big") + number.to_bytes(8, "big"))
            for number, age in numbers
        ]
        counted = counting.write(batch(EVENT, records, producer), now)
        left_out += counted.left_out
        total += len(records)
        for record in records:
            key = record["took"], record["time"]
            if abs(record["time"] - now) <= 300 * SECOND and producer == "live" and key not in ids:
                ids.add(key)
                expected["siteward_thing_records_total"] += 1
                expected["siteward_thing_size_bytes_total"] += record["size"]
                expected["siteward_thing_took_seconds"] += record["took"]
                expected["siteward_thing_area_seconds_total"] += record["took"] * 2
        for pause in (0, SETTLE, 1):
            now += pause
            prometheus.scrape(counting, now)
        now += seconds * SECOND
    assert {name: prometheus.grown[name] for name in expected} == dict(expected)
    assert total == len(ids) + left_out.total()
    assert counting.series <= max(series, 5 + BUCKET_SERIES)


def test_new_series_are_zero_first() -> None:
    """A series is shown as zero to a scrape, and for a while, before its value: rate() cannot see a first value."""
    counting = counters()
    counting.write(batch(EVENT, [thing(1, START)]), START)
    name = "siteward_thing_records_total"
    assert list(values(counting, name, START + 2 * SETTLE).values()) == [0]
    assert list(values(counting, name, START + 2 * SETTLE).values()) == [1]
    counting.write(batch(EVENT, [thing(2, START + 3 * SETTLE)]), START + 3 * SETTLE)
    assert sorted(values(counting, name, START + 3 * SETTLE).values()) == [0, 1]
    assert sorted(values(counting, name, START + 3 * SETTLE + 1).values()) == [0, 1]


def test_counters_that_do_not_grow_are_dropped_and_come_back_from_zero() -> None:
    """After `stale` without growth a series goes; its next value starts a new one, at zero."""
    counting = counters(Limits(300 * SECOND, 600 * SECOND, 10_000))
    counting.write(batch(EVENT, [thing(1, START)]), START)
    counting.expire(START + 599 * SECOND)
    assert counting.series == 5 + BUCKET_SERIES
    later = START + 601 * SECOND
    counting.expire(later)
    assert counting.series == 0
    counting.write(batch(EVENT, [thing(4, later)]), later)
    assert list(settled(counting, later, "siteward_thing_records_total").values()) == [1]


def test_histograms_count_known_durations() -> None:
    """Buckets are cumulative, bounds belong to them, unknown durations are in none."""
    counting = counters()
    took = [0, 1, 2, 60, 61, 10**9, None]
    records = [thing(number, START, site="S", took=value) for number, value in enumerate(took)]
    counting.write(batch(EVENT, records), START)
    (found,) = settled(counting, START, "siteward_thing_took_seconds").values()
    assert found.counts[: BOUNDS.index(300) + 1] == (2, 3, 4, 5)
    assert found.counts[-1] == 6
    assert found.total == sum(value for value in took if value is not None)


def test_values_of_labels_are_texts() -> None:
    """Integers and truth values are written out, what is unknown is no label, half a character spoils nothing."""
    counting = counters()
    records = [
        thing(1, START, code=7, simulated=True),
        thing(2, START, site="Zürich", code=None),
        thing(3, START, site="half \ud800"),
    ]
    counting.write(batch(EVENT, records), START)
    assert set(values(counting, "siteward_thing_records_total", START)) == {
        ("v", "S1", "7", "true"),
        ("v", "Zürich", "", "false"),
        ("v", "half ?", "", "false"),
    }


@pytest.mark.parametrize(
    ("age", "producer", "why"),
    [
        (301, "test", Why.LATE),
        (-301, "test", Why.AHEAD),
        (1, "import:swf", Why.IMPORTED),
        (300, "test", None),
        (-300, "test", None),
    ],
)
def test_only_live_records_enter(age: int, producer: str, why: Why | None) -> None:
    """Late, early and imported records are counted as left out, by reason, and enter no series."""
    counting = counters()
    counted = counting.write(batch(EVENT, [thing(1, START - age * SECOND)], producer), START)
    assert counted.left_out == (Counter({why: 1}) if why else Counter())
    assert (counting.series > 0) is (why is None)


def test_replayed_records_are_counted_once() -> None:
    """The same id again, in the same batch or a later one, is left out, and its position is told."""
    counting = counters()
    counted = counting.write(batch(EVENT, [thing(1, START), thing(1, START), thing(2, START)]), START)
    assert (counted.left_out, counted.replayed) == (Counter({Why.REPLAYED: 1}), [1])
    counted = counting.write(batch(EVENT, [thing(2, START), thing(3, START)]), START + SECOND)
    assert (counted.left_out, counted.replayed) == (Counter({Why.REPLAYED: 1}), [0])
    assert sum(settled(counting, START + SECOND, "siteward_thing_records_total").values()) == 3


def test_ids_are_remembered_in_bounded_memory() -> None:
    """A stream too fast for the memory is remembered for a shorter time; what is older counts as late, never twice."""
    window = Window(300 * SECOND, most=100)
    entered: list[bytes] = []
    for number in range(600):
        now = START + number * SECOND // 2
        for again in (0, 5, 150):
            if number >= again:
                each = batch(EVENT, [thing(number - again, now - again * SECOND // 2)])
                entered += [each.ids[position] for position in window.sort(each, now).live]
    assert len(set(entered)) == len(entered) == 600
    assert sum(map(len, window._slices.values())) <= 100
    assert window.floor > START + 240 * SECOND


def test_the_budget_holds_and_keeps_what_it_can() -> None:
    """Beyond the budget the most diverse label becomes `other` first, and at the very end all of them."""
    budget = Budget(20)
    admitted = [budget.admit((f"vo{number % 2}", f"site{number}")) for number in range(200)]
    assert admitted[:17] == [(f"vo{number % 2}", f"site{number}") for number in range(17)]
    assert set(admitted[17:]) == {("vo0", OTHER), ("vo1", OTHER)}
    crowd = Budget(20)
    assert {crowd.admit((f"vo{number}", f"site{number}")) for number in range(200)} >= {("vo18", OTHER), (OTHER, OTHER)}
    assert crowd.count == 20
    for labels in admitted:
        budget.release(labels)
    assert budget.count == 0
    assert budget.admit(("vo0", "site150")) == ("vo0", "site150")


@given(st.lists(st.tuples(*[st.sampled_from("abcdefgh")] * 3), max_size=80), st.integers(0, 30))
@many
def test_the_budget_is_never_passed(wanted: list[tuple[str, str, str]], most: int) -> None:
    """However labels come, there are never more combinations than allowed, and each keeps its values or has `other`."""
    budget = Budget(most)
    for labels in wanted:
        admitted = budget.admit(labels)
        assert all(mine in {given, OTHER} for mine, given in zip(admitted, labels, strict=True))
        assert budget.count <= max(1, most)


def test_over_budget_is_counted() -> None:
    """Records under `other` are told, and the totals stay whole."""
    counting = counters(Limits(300 * SECOND, 86_400 * SECOND, 100))
    counted = counting.write(batch(EVENT, [thing(n, START, site=f"S{n}") for n in range(100)]), START)
    found = settled(counting, START, "siteward_thing_records_total")
    other = {labels: value for labels, value in found.items() if OTHER in labels}
    assert sum(found.values()) == 100
    assert counted.over_budget["counters"] == sum(other.values()) > 50
    assert counted.over_budget["histograms"] > 50
    assert {labels[0] for labels in other} == {"v"}
    assert counting.series <= 100


def test_a_cycle_is_shown_when_it_is_complete() -> None:
    """Records of a cycle wait for the others, over batches; then the whole cycle replaces the one before it."""
    counting = cycles()
    name = "siteward_test_snapshot_used_bytes"
    first = [seen("p", START, site, cycle_size=3) for site in ("A", "B", "C")]
    counting.write(batch(SNAPSHOTS, first[:2]), START)
    assert values(counting, name, START) == {}
    counting.write(batch(SNAPSHOTS, first[2:]), START)
    assert {labels[2] for labels in values(counting, name, START)} == {"A", "B", "C"}
    later = START + 60 * SECOND
    counting.write(batch(SNAPSHOTS, [seen("p", later, "A", used=11)]), later)
    assert list(values(counting, name, later).values()) == [11]


def test_older_and_incomplete_cycles_enter_nothing() -> None:
    """A cycle not newer than the one shown is late; one whose rest never came is incomplete; both are counted."""
    counting = cycles()
    counting.write(batch(SNAPSHOTS, [seen("p", START, "A")]), START)
    older = [seen("p", START - SECOND, "A"), seen("p", START, "surplus")]
    assert counting.write(batch(SNAPSHOTS, older), START).left_out == {Why.LATE: 2}
    part = seen("p", START + SECOND, "A", cycle_size=2)
    counting.write(batch(SNAPSHOTS, [part]), START + SECOND)
    newest = seen("p", START + 2 * SECOND, "B")
    assert counting.write(batch(SNAPSHOTS, [newest]), START).left_out == {Why.INCOMPLETE: 1}
    assert set(values(counting, "siteward_test_snapshot_records", START)) == {("v", "p", "B", "e", "false")}
    counting.write(batch(SNAPSHOTS, [seen("q", START, "A", cycle_size=2)]), START)
    assert counting.expire(START + 301 * SECOND).left_out == {Why.INCOMPLETE: 1}


def test_a_silent_producer_goes() -> None:
    """Gauges go when three cycles would have come and did not; those of a single cycle after an hour."""
    counting = cycles()
    for time in (START, START + 200 * SECOND):
        counting.write(batch(SNAPSHOTS, [seen("p", time, "A")]), time)
    counting.write(batch(SNAPSHOTS, [seen("once", START, "A")]), START)
    counting.expire(START + 799 * SECOND)
    assert counting.series == 12
    counting.expire(START + 801 * SECOND)
    assert counting.series == 6
    counting.expire(START + FIRST_PATIENCE + 1)
    assert (counting.series, list(counting.points(START))) == (0, [])


def test_gauges_combine_producers_as_measures_say() -> None:
    """Where the producer is no label its cycles are put together: sums added, means averaged, peaks and last chosen."""
    counting = cycles(labels={SNAPSHOTS.name: ["site"]})
    records = [
        seen("p", START, "A", used=10, level=0.0, limit=1, peak=9, files=None),
        seen("q", START + 1, "A", used=5, level=1.0, limit=2, peak=3, files=4),
    ]
    counting.write(batch(SNAPSHOTS, records), START)
    found = {point.family.name.removeprefix("siteward_test_snapshot_"): point.value for point in counting.points(START)}
    assert found == {"records": 2, "used_bytes": 15, "files": 4, "level": 0.5, "limit": 2, "peak": 9}


COMBINED: dict[str, Callable[[list[Any]], Any]] = {
    Combine.SUM: sum,
    Combine.MAX: max,
    Combine.MEAN: lambda known: float(sum(map(Fraction, known)) / len(known)),
}


@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 5), st.booleans(), st.integers(1, 4)), max_size=12),
    st.randoms(use_true_random=False),
)
@many
def test_gauges_are_the_last_complete_cycles(plan: list[tuple[str, int, bool, int]], chance: Any) -> None:
    """However records come, mixed and twice, the gauges are those of each producer's newest complete cycle."""
    made: dict[tuple[str, int], list[Fields]] = {}
    for producer, minute, whole, size in plan:
        time = START + minute * 10 * SECOND
        sites = [seen(producer, time, f"S{n % 2}", element=str(n), cycle_size=size, used=n) for n in range(size)]
        made.setdefault((producer, time), sites if whole else sites[1:])
    arriving = [record for records in made.values() for record in records]
    arriving += arriving[: len(arriving) // 2]
    chance.shuffle(arriving)
    counting = cycles(labels={SNAPSHOTS.name: ["producer", "site"]})
    for start in range(0, len(arriving), 3):
        counting.write(batch(SNAPSHOTS, arriving[start : start + 3]), START + 50 * SECOND)
    groups: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for producer in "pq":
        complete = [time for (who, time), records in made.items() if who == producer and _is_whole(records)]
        for record in made[producer, max(complete)] if complete else ():
            groups[producer, record["site"]].append(record["used"])
    found = values(counting, "siteward_test_snapshot_used_bytes", START)
    assert {labels[:2]: value for labels, value in found.items()} == {key: sum(used) for key, used in groups.items()}


def _is_whole(records: Sequence[Fields]) -> bool:
    return bool(records) and len(records) == records[0]["cycle_size"]
