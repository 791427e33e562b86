"""Counters in the archive, on every database: their records leave and come back, and no difference is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from counter_model import DAY, FEW, MACHINE, Fields, cells, machine, machine_batch, questions, revisions
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import emptied
from sqlalchemy import select
from usage_model import FIRST, LATER, newest
from viewers import EVERYTHING, answered, asking

from accounting.archive import archiving
from accounting.archive.archive_file import File, write
from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.booking.counters import step_after, step_of
from accounting.checks.verifying import Counts, Scope, verify
from accounting.corrections.correction import Action, CorrectionError
from accounting.corrections.deciding import approve, propose, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.tables import COUNTER, ID
from accounting.trace.figure_trace import trace
from accounting.trace.record_trace import trace_record
from accounting.trace.traced import Page
from accounting.upkeep.rebuild import rebuild
from siteward.server.database import Database
from siteward.sinks import Outcome, Written
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """An empty ledger, long after all records."""
    return emptied(database, MACHINE, LATER)


def day(number: float) -> datetime:
    """The beginning of a day of the records."""
    return FIRST + timedelta(days=number)


def book(ledger: Ledger, *records: Fields) -> Written:
    return ledger.write(machine_batch(records))


def outcomes(ledger: Ledger, *records: Fields) -> list[Outcome]:
    return book(ledger, *records).outcomes


def days_there(ledger: Ledger, number: int = 0) -> list[float]:
    """The days of the records of a machine that are in the database."""
    records = ledger.tables["machine"].records
    with ledger.database.read() as connection:
        found = connection.execute(select(records.c.time).where(records.c.name == str(number)).order_by(records.c.time))
        return [(time - int(FIRST.timestamp()) * 10**6) / DAY / 10**6 for time in found.scalars()]


def check(ledger: Ledger, folder: Path, records: Sequence[Fields]) -> None:
    """Every figure is that of the records, each of which is in one place, and the buckets are what they come to."""
    for attribution in OF_USAGE:
        query = UsageQuery(
            kind="machine",
            wanted=(
                *(WantedUsage(Quantity.SUM, name) for name in ("wall_time", "cpu_time", "core_time")),
                WantedUsage(Quantity.RECORDS),
            ),
            start=day(-10),
            end=day(80),
            attribution=attribution,
            by=("site",),
            period=Period.WEEK,
        )
        rows = {(row.start, row.group): row.values for row in answered(ledger, query).rows if any(row.values)}
        due = cells(newest(records), query, periods_of(query.start, query.end, Period.WEEK))
        assert rows == {cell: values for cell, values in due.items() if any(values)}
    counts = Counts()
    assert list(verify(ledger, Scope(folder), counts)) == []
    with ledger.database.read() as connection:
        there = len(connection.execute(select(ledger.tables["machine"].records.c[ID])).all())
    assert there + counts.archived == len(newest(records))


class Sorted:
    """Records by what became of them."""

    def __init__(self) -> None:
        self.booked: list[Fields] = []
        self.refused: list[Fields] = []

    def add(self, records: Sequence[Fields], written: Written) -> None:
        """Take what was answered; whatever came with a newer revision that was refused waits for that one."""
        self.refused += [records[place] for place in written.reasons]
        away = {records[place]["_id"] for place in written.reasons}
        self.booked += [each for each in records if each["_id"] not in away]


def files_of(ledger: Ledger, number: int) -> list[str]:
    return [file.file for file in files(ledger) if file.day == int(day(number).timestamp())]


def test_all_but_the_last_record_of_a_counter_leave(ledger: Ledger, tmp_path: Path) -> None:
    """The last before the horizon stays; what leaves is a duplicate when it comes again, and comes back as it was."""
    records = [machine(day=number) for number in (1.5, 3, 5, 9)] + [machine(1, day=2), machine(2, day=2)]
    book(ledger, *records)
    found = list(archive(ledger, tmp_path, day(6)))
    assert [(file.day, file.records) for file in found] == [(int(day(number).timestamp()), 1) for number in (1, 3)]
    assert days_there(ledger) == [5, 9]
    check(ledger, tmp_path, records)
    assert list(archive(ledger, tmp_path, day(6))) == []
    assert set(outcomes(ledger, *records)) == {Outcome.DUPLICATE}
    # Between those that are there nothing has changed.
    late = [machine(day=7), machine(day=5.5), machine(2, day=3)]
    assert set(outcomes(ledger, *late)) == {Outcome.STORED}
    check(ledger, tmp_path, [*records, *late])
    for file in found:
        assert restore(ledger, tmp_path, file.file) == 1
    assert days_there(ledger) == [1.5, 3, 5, 5.5, 7, 9]
    assert outcomes(ledger, machine(day=2)) == [Outcome.STORED]
    check(ledger, tmp_path, [*records, *late, machine(day=2)])


@pytest.mark.parametrize(
    "late",
    [
        machine(day=0.5),
        machine(day=2),
        machine(day=4),
        machine(day=5, revision=1, wall_time=1),
        machine(day=3, revision=1),
        machine(day=2, started=0),
    ],
)
def test_what_would_change_an_archived_record_waits_for_it(ledger: Ledger, tmp_path: Path, late: Fields) -> None:
    """One that comes before, between or right after archived ones, or a newer revision: each names what to restore."""
    records = [machine(day=number) for number in (1, 3, 5, 9)]
    book(ledger, *records)
    list(archive(ledger, tmp_path, day(6)))
    if late["started"] == 0:
        late = late | {"started": machine(day=0.1)["time"]}
    written = book(ledger, late, machine(day=6), machine(1))
    assert written.outcomes == [Outcome.REJECTED, Outcome.STORED, Outcome.STORED]
    others = [machine(day=6), machine(1)]
    check(ledger, tmp_path, [*records, *others])
    # As often as it says so, until nothing it touches is away.
    rounds = 0
    while written.outcomes[0] is Outcome.REJECTED:
        assert "restore that" in written.reasons[0].reason
        (named,) = [file.file for file in files(ledger) if file.file in written.reasons[0].reason]
        restore(ledger, tmp_path, named)
        written = book(ledger, late)
        rounds += 1
    assert rounds <= 2
    assert written.outcomes == [Outcome.REPLACED if late["revision"] else Outcome.STORED]
    check(ledger, tmp_path, [*records, late, *others])


def test_single_days_come_back(ledger: Ledger, tmp_path: Path) -> None:
    """A day restored among archived ones takes late records within it; at its edges the neighbouring day is named."""
    records = [machine(day=number / 4, cpu_time=number) for number in range(1, 40)]
    book(ledger, *records)
    list(archive(ledger, tmp_path, day(9)))
    (fourth,) = files_of(ledger, 4)
    restore(ledger, tmp_path, fourth)
    check(ledger, tmp_path, records)
    assert days_there(ledger)[:5] == [4, 4.25, 4.5, 4.75, 8.75]
    within = [machine(day=4.3, cpu_time=17), machine(day=4.5, cpu_time=17, revision=1, wall_time=1)]
    assert outcomes(ledger, *within) == [Outcome.STORED, Outcome.REPLACED]
    check(ledger, tmp_path, [*records, *within])
    for edge, neighbour in ((3.9, 3), (4, 3), (4.75, 5), (4.9, 5)):
        written = book(ledger, machine(day=edge, revision=1))
        (named,) = files_of(ledger, neighbour)
        assert written.outcomes == [Outcome.REJECTED]
        assert f"archived in {named}; restore that" in written.reasons[0].reason
    (again,) = archive(ledger, tmp_path, day(9))
    assert again.records == 5
    check(ledger, tmp_path, [*records, *within])


def test_what_is_passed_on_into_an_archived_record_waits_for_it(ledger: Ledger, tmp_path: Path) -> None:
    """A counter that records do not tell reaches on into the next ones, which may be archived though others are not."""
    known = {1: 5, 2: None, 3: None, 4: None, 5: 9}
    records = [machine(day=number, cpu_time=used) for number, used in known.items()]
    records += [machine(day=number + 0.5, cpu_time=None) for number in (2, 3)]
    book(ledger, *records)
    list(archive(ledger, tmp_path, day(6)))
    for number in (1, 2):
        restore(ledger, tmp_path, *files_of(ledger, number))
    silent = machine(day=1.2, cpu_time=None)
    assert outcomes(ledger, silent) == [Outcome.STORED]
    written = book(ledger, machine(day=1.7, cpu_time=7), machine(day=1.5, cpu_time=5))
    assert written.outcomes == [Outcome.REJECTED] * 2
    assert f"archived in {files_of(ledger, 3)[0]}" in written.reasons[0].reason
    check(ledger, tmp_path, [*records, silent])
    assert outcomes(ledger, machine(day=1.5, cpu_time=5)) == [Outcome.STORED]
    for number in (3, 4):
        restore(ledger, tmp_path, *files_of(ledger, number))
    assert outcomes(ledger, machine(day=1.7, cpu_time=7)) == [Outcome.STORED]
    check(ledger, tmp_path, [*records, silent, machine(day=1.7, cpu_time=7), machine(day=1.5, cpu_time=5)])


def test_a_new_count_leaves_no_gap_unnoticed(ledger: Ledger, tmp_path: Path) -> None:
    """One that was started again counts from zero; that the record before it is archived is known all the same."""
    again = machine(day=3)["time"]
    records = [machine(day=1), machine(day=2), machine(day=4, started=again, wall_time=DAY), machine(day=9)]
    book(ledger, *records)
    list(archive(ledger, tmp_path, day(5)))
    assert days_there(ledger) == [4, 9]
    assert outcomes(ledger, machine(day=2.5)) == [Outcome.REJECTED]
    restore(ledger, tmp_path, *files_of(ledger, 2))
    assert outcomes(ledger, machine(day=2.5)) == [Outcome.STORED]
    check(ledger, tmp_path, [*records, machine(day=2.5)])


def test_days_on_which_only_last_records_are_left_are_passed(ledger: Ledger, tmp_path: Path) -> None:
    """Machines that have ended leave one record each, however many days there are of them; the others go on leaving."""
    ended = [machine(number, day=number / 2) for number in range(1, 12)]
    going = [machine(0, day=number) for number in range(1, 9)]
    book(ledger, *ended, *going)
    assert sum(file.records for file in archive(ledger, tmp_path, day(6))) == 4
    assert sum(file.records for file in archive(ledger, tmp_path, day(8))) == 2
    assert days_there(ledger) == [7, 8]
    check(ledger, tmp_path, [*ended, *going])


def test_files_hold_some_records_each(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of many counters is written in several files, also where records are a part of a millisecond apart."""
    monkeypatch.setattr(archiving, "AT_ONCE", 3)
    first = machine(day=1)["time"]
    records = [machine(number, time=first + place) for number in range(3) for place in range(5)]
    book(ledger, *records, *(machine(number, day=3) for number in range(3)))
    assert [file.records for file in archive(ledger, tmp_path, day(2))] == [3, 3, 3, 3]
    check(ledger, tmp_path, [*records, *(machine(number, day=3) for number in range(3))])
    for file in files(ledger):
        restore(ledger, tmp_path, file.file)
    check(ledger, tmp_path, [*records, *(machine(number, day=3) for number in range(3))])


def test_a_step_that_changes_while_its_file_is_written_makes_it_be_written_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late record of the day before changes what an archived one adds, though that one stays under its entry."""
    records = [machine(day=number) for number in (2.1, 5)]
    book(ledger, *records)
    late = machine(day=1.9)
    written: list[File] = []

    def slow(*given: Any) -> File:
        written.append(write(*given))
        if len(written) == 1:
            assert outcomes(ledger, late) == [Outcome.STORED]
        return written[-1]

    monkeypatch.setattr(archiving, "write", slow)
    assert list(archive(ledger, tmp_path, day(6))) == written[1:]
    assert [(tmp_path / each.file).exists() for each in written] == [False, True]
    check(ledger, tmp_path, [*records, late])


def test_rebuilding_counts_what_is_archived(ledger: Ledger, tmp_path: Path) -> None:
    """Damaged buckets are made right from files and database together; without the files their days are left alone."""
    records = [machine(number, day=1 + place / 3, cpu_time=place) for number in range(3) for place in range(20)]
    book(ledger, *records)
    list(archive(ledger, tmp_path, day(5)))
    buckets = ledger.tables["machine"].by_end
    with ledger.database.write() as connection:
        connection.execute(buckets.update().values(core_time=buckets.c.core_time + 1))
    left = list(rebuild(ledger, Scope(tmp_path / "elsewhere")))
    assert any(each.untold for each in left)
    assert sum(each.changed for each in rebuild(ledger, Scope(tmp_path))) > 0
    check(ledger, tmp_path, records)


def test_archived_records_of_counters_are_traced(ledger: Ledger, tmp_path: Path) -> None:
    """From its id to its file and to the buckets in which its difference is, as before; a figure, to all of them."""
    book(ledger, *(machine(day=number, cpu_time=int(number)) for number in (1, 2.5, 4, 9)))
    query = UsageQuery(
        kind="machine",
        wanted=(WantedUsage(Quantity.SUM, "wall_time"),),
        start=FIRST,
        end=day(10),
        attribution=Attribution.BY_END,
    )
    listed = trace(asking(ledger), query, Page(), EVERYTHING).records
    identifier = machine(day=2.5)["_id"]
    before = trace_record(asking(ledger), tmp_path, identifier, EVERYTHING)
    list(archive(ledger, tmp_path, day(6)))
    after = trace_record(asking(ledger), tmp_path, identifier, EVERYTHING)
    assert (before.state, after.state) == ("booked", "archived")
    assert after.buckets == before.buckets != ()
    assert after.fields == before.fields
    found = trace(asking(ledger, tmp_path), query, Page(), EVERYTHING)
    assert (found.figure, found.complete) == ((9 * DAY,), True)
    assert tuple(msgspec.structs.replace(each, file="") for each in found.records) == listed
    assert files(ledger)[0].file in {each.file for each in found.records}
    found = trace(asking(ledger), query, Page(), EVERYTHING)
    assert (found.figure, found.complete) == ((9 * DAY,), False)
    assert f"archived, in {files(ledger)[0].file}" in found.why


def draft(action: Action, *, at: Fields, given: tuple[str, ...] = ()) -> Any:
    """A correction of one record."""
    text: dict[str, Any] = {"ids": (at["_id"].hex(),), "given": given, "author": "anna", "reason": "it was wrong"}
    return parse_draft(DraftText(kind="machine", action=str(action), **text), {"machine": MACHINE}, LATER)


def test_corrections_beside_archived_records_wait_for_them(ledger: Ledger, tmp_path: Path) -> None:
    """The last record before the horizon is not corrected, no correction reversed, while what that touches is away."""
    records = [machine(day=number) for number in (1, 3, 4, 5, 9)]
    book(ledger, *records)
    number = approve(ledger, propose(ledger, draft(Action.VOID, at=records[2])).number, "ben").number
    list(archive(ledger, tmp_path, day(6)))
    remaining = [each for each in records if each is not records[2]]
    check(ledger, tmp_path, remaining)
    (third,) = files_of(ledger, 3)
    attempts: list[Callable[[], Any]] = [
        lambda: propose(ledger, draft(Action.CHANGE, at=records[3], given=("processors=8",))),
        lambda: propose(ledger, draft(Action.VOID, at=records[3])),
        lambda: reverse(ledger, number, "carl", "it was right"),
    ]
    for attempt in attempts:
        with pytest.raises(CorrectionError, match=f"beside it is archived in {third}; bring that back with"):
            attempt()
    changed = approve(
        ledger, propose(ledger, draft(Action.CHANGE, at=records[4], given=("processors=8",))).number, "ben"
    )
    check(ledger, tmp_path, [*remaining[:-1], records[4] | {"processors": 8}])
    reverse(ledger, changed.number, "carl", "it was right")
    restore(ledger, tmp_path, third)
    reverse(ledger, number, "carl", "it was right")
    check(ledger, tmp_path, records)


class Fray:
    """Threads with a ledger of their own each, on the same database."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder
        self.is_over = threading.Event()
        self.errors: list[BaseException] = []
        self.sorted = Sorted()

    def begin(self, act: Callable[[Ledger], None]) -> threading.Thread:
        """Let one of them go."""

        def acting() -> None:
            try:
                act(Ledger(self._ledger.database, {"machine": MACHINE}, self._ledger.clock))
            except BaseException as error:  # noqa: BLE001  # told at the end.
                self.errors.append(error)

        thread = threading.Thread(target=acting)
        thread.start()
        return thread

    def write(self, arriving: Sequence[Fields], ledger: Ledger) -> None:
        """Book records."""
        for begin in range(0, len(arriving), 20):
            chosen = arriving[begin : begin + 20]
            self.sorted.add(chosen, ledger.write(machine_batch(chosen)))

    def archive(self, ledger: Ledger) -> None:
        """Archive over and over."""
        while not self.is_over.is_set():
            list(archive(ledger, self._folder, day(8)))

    def restore(self, ledger: Ledger) -> None:
        """Bring back one file after the other."""
        chance = random.Random(2)
        while not self.is_over.is_set():
            if found := files(ledger):
                # Alone in doing so: it is there until this one brings it back.
                assert restore(ledger, self._folder, chance.choice(found).file) > 0


def test_writers_archives_and_restores_at_once_lose_nothing(database: Database, tmp_path: Path) -> None:
    """Late records, revisions, two archives and one who restores, all at once; what was refused is booked at last."""
    ledger = emptied(database, MACHINE, LATER)
    steps = [(number, place) for place in range(1, 30) for number in range(5)]
    records = [machine(number, day=place / 3, cpu_time=place if place % 3 else None) for number, place in steps]
    newer = [record | {"wall_time": record["wall_time"] - 5, "revision": 1} for record in records[::7]]
    arriving = [*records, *newer]
    random.Random(1).shuffle(arriving)
    fray = Fray(ledger, tmp_path)
    keepers = [fray.begin(act) for act in (fray.archive, fray.archive, fray.restore)]
    writers = [fray.begin(partial(fray.write, arriving[place::2])) for place in range(2)]
    for thread in writers:
        thread.join()
    fray.is_over.set()
    for thread in keepers:
        thread.join()
    assert fray.errors == []
    check(ledger, tmp_path, fray.sorted.booked)
    for file in files(ledger):
        restore(ledger, tmp_path, file.file)
    assert ledger.write(machine_batch(fray.sorted.refused)).reasons == {}
    check(ledger, tmp_path, arriving)
    assert broken_links(ledger) == 0


def broken_links(ledger: Ledger) -> int:
    """How many records do not hold what follows from the one before, where all are in the database."""
    records = ledger.tables["machine"].records
    with ledger.database.read() as connection:
        rows = connection.execute(select(records).order_by(records.c[COUNTER], records.c.time)).mappings().all()
    wrong, before = 0, None
    for row in rows:
        mine = before if before is not None and before[0][COUNTER] == row[COUNTER] else None
        wrong += step_of(MACHINE, row) != step_after(MACHINE, mine, row)
        before = row, step_of(MACHINE, row)
    return wrong


@FEW
@given(
    arrived=revisions(),
    rounds=st.lists(
        st.tuples(st.integers(0, 4), st.none() | st.integers(0, 60), st.lists(st.integers(0, 20), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    query=questions(),
)
def test_whatever_leaves_and_comes_back_every_figure_is_exact(
    database: Database,
    tmp_path_factory: pytest.TempPathFactory,
    arrived: list[Fields],
    rounds: list[tuple[int, int | None, list[int]]],
    query: UsageQuery,
) -> None:
    """Records in any order, archived to any day, some files restored, on and on: what is booked is exact all the time.

    What was refused is booked when everything is back, as if nothing had ever left.
    """
    ledger, folder = emptied(database, MACHINE, LATER), tmp_path_factory.mktemp("archive")
    rest, found = list(arrived), Sorted()
    for size, horizon, wanted in [*rounds, (len(rest), None, [])]:
        some, rest = rest[:size], rest[size:]
        if some:
            found.add(some, book(ledger, *some))
        if horizon is not None:
            list(archive(ledger, folder, day(horizon)))
        for place in wanted:
            if there := files(ledger):
                restore(ledger, folder, there[place % len(there)].file)
        check(ledger, folder, found.booked)
    for file in files(ledger):
        restore(ledger, folder, file.file)
    assert broken_links(ledger) == 0
    if found.refused:
        assert book(ledger, *found.refused).reasons == {}
    everything = [*found.booked, *found.refused]
    check(ledger, folder, everything)
    rows = {(row.start, row.group): row.values for row in answered(ledger, query).rows if any(row.values)}
    due = cells(newest(everything), query, periods_of(query.start, query.end, query.period))
    assert rows == {cell: values for cell, values in due.items() if any(values)}
