"""Keeps the buckets of snapshots what their records say, whatever comes in which order.

Sums add up, but what was last, least and most cannot be taken away again. Records at instants at which their series had
none are merged into the buckets; a day of a series of which anything else changes is made anew from its records. All
who write about one producer do so one after the other, so that nobody misses what another one is about to commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, and_, delete, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import DAY, SECOND, Tier
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.postings import Postings
from accounting.booking.snapshot_booking import looked, seen
from accounting.snapshot_tables import COMPLETE, CYCLES, SnapshotTables
from accounting.tables import ENTRY, ID, PRODUCER, SERIES, START, CommonTables
from siteward.records.identity import HASH_BYTES, ID_BYTES
from siteward.server.database import Conflict, Dialect

INSTANTS_AT_ONCE: Final = 100
"""Instants of one question; each is a range of ids."""
REMADE: Final = 0
"""In place of a width, marks the row of a table of buckets that is locked by who puts buckets together or makes them
anew: the one would take away what the other one does not see."""
Spot = tuple[int, int]
"""Number of a series, and an instant in microseconds since 1970 UTC."""
Look = tuple[str, int]
"""A producer and an instant at which it looked."""
Value = TypeVar("Value")
_Computed = Callable[[int, Sequence[int]], Postings]


class Here(msgspec.Struct):
    """Records that there are at some instants.

    Attributes:
        counts: of each series and instant.
        cycles: of each producer and instant, the number of records and the greatest `cycle_size`.
    """

    counts: dict[Spot, int] = {}
    cycles: dict[Look, tuple[int, int]] = {}

    def add(self, spot: Spot, producer: str, count: int, size: int) -> None:
        """Take some records of one series and instant."""
        self.counts[spot] = self.counts.get(spot, 0) + count
        look = producer, spot[1]
        number, largest = self.cycles.get(look, (0, 0))
        self.cycles[look] = number + count, max(largest, size)


class Rows(msgspec.Struct):
    """Records of one kind as columns.

    Attributes:
        columns: by field, those of the table of records at least.
        series: number of each one's series.
    """

    columns: Mapping[str, Sequence[Any]]
    series: Integers


class Snapshots:
    """One transaction's work on the buckets of one kind."""

    def __init__(self, connection: Connection, dialect: Dialect, tables: SnapshotTables, common: CommonTables) -> None:
        """Begin within a transaction."""
        self._connection = connection
        self._dialect = dialect
        self._tables = tables
        self._kind = tables.kind
        self._common = common
        self._tiers: Sequence[Tier] = ()

    def lock(self, producers: Iterable[int]) -> None:
        """Wait until nobody else writes about these producers, and let nobody begin; the first thing to do.

        Args:
            producers: their numbers, which give the order for all who wait.
        """
        number = self._common.producers.c[PRODUCER]
        for some in _some(sorted(producers), AT_ONCE):
            self._connection.execute(select(number).where(number.in_(some)).order_by(number).with_for_update()).all()

    def book(self, new: Rows, old: Rows, entry: int, tiers: Sequence[Tier]) -> None:
        """Bring the buckets up to records that are in their table by now.

        Args:
            new: records that have come, or taken another's place.
            old: those whose place they took, as they were.
            entry: that of the new records, and of no others.
            tiers: in which buckets lie now.

        Raises:
            Conflict: a day was archived meanwhile.
        """
        self._tiers = tiers
        names = self._producers_of({*new.series.tolist(), *old.series.tolist()})
        producers = self._numbers_of(set(names.values()))
        # A revision may have come from another producer than those that were known before.
        self.lock(producers.values())
        added, taken = self._here(new, names), self._here(old, names)
        times = {time for _, time in (*added.counts, *taken.counts)}
        others = self._others(times, entry)
        anew = {(time // (DAY * SECOND), series) for series, time in taken.counts}
        anew |= {(time // (DAY * SECOND), series) for series, time in added.counts if (series, time) in others.counts}
        if anew or taken.cycles:
            # Before any bucket, as those do who put buckets together.
            lock_buckets(self._connection, self._dialect, self._common, self._tables)
        self._merge(new, anew)
        self._remake(self._tables.buckets, SERIES, anew, self._seen_anew)
        self._book_cycles(added, taken, others, producers)
        self._refuse_archived(times)

    def remake(self, changed: Rows, tiers: Sequence[Tier]) -> None:
        """Make the days of records anew that were changed, put or removed in their table.

        Args:
            changed: as they were, and as they are.
            tiers: in which buckets lie now.

        Raises:
            Conflict: a day was archived meanwhile.
        """
        self._tiers = tiers
        spots = list(zip(changed.series.tolist(), map(int, changed.columns[self._kind.time]), strict=True))
        names = self._producers_of({series for series, _ in spots})
        producers = self._numbers_of(set(names.values()))
        self.lock(producers.values())
        anew = {(time // (DAY * SECOND), series) for series, time in spots}
        self._remake(self._tables.buckets, SERIES, anew, self._seen_anew)
        looks = {(day, producers[names[series]]) for day, series in anew}
        self._remake(self._tables.cycles, PRODUCER, looks, self._looked_anew)
        self._refuse_archived({time for _, time in spots})

    def _producers_of(self, series: Iterable[int]) -> dict[int, str]:
        table = self._tables.series
        found: dict[int, str] = {}
        for some in _some(sorted(series), AT_ONCE):
            chosen = select(table.c[SERIES], table.c.producer).where(table.c[SERIES].in_(some))
            found |= {row[0]: row[1] for row in self._connection.execute(chosen)}
        return found

    def _numbers_of(self, names: Iterable[str]) -> dict[str, int]:
        table = self._common.producers
        found: dict[str, int] = {}
        for some in _some(sorted(names), AT_ONCE):
            chosen = select(table.c.name, table.c[PRODUCER]).where(table.c.name.in_(some))
            found |= {row[0]: row[1] for row in self._connection.execute(chosen)}
        return found

    def _here(self, rows: Rows, names: Mapping[int, str]) -> Here:
        found = Here()
        times, sizes = rows.columns[self._kind.time], rows.columns["cycle_size"]
        for series, time, size in zip(rows.series.tolist(), times, sizes, strict=True):
            found.add((series, int(time)), names[series], 1, int(size))
        return found

    def _others(self, times: Iterable[int], entry: int) -> Here:
        """What there is at instants beside the new records."""
        records, series = self._tables.records, self._tables.series
        time = records.c[self._kind.time]
        by = records.c[SERIES], time, series.c.producer
        found = Here()
        for some in _some(sorted(times), INSTANTS_AT_ONCE):
            question = (
                select(*by, func.count(), func.max(records.c.cycle_size))
                .select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
                .where(or_(*(of_stretch(records, each, each + 1) for each in some)), records.c[ENTRY] != entry)
                .group_by(*by)
            )
            for number, instant, producer, count, size in self._connection.execute(question):
                found.add((number, instant), producer, count, size)
        return found

    def _refuse_archived(self, times: Iterable[int]) -> None:
        """After the last look at records, which are in their table as long as no file of theirs is entered.

        Who archives waits for nobody who books, and databases show each statement what was committed before it.
        """
        archived = self._common.archived
        days = {time // (DAY * SECOND) * DAY for time in times}
        mine = (archived.c.kind == self._kind.name) & archived.c.day.in_(days)
        if self._connection.execute(select(archived.c.day).where(mine).limit(1)).first():
            message = "a day was archived while its records came in"
            raise Conflict(message)

    def _merge(self, new: Rows, anew: set[tuple[int, int]]) -> None:
        times = new.columns[self._kind.time]
        wanted = [
            place
            for place, (series, time) in enumerate(zip(new.series.tolist(), times, strict=True))
            if (int(time) // (DAY * SECOND), series) not in anew
        ]
        columns = new.columns
        if len(wanted) < len(times):
            columns = {name: [values[place] for place in wanted] for name, values in columns.items()}
        self._add(self._tables.buckets, seen(self._kind, columns, new.series[wanted], self._tiers))

    def _book_cycles(self, added: Here, taken: Here, others: Here, producers: Mapping[str, int]) -> None:
        looks = sorted(added.cycles.keys() | taken.cycles.keys())
        before = [_state(look, others, taken) for look in looks]
        after = [_state(look, others, added) for look in looks]
        gone = {
            (time // (DAY * SECOND), producers[name])
            for (name, time), (is_there, _), (was_there, _) in zip(looks, after, before, strict=True)
            if was_there and not is_there
        }
        kept = [
            place for place, (name, time) in enumerate(looks) if (time // (DAY * SECOND), producers[name]) not in gone
        ]
        changes = {
            column: [after[place][which] - before[place][which] for place in kept]
            for which, column in enumerate((CYCLES, COMPLETE))
        }
        numbers = [producers[looks[place][0]] for place in kept]
        self._add(self._tables.cycles, looked([looks[place][1] for place in kept], numbers, changes, self._tiers))
        self._remake(self._tables.cycles, PRODUCER, gone, self._looked_anew)

    def _remake(self, table: Table, of: str, anew: set[tuple[int, int]], computed: _Computed) -> None:
        """Make buckets of whole days anew.

        Args:
            table: of buckets.
            of: what they are of.
            anew: days since 1970 UTC, each with a number in that column.
            computed: what the records of some numbers come to on a day.
        """
        if not anew:
            return
        lock_buckets(self._connection, self._dialect, self._common, self._tables)
        by_day: dict[int, list[int]] = {}
        for day, number in sorted(anew):
            by_day.setdefault(day * DAY, []).append(number)
        for day, numbers in by_day.items():
            within = (table.c[START] >= day) & (table.c[START] < day + DAY)
            for some in _some(numbers, AT_ONCE):
                self._connection.execute(delete(table).where(within, table.c[of].in_(some)))
                self._add(table, computed(day, some))

    def _seen_anew(self, day: int, series: Sequence[int]) -> Postings:
        records = self._tables.records
        chosen = select(records).where(of_day(records, day), records.c[SERIES].in_(series))
        rows = as_rows(self._connection.execute(chosen).mappings().all(), self._tables)
        return seen(self._kind, rows.columns, rows.series, self._tiers)

    def _looked_anew(self, day: int, producers: Sequence[int]) -> Postings:
        table = self._common.producers
        chosen = select(table.c.name, table.c[PRODUCER]).where(table.c[PRODUCER].in_(producers))
        numbers = {row[0]: row[1] for row in self._connection.execute(chosen)}
        records, series = self._tables.records, self._tables.series
        by = series.c.producer, records.c[self._kind.time]
        question = (
            select(*by, func.count(), func.max(records.c.cycle_size))
            .select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
            .where(of_day(records, day), series.c.producer.in_(numbers))
            .group_by(*by)
        )
        found = self._connection.execute(question).all()
        changes = {CYCLES: [1] * len(found), COMPLETE: [int(row[2] == row[3]) for row in found]}
        return looked([row[1] for row in found], [numbers[row[0]] for row in found], changes, self._tiers)

    def _add(self, table: Table, postings: Postings) -> None:
        if postings.keys:
            self._dialect.accumulate(self._connection, table, postings.keys, postings.sums)


def as_rows(found: Sequence[Mapping[Any, Any]], tables: SnapshotTables) -> Rows:
    """Rows of the table of records as columns."""
    names = [name for name in tables.kind.names if name in tables.records.c]
    columns = {name: [row[name] for row in found] for name in names}
    return Rows(columns, np.array([row[SERIES] for row in found], np.int64))


def lock_buckets(connection: Connection, dialect: Dialect, common: CommonTables, tables: SnapshotTables) -> None:
    """Wait until nobody else puts buckets of a kind together or makes them anew, and let nobody begin."""
    marks = common.compacted
    mark: dict[str, Any] = {"bucket_table": [tables.buckets.name], "width": [REMADE], "until": [0]}
    dialect.insert_new(connection, marks, mark)
    mine = (marks.c.bucket_table == tables.buckets.name) & (marks.c.width == REMADE)
    connection.execute(select(marks.c.until).where(mine).with_for_update()).all()


def _state(look: Look, *parts: Here) -> tuple[int, int]:
    """Whether a cycle is there, and whether all of its records are; each 1 or 0."""
    found = [part.cycles[look] for part in parts if look in part.cycles]
    if not found:
        return 0, 0
    return 1, int(sum(count for count, _ in found) == max(size for _, size in found))


def of_stretch(records: Table, first: int, last: int) -> ColumnElement[bool]:
    """Records between two instants, and those of the milliseconds around: ids begin with the time."""
    return and_(records.c[ID] >= _id_from(first // 1000), records.c[ID] < _id_from(-(-last // 1000)))


def of_day(records: Table, day: int) -> ColumnElement[bool]:
    """Those of a UTC day, by its first second."""
    return of_stretch(records, day * SECOND, (day + DAY) * SECOND)


def _id_from(millisecond: int) -> bytes:
    return millisecond.to_bytes(ID_BYTES - HASH_BYTES, "big") + bytes(HASH_BYTES)


def _some(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Values, so many at a time."""
    listed = list(values)
    return (listed[first : first + size] for first in range(0, len(listed), size))
