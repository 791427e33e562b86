"""Counters since a start, booked as the differences from record to record.

Every record keeps what its counters had counted before it, and since when: the last record before it says both, or the
start of counting. Whatever comes between two records changes the later one only; and the one after that, where the
later one does not know a counter and passes on what the earlier one said. All who write about one counter do so one
after the other. What would change an archived record's part is refused, see `accounting.booking.parted`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.sql import ColumnElement

from accounting.booking.dictionary import AT_ONCE
from accounting.booking.parted import Fields, Parted, Run
from accounting.booking.postings import Account, account_of
from accounting.snapshot_tables import Tables
from accounting.tables import COUNTER, ID, PREVIOUS, SERIES, SINCE, KindTables, before_of, is_bucketed, step_columns
from siteward.records import Kind

HOUR: Final = 3_600_000_000
"""Microseconds to which the times of a batch are rounded, so that few questions find all neighbours."""
Spot = tuple[int, int]
"""Number of a counter, and the time of a record of it, microseconds since 1970 UTC."""


class Step(msgspec.Struct, frozen=True):
    """What a record adds to.

    Attributes:
        since: where its stretch of time begins, microseconds since 1970 UTC.
        previous: instant of the record before; None of the first one.
        before: what each counter had counted by then.
    """

    since: int
    previous: int | None
    before: dict[str, int]

    @property
    def values(self) -> tuple[int | None, ...]:
        """The same in the order of `step_columns`."""
        return self.since, self.previous, *self.before.values()


def step_of(kind: Kind, record: Fields) -> Step:
    """The step that a record has now."""
    return Step(record[SINCE], record[PREVIOUS], {name: record[before_of(name)] for name in kind.counters})


def _own(kind: Kind) -> list[str]:
    """The fields that the table of records holds itself; what can be added up is among them."""
    return [column.name for column in kind.columns if not is_bucketed(column)]


def stepped(kind: Kind, records: Iterable[tuple[Fields, Step]], whole: Mapping[bytes, Fields]) -> list[dict[Any, Any]]:
    """Records as rows that hold their steps, with the dimensions of those of which whole rows are given, by id."""
    names = step_columns(kind)
    return [
        {**whole.get(bytes(record[ID]), {}), **record, **dict(zip(names, step.values, strict=True))}
        for record, step in records
    ]


def spots_of(kind: Kind, records: Iterable[Fields]) -> list[Spot]:
    """Where records of counters are."""
    return [(int(record[COUNTER]), record[kind.time]) for record in records]


def step_after(kind: Kind, previous: tuple[Fields, Step] | None, record: Fields) -> Step:
    """The step that a record has to have.

    Args:
        kind: of the counter.
        previous: the last record of the counter before it, and that one's step; None where there is none.
        record: the record.
    """
    started, time = record[kind.since], record[kind.time]
    reached = None if previous is None else previous[0][kind.time]
    if previous is None or started > reached:
        # The first, or counted anew from then on.
        return Step(min(started, time), reached, dict.fromkeys(kind.counters, 0))
    earlier, step = previous
    said = {name: step.before[name] if earlier[name] is None else earlier[name] for name in kind.counters}
    return Step(earlier[kind.time], reached, said)


def booked_columns(kind: Kind, rows: Sequence[Fields]) -> dict[str, list[Any]]:
    """Rows of the table of records as columns that `accounting.booking.postings.account_of` takes; of any kind."""
    if kind.since:
        return differences(kind, [(row, step_of(kind, row)) for row in rows])
    return {name: [row[name] for row in rows] for name in _own(kind)}


def counted_columns(kind: Kind, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Records as columns, with what they hold of the ones before, as those that can be booked; of any kind."""
    counts = {
        name: [
            None if value is None else value - before
            for value, before in zip(columns[name], columns[before_of(name)], strict=True)
        ]
        for name in kind.counters
    }
    return {**columns, **counts}


def differences(kind: Kind, records: Sequence[tuple[Fields, Step]]) -> dict[str, list[Any]]:
    """Records of counters as columns: what each counted since the record before, and since when."""
    columns = {name: [record[name] for record, _ in records] for name in _own(kind)}
    columns[SINCE] = [step.since for _, step in records]
    for name in kind.counters:
        columns[name] = [None if record[name] is None else record[name] - step.before[name] for record, step in records]
    return columns


def counted(tables: Tables, name: str) -> ColumnElement[Any]:
    """A field of a record as it can be booked, as SQL."""
    column = tables.records.c[name]
    if name not in tables.kind.counters:
        return column
    return (column - tables.records.c[before_of(name)]).label(name)


def _passes_on(record: Fields, step: Step, was: Step) -> bool:
    """Whether what a record says to the next one is something else by its new step: of a counter that it lacks."""
    return step.before != was.before and any(
        record[name] is None and value != was.before[name] for name, value in step.before.items()
    )


Overlay = Mapping[bytes, Fields | None]
"""Records by id in place of what is in their table; None where there is to be none."""


class Change(msgspec.Struct):
    """Records with their steps, as they were and as they have to be; of neighbours that others change, too."""

    old: list[tuple[Fields, Step]]
    new: list[tuple[Fields, Step]]


class Counters:
    """One transaction's work on the counters of one kind."""

    def __init__(self, connection: Connection, tables: KindTables) -> None:
        """Begin within a transaction."""
        assert tables.counters is not None
        self._connection = connection
        self._tables = tables
        self._counters = tables.counters
        self._kind = tables.kind

    def lock(self, numbers: Iterable[int]) -> None:
        """Wait until nobody else writes about these counters, and let nobody begin; the first thing to do."""
        number = self._counters.c[COUNTER]
        for some in _some(sorted(set(numbers))):
            self._connection.execute(select(number).where(number.in_(some)).order_by(number).with_for_update()).all()

    def foreseen(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[int | None]]:
        """The steps of records that are to be inserted, as columns, if all of them are new.

        Where they are not, or another one comes with them, `booked` sets them right.

        Args:
            columns: by column of the table of records.
        """
        kind = self._kind
        names = (COUNTER, kind.time, kind.since, *kind.counters)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]
        spots = [(int(row[COUNTER]), row[kind.time]) for row in rows]
        following = {number: deque(records) for number, records in self._around(spots, {}).items()}
        latest: dict[int, tuple[Fields, Step]] = {}
        steps: dict[int, Step] = {}
        for place in sorted(range(len(rows)), key=lambda place: spots[place][1]):
            number, time = spots[place]
            waiting = following.get(number, deque())
            while waiting and waiting[0][kind.time] < time:
                record = waiting.popleft()
                latest[number] = record, step_of(kind, record)
            steps[place] = step_after(kind, latest.get(number), rows[place])
            latest[number] = rows[place], steps[place]
        ordered = [steps[place].values for place in range(len(rows))]
        return {name: [values[place] for values in ordered] for place, name in enumerate(step_columns(kind))}

    def booked(self, new: Sequence[bytes], spots: Sequence[Spot], old: Sequence[Fields]) -> list[Account]:
        """Give records that are in their table by now, and those after them, their steps; what is to be booked.

        Args:
            new: ids of records that have come, or taken another's place.
            spots: of each of them, and of each record that is not there any more.
            old: those that are not there any more, or whose place was taken, as they were.

        Raises:
            Parted: some of them stand beside archived records.
        """
        return self.settled(self.change(set(new), spots, old))

    def settled(self, change: Change) -> list[Account]:
        """Write the steps of a change into the records; what is to be booked."""
        kind = self._kind
        self._keep(change.new)
        return [
            account_of(kind, differences(kind, records), np.array([each[SERIES] for each, _ in records]), sign)
            for records, sign in ((change.old, -1), (change.new, 1))
            if records
        ]

    def change(
        self, new: Collection[bytes], spots: Sequence[Spot], old: Sequence[Fields], over: Overlay | None = None
    ) -> Change:
        """What `booked` books, and nothing is written.

        Args:
            new: as of `booked`.
            spots: the same.
            old: the same.
            over: records in place of those that are in their table by now.

        Raises:
            Parted: the same.
        """
        changed: list[tuple[Fields, Step]] = []
        taken = [(record, step_of(self._kind, record)) for record in old]
        earliest: dict[int, int] = {}
        for number, time in spots:
            earliest[number] = min(time, earliest.get(number, time))
        gone: dict[int, list[Fields]] = {}
        for record in old:
            gone.setdefault(int(record[COUNTER]), []).append(record)
        around = self._around(spots, over or {})
        runs = [
            Run(self._kind, around.get(number, []), gone.get(number, []), new, first)
            for number, first in earliest.items()
        ]
        missing = {identifier: each for run in runs for identifier, each in run.missing.items()}
        if missing:
            raise Parted(missing)
        for run in runs:
            for record, step in self._followed(run, over or {}):
                if bytes(record[ID]) not in new:
                    taken.append((record, step_of(self._kind, record)))
                changed.append((record, step))
        return Change(taken, changed)

    def _around(self, spots: Sequence[Spot], over: Overlay) -> dict[int, list[Fields]]:
        """Records of each counter, in order: those at and between its times, and one neighbour on either side."""
        ranges: dict[int, tuple[int, int]] = {}
        for number, time in spots:
            first, last = ranges.get(number, (time, time))
            ranges[number] = min(first, time // HOUR * HOUR), max(last, -(-time // HOUR) * HOUR)
        found: dict[bytes, Fields] = {}
        by_range = sorted(ranges, key=lambda number: (ranges[number], number))
        for (first, last), numbers in groupby(by_range, key=ranges.__getitem__):
            for some in _some(numbers):
                found |= {bytes(row[ID]): row for row in self._between(some, first, last)}
        found |= {identifier: row for identifier, row in over.items() if row is not None}
        found = {identifier: row for identifier, row in found.items() if over.get(identifier, row) is not None}
        by_counter: dict[int, list[Fields]] = {}
        for row in sorted(found.values(), key=lambda row: row[self._kind.time]):
            by_counter.setdefault(row[COUNTER], []).append(row)
        return by_counter

    def _between(self, numbers: Sequence[int], first: int, last: int) -> list[Fields]:
        records, number = self._tables.records, self._counters.c[COUNTER]
        time = records.c[self._kind.time]
        mine = select(records.c[ID]).where(records.c[COUNTER] == number).limit(1).correlate(self._counters)
        neighbours = select(
            mine.where(time < first).order_by(time.desc()).scalar_subquery(),
            mine.where(time > last).order_by(time).scalar_subquery(),
        ).where(number.in_(numbers))
        ids = [each for pair in self._connection.execute(neighbours) for each in pair if each is not None]
        within = records.c[COUNTER].in_(numbers) & (time >= first) & (time <= last)
        rows = [*self._connection.execute(select(records).where(within)).mappings()]
        for first_place in range(0, len(ids), AT_ONCE):
            chosen = records.c[ID].in_(ids[first_place : first_place + AT_ONCE])
            rows += self._connection.execute(select(records).where(chosen)).mappings()
        return list(rows)

    def _followed(self, run: Run, over: Overlay) -> list[tuple[Fields, Step]]:
        """The records of a counter whose step changes, with the step they have to have.

        Raises:
            Parted: what the last one before an archived record passes on changes.
        """
        kind = self._kind
        changed: list[tuple[Fields, Step]] = []
        previous: tuple[Fields, Step] | None = None
        passes_on = False
        pending = deque(run.records)
        if pending and pending[0][kind.time] < run.earliest:
            first = pending.popleft()
            previous = first, step_of(kind, first)
        while pending:
            record = pending.popleft()
            gap = run.gaps.get(record[kind.time])
            if gap and passes_on:
                raise Parted(run.missing_behind(gap))
            was = step_of(kind, record)
            step = was if gap else step_after(kind, previous, record)
            if bytes(record[ID]) in run.fresh or step != was:
                changed.append((record, step))
            passes_on = _passes_on(record, step, was)
            if not pending and passes_on:
                pending.extend(run.extended(self._following(record, over)))
            previous = record, step
        return changed

    def _following(self, record: Fields, over: Overlay) -> Sequence[Fields]:
        """The records of a counter after one that passes on what it does not know itself; those of `over` are known."""
        records = self._tables.records
        time = records.c[self._kind.time]
        mine = (records.c[COUNTER] == record[COUNTER]) & (time > record[self._kind.time])
        rows = self._connection.execute(select(records).where(mine).order_by(time)).mappings()
        return [row for row in rows if bytes(row[ID]) not in over]

    def _keep(self, changed: Sequence[tuple[Fields, Step]]) -> None:
        records = self._tables.records
        new: dict[str, Any] = {name: bindparam(f"new{name}") for name in step_columns(self._kind)}
        parameters = [f"new{name}" for name in new]
        rows: list[dict[str, Any]] = [
            {"the_id": bytes(record[ID])} | dict(zip(parameters, step.values, strict=True))
            for record, step in changed
            if step != step_of(self._kind, record)
        ]
        if rows:
            rows.sort(key=lambda row: row["the_id"])
            self._connection.execute(update(records).where(records.c[ID] == bindparam("the_id")).values(new), rows)


def _some(values: Iterable[int]) -> Iterator[list[int]]:
    listed = list(values)
    return (listed[first : first + AT_ONCE] for first in range(0, len(listed), AT_ONCE))
