"""The ledger on every database: the same records give the same totals, however they come."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import pytest
from hypothesis import strategies as st
from ledger_databases import TIERS, emptied, retiered
from searching import searched_on
from sqlalchemy import select
from structlog.testing import capture_logs
from usage_model import FIRST, HOUR, LATER, SECOND, SHARES, SOON, USE, Fields, batch, cells, newest, use
from viewers import answered

from accounting.archive.archive_file import ArchiveError
from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.periods.closing import close
from accounting.query import answers, record_sums
from accounting.query.calendar import periods_of
from accounting.topology.attributes import Entry, TopologyError
from accounting.topology.topology_table import read_topology, write_topology
from accounting.upkeep.month_marks import marked_months
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.months import parse_month
from accounting.upkeep.tiers import compact
from siteward.query import Filter, QueryError
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.telemetry import LEDGER_DIFFERING, telemetry
from siteward.usage import OF_USAGE, AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage

DAY: Final = 86_400
Group = tuple[Any, ...]


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """An empty ledger."""
    return emptied(database, USE, SOON)


def ask(ledger: Ledger, *wanted: str, **changes: Any) -> Any:
    texts = [text.partition(":") for text in wanted]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in texts)
    question = {"start": FIRST - timedelta(days=30), "end": FIRST + timedelta(days=30)} | changes
    return answered(ledger, UsageQuery(kind="use", wanted=columns, **question))


def test_a_record_is_booked_once(ledger: Ledger) -> None:
    """Sent again, in the same batch or a later one, it is a duplicate and changes nothing."""
    assert ledger.write(batch([use(), use()])).outcomes == [Outcome.STORED, Outcome.DUPLICATE]
    assert ledger.write(batch([use(), use(1)])).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    assert ask(ledger, "sum:wall_time", "sum:core_time", "records").totals == (14400, 57600, 2)


def test_duplicates_that_differ_are_told(ledger: Ledger) -> None:
    """They stay duplicates, but are counted, and one of each batch is named, with who sent it."""

    def counted(*records: Fields) -> int:
        before = telemetry.value(LEDGER_DIFFERING, "use")
        ledger.write(batch(records))
        return round(telemetry.value(LEDGER_DIFFERING, "use") - before)

    first = use(cpu_time=None, code=None)
    assert counted(first, first, use(1)) == 0
    assert counted(first, use(1)) == 0
    assert counted(use(wall_time=7201), use(1, site="T"), use(2)) == 2
    assert counted(use(cpu_time=0), use(code=0)) == 2
    assert counted(use(3), use(3, wall_time=1), use(3)) == 1
    assert counted(use(3, revision=1, wall_time=1), use(3, wall_time=2)) == 0, (
        "another revision says otherwise by right"
    )
    assert ask(ledger, "sum:wall_time", by=("site",)).totals == (7200 * 3 + 1,)
    with capture_logs() as said:
        counted(use(4), use(wall_time=1), use(1, cpu_time=1, _producer="ce1"))
    (line,) = [each for each in said if each["log_level"] == "warning"]
    assert (line["first"], line["producer"], line["records"]) == (use()["_id"].hex(), "test", 2)


def test_a_newer_revision_is_booked_as_the_difference(ledger: Ledger) -> None:
    """What the older one had booked, elsewhere and for other dimensions, is taken away to the last second."""
    ledger.write(batch([use(), use(1)]))
    moved = use(site="T", wall_time=3601, cpu_time=None, revision=1)
    assert ledger.write(batch([moved])).outcomes == [Outcome.REPLACED]
    assert ledger.write(batch([use(), moved])).outcomes == [Outcome.DUPLICATE, Outcome.DUPLICATE]
    answer = ask(ledger, "sum:wall_time", "records", "mean:cpu_time", by=("site",), attribution=Attribution.BY_END)
    assert [(row.group, row.values) for row in answer.rows if row.values[1]] == [
        (("S",), (7200, 1, 7000.0)),
        (("T",), (3601, 1, None)),
    ]
    assert answer.totals == (10801, 2, 7000.0)


def test_records_have_a_rate_and_a_course(ledger: Ledger) -> None:
    """By end: those that ended per second of each period, and all that ended until then; prorated it means nothing."""
    hours = [0, 1, 1, 30]
    ends = [microseconds(FIRST) + hour * HOUR for hour in hours]
    ledger.write(batch([use(number, end=end, start=end - HOUR) for number, end in enumerate(ends)]))
    window = {"start": FIRST, "end": FIRST + timedelta(days=2), "period": Period.DAY}
    answer = ask(ledger, "rate:records", "cumulative:records", "records", attribution=Attribution.BY_END, **window)
    assert [row.values for row in answer.rows] == [(3 / DAY, 3, 3), (1 / DAY, 4, 1)]
    assert (answer.totals, answer.units) == ((4 / (2 * DAY), 4, 4), ("1/s", "1", "1"))
    with pytest.raises(QueryError, match="rate:records: a record runs in many periods; ask with attribution by-end"):
        ask(ledger, "rate:records", **window)


def test_products_are_not_products_of_sums(ledger: Ledger) -> None:
    """Core time of a long job on one processor and a short one on a hundred: summed factors would be a hundredfold."""
    ledger.write(batch([use(0, wall_time=100_000, processors=1), use(1, wall_time=10, processors=100)]))
    assert ask(ledger, "sum:core_time").totals == (101_000,)


def test_what_is_unknown_counts_on_neither_side(ledger: Ledger) -> None:
    """Efficiency is that of the jobs whose processor time is known."""
    ledger.write(batch([use(0, cpu_time=14_400), use(1, cpu_time=None)]))
    for attribution in (Attribution.PRORATED, Attribution.BY_END):
        assert ask(ledger, "ratio:efficiency", attribution=attribution).totals == (0.5,)


def test_names_are_what_they_are(ledger: Ledger) -> None:
    """Case, accents, blanks at the end and what looks like a pattern make different sites."""
    names = ["a", "A", "á", "a ", " a", "a%", "a_", "ß", "ss", "", "a" * 255, "a" * 254 + "b", "'; --", "\\", "%s"]
    ledger.write(batch([use(number, site=name or "-") for number, name in enumerate(names)]))
    answer = ask(ledger, "records", by=("site",), attribution=Attribution.BY_END)
    assert sorted(row.group[0] for row in answer.rows) == sorted(name or "-" for name in names)
    for name in names[:9]:
        (row,) = ask(ledger, "records", by=("site",), filters=(Filter("site", (name,)),)).rows
        assert row.group == (name,)


def test_patterns_are_patterns_of_exact_characters(ledger: Ledger) -> None:
    """A star is any text, a question mark one character; case counts, and a percent sign is itself."""
    ledger.write(batch([use(number, site=name) for number, name in enumerate(["LCG.A", "lcg.a", "LCG%", "LCGX"])]))

    def found(pattern: str, *, negated: bool = False) -> list[str]:
        condition = Filter("site", (pattern,), wildcard=True, negated=negated)
        return [row.group[0] for row in ask(ledger, "records", by=("site",), filters=(condition,)).rows]

    assert found("LCG*") == ["LCG%", "LCG.A", "LCGX"]
    assert found("LCG?") == ["LCG%", "LCGX"]
    assert found("LCG%") == ["LCG%"]
    assert found("LCG*", negated=True) == ["lcg.a"]


def test_extreme_values_are_set_aside(ledger: Ledger) -> None:
    """A job of twenty years, or a wall time of thousands, is refused with the reason; its neighbours are booked."""
    end = microseconds(FIRST)
    long = use(1, start=end - 20 * 365 * DAY * SECOND, end=end)
    written = ledger.write(batch([use(0), long, use(2, wall_time=10**12), use(3, processors=2**40, wall_time=10**9)]))
    assert written.outcomes == [Outcome.STORED, *[Outcome.REJECTED] * 3]
    assert [written.reasons[position].field for position in (1, 2, 3)] == ["end", "wall_time", "core_time"]
    assert ask(ledger, "records").totals == (1,)


def test_sums_beyond_64_bits_are_exact(ledger: Ledger) -> None:
    """The total of a year may pass what one bucket holds."""
    most = 2**53
    records = [
        use(
            n,
            cpu_time=most,
            site=f"S{n % 4}",
            end=microseconds(FIRST) + n % 40 * DAY * SECOND,
            start=microseconds(FIRST),
        )
        for n in range(2000)
    ]
    ledger.write(batch(records))
    assert ask(ledger, "sum:cpu_time", end=FIRST + timedelta(days=60)).totals == (2000 * most,)


def test_a_window_within_a_bucket_is_answered_from_records(database: Database) -> None:
    """The part of a day's bucket is what its records had used up by then, to the second, in both attributions."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch([use(), use(1, site="T", wall_time=10**6 + 1)]))
    end = FIRST + timedelta(hours=2, seconds=1)
    answer = ask(ledger, "sum:wall_time", "records", "started", end=end, by=("site",))
    assert [row.values for row in answer.rows] == [(3601, 1, 1), ((10**6 + 1) * 3601 // 7200, 1, 1)]
    assert ask(ledger, "records", end=end, attribution=Attribution.BY_END).totals == (0,)
    later = ask(ledger, "records", "started", "sum:wall_time", start=end, by=("site",))
    assert later.totals == (2, 0, 3599 + 10**6 + 1 - (10**6 + 1) * 3601 // 7200)


def test_a_window_within_a_bucket_whose_records_are_gone_is_refused(database: Database) -> None:
    """No figure is made up for a part of a bucket; the error names the bucket. Whole ones are answered as before."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch([use(), use(1, site="T")]))
    records = ledger.tables["use"].records
    with database.write() as connection:
        connection.execute(records.delete().where(records.c.name == "1"))
    end = FIRST + timedelta(hours=2)
    with pytest.raises(QueryError, match=r"2026-01-30T02:00:00\+00:00 lies within a bucket of 86400 s"):
        ask(ledger, "records", end=end)
    assert ask(ledger, "records", end=end, filters=(Filter("site", ("S",)),)).totals == (1,)
    assert ask(ledger, "records").totals == (2,)
    with pytest.raises(QueryError, match=r"not all records from .* only they tell p50:wall_time"):
        ask(ledger, "p50:wall_time", attribution=Attribution.BY_END)


def test_means_of_what_does_not_add_up_last(database: Database, tmp_path: Path) -> None:
    """Of a score and a peak, by records that know them: when they are revised, compacted, archived, closed and late."""
    ledger = emptied(database, USE, LATER)
    known = [use(1, score=10, memory=5), use(2, score=None, memory=8, site="T"), use(3, score=13, memory=9)]
    ledger.write(batch(known))
    ledger.write(batch([use(1, score=20, memory=6, revision=1)]))
    asked = partial(ask, ledger, "mean:score", "mean:memory", attribution=Attribution.BY_END, by=("site",))
    before = asked()
    assert [(row.group, row.values) for row in before.rows] == [(("S",), (16.5, 7.5)), (("T",), (None, 8.0))]
    assert before.totals == (16.5, 23 / 3)
    with pytest.raises(QueryError, match="'score' is not a measure that adds up"):
        ask(ledger, "sum:score", attribution=Attribution.BY_END)
    with pytest.raises(QueryError, match="a part of a record has no mean"):
        ask(ledger, "mean:score")
    compact(ledger)
    archive(ledger, tmp_path, FIRST + timedelta(days=1))
    assert asked() == before
    close(ledger, "use", parse_month("2026-01"), "anna")
    ledger.write(batch([use(4, score=100, memory=1)]))
    assert asked().totals == (133 / 3, 24 / 4)
    january = {"start": FIRST - timedelta(days=29), "end": FIRST + timedelta(days=2)}
    assert asked(as_of=AsOf.CLOSING, **january).totals == before.totals


def test_an_archived_bucket_is_cut_again_once_it_is_restored(database: Database, tmp_path: Path) -> None:
    """While its records are in a file, a part of a bucket is refused; back in their table, they answer as before."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch([use(), use(1, end=microseconds(FIRST) + 30 * HOUR)]))
    end = FIRST + timedelta(hours=2, minutes=30)
    before = ask(ledger, "sum:wall_time", "p90:wall_time", end=end, attribution=Attribution.BY_END)
    until = ask(ledger, "sum:wall_time", end=end)
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    with pytest.raises(QueryError, match="not all of its records are there any more"):
        ask(ledger, "sum:wall_time", end=end)
    restore(ledger, tmp_path, file.file)
    assert ask(ledger, "sum:wall_time", end=end) == until
    assert ask(ledger, "sum:wall_time", "p90:wall_time", end=end, attribution=Attribution.BY_END) == before


def test_too_many_records_are_refused_before_they_are_read(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that only many records could answer says so, with what to ask instead."""
    ledger.write(batch([use(number) for number in range(20)]))
    end = FIRST + timedelta(hours=2, seconds=1)
    for limit in ("MOST_LOOKED_AT", "MOST_READ"):
        with monkeypatch.context() as patch:
            patch.setattr(record_sums, limit, 19)
            with pytest.raises(QueryError, match=r"more than 19 records .* whole buckets, a shorter window, or filter"):
                ask(ledger, "records", end=end)
            patch.setattr(record_sums, limit, 20)
            assert ask(ledger, "records", end=end).totals == (20,)
    wanted = ("p50:wall_time", "p50:cpu_time")
    monkeypatch.setattr(record_sums, "MOST_VALUES", 39)
    with pytest.raises(QueryError, match="more than 19 records"):
        ask(ledger, *wanted, attribution=Attribution.BY_END)
    assert ask(ledger, wanted[0], attribution=Attribution.BY_END).totals == (7200,)


def test_answers_that_nobody_reads_are_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows or periods than there is use for are refused with what to ask instead."""
    ledger.write(batch([use(number, site=f"S{number}") for number in range(10)]))
    monkeypatch.setattr(answers, "MOST_ROWS", 9)
    with pytest.raises(QueryError, match="more than 9 rows; ask for longer periods, or fewer dimensions"):
        ask(ledger, "records", by=("site",), period=Period.DAY)
    assert len(ask(ledger, "records", by=("vo",), period=Period.DAY).rows) == 1
    with pytest.raises(QueryError, match="periods, more than 10000; ask for longer ones"):
        ask(ledger, "records", end=FIRST + timedelta(days=1000), period=Period.HOUR)


def test_writers_at_once_lose_nothing(database: Database) -> None:
    """Four writers of the same and of different records, in different orders: each record is booked once."""
    first = emptied(database, USE, SOON)
    records = [use(number, site=f"S{number % 13}") for number in range(400)]
    errors: list[BaseException] = []

    def write(place: int) -> None:
        mine = Ledger(database, {"use": USE}, first.clock)
        try:
            for round_ in range(8):
                start = (round_ + place) % 8 * 50
                chosen = records[start : start + 50]
                mine.write(batch(chosen if place % 2 else chosen[::-1]))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ask(first, "sum:wall_time", "records").totals == (400 * 7200, 400)
    assert ask(first, "sum:wall_time", "records", attribution=Attribution.BY_END).totals == (400 * 7200, 400)


moments = st.integers(0, 40 * DAY) | st.integers(0, 40 * 24).map(lambda hours: hours * 3600)
lasting = st.integers(0, 3 * DAY) | st.integers(0, 48).map(lambda hours: hours * 3600) | st.integers(0, 20 * DAY)


@st.composite
def revisions(draw: st.DrawFn) -> list[Fields]:
    """Records as they arrive: some again, some in several revisions that say something else."""
    arrived: list[Fields] = []
    for number in range(draw(st.integers(0, 6))):
        end = microseconds(FIRST) + draw(moments) * SECOND + draw(st.sampled_from([0, 1, 999_999]))
        arrived += [
            use(
                number,
                end=end,
                start=end - draw(lasting) * SECOND,
                vo=draw(st.sampled_from(["one", "two"])),
                site=draw(st.sampled_from(["S", "T"])),
                user=draw(st.sampled_from(["", "u"])),
                simulated=draw(st.booleans()),
                code=draw(st.sampled_from([None, 0, 1])),
                wall_time=draw(st.integers(0, 10**6) | st.just(10**9)),
                cpu_time=draw(st.none() | st.integers(0, 10**6) | st.just(2**53)),
                processors=draw(st.sampled_from([1, 8, 1000])),
                score=draw(st.none() | st.integers(0, 1000)),
                memory=draw(st.integers(0, 10)),
                revision=draw(st.integers(0, 2)),
            )
            for _ in range(draw(st.integers(1, 3)))
        ]
    return draw(st.permutations(arrived))


UNKNOWN: Final = ((Filter("code", (None,)),), (Filter("code", (None, 1), negated=True),))
"""Conditions on what may not be known."""


@st.composite
def questions(draw: st.DrawFn, offsets: st.SearchStrategy[timedelta]) -> UsageQuery:
    """Any question whose window starts and ends so far from the starts of days."""
    attribution = draw(st.sampled_from([Attribution.PRORATED, Attribution.BY_END]))
    quantities = {Quantity.SUM, Quantity.RATE, Quantity.RATIO, Quantity.RECORDS}
    quantities |= {Quantity.STARTED} if attribution is Attribution.PRORATED else {Quantity.MEAN, *SHARES}
    wanted = []
    for quantity in draw(st.lists(st.sampled_from(sorted(quantities)), min_size=1, max_size=4)):
        of_measure = quantity in {Quantity.SUM, Quantity.RATE, Quantity.MEAN, *SHARES}
        not_added = ["score", "memory"] if quantity is Quantity.MEAN or quantity in SHARES else []
        not_added += ["efficiency"] if quantity in SHARES else []
        measure = draw(st.sampled_from(["wall_time", "cpu_time", "core_time", *not_added])) if of_measure else ""
        wanted.append(WantedUsage(quantity, "efficiency" if quantity is Quantity.RATIO else measure))
    start = FIRST + timedelta(days=draw(st.integers(-25, 30))) + draw(offsets)
    end = start + timedelta(days=draw(st.integers(1, 70))) + draw(offsets)
    return UsageQuery(
        kind="use",
        wanted=tuple(wanted),
        start=start,
        end=end,
        attribution=attribution,
        by=tuple(draw(st.lists(st.sampled_from(["vo", "site", "user", "code", "simulated"]), unique=True, max_size=2))),
        filters=draw(
            st.sampled_from([(), (Filter("site", ("S",)),), (Filter("vo", ("two", "no"), negated=True),), *UNKNOWN])
        ),
        period=draw(
            st.sampled_from(
                [Period.WHOLE, Period.DAY, Period.WEEK, Period.MONTH, Period.QUARTER]
                + ([Period.HOUR] if end - start < timedelta(days=3) else [])
            )
        ),
    )


whole_days: Final = st.just(timedelta(0))
odd: Final = st.one_of(
    st.integers(0, DAY).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 24).map(lambda hours: timedelta(hours=hours)),
    st.integers(0, DAY * SECOND).map(lambda instant: timedelta(microseconds=instant)),
)


def test_a_group_is_shown_though_another_record_was_taken_from_its_buckets(database: Database) -> None:
    """One that was revised by a writer whose buckets are narrow still, after its day was put together."""
    start = microseconds(FIRST) + HOUR
    ledger = emptied(database, USE, FIRST + timedelta(days=2))
    stays = use(1, start=start, end=start + HOUR // 2, wall_time=11)
    moves = use(2, start=start, end=start + 3 * HOUR // 2, wall_time=22)
    ledger.write(batch([stays, moves]))
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=9.5))
    compact(ledger)
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=8))
    ledger.write(batch([moves | {"site": "T", "revision": 1}]))
    wanted = (WantedUsage(Quantity.SUM, "wall_time"), WantedUsage(Quantity.STARTED))
    answer = answered(ledger, UsageQuery(kind="use", wanted=wanted, start=FIRST, end=LATER, by=("site",)))
    assert [(row.group, row.values) for row in answer.rows] == [(("S",), (11, 1)), (("T",), (22, 1))]


FEW: Final = (8, 30)
"""Examples with every change, on a server and on SQLite."""


class Round(msgspec.Struct, kw_only=True):
    """How many records come, how many days pass, in which tiers, and what is kept up then."""

    size: int
    days: int
    hours: tuple[int, ...] = TIERS[0]
    is_compacted: bool = False
    is_archived: bool = False
    is_restored: bool = False


def rounds() -> st.SearchStrategy[list[Round]]:
    """Any course of a ledger."""
    tiers, chance = st.sampled_from(TIERS), st.booleans()
    upkeep = {"is_compacted": chance, "is_archived": chance, "is_restored": chance}
    one = st.builds(Round, size=st.integers(1, 5), days=st.integers(0, 60), hours=tiers, **upkeep)
    return st.lists(one, max_size=6)


class Course:
    """A ledger to which records come while it is kept up: which of them it took, and which wait for a file."""

    def __init__(self, ledger: Ledger, folder: Path, query: UsageQuery) -> None:
        """Begin with an empty one; the question is asked around each move of records."""
        self.ledger = ledger
        self.booked: list[Fields] = []
        self.waiting: list[Fields] = []
        self._folder = folder
        # Whole buckets, and what they say: neither asks for a record.
        first, last = (datetime.combine(each.date(), datetime.min.time(), UTC) for each in (query.start, query.end))
        window = {"start": first, "end": last + timedelta(days=1)}
        wanted = (WantedUsage(Quantity.SUM, "core_time"), WantedUsage(Quantity.RECORDS))
        self._query = UsageQuery(**{**_fields(query), **window, "wanted": wanted, "period": Period.DAY})

    def write(self, records: list[Fields]) -> None:
        """Book some; newer revisions of archived records wait."""
        written = self.ledger.write(batch(records))
        assert all("the older revision is archived" in each.reason for each in written.reasons.values())
        assert [place for place, each in enumerate(written.outcomes) if each is Outcome.REJECTED] == sorted(
            written.reasons
        )
        # Beside a newest revision that waits, those of the same batch below it are none that is booked.
        refused = {records[place]["_id"] for place in written.reasons}
        for record in records:
            (self.waiting if record["_id"] in refused else self.booked).append(record)

    def archive(self, before: datetime) -> None:
        """Records of whole days leave: each figure stays, and each record is known again."""
        answer = answered(self.ledger, self._query)
        list(archive(self.ledger, self._folder, before))
        assert answered(self.ledger, self._query) == answer
        self._know_again()

    def restore(self) -> None:
        """All come back, and what waited for them is booked."""
        answer = answered(self.ledger, self._query)
        for file in files(self.ledger):
            assert restore(self.ledger, self._folder, file.file) == file.records
        assert answered(self.ledger, self._query) == answer
        self._know_again()
        waiting, self.waiting = self.waiting, []
        self.write(waiting)
        assert not self.waiting

    def _know_again(self) -> None:
        outcomes = self.ledger.write(batch(self.booked)).outcomes
        assert outcomes == [Outcome.DUPLICATE] * len(self.booked)


@searched_on(
    *FEW,
    arrived=revisions(),
    rounds=rounds(),
    query=questions(whole_days) | questions(odd),
    now=st.sampled_from([SOON, FIRST + timedelta(days=25), LATER]),
)
def test_totals_are_those_of_the_records(
    database: Database, arrived: list[Fields], rounds: list[Round], query: UsageQuery, now: datetime
) -> None:
    """Whatever the order, batches, duplicates, revisions, tiers, compaction, archiving, window: cells are exact."""
    with TemporaryDirectory() as folder:
        course = Course(emptied(database, USE, now), Path(folder), query)
        rest = list(arrived)
        for each in [*rounds, Round(size=len(rest), days=0, is_restored=True)]:
            course.ledger = retiered(course.ledger, USE, each.hours)
            course.write(rest[: each.size])
            rest = rest[each.size :]
            # What comes later finds wider buckets, and lies beside the narrow ones of the same days.
            now += timedelta(days=each.days)
            course.ledger.clock = partial(microseconds, now)
            if each.is_compacted:
                compact(course.ledger)
                sum_months(course.ledger)
            if each.is_archived:
                course.archive(now)
            if each.is_restored:
                course.restore()
        answer = answered(course.ledger, query)
    # In the order in which they were booked: of equal revisions the first one counts.
    counted = newest(course.booked)
    due = cells(counted, query, periods_of(query.start, query.end, query.period))
    found = {(row.start, row.group): row.values for row in answer.rows}
    # What was taken away again leaves cells of nothing, which say the same as no cell.
    assert {cell: values for cell, values in found.items() if cell in due or any(values)} == due
    whole = cells(counted, UsageQuery(**{**_fields(query), "by": ()}), [(query.start, query.end)])
    assert not whole or answer.totals == whole[query.start, ()]


@searched_on(
    *FEW,
    arrived=revisions(),
    query=questions(whole_days) | questions(odd),
    by=st.permutations(["name", "site", "simulated"]),
    few_names=st.booleans(),
    now=st.sampled_from([SOON, LATER]),
)
def test_what_only_records_say_is_as_exact(
    database: Database, arrived: list[Fields], query: UsageQuery, by: list[str], *, few_names: bool, now: datetime
) -> None:
    """Groups and conditions of a dimension that is in no bucket: every cell, also of records that are in files."""
    ledger = emptied(database, USE, now)
    ledger.write(batch(arrived))
    named = (Filter("name", ("1", "3", "5")),) if few_names else ()
    groups = by[: 1 + by.index("name")] if not few_names else [name for name in by if name != "name"]
    asked = UsageQuery(**{**_fields(query), "by": tuple(groups), "filters": (*query.filters, *named)})
    due = cells(newest(arrived), asked, periods_of(asked.start, asked.end, asked.period))
    answer = answered(ledger, asked)
    assert {(row.start, row.group): row.values for row in answer.rows} == due
    assert answer.of_records == ("name",)
    with TemporaryDirectory() as folder:
        list(archive(ledger, Path(folder), LATER))
        assert answered(ledger, asked, archive=Path(folder)) == answer


def test_what_only_records_say_needs_all_of_them(database: Database, tmp_path: Path) -> None:
    """Without the archive at hand its files are named; a percentile of a year comes from them where they are."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch([use(1, cpu_time=7200), use(2, cpu_time=14_400), use(3, end=microseconds(FIRST) + 30 * HOUR)]))
    asked = partial(UsageQuery, kind="use", start=FIRST, end=LATER, attribution=Attribution.BY_END)
    named = asked(wanted=(WantedUsage(Quantity.RECORDS),), by=("name",))
    median = asked(wanted=(WantedUsage(Quantity.P50, "efficiency"), WantedUsage(Quantity.MAX, "wall_time")))
    before = answered(ledger, named), answered(ledger, median)
    assert before[1].totals == (0.25, 7200)
    assert [str(each) for each in before[1].types] == ["number", "integer"]
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    with pytest.raises(QueryError, match=f"only records say name, and those in 1 files of the archive .*{file.file}"):
        answered(ledger, named)
    with pytest.raises(QueryError, match=r"not all records from .* only they tell p50:efficiency"):
        answered(ledger, median)
    assert (answered(ledger, named, archive=tmp_path), answered(ledger, median, archive=tmp_path)) == before
    assert answered(ledger, msgspec.structs.replace(named, start=FIRST + timedelta(days=1))).groups == 1
    (tmp_path / file.file).write_bytes(b"other bytes")
    with pytest.raises(QueryError, match=f"{file.file} of the archive holds records that are asked for"):
        answered(ledger, median, archive=tmp_path)
    closing = msgspec.structs.replace(named, as_of=AsOf.CLOSING)
    with pytest.raises(QueryError, match="only records say name, and what has changed since closing"):
        answered(ledger, closing)


@searched_on(*FEW, arrived=revisions(), query=questions(whole_days) | questions(odd), top=st.integers(0, 3))
def test_other_and_cumulative_are_exact(database: Database, arrived: list[Fields], query: UsageQuery, top: int) -> None:
    """In each period the top groups and Other add up to the period; cumulative, to all that was used until its end."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch(arrived))
    wanted = tuple(WantedUsage(quantity, "core_time") for quantity in (Quantity.SUM, Quantity.CUMULATIVE))
    asked = UsageQuery(**{**_fields(query), "wanted": wanted, "by": ("site", "user"), "top": top})
    answer = answered(ledger, asked)
    counted = newest(arrived)
    whole = cells(counted, asked, [(query.start, query.end)])
    assert answer.groups == len({group for _, group in whole})
    kept = top_of(whole, top)
    so_far = 0
    for start, end in periods_of(query.start, query.end, query.period):
        due = sum(values[0] for values in cells(counted, asked, [(start, end)]).values())
        so_far += due
        rows = [row for row in answer.rows if row.start == start]
        assert {row.group for row in rows if not row.other} <= kept
        assert sum(row.values[0] or 0 for row in rows) == due
        assert sum(row.values[1] or 0 for row in rows) == so_far
    assert answer.totals == (so_far, so_far)


def top_of(whole: dict[tuple[datetime, Group], tuple[Any, ...]], top: int) -> set[Group]:
    """The groups with the largest first values of the whole window; all of them where none is to be left out."""

    def rank(cell: tuple[datetime, Group]) -> Any:
        first = whole[cell][0]
        return first is None, -(first or 0), [(value is not None, value) for value in cell[1]]

    return {group for _, group in sorted(whole, key=rank)[: top or None]}


@searched_on(
    *FEW, arrived=revisions(), query=questions(whole_days) | questions(odd), top=st.integers(1, 2), at=st.booleans()
)
def test_other_is_what_all_others_are_together(
    database: Database, arrived: list[Fields], query: UsageQuery, top: int, *, at: bool
) -> None:
    """Of any quantity: a ratio, mean or percentile over all their records, and each record that ran counted once."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch(arrived))
    asked = UsageQuery(**{**_fields(query), "by": ("site", "code") if at else ("user", "vo", "site"), "top": top})
    answer = answered(ledger, asked)
    counted = newest(arrived)
    kept = top_of(cells(counted, asked, [(query.start, query.end)]), top)
    others = [record for record in counted if tuple(record[name] for name in asked.by) not in kept]
    periods = list(periods_of(query.start, query.end, query.period))
    due = {(cell, False): values for cell, values in cells(counted, asked, periods).items() if cell[1] in kept}
    together = cells(others, UsageQuery(**{**_fields(asked), "by": ()}), periods)
    due |= {(cell, True): values for cell, values in together.items()}
    found = {((row.start, row.group), row.other): row.values for row in answer.rows}
    assert {cell: values for cell, values in found.items() if cell in due or any(values)} == due


def test_compaction_makes_fewer_buckets_of_the_same_totals(database: Database) -> None:
    """Ten days of hours become ten days; each day says what it said before, running and started records included."""
    ledger = emptied(database, USE, FIRST + timedelta(days=11))
    records = [
        use(
            number,
            start=microseconds(FIRST) + hour * 3600 * SECOND,
            end=microseconds(FIRST) + (hour + 30) * 3600 * SECOND,
        )
        for number, hour in enumerate(range(0, 240, 5))
    ]
    ledger.clock = lambda: microseconds(FIRST)
    ledger.write(batch(records))
    wanted = ("sum:core_time", "records", "started")
    before = ask(ledger, *wanted, period=Period.DAY, by=("site",))
    assert compact(ledger) == 0
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=40))
    assert compact(ledger) > 240
    assert ask(ledger, *wanted, period=Period.DAY, by=("site",)) == before
    assert compact(ledger) == 0
    ledger.write(batch([use(1000)]))
    assert compact(ledger) == 0, "a late record goes into a bucket of its day at once"
    assert ask(ledger, "records").totals == (len(records) + 1,)


@pytest.mark.parametrize(("before", "after"), [((1, 6, 24), (1, 8, 24)), ((8, 24), (12, 24)), ((1, 12), (1, 6))])
def test_buckets_of_other_tiers_are_left_where_they_do_not_fit(
    database: Database, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    """Every window says the same before and after, whatever the widths were; wider ones that all divide take all."""
    ledger = retiered(emptied(database, USE, FIRST), USE, before)
    hours = [1, 7, 9, 11, 13, 19]
    starts = [microseconds(FIRST) + hour * HOUR for hour in hours]
    ledger.write(batch([use(number, start=start, end=start + HOUR // 2) for number, start in enumerate(starts)]))
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=10))
    compact(ledger)
    ledger = retiered(ledger, USE, after)
    compact(ledger)
    for first, last in ((0, 8), (8, 16), (16, 24), (0, 12), (5, 12), (0, 24)):
        window = {"start": FIRST + timedelta(hours=first), "end": FIRST + timedelta(hours=last)}
        for attribution in (Attribution.PRORATED, Attribution.BY_END):
            answer = ask(ledger, "sum:wall_time", "records", attribution=attribution, **window)
            count = sum(first <= hour < last for hour in hours)
            assert answer.totals == (7200 * count, count), f"from {first} to {last}"
    ledger = retiered(ledger, USE, (1, 24))
    ledger.clock = lambda: microseconds(LATER)
    compact(ledger)
    with database.read() as connection:
        widths = connection.execute(select(ledger.tables["use"].by_end.c["_width"])).scalars().all()
    assert widths == [DAY]


def test_compaction_while_others_write(database: Database) -> None:
    """Records that come in while their days are compacted are all there, in every total."""
    start = microseconds(FIRST)
    ledger = emptied(database, USE, FIRST)
    records = [use(number, end=start + (number % 200 + 3) * 3600 * SECOND, start=start) for number in range(600)]
    ledger.write(batch(records[:200]))
    errors: list[BaseException] = []

    def write(place: int) -> None:
        mine = Ledger(database, {"use": USE}, lambda: start)
        try:
            for first in range(200 + place * 200, 400 + place * 200, 20):
                mine.write(batch(records[first : first + 20]))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    later = Ledger(database, {"use": USE}, lambda: microseconds(LATER))
    while any(thread.is_alive() for thread in threads):
        compact(later)
    for thread in threads:
        thread.join()
    assert errors == []
    due = sum(record["wall_time"] for record in records)
    for attribution in (Attribution.PRORATED, Attribution.BY_END):
        assert ask(ledger, "sum:wall_time", attribution=attribution).totals == (due,)


def test_months_are_summed_once_and_again_when_they_change(database: Database) -> None:
    """A year is read from sums of months; a late record takes the mark of its month away, and of no other."""
    ledger = emptied(database, USE, LATER)
    ledger.write(batch([use(number, end=microseconds(FIRST) + number * DAY * SECOND * 9) for number in range(1, 20)]))
    question = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2027, 1, 1, tzinfo=UTC)}
    before = ask(ledger, "sum:core_time", "records", **question)
    assert sum_months(ledger) == 13, "January to July; the first one ended in February"
    assert sum_months(ledger) == 0
    assert ask(ledger, "sum:core_time", "records", **question) == before
    damaged = ledger.tables["use"].months[0][1]
    with database.write() as connection:
        connection.execute(damaged.update().values(core_time=damaged.c.core_time + 1))
    assert ask(ledger, "sum:core_time", **question) != before, "the sums of months are what is read"
    late = use(
        100, start=microseconds(datetime(2026, 3, 2, tzinfo=UTC)), end=microseconds(datetime(2026, 3, 4, tzinfo=UTC))
    )
    ledger.write(batch([late]))
    with database.read() as connection:
        marked = marked_months(connection, ledger.common.summed, ledger.tables["use"].by_end)
    assert [datetime.fromtimestamp(month, UTC).month for month in marked] == [2, 4, 5, 6, 7]
    assert sum_months(ledger) == 2
    assert sum_months(ledger) == 0


def test_months_are_summed_while_others_write(database: Database) -> None:
    """Late records that come in while their months are summed are in every total, and in the sums at the end."""
    emptied(database, USE, LATER)
    digests = prepare(database, {"use": USE})
    start = microseconds(FIRST)
    records = [use(number, start=start, end=start + (number % 60 + 1) * DAY * SECOND) for number in range(300)]
    errors: list[BaseException] = []

    def write(place: int) -> None:
        mine = Ledger(database, {"use": USE}, lambda: microseconds(LATER), digests)
        try:
            for first in range(place * 150, 150 + place * 150, 10):
                mine.write(batch(records[first : first + 10]))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    summing = Ledger(database, {"use": USE}, lambda: microseconds(LATER), digests)
    while any(thread.is_alive() for thread in threads):
        sum_months(summing)
    for thread in threads:
        thread.join()
    assert errors == []
    sum_months(summing)
    assert sum_months(summing) == 0
    for attribution in OF_USAGE:
        by_month = ask(summing, "sum:core_time", attribution=attribution, start=FIRST, end=FIRST + timedelta(days=90))
        assert by_month.totals == (300 * 7200 * 4,)


def test_a_duplicate_of_an_archived_record_is_a_duplicate(database: Database, tmp_path: Path) -> None:
    """Records leave for files and their totals stay; sent again they count no second time, and they can come back."""
    ledger = emptied(database, USE, SOON)
    records = [
        use(n, end=microseconds(FIRST) + n * HOUR, start=microseconds(FIRST), revision=n % 2) for n in range(1, 60)
    ]
    ledger.write(batch(records))
    before = ask(ledger, "sum:core_time", "records", period=Period.DAY)
    found = list(archive(ledger, tmp_path, FIRST + timedelta(days=2, hours=5)))
    assert [(file.day, file.records) for file in found] == [
        (int(FIRST.timestamp()), 23),
        (int(FIRST.timestamp()) + DAY, 24),
    ]
    assert ledger.write(batch(records)).outcomes == [Outcome.DUPLICATE] * 59
    assert ask(ledger, "sum:core_time", "records", period=Period.DAY) == before
    # One that comes late into an archived day is new, and goes into a file of its own.
    late = use(100, end=microseconds(FIRST) + HOUR, start=microseconds(FIRST))
    assert ledger.write(batch([late, records[0]])).outcomes == [Outcome.STORED, Outcome.DUPLICATE]
    assert [file.records for file in archive(ledger, tmp_path, FIRST + timedelta(days=2))] == [1]
    assert ledger.write(batch([late])).outcomes == [Outcome.DUPLICATE]

    newer = records[3] | {"revision": 5, "wall_time": 1}
    written = ledger.write(batch([newer]))
    assert written.outcomes == [Outcome.REJECTED]
    assert "restore that file" in written.reasons[0].reason
    assert restore(ledger, tmp_path, found[0].file) == 23
    assert ledger.write(batch([newer, *records])).outcomes == [Outcome.REPLACED] + [Outcome.DUPLICATE] * 59
    less = records[3]["wall_time"] * 4 - 4
    assert ask(ledger, "sum:core_time").totals == (before.totals[0] + late["wall_time"] * 4 - less,)


def test_an_archive_that_was_changed_is_noticed(database: Database, tmp_path: Path) -> None:
    """A file of other bytes, or none, is named and restores nothing."""
    ledger = emptied(database, USE, SOON)
    ledger.write(batch([use()]))
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    path = tmp_path / file.file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArchiveError, match="not what was written"):
        restore(ledger, tmp_path, file.file)
    path.unlink()
    with pytest.raises(ArchiveError, match="cannot be read"):
        restore(ledger, tmp_path, file.file)
    assert files(ledger) == [file]


def federated(ledger: Ledger, *entries: tuple[str, str, datetime | None, datetime | None]) -> None:
    """Say to which federation sites belong, and from when to when."""
    made = [
        Entry("site", site, "federation", federation, *(None if day is None else int(day.timestamp()) for day in valid))
        for site, federation, *valid in entries
    ]
    write_topology(ledger.database, ledger.common.topology, made, int(FIRST.timestamp()))


def test_a_move_of_a_site_to_another_federation_does_not_rewrite_the_past(database: Database) -> None:
    """What it used before the move stays with the old one, to the second, and no later import may say otherwise."""
    ledger = emptied(database, USE, LATER)
    start = microseconds(FIRST) + 12 * HOUR
    ledger.write(batch([use(0, start=start, end=start + 24 * HOUR, wall_time=86_401), use(1, site="T")]))
    move = FIRST + timedelta(days=1)
    federated(ledger, ("S", "old", None, None), ("T", "old", None, None))
    before = ask(ledger, "sum:wall_time", "records", by=("site.federation",))
    assert [(row.group, row.values) for row in before.rows] == [(("old",), (86_401 + 7200, 2))]

    federated(ledger, ("S", "old", None, move), ("S", "new", move, None), ("T", "old", None, None))
    after = ask(ledger, "sum:wall_time", "records", by=("site.federation",), period=Period.DAY)
    assert [(row.start, row.group, row.values) for row in after.rows] == [
        (FIRST, ("old",), (43_200 + 7200, 2)),
        (move, ("new",), (43_201, 1)),
    ]
    assert after.totals == before.totals
    by_end = ask(ledger, "sum:wall_time", by=("site.federation",), attribution=Attribution.BY_END)
    assert [(row.group, row.values) for row in by_end.rows] == [(("new",), (86_401,)), (("old",), (7200,))]

    with pytest.raises(TopologyError, match="the past would be rewritten: site 'S', federation: 'old' becomes 'new'"):
        federated(ledger, ("S", "new", None, None), ("T", "old", None, None))
    again = ask(ledger, "sum:wall_time", "records", by=("site.federation",), period=Period.DAY)
    assert again == after


def test_what_a_site_belongs_to_can_be_asked_for(ledger: Ledger) -> None:
    """A condition on an attribute holds for the time in which the site has it; unknown is a group of its own."""
    ledger.write(batch([use(0), use(1, site="T"), use(2, site="U")]))
    federated(ledger, ("S", "F-A", None, FIRST), ("S", "F-B", FIRST, None), ("T", "F-A", None, None))

    def found(*values: str, **changes: Any) -> list[tuple[Any, ...]]:
        condition = Filter("site.federation", values, **changes)
        return [row.group for row in ask(ledger, "records", by=("site",), filters=(condition,)).rows]

    assert found("F-A") == [("T",)]
    assert found("F-A", negated=True) == [("S",), ("U",)]
    assert found("f-*", wildcard=True) == []
    assert found("F-?", wildcard=True) == [("S",), ("T",)]
    assert found("F-?", wildcard=True, negated=True) == [("U",)]
    largest = ask(ledger, "max:core_time", by=("site.federation",), attribution=Attribution.BY_END).rows
    assert [(row.group, row.values) for row in largest] == [((each,), (28_800,)) for each in (None, "F-A", "F-B")]
    rows = ask(ledger, "records", by=("site.federation", "site")).rows
    assert [row.group for row in rows] == [(None, "U"), ("F-A", "T"), ("F-B", "S")]
    with pytest.raises(QueryError, match=r"'site\.tier' is not in the topology of use; there are site\.federation"):
        ask(ledger, "records", by=("site.tier",))


def test_topologies_written_at_once_are_one_of_them(database: Database) -> None:
    """Two imports at the same time come one after the other: what is kept contradicts nothing."""
    ledger = emptied(database, USE, SOON)
    errors: list[BaseException] = []

    def write(place: int) -> None:
        try:
            for day in range(5):
                move = FIRST + timedelta(days=10 * place + day)
                federated(ledger, ("S", "old", None, move), ("S", "new", move, None))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as connection:
        assert len(list(read_topology(connection, ledger.common.topology))) == 2


@searched_on(
    *FEW,
    arrived=revisions(),
    query=questions(whole_days) | questions(odd),
    now=st.sampled_from([SOON, LATER]),
    moves=st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted),
)
def test_sums_by_federation_are_those_of_the_records(
    database: Database, arrived: list[Fields], query: UsageQuery, now: datetime, moves: list[int]
) -> None:
    """Whatever the moves, windows and tiers: each federation has what its sites used while they were in it."""
    ledger = emptied(database, USE, now)
    ledger.write(batch(arrived))
    one, other = (FIRST + timedelta(days=day) for day in moves)
    stays = [("S", "A", None, one), ("T", "B", None, other)]
    federated(ledger, *stays, ("T", "A", other, None), *([("S", "B", one, other)] if one < other else []))
    wanted = (WantedUsage(Quantity.SUM, "core_time"),)
    asked = {**_fields(query), "wanted": wanted, "filters": ()}
    answer = answered(ledger, UsageQuery(**{**asked, "by": ("site.federation",)}))
    due: dict[tuple[datetime, str | None], int] = {}
    for start, end in periods_of(query.start, query.end, query.period):
        edges = sorted({start, end, *(move for move in (one, other) if start < move < end)})
        found = cells(newest(arrived), UsageQuery(**{**asked, "by": ("site",)}), pairwise(edges))
        for (piece, (site,)), (used,) in found.items():
            federation = ("A" if piece < one else "B" if piece < other else None) if site == "S" else None
            federation = ("B" if piece < other else "A") if site == "T" else federation
            due[start, federation] = due.get((start, federation), 0) + used
    rows = {(row.start, row.group[0]): row.values[0] for row in answer.rows}
    assert {cell: used for cell, used in rows.items() if used} == {cell: used for cell, used in due.items() if used}
    assert answer.totals == (sum(due.values()),)


def _fields(query: UsageQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}
