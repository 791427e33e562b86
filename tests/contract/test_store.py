"""The store contract's promises, on every implementation: idempotent writes, exact answers, honest refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from answers import EVENTS, SECOND, SNAPSHOTS, Fields
from examples import JOB, NOON, batch_of, job, job_rows
from opened_stores import EMBEDDED, IMPLEMENTATIONS, opened

from monitoring.stores import Store
from siteward.query import Answer, Filter, Function, Query, QueryError, Wanted
from siteward.records import Kind, microseconds
from siteward.sinks import Batch, Outcome, SinkUnavailable

START, END = NOON - timedelta(days=1), NOON + timedelta(days=1)
ZERO = microseconds(NOON)


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    yield from opened(request.param, tmp_path, request)


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def unchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An empty store that many tests ask and none changes."""
    yield from opened(request.param, tmp_path_factory.mktemp("unchanged"), request)


def batch(kind: Kind, records: Sequence[Fields]) -> Batch:
    """Records given as fields, defaults filled in; `_id` counts up where there is none."""
    filled: list[Fields] = [{column.name: column.default for column in kind.columns} | record for record in records]
    return Batch(
        kind=kind,
        ids=[
            record.get("_id") or (record[kind.time] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")
            for number, record in enumerate(filled)
        ],
        columns={name: [record[name] for record in filled] for name in kind.names},
        producers=["test"] * len(filled),
        messages=[b"\1" * 16] * len(filled),
        received=ZERO,
    )


def event(number: int, **changes: Any) -> Fields:
    """One event, a second after the one before it."""
    return {"vo": "example", "time": ZERO + number * SECOND, "name": f"n{number}", "amount": number, **changes}


def snapshot(producer: str, minute: int, element: str, size: int, **values: Any) -> Fields:
    """One record of a cycle."""
    measures = {"used": 0, "files": None, "level": 0.0, "limit": 0, "peak": 0}
    fields = {"vo": "example", "site": "S", "producer": producer, "element": element, "cycle_size": size}
    return {**fields, **measures, "time": ZERO + minute * 60 * SECOND, **values}


def ask(store: Store, asked: Kind, *wanted: str, **parts: Any) -> Answer:
    """Ask over the two days around noon."""
    columns = [Wanted(Function(text.partition(":")[0]), text.partition(":")[2]) for text in wanted]
    given: dict[str, Any] = {"kind": asked.name, "wanted": tuple(columns), "start": START, "end": END}
    return store.query(Query(**given | parts))


def test_outcomes_say_what_became_of_each_record(store: Store) -> None:
    """New records are stored, the same again are duplicates, newer revisions replace, older ones change nothing."""
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3
    assert store.write(batch_of(JOB, job_rows(4))).outcomes == [Outcome.DUPLICATE] * 3 + [Outcome.STORED]
    newer = job_rows(2, revision=2, wall_time=7)
    assert store.write(batch_of(JOB, newer)).outcomes == [Outcome.REPLACED] * 2
    older = job_rows(3, revision=1, wall_time=9)
    assert store.write(batch_of(JOB, older)).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.REPLACED]
    assert ask(store, JOB, "count", "sum:wall_time").totals == (4, 7 + 7 + 9 + 3600)


def test_the_newest_of_one_id_within_a_batch_wins(store: Store) -> None:
    """Of several revisions in one batch the highest is stored, the first of equals; the others are duplicates."""
    identifier = (ZERO // 1000).to_bytes(6, "big") + b"\x01" * 10
    records = [event(0, _id=identifier, revision=r, amount=a) for r, a in ((1, 10), (3, 30), (2, 20), (3, 31))]
    outcomes = store.write(batch(EVENTS, records)).outcomes
    assert outcomes == [Outcome.DUPLICATE, Outcome.STORED, Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert ask(store, EVENTS, "count", "sum:amount").totals == (1, 30)


def test_an_empty_batch_is_written(store: Store) -> None:
    """A batch of no records has no outcomes."""
    assert store.write(batch(EVENTS, [])).outcomes == []


def test_old_records_beside_new_ones_are_recognised(store: Store) -> None:
    """A batch that spans decades finds every one of its records that is stored."""
    years = [event(0, time=ZERO - year * 365 * 86_400 * SECOND, name=str(year)) for year in range(30)]
    whole = batch(EVENTS, years + [event(number) for number in range(1, 50)])
    assert set(store.write(whole).outcomes) == {Outcome.STORED}
    assert set(store.write(whole).outcomes) == {Outcome.DUPLICATE}


def test_values_that_cannot_be_stored_are_rejected_alone(store: Store) -> None:
    """A record with a value that no table holds is rejected with field and reason; all others are stored."""
    records = [event(number) for number in range(20)]
    records[3]["amount"] = 2**64
    records[7]["amount"] = 2**63
    records[13]["name"] = "\ud800"
    written = store.write(batch(EVENTS, records))
    assert [place for place, outcome in enumerate(written.outcomes) if outcome is Outcome.REJECTED] == [3, 7, 13]
    assert {place: reason.field for place, reason in written.reasons.items()} == {
        3: "amount",
        7: "amount",
        13: "name",
    }
    assert ask(store, EVENTS, "count").totals == (17,)


def test_a_kind_that_the_store_does_not_know_waits(store: Store) -> None:
    """Records of an unknown kind are not lost: the sink says that it cannot take them now, and what to do."""
    unknown = Kind(SNAPSHOTS.declaration.__class__(**_parts(SNAPSHOTS, name="unheard-of")))
    with pytest.raises(SinkUnavailable, match=r"knows no kind 'unheard-of'.*restart"):
        store.write(batch(unknown, [snapshot("p", 0, "e", 1)]))


def _parts(kind: Kind, **changes: Any) -> dict[str, Any]:
    declaration = kind.declaration
    return {name: getattr(declaration, name) for name in declaration.__struct_fields__} | changes


def test_windows_are_half_open_and_buckets_aligned(store: Store) -> None:
    """The first instant belongs to the window, the last does not; buckets begin at multiples of their width."""
    store.write(batch(EVENTS, [event(number * 600) for number in range(12)]))
    window = {"start": NOON + timedelta(minutes=10), "end": NOON + timedelta(minutes=100)}
    answer = ask(store, EVENTS, "count", "rate:amount", width=3600, **window)
    assert [row.time for row in answer.rows] == [NOON, NOON + timedelta(hours=1)]
    assert [row.values[0] for row in answer.rows] == [5, 4]
    assert answer.rows[0].values[1] == pytest.approx(600 * 15 / 3000)
    assert answer.rows[1].values[1] == pytest.approx(600 * (6 + 7 + 8 + 9) / 2400)
    assert answer.totals[0] == 9
    assert answer.units == ("1", "B/s")


def test_other_time_zones_ask_the_same(store: Store) -> None:
    """A window given in another zone is the same window, and is answered in UTC."""
    store.write(batch(EVENTS, [event(0)]))
    zone = datetime.fromisoformat("2026-03-02T14:00:00+02:00")
    answer = ask(store, EVENTS, "count", start=zone, end=zone + timedelta(seconds=1))
    assert answer.totals == (1,)
    assert answer.query.start == NOON
    assert answer.query.start.tzinfo is UTC


def test_top_groups_and_an_exact_other(store: Store) -> None:
    """Groups beyond the top ones become one group computed from their records: its mean and median are theirs."""
    sizes = {"a": [100, 200], "b": [50], "c": [1, 2, 3], "d": [40, 2], "e": [42]}
    amounts = [(site, amount) for site, given in sizes.items() for amount in given]
    store.write(batch(EVENTS, [event(n, site=site, amount=amount) for n, (site, amount) in enumerate(amounts)]))
    answer = ask(store, EVENTS, "sum:amount", "mean:amount", "p50:amount", "count", by=("site",), top=3)
    assert [(row.group, row.values[0], row.other) for row in answer.rows] == [
        (("a",), 300, False),
        (("b",), 50, False),
        (("d",), 42, False),
        ((), 48, True),
    ], "of two groups with the same sum the first by name is kept"
    assert answer.rows[-1].values == (48, 12.0, 2.5, 4)
    assert (answer.groups, answer.totals[0]) == (5, 440)


def test_dimensions_of_every_type_group_and_filter(store: Store) -> None:
    """Texts, booleans, integers and unknown values are groups, the unknown one last."""
    store.write(
        batch(EVENTS, [event(0, good=True, code=7), event(1, good=False, code=None), event(2, good=None, code=-1)])
    )
    assert [row.group for row in ask(store, EVENTS, "count", by=("code",)).rows] == [(-1,), (7,), (None,)]
    assert [row.group for row in ask(store, EVENTS, "count", by=("good",)).rows] == [(False,), (True,), (None,)]
    assert ask(store, EVENTS, "sum:amount", filters=(Filter("good", (False,)),)).totals == (1,)
    assert ask(store, EVENTS, "sum:amount", filters=(Filter("code", (7, -1)),)).totals == (2,)
    assert ask(store, EVENTS, "count", filters=(Filter("code", (7,), negated=True),)).totals == (2,)
    for condition, found in (
        (Filter("code", (None,)), 1),
        (Filter("good", (None, True)), 2),
        (Filter("code", (None, 7), negated=True), 2),
        (Filter("good", (None,), negated=True), 1),
    ):
        assert ask(store, EVENTS, "sum:amount", filters=(condition,)).totals == (found,)
    for name in ("simulated", "site"):
        with pytest.raises(QueryError, match="None is not a"):
            ask(store, EVENTS, "count", filters=(Filter(name, (None,)),))


def test_ranges_are_inclusive_and_exact(store: Store) -> None:
    """Bounds belong to the range, also where a float could not tell neighbours apart; unknown values lie in none."""
    big = 2**62
    store.write(batch(EVENTS, [event(n, amount=big + n, weight=None if n else 1.5) for n in range(4)]))
    assert ask(store, EVENTS, "count", filters=(Filter("amount", minimum=big + 1, maximum=big + 2),)).totals == (2,)
    assert ask(store, EVENTS, "count", filters=(Filter("weight", minimum=-5),)).totals == (1,)
    assert ask(store, EVENTS, "count", filters=(Filter("amount", minimum=0.5, maximum=float("inf")),)).totals == (4,)
    endless = Filter("weight", minimum=float("-inf"), maximum=float("inf"))
    assert ask(store, EVENTS, "count", filters=(endless,)).totals == (1,), "an unknown value lies in no range"
    for far in (1e19, 1e300):
        assert ask(store, EVENTS, "count", filters=(Filter("amount", minimum=-far, maximum=far),)).totals == (4,)
        assert ask(store, EVENTS, "count", filters=(Filter("amount", minimum=far),)).totals == (0,)
        assert ask(store, EVENTS, "count", filters=(Filter("amount", maximum=-far),)).totals == (0,)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", "a_b a%b a\\b aXb AB [ab] é"),
        ("a?b", "a_b a%b a\\b aXb"),
        ("a_b", "a_b"),
        ("a%b", "a%b"),
        ("a\\b", "a\\b"),
        ("A*", "AB"),
        ("[ab]", "[ab]"),
        ("?", "é"),
        ("a.b", ""),
        ("*b", "a_b a%b a\\b aXb"),
    ],
)
def test_wildcards_mean_only_star_and_question_mark(store: Store, pattern: str, found: str) -> None:
    """`*` is any text and `?` one character; everything else, case included, means itself."""
    names = ["a_b", "a%b", "a\\b", "aXb", "AB", "[ab]", "é"]
    store.write(batch(EVENTS, [event(number, name=name) for number, name in enumerate(names)]))
    answer = ask(store, EVENTS, "count", by=("name",), filters=(Filter("name", (pattern,), wildcard=True),))
    assert {row.group[0] for row in answer.rows} == set(found.split())
    rest = ask(store, EVENTS, "count", filters=(Filter("name", (pattern,), wildcard=True, negated=True),))
    assert rest.totals == (len(names) - len(found.split()),)


def test_sums_pass_64_bits(store: Store) -> None:
    """Integer sums and products are exact integers of any size that records can reach."""
    largest = 2**63 - 1
    store.write(batch(EVENTS, [event(n, amount=largest, factor=3) for n in range(5)]))
    answer = ask(store, EVENTS, "sum:amount", "sum:area", "max:area", by=("site",))
    assert answer.totals == (5 * largest, 15 * largest, 3 * largest)
    assert answer.rows[0].values == answer.totals


def test_a_percentile_is_exact_or_states_its_error(store: Store) -> None:
    """It lies between its neighbours, each widened by the error that the answer states; no error is none."""
    values = [n**4 for n in range(1, 41)]
    store.write(batch(EVENTS, [event(n, factor=value) for n, value in enumerate(values)]))
    answer = ask(store, EVENTS, "count", "p50:factor", "p99:factor")
    count, *errors = answer.errors or (0.0, 0.0, 0.0)
    assert (answer.totals[0], count) == (40, 0.0)
    assert all(error <= 0.001 for error in errors)
    for place, (rank, error) in enumerate(zip((19.5, 38.61), errors, strict=True), 1):
        low, high = values[int(rank)], values[int(rank) + 1]
        found = answer.totals[place]
        assert found is not None
        if error:
            assert low * (1 - error) <= found <= high * (1 + error)
        else:
            assert found == pytest.approx(low + (high - low) * (rank % 1))


def test_a_sum_beyond_all_bounds_is_refused(store: Store) -> None:
    """A sum that does not fit 128 bits is an error that says so, never a wrong number."""
    largest = 2**63 - 1
    store.write(batch(EVENTS, [event(n, amount=largest, factor=largest) for n in range(5)]))
    with pytest.raises(QueryError, match="128 bits"):
        ask(store, EVENTS, "sum:area")


def test_unknown_values_take_part_in_nothing(store: Store) -> None:
    """A mean is over the records that know the value, and a sum over none of them is unknown."""
    store.write(batch(EVENTS, [event(0, weight=1.0), event(1, weight=None), event(2, weight=2.0, factor=2)]))
    assert ask(store, EVENTS, "mean:weight", "sum:area", "count").totals == (1.5, 4, 3)
    nothing = ask(store, EVENTS, "sum:weight", "p95:weight", filters=(Filter("weight", minimum=100),))
    assert (nothing.totals, nothing.rows, nothing.groups) == ((None, None), (), 0)


def test_a_snapshot_mean_divides_by_complete_cycles(store: Store) -> None:
    """Per producer the sum over complete cycles by their number; absent is zero, producers add up, partial is out."""
    store.write(
        batch(
            SNAPSHOTS,
            [
                snapshot("p", 0, "a", 2, used=10),
                snapshot("p", 0, "b", 2, used=20),
                snapshot("p", 1, "a", 1, used=40),
                snapshot("p", 2, "a", 2, used=1000),
                snapshot("q", 0, "a", 1, used=100),
            ],
        )
    )
    answer = ask(store, SNAPSHOTS, "mean:used", "last:used", "count", by=("element",))
    assert [(row.group[0], *row.values) for row in answer.rows] == [
        ("a", (10 + 40) / 2 + 100, 40 + 100, 4),
        ("b", 20 / 2, 0, 1),
    ]
    assert answer.totals == ((10 + 20 + 40) / 2 + 100, 140, 5)
    assert answer.incomplete == 1
    minutes = ask(store, SNAPSHOTS, "mean:used", width=60)
    assert [row.values[0] for row in minutes.rows] == [130, 40, None]


def test_filters_do_not_make_cycles_partial(store: Store) -> None:
    """A filter chooses records, never which cycles there were."""
    store.write(
        batch(
            SNAPSHOTS,
            [
                snapshot("p", 0, "a", 2, used=10),
                snapshot("p", 0, "b", 2, used=20, vo="second"),
                snapshot("p", 1, "b", 1, used=20),
            ],
        )
    )
    assert ask(store, SNAPSHOTS, "mean:used", filters=(Filter("element", ("a",)),)).totals == (5.0,)
    assert ask(store, SNAPSHOTS, "mean:used", filters=(Filter("vo", ("second",)),)).totals == (10.0,)


def test_a_cycle_that_does_not_know_a_value_is_no_zero(store: Store) -> None:
    """A series is averaged over the cycles that know its value; one that nobody knows adds nothing."""
    records = [snapshot("p", minute, "a", 2, files=None if minute else 1000) for minute in (0, 1)]
    records += [snapshot("p", minute, "b", 2, files=minute) for minute in (0, 1)]
    store.write(batch(SNAPSHOTS, records))
    answer = ask(store, SNAPSHOTS, "mean:files", by=("element",))
    assert [row.values for row in answer.rows] == [(1000.0,), (0.5,)]
    assert answer.totals == (1000.5,)


def test_values_of_a_dimension_come_most_frequent_first(store: Store) -> None:
    """Distinct values by frequency, then by value, the unknown one included, at most as many as asked."""
    sites = ["b", "b", "a", "c", "c", "c", "d"]
    store.write(batch(EVENTS, [event(n, site=site, code=None if n else 3) for n, site in enumerate(sites)]))
    assert store.values("test-event", "site") == ["c", "b", "a", "d"]
    assert store.values("test-event", "site", limit=2) == ["c", "b"]
    assert store.values("test-event", "site", (Filter("site", ("a", "d")),)) == ["a", "d"]
    assert store.values("test-event", "code") == [None, 3]


def test_single_records_come_newest_first_with_their_origin(store: Store) -> None:
    """Records are found by id or by window and filters, as they were given, with producer, message and arrival."""
    store.write(batch_of(JOB, job_rows(5)))
    newest, *others = store.records("job", limit=3)
    assert newest.fields["local_job_id"] == "4"
    assert newest.fields["end"] == job(4).end
    assert newest.fields["memory"] is None
    assert set(newest.fields) == set(JOB.names)
    assert (newest.producer, newest.message) == ("test", "00" * 16)
    assert newest.received.tzinfo is UTC
    assert len(others) == 2
    wanted = [bytes.fromhex(newest.id), b"\0" * 16]
    assert store.records("job", ids=wanted) == [newest]
    early = store.records("job", start=NOON, end=NOON + timedelta(seconds=2), filters=(Filter("site", ("SITE-1",)),))
    assert [record.fields["local_job_id"] for record in early] == ["1"]


def test_forgetting_is_by_partition_time(store: Store) -> None:
    """What is older is deleted and counted, the rest stays, and what was forgotten could be stored again."""
    received = microseconds(NOON)
    old = job_rows(5, start=NOON - timedelta(days=61), end=NOON - timedelta(days=60))
    store.write(batch_of(JOB, old, received=received))
    store.write(batch_of(JOB, job_rows(10), received=received))
    assert store.forget("job", NOON + timedelta(seconds=-1)) == 0, "received later than that"
    assert store.forget("job", NOON + timedelta(milliseconds=1)) in {5, 6}
    kept = ask(store, JOB, "count", start=NOON - timedelta(days=90)).totals[0]
    assert kept in {9, 10}, "a store may keep those that it keeps with younger ones"
    assert store.forget("job", NOON + timedelta(milliseconds=1)) == 0
    assert store.write(batch_of(JOB, old)).outcomes == [Outcome.STORED] * 5


@pytest.mark.parametrize("store", EMBEDDED, indirect=True)
def test_embedded_stores_forget_to_the_microsecond(store: Store) -> None:
    """A store that deletes single records deletes exactly those that are older."""
    store.write(batch_of(JOB, job_rows(10), received=microseconds(NOON)))
    assert store.forget("job", NOON + timedelta(seconds=4)) == 4
    assert store.forget("job", NOON + timedelta(seconds=4)) == 0
    assert ask(store, JOB, "count").totals == (6,)
    assert store.write(batch_of(JOB, job_rows(10))).outcomes == [Outcome.STORED] * 4 + [Outcome.DUPLICATE] * 6


def test_an_old_log_imported_lately_is_kept(store: Store) -> None:
    """Retention counts from the receipt too: history that somebody imports today is not deleted tomorrow."""
    store.write(batch_of(JOB, job_rows(10), received=microseconds(NOON + timedelta(days=35))))
    assert store.forget("job", NOON + timedelta(days=34)) == 0
    assert store.forget("job", NOON + timedelta(days=36)) == 10


@pytest.mark.parametrize(
    ("wanted", "parts", "said"),
    [
        ("count", {"kind": "jop"}, "kind 'jop' is unknown; did you mean 'job'"),
        ("sum:wal_time", {}, "did you mean 'wall_time'"),
        ("sum:site", {}, "'site' is not a measure of job"),
        ("sum", {}, "is not a measure"),
        ("count:wall_time", {}, "count takes no measure"),
        ("last:wall_time", {}, "last is for snapshots"),
        ("sum:used", {"kind": "test-snapshot"}, "ask for mean, last, min or max"),
        ("rate:used", {"kind": "test-snapshot"}, "ask for mean, last, min or max"),
        ("count", {"by": ("sit",)}, "'sit' is not a dimension of job; did you mean 'site'"),
        ("count", {"by": ("wall_time",)}, "'wall_time' is not a dimension"),
        ("count", {"by": ("site", "site")}, "grouped by twice"),
        ("count", {"end": START}, "not after its start"),
        ("count", {"start": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001  # the point.
        ("count", {"width": -1}, "width -1"),
        ("count", {"width": 10**12}, "width 1000000000000"),
        ("count", {"top": -1}, "top -1"),
        ("count", {"wanted": ()}, "nothing is wanted"),
        ("count", {"filters": (Filter("sote", ("x",)),)}, "did you mean 'site'"),
        ("count", {"filters": (Filter("end", ("x",)),)}, "not a field of job"),
        ("count", {"filters": (Filter("site", (1,)),)}, "1 is not a string"),
        ("count", {"filters": (Filter("exit_status", (True,)),)}, "True is not a integer"),
        ("count", {"filters": (Filter("exit_status", ("1*",), wildcard=True),)}, "for texts, and its type is integer"),
        ("count", {"filters": (Filter("site"),)}, "neither values nor a range"),
        ("count", {"filters": (Filter("site", minimum=1),)}, "ranges are for numbers"),
        ("count", {"filters": (Filter("wall_time", minimum=1, negated=True),)}, "cannot be negated"),
        ("count", {"filters": (Filter("wall_time", minimum=float("nan")),)}, "not a number"),
    ],
)
def test_questions_without_an_answer_are_refused(
    unchanged: Store, wanted: str, parts: dict[str, Any], said: str
) -> None:
    """A question that cannot be answered is a QueryError that names the part at fault and what is possible."""
    with pytest.raises(QueryError, match=said):
        ask(unchanged, JOB, wanted, **parts)


def test_other_calls_refuse_unknown_names(unchanged: Store) -> None:
    """values, records and forget refuse what the kinds do not have, as queries do."""
    with pytest.raises(QueryError, match="did you mean 'job'"):
        unchanged.values("jobs", "site")
    with pytest.raises(QueryError, match="'wall_time' is not a dimension"):
        unchanged.values("job", "wall_time")
    with pytest.raises(QueryError, match="limit 0"):
        unchanged.values("job", "site", limit=0)
    with pytest.raises(QueryError, match="not a field of job"):
        unchanged.records("job", filters=(Filter("color", ("red",)),))
    with pytest.raises(QueryError, match="not a record id"):
        unchanged.records("job", ids=[b"short"])
    with pytest.raises(QueryError, match="unknown"):
        unchanged.forget("nothing", NOON)
