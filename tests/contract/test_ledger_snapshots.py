"""Snapshots in the ledger, on every database: what there was, whatever comes in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import TIERS, emptied, in_brief, retiered
from searching import searched
from snapshot_model import (
    ALONE,
    LEVEL,
    MEASURES,
    NOT_ADDED,
    OF_MEASURES,
    Fields,
    after,
    ask,
    cells,
    level,
    level_batch,
    wanted,
)
from usage_model import FIRST, LATER, SECOND, SOON, newest
from viewers import answered

from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.booking.postings import Postings
from accounting.booking.snapshots import Snapshots
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.topology.attributes import Entry
from accounting.topology.topology_table import write_topology
from accounting.upkeep.tiers import compact
from siteward.query import Filter, QueryError
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage

DAY: Final = 86_400


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """An empty ledger."""
    return emptied(database, LEVEL, SOON)


def test_a_snapshot_is_booked_once(ledger: Ledger) -> None:
    """Sent again it is a duplicate; another one of the same series and instant adds up with it."""
    assert ledger.write(level_batch([level(), level()])).outcomes == [Outcome.STORED, Outcome.DUPLICATE]
    assert ledger.write(level_batch([level(), level(1)])).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    answer = ask(ledger, "sum:used", "mean:used", "last:used", "max:used", "records", "instants", "cycles")
    assert answer.totals == (200, 200.0, 200, 100, 2, 1, 1)


def test_means_know_what_was_there(ledger: Ledger) -> None:
    """A storage that existed for one of four cycles: a quarter of it over the month, all of it while it was there."""
    there = [level(0, time=after(hours=hour), used=1000) for hour in range(4)]
    ledger.write(level_batch([*there, level(1, time=after(hours=1), site="T", used=400)]))
    answer = ask(ledger, "mean:used", "mean-present:used", "last:used", "last-known:used", by=("site",))
    assert [(row.group, row.values) for row in answer.rows] == [
        (("S",), (1000.0, 1000.0, 1000, 1000)),
        (("T",), (100.0, 400.0, 0, 400)),
    ]
    assert answer.totals == (1100.0, 1400.0, 1000, 1400)


def test_a_weekly_mean_over_a_month(database: Database) -> None:
    """Days with few cycles weigh less than days with many: a week's mean is no mean of its days' means."""
    ledger = emptied(database, LEVEL, LATER)
    records = [
        level(0, time=after(days=day, hours=hour), used=1000 * day + hour)
        for day in range(31)
        for hour in range(1 if day % 3 else 24)
    ]
    ledger.write(level_batch(records))
    compact(ledger)
    start, end = FIRST, FIRST + timedelta(days=31)
    answer = ask(ledger, "mean:used", start=start, end=end, period=Period.WEEK)
    due = []
    for first, last in periods_of(start, end, Period.WEEK):
        values = [each["used"] for each in records if microseconds(first) <= each["time"] < microseconds(last)]
        due.append(sum(values) / len(values))
    assert [row.values[0] for row in answer.rows] == due
    assert answer.totals == (sum(each["used"] for each in records) / len(records),)
    assert answer.totals[0] != pytest.approx(sum(due) / len(due), rel=0.01)


def test_last_is_the_latest_whatever_comes_first(ledger: Ledger) -> None:
    """Two writers, the older cycle last: what was last stays, least and most are of all."""
    ledger.write(level_batch([level(time=after(hours=2), used=7)]))
    ledger.write(level_batch([level(time=after(hours=1), used=9)]))
    ledger.write(level_batch([level(time=after(hours=1, minutes=30), used=1)]))
    assert ask(ledger, "last:used", "min:used", "max:used", "sum:used").totals == (7, 1, 9, 17)


def test_a_newer_revision_takes_the_place_of_what_was_least_and_last(ledger: Ledger) -> None:
    """Nothing of the older one stays, at its old site or at the new one, nor with the producer that saw it."""
    ledger.write(level_batch([level(0, used=5), level(1, used=50, time=after(hours=1), producer="q")]))
    moved = level(1, used=20, time=after(hours=1), site="T", revision=1)
    assert ledger.write(level_batch([moved])).outcomes == [Outcome.REPLACED]
    asked = ("sum:used", "min:used", "max:used", "last-known:used", "cycles", "mean:used")
    answer = ask(ledger, *asked, by=("site",))
    assert [(row.group, row.values) for row in answer.rows] == [
        (("S",), (5, 5, 5, 5, 2, 2.5)),
        (("T",), (20, 20, 20, 20, 2, 10.0)),
    ]
    assert ask(ledger, *asked).totals == (25, 5, 20, 25, 2, 12.5)


def test_what_does_not_add_up_is_put_together_as_it_combines(ledger: Ledger) -> None:
    """Two servers of one product: what is owned is the latest, a peak the largest, a load the mean; none is a sum."""
    first = level(0, user="one", quota=10, peak=7, load=100)
    second = level(1, user="two", quota=10, peak=9, load=300)
    later = [level(2, time=after(hours=1), user="one", quota=12, peak=3, load=200)]
    ledger.write(level_batch([first, second, *later, level(3, time=after(hours=1), user="one", load=None)]))
    texts = ("last:quota", "last-known:quota", "max:quota", "min:quota", "max:peak", "last-known:peak")
    assert ask(ledger, *texts).totals == (12, 12, 12, 10, 9, 9)
    answer = ask(ledger, "mean:load", "mean-present:load", "last:load", "last-known:load", "mean:peak")
    assert answer.totals == (200.0, 200.0, 200.0, 250.0, 19 / 4)
    assert [str(each) for each in answer.types] == ["number"] * 5


def test_cycles_that_came_in_part_are_told(ledger: Ledger) -> None:
    """They count, since what did come was there, and how many they are can be asked."""
    ledger.write(level_batch([level(0, cycle_size=2), level(1, cycle_size=2, site="T")]))
    ledger.write(level_batch([level(2, cycle_size=2, time=after(hours=1))]))
    assert ask(ledger, "cycles", "incomplete", "mean:used").totals == (2, 1, 150.0)
    ledger.write(level_batch([level(3, cycle_size=2, time=after(hours=1))]))
    assert ask(ledger, "cycles", "incomplete", "mean:used").totals == (2, 0, 200.0)


def test_what_snapshots_do_not_have_is_refused(ledger: Ledger) -> None:
    """Nothing was used that could be prorated, and nothing runs; the error says what to ask instead."""
    for attribution in (Attribution.PRORATED, Attribution.BY_END):
        with pytest.raises(QueryError, match="ask with attribution at-instant"):
            ask(ledger, "sum:used", attribution=attribution)
    with pytest.raises(QueryError, match="have no rate in the ledger; there are cycles, incomplete"):
        ask(ledger, "rate:used")
    with pytest.raises(QueryError, match="'copy' is not a whole-number measure of level"):
        ask(ledger, "mean:copy")
    with pytest.raises(QueryError, match="'quota' is not a whole-number measure that adds up of level"):
        ask(ledger, "sum:quota")
    with pytest.raises(QueryError, match="cycles takes no measure"):
        ask(ledger, "cycles:used")


def test_sums_beyond_64_bits_are_exact(ledger: Ledger) -> None:
    """A group of many large series adds up to the last unit; a record that is too much for its bucket is set aside."""
    ledger.write(level_batch([level(number, site=f"S{number}", used=2**53, copies=200) for number in range(10)]))
    assert ask(ledger, "sum:stored", "last:stored").totals == (2**53 * 2000, 2**53 * 2000)
    most = 2**53
    written = ledger.write(level_batch([level(20 + n, time=after(hours=1), used=most, copies=255) for n in range(6)]))
    assert written.outcomes.count(Outcome.REJECTED) == 2


def test_snapshots_of_an_archived_day_wait_for_it(database: Database, tmp_path: Path) -> None:
    """A duplicate is one, what is new comes into the dead letters with the file to restore, and fits in afterwards."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch([level(0), level(0, time=after(days=1))]))
    before = ask(ledger, "sum:used", "last:used", "min:used")
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    late = level(1, used=1)
    written = ledger.write(level_batch([level(0), late]))
    assert written.outcomes == [Outcome.DUPLICATE, Outcome.REJECTED]
    assert "its day is archived" in written.reasons[1].reason
    assert ask(ledger, "sum:used", "last:used", "min:used") == before
    with pytest.raises(QueryError, match="not all of its records are there any more"):
        ask(ledger, "sum:used", end=FIRST + timedelta(minutes=30))
    restore(ledger, tmp_path, file.file)
    assert ledger.write(level_batch([level(0), late])).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    assert ask(ledger, "sum:used", "last:used", "min:used").totals == (201, 100, 1)


def test_a_day_may_be_archived_in_several_files(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a long one is: what is in any of them is a duplicate, and what is in none waits."""
    ledger = emptied(database, LEVEL, SOON)
    monkeypatch.setattr("accounting.archive.archiving.AT_ONCE", 1)
    ledger.write(level_batch([level(number) for number in range(3)]))
    assert len(list(archive(ledger, tmp_path, FIRST + timedelta(days=1)))) == 3
    written = ledger.write(level_batch([level(number) for number in range(4)]))
    assert written.outcomes == [*[Outcome.DUPLICATE] * 3, Outcome.REJECTED]
    assert [*written.reasons] == [3]


@in_brief
def test_a_day_that_is_archived_while_it_is_made_anew(
    open_database: Callable[[], Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records go between two looks at them: what would be made of none is not kept, and the late one waits."""
    ledger = emptied(open_database(), LEVEL, FIRST + timedelta(days=3))
    ledger.write(level_batch([level(number, time=after(hours=number)) for number in range(5)]))
    other = Ledger(open_database(), {"level": LEVEL}, ledger.clock)
    look = Snapshots._seen_anew  # what it does inside.

    def meanwhile(self: Snapshots, day: int, series: Sequence[int]) -> Postings:
        monkeypatch.setattr(Snapshots, "_seen_anew", look)
        assert [file.records for file in archive(other, tmp_path, FIRST + timedelta(days=1))] == [5]
        return look(self, day, series)

    monkeypatch.setattr(Snapshots, "_seen_anew", meanwhile)
    written = ledger.write(level_batch([level(77, time=after(hours=2), used=7)]))
    assert written.outcomes == [Outcome.REJECTED]
    assert "restore" in str(written.reasons[0])
    assert ask(ledger, "records", "sum:used").totals == (5, 500)
    assert list(verify(ledger, Scope(tmp_path), Counts())) == []


def test_writers_and_compaction_at_once_lose_nothing(database: Database) -> None:
    """Four writers of the same cycles in parts, revisions among them, while their days are put together."""
    first = emptied(database, LEVEL, FIRST)
    records = [
        level(number, time=after(hours=number % 7 * 5), producer=f"p{number % 3}", site=f"S{number % 5}", used=number)
        for number in range(280)
    ]
    newer = [record | {"used": 1000 + record["used"], "revision": 1} for record in records[::4]]
    arriving = [*records, *newer]
    errors: list[BaseException] = []

    def write(place: int) -> None:
        mine = Ledger(database, {"level": LEVEL}, first.clock)
        try:
            for round_ in range(10):
                start = (round_ * 3 + place * 2) % 10 * 35
                mine.write(level_batch(arriving[start : start + 35]))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    later = Ledger(database, {"level": LEVEL}, lambda: microseconds(LATER))
    while any(thread.is_alive() for thread in threads):
        compact(later)
    for thread in threads:
        thread.join()
    assert errors == []
    texts = ("sum:used", "min:used", "max:used", "last:used", "records", "instants", "cycles", "mean:used")
    answer = ask(first, *texts, by=("site",), period=Period.DAY)
    due = cells(newest(arriving), answer.query, periods_of(answer.query.start, answer.query.end, Period.DAY))
    assert {(row.start, row.group): row.values for row in answer.rows} == approximately(due)


def approximately(due: dict[Any, tuple[Any, ...]]) -> dict[Any, Any]:
    """Means are divided in another order than by hand; everything else is exact."""
    return {
        cell: tuple(pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for value in values)
        for cell, values in due.items()
    }


moments = st.sampled_from([0, 1, 2, 30, 31]).flatmap(
    lambda day: st.sampled_from([0, 1800, 3600, 7200, DAY - 1]).map(lambda second: day * DAY + second)
)


@st.composite
def revisions(draw: st.DrawFn) -> list[Fields]:
    """Records as they arrive: of the same and other series and instants, some again, some revised."""
    arrived: list[Fields] = []
    for number in range(draw(st.integers(0, 8))):
        time = microseconds(FIRST) + draw(moments) * SECOND + draw(st.sampled_from([0, 1, 999]))
        arrived += [
            level(
                number,
                time=time,
                vo=draw(st.sampled_from(["one", "two"])),
                producer=draw(st.sampled_from(["p", "q"])),
                site=draw(st.sampled_from(["S", "T"])),
                user=draw(st.sampled_from(["", "u"])),
                cycle_size=draw(st.integers(1, 3)),
                used=draw(st.integers(0, 10**6) | st.just(2**53)),
                files=draw(st.none() | st.integers(0, 100)),
                copies=draw(st.sampled_from([1, 3])),
                quota=draw(st.none() | st.integers(0, 9)),
                peak=draw(st.integers(0, 9)),
                load=draw(st.none() | st.integers(0, 1000)),
                revision=draw(st.integers(0, 2)),
            )
            for _ in range(draw(st.integers(1, 3)))
        ]
    return draw(st.permutations(arrived))


def measures_of(quantity: Quantity) -> st.SearchStrategy[str]:
    """Those of which a quantity can be asked."""
    return st.sampled_from(MEASURES if quantity is Quantity.SUM else (*MEASURES, *NOT_ADDED))


@st.composite
def questions(draw: st.DrawFn) -> UsageQuery:
    """Any question, also one whose window is not of whole buckets."""
    columns = [
        WantedUsage(quantity, draw(measures_of(quantity)) if quantity in OF_MEASURES else "")
        for quantity in draw(st.lists(st.sampled_from([*OF_MEASURES, *ALONE]), min_size=1, max_size=5))
    ]
    offsets = st.just(0) | st.sampled_from([1800, 3600, 5000, DAY - 1])
    start = FIRST + timedelta(days=draw(st.integers(-3, 31)), seconds=draw(offsets))
    end = start + timedelta(days=draw(st.integers(1, 50)), seconds=draw(offsets))
    return UsageQuery(
        kind="level",
        wanted=(*columns, WantedUsage(Quantity.RATIO, "size")),
        start=start,
        end=end,
        attribution=Attribution.AT_INSTANT,
        by=tuple(draw(st.lists(st.sampled_from(["vo", "site", "user", "producer"]), unique=True, max_size=2))),
        filters=draw(st.sampled_from([(), (Filter("site", ("S",)),), (Filter("vo", ("two", "no"), negated=True),)])),
        period=draw(st.sampled_from([Period.WHOLE, Period.DAY, Period.WEEK, Period.MONTH])),
    )


few: Final = searched(6)


Round = tuple[int, int, bool, tuple[int, ...]]
"""How many records come, how many days pass, whether buckets are put together, in tiers of so many hours."""


def arriving(database: Database, arrived: list[Fields], rounds: list[Round], now: datetime) -> Ledger:
    """A ledger to which records came in batches, some days between them, with compaction here and there."""
    ledger = emptied(database, LEVEL, now)
    rest = list(arrived)
    for size, days, is_compacted, hours in [*rounds, (len(rest), 0, False, TIERS[0])]:
        ledger = retiered(ledger, LEVEL, hours)
        ledger.write(level_batch(rest[:size]))
        rest = rest[size:]
        now += timedelta(days=days)
        ledger.clock = partial(microseconds, now)
        if is_compacted:
            compact(ledger)
    return ledger


@few
@given(
    arrived=revisions(),
    rounds=st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 60), st.booleans(), st.sampled_from(TIERS)), max_size=6
    ),
    query=questions(),
    now=st.sampled_from([SOON, FIRST + timedelta(days=25), LATER]),
)
def test_answers_are_those_of_the_records(
    database: Database, arrived: list[Fields], rounds: list[Round], query: UsageQuery, now: datetime
) -> None:
    """Whatever the order, batches, duplicates, revisions, tiers now and before, compaction, window: cells are right."""
    ledger = arriving(database, arrived, rounds, now)
    answer = answered(ledger, query)
    counted = newest(arrived)
    due = cells(counted, query, periods_of(query.start, query.end, query.period))
    assert {(row.start, row.group): row.values for row in answer.rows} == approximately(due)
    whole = cells(counted, UsageQuery(**{**_fields(query), "by": ()}), [(query.start, query.end)])
    assert not whole or answer.totals == approximately(whole)[query.start, ()]


@few
@given(arrived=revisions(), query=questions(), top=st.integers(1, 3))
def test_other_is_exact(database: Database, arrived: list[Fields], query: UsageQuery, top: int) -> None:
    """In each period the top groups and Other add up to what a mean over cycles is without groups."""
    ledger = arriving(database, arrived, [], LATER)
    asked = {**_fields(query), "wanted": wanted("mean:used", "last-known:used"), "top": top}
    answer = answered(ledger, UsageQuery(**asked))
    whole = {row.start: row.values for row in answered(ledger, UsageQuery(**{**asked, "by": (), "top": 0})).rows}
    sums: dict[datetime, list[float]] = {}
    for row in answer.rows:
        known = sums.setdefault(row.start, [0.0, 0])
        sums[row.start] = [one + (other or 0) for one, other in zip(known, row.values, strict=True)]
    assert sums == {start: [pytest.approx(value, rel=1e-12) for value in values] for start, values in whole.items()}
    assert len({row.group for row in answer.rows if not row.other}) <= top or not query.by


def test_a_moved_site_stays_where_it_was(database: Database) -> None:
    """By federation, each has what its site held while it was there, and both have what there was altogether."""
    ledger = emptied(database, LEVEL, LATER)
    records = [level(0, time=after(days=day), used=100) for day in range(4)]
    ledger.write(level_batch(records))
    move = int((FIRST + timedelta(days=1)).timestamp())
    entries = [Entry("site", "S", "federation", "A", None, move), Entry("site", "S", "federation", "B", move, None)]
    write_topology(ledger.database, ledger.common.topology, entries, int(FIRST.timestamp()))
    texts = ("mean:used", "mean-present:used", "last:used", "last-known:used", "instants")
    answer = ask(ledger, *texts, by=("site.federation",))
    assert [(row.group, row.values) for row in answer.rows] == [
        (("A",), (25.0, 100.0, 0, 100, 1)),
        (("B",), (75.0, 100.0, 100, 100, 3)),
    ]
    assert answer.totals == (100.0, 100.0, 100, 100, 4)


def _fields(query: UsageQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}
