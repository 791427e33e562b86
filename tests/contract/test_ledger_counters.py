"""Counters in the ledger, on every database: what was used is the difference, whatever comes in which order."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from counter_model import DAY, FEW, MACHINE, Fields, cells, machine, machine_batch, questions, revisions
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import emptied
from usage_model import FIRST, LATER, SECOND, SOON, newest
from viewers import answered

from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.upkeep.tiers import compact
from siteward.query import QueryError
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """An empty ledger."""
    return emptied(database, MACHINE, SOON)


def ask(ledger: Ledger, *texts: str, **changes: Any) -> Any:
    parts = [text.partition(":") for text in texts]
    wanted = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts)
    question = {"start": FIRST - timedelta(days=30), "end": FIRST + timedelta(days=60)} | changes
    return answered(ledger, UsageQuery(kind="machine", wanted=wanted, **question))


def test_a_month_is_the_last_record_less_the_last_before(ledger: Ledger) -> None:
    """Records that are missing in between cost nothing, and what ran across the month's end has its part in both."""
    ledger.write(machine_batch([machine(day=day) for day in (1, 1.5, 20, 40)]))
    by_end = ask(ledger, "sum:wall_time", "sum:core_time", period=Period.MONTH, attribution=Attribution.BY_END)
    assert [row.values for row in by_end.rows] == [
        (int(1.5 * DAY), 4 * int(1.5 * DAY)),
        (int(18.5 * DAY), 4 * int(18.5 * DAY)),
        (20 * DAY, 80 * DAY),
    ]
    prorated = ask(ledger, "sum:wall_time", period=Period.MONTH)
    assert [row.values[0] for row in prorated.rows] == [2 * DAY, 28 * DAY, 10 * DAY]
    assert prorated.totals == (40 * DAY,)


def test_a_late_record_splits_the_difference(ledger: Ledger) -> None:
    """What was booked for two days goes to each; the processors of the later record count for its part only."""
    ledger.write(machine_batch([machine(day=1), machine(day=3)]))
    assert ask(ledger, "sum:wall_time", "sum:core_time", "records").totals == (3 * DAY, 12 * DAY, 2)
    late = machine(day=2, processors=100, site="T")
    assert ledger.write(machine_batch([late])).outcomes == [Outcome.STORED]
    answer = ask(ledger, "sum:wall_time", "sum:core_time", "records", by=("site",))
    assert [(row.group, row.values) for row in answer.rows] == [
        (("S",), (2 * DAY, 8 * DAY, 2)),
        (("T",), (DAY, 100 * DAY, 1)),
    ]
    assert ledger.write(machine_batch([late, machine(day=3)])).outcomes == [Outcome.DUPLICATE] * 2
    assert ask(ledger, "sum:wall_time", "sum:core_time", "records", by=("site",)) == answer


def test_a_newer_revision_moves_what_is_around_it(ledger: Ledger) -> None:
    """It changes its own difference and that of the record after it, and the sum of both stays."""
    ledger.write(machine_batch([machine(day=day) for day in (1, 2, 3)]))
    assert ledger.write(machine_batch([machine(day=2, wall_time=DAY, revision=1)])).outcomes == [Outcome.REPLACED]
    answer = ask(ledger, "sum:wall_time", period=Period.DAY)
    assert [row.values[0] for row in answer.rows] == [DAY, 0, 2 * DAY]


def test_what_is_unknown_is_in_the_next_record_that_knows_it(ledger: Ledger) -> None:
    """A counter that some records do not tell loses nothing, also when what is before them changes."""
    cpu = {1: 100, 2: None, 3: None, 4: 500}
    ledger.write(machine_batch([machine(day=day, cpu_time=used) for day, used in cpu.items()]))
    by_end = {"attribution": Attribution.BY_END, "period": Period.DAY}
    assert [row.values[0] for row in ask(ledger, "sum:cpu_time", **by_end).rows] == [100, 0, 0, 400]
    ledger.write(machine_batch([machine(day=1.5, cpu_time=450)]))
    assert [row.values[0] for row in ask(ledger, "sum:cpu_time", **by_end).rows] == [450, 0, 0, 50]
    assert ask(ledger, "mean:cpu_time", attribution=Attribution.BY_END).totals == (500 / 3,)


def test_a_machine_that_was_started_again_counts_from_zero(ledger: Ledger) -> None:
    """Its counters begin anew, at its new start, and never below."""
    again = microseconds(FIRST) + 3 * DAY * SECOND
    ledger.write(machine_batch([machine(day=2), machine(day=4, started=again, wall_time=DAY)]))
    answer = ask(ledger, "sum:wall_time", period=Period.DAY)
    assert [row.values[0] for row in answer.rows] == [DAY, DAY, DAY]


def test_a_machine_that_was_started_decades_ago_waits_for_a_person(ledger: Ledger) -> None:
    """Its use would be spread over all that time; the others of its batch are booked."""
    written = ledger.write(machine_batch([machine(1, started=0), machine(2)]))
    assert written.outcomes == [Outcome.REJECTED, Outcome.STORED]
    assert written.reasons[0].field == "time"
    assert "lasts longer than 632448000 s; mend it, or raise the kind's `longest`" in str(written.reasons[0])
    assert ask(ledger, "sum:wall_time").totals == (DAY,)


def test_what_lasts_for_years_is_booked_some_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same totals, day by day, as all at once."""
    records = [machine(number, started=microseconds(FIRST) - (number + 1) * 400 * DAY * SECOND) for number in range(9)]
    ledger.write(machine_batch(records))
    question = {"start": FIRST - timedelta(days=4000), "end": FIRST + timedelta(days=9), "period": Period.MONTH}
    at_once = ask(ledger, "sum:wall_time", "records", **question).rows
    monkeypatch.setattr("accounting.booking.postings.MOST_PIECES", 1000)
    monkeypatch.setattr("accounting.ledger.MOST_PIECES", 5000)
    again = emptied(ledger.database, MACHINE, SOON)
    again.write(machine_batch(records))
    assert ask(again, "sum:wall_time", "records", **question).rows == at_once
    assert sum(row.values[0] for row in at_once) == 9 * DAY


def test_a_window_within_a_bucket_is_answered_from_the_records(database: Database) -> None:
    """Also where the record that tells lies far beyond the window."""
    ledger = emptied(database, MACHINE, LATER)
    ledger.write(machine_batch([machine(day=1), machine(day=9), machine(1, day=2, cpu_time=DAY)]))
    start, end = FIRST + timedelta(days=3, hours=1), FIRST + timedelta(days=4, hours=5, seconds=7)
    assert ask(ledger, "sum:wall_time", "records", start=start, end=end).totals == (DAY + 4 * 3600 + 7, 1)
    end = FIRST + timedelta(days=1, seconds=1)
    assert ask(ledger, "sum:wall_time", end=end, attribution=Attribution.BY_END).totals == (DAY,)
    assert ask(ledger, "p50:cpu_time", attribution=Attribution.BY_END).totals == (DAY,)


def test_what_is_no_counter_is_no_sum(ledger: Ledger) -> None:
    """Processors added up over records mean nothing; what does is their product with time."""
    with pytest.raises(QueryError, match="'processors' is not a measure that adds up of machine"):
        ask(ledger, "sum:processors")
    ledger.write(machine_batch([machine(day=1), machine(day=2, processors=9)]))
    assert ask(ledger, "max:processors", attribution=Attribution.BY_END).totals == (9,)


def test_writers_of_one_machine_at_once_lose_nothing(database: Database) -> None:
    """Four writers of the records of the same machines, in different orders, some revised, while days are compacted."""
    first = emptied(database, MACHINE, FIRST)
    records = [machine(number, day=day / 3, processors=1 + day % 3) for day in range(1, 30) for number in range(7)]
    newer = [record | {"wall_time": record["wall_time"] - 5, "revision": 1} for record in records[::5]]
    arriving = [*records, *newer]
    errors: list[BaseException] = []

    def write(place: int) -> None:
        mine = Ledger(database, {"machine": MACHINE}, first.clock)
        try:
            for round_ in range(8):
                start = (round_ * (2 * place + 1)) % 8 * 31
                chosen = arriving[start : start + 31]
                mine.write(machine_batch(chosen if place % 2 else chosen[::-1]))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    later = Ledger(database, {"machine": MACHINE}, lambda: microseconds(LATER))
    while any(thread.is_alive() for thread in threads):
        compact(later)
    for thread in threads:
        thread.join()
    assert errors == []
    for attribution in OF_USAGE:
        asked = {"attribution": attribution, "period": Period.DAY}
        answer = ask(first, "sum:wall_time", "sum:core_time", "records", **asked)
        due = cells(newest(arriving), answer.query, periods_of(answer.query.start, answer.query.end, Period.DAY))
        assert {(row.start, row.group): row.values for row in answer.rows} == due


@FEW
@given(
    arrived=revisions(),
    rounds=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60), st.booleans()), max_size=6),
    query=questions(),
    now=st.sampled_from([SOON, FIRST + timedelta(days=25), LATER]),
)
def test_differences_are_those_of_the_records(
    database: Database, arrived: list[Fields], rounds: list[tuple[int, int, bool]], query: UsageQuery, now: datetime
) -> None:
    """Whatever the order, batches, duplicates, revisions, restarts, tiers, compaction, window: every cell is exact."""
    ledger = emptied(database, MACHINE, now)
    rest = list(arrived)
    for size, days, is_compacted in [*rounds, (len(rest), 0, False)]:
        ledger.write(machine_batch(rest[:size]))
        rest = rest[size:]
        now += timedelta(days=days)
        ledger.clock = partial(microseconds, now)
        if is_compacted:
            compact(ledger)
    answer = answered(ledger, query)
    due = cells(newest(arrived), query, periods_of(query.start, query.end, query.period))
    found = {(row.start, row.group): row.values for row in answer.rows}
    # What was taken away again leaves cells of nothing, which say the same as no cell.
    assert {cell: values for cell, values in found.items() if cell in due or any(values)} == due
