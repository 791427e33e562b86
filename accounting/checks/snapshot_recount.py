"""Buckets of snapshots beside what their records come to, a UTC day at a time, within one state of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import lcm
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, select

from accounting.archive.archive_file import ArchiveError, File
from accounting.archive.archive_reading import ArchiveReading, Unreadable
from accounting.archive.archived_ids import day_of
from accounting.archive.archiving import files_in
from accounting.booking.buckets import DAY, SECOND, Tier, tiers_at
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.measures import factors, held
from accounting.booking.postings import Postings
from accounting.booking.snapshot_booking import looked, seen
from accounting.booking.snapshots import of_day
from accounting.checks.recount import Slice, ends
from accounting.ledger import Ledger
from accounting.snapshot_tables import COMPLETE, CYCLES, SnapshotTables
from accounting.tables import ID, PRODUCER, SERIES, START, WIDTH
from siteward.records import Kind
from siteward.server.database.merging import Merge, Rule, rule_of

ROWS_AT_ONCE: Final = 20_000
Number = int
"""Of a series, or of a producer."""
Cell = tuple[int, int]
"""Start and width of a bucket, in seconds."""
Row = Mapping[str, int | None]
"""What a bucket holds, by column."""
Buckets = dict[Number, dict[Cell, Row]]


class TableRecount(msgspec.Struct):
    """One table of buckets on one day. Where a series has several widths, they are told as one that all divide.

    Attributes:
        table: of buckets.
        of: the column that says what they are of.
        booked: what there is.
        computed: what there should be.
    """

    table: Table
    of: str
    booked: Buckets
    computed: Buckets

    @property
    def differing(self) -> list[Number]:
        """Those of which any bucket is not what the records come to, in order."""
        numbers = self.booked.keys() | self.computed.keys()
        return sorted(number for number in numbers if any(self.differences(number)))

    def differences(self, number: Number) -> Iterator[tuple[Cell, str, int | None, int | None]]:
        """Each value that differs: its bucket and column, what there is and what there should be."""
        booked, computed = self.booked.get(number, {}), self.computed.get(number, {})
        for cell in sorted(booked.keys() | computed.keys()):
            mine, due = booked.get(cell, self._nothing), computed.get(cell, self._nothing)
            for name, value in due.items():
                if mine[name] != value:
                    yield cell, name, mine[name], value

    @property
    def _nothing(self) -> Row:
        return {name: 0 if rule.merge is Merge.ADD else None for name, rule in rules_of(self.table).items()}


class DayRecount(msgspec.Struct):
    """What was found on a day.

    Attributes:
        tables: the series, then the producers.
        producers: number of each series' producer.
        files: of the archive that hold records of the day.
        records: looked at.
        buckets: looked at.
        unreadable: files that cannot be read; with any, nothing else is told.
    """

    tables: list[TableRecount]
    producers: dict[Number, Number]
    files: list[File]
    records: int = 0
    buckets: int = 0
    unreadable: list[Unreadable] = []


class _Records(msgspec.Struct):
    """Records of a day.

    Attributes:
        columns: by field, those that are needed.
        series: number of each one's series.
    """

    columns: dict[str, list[Any]]
    series: list[int]


def snapshot_extent(connection: Connection, ledger: Ledger, tables: SnapshotTables) -> Slice | None:
    """All days of which a kind has records, files of the archive or buckets; None without any."""
    edges = [file.day for file in files_in(connection, ledger) if file.kind == tables.kind.name]
    for table in tables.bucket_tables:
        edges += ends(connection, table.c[START], table.c[START])
    key = tables.records.c[ID]
    for order in (key, key.desc()):
        found = connection.execute(select(key).order_by(order).limit(1)).scalar()
        edges += [] if found is None else [day_of(bytes(found))]
    return Slice(min(edges) // DAY * DAY, max(edges) // DAY * DAY + DAY) if edges else None


def recount_day(
    connection: Connection, ledger: Ledger, tables: SnapshotTables, reading: ArchiveReading, day: int
) -> DayRecount:
    """Compare the buckets of a day with its records, in the database and in the archive.

    Args:
        connection: a transaction that sees one state.
        ledger: whose.
        tables: of the kind.
        reading: of the archive.
        day: its first second.
    """
    files = files_of(connection, ledger, tables.kind, day)
    found = DayRecount([], {}, files)
    records = _records(connection, tables, reading, day, found)
    if found.unreadable:
        return found
    found.records = len(records.series)
    booked = [_booked(connection, table, of, day) for table, of in _bucket_tables(tables)]
    found.buckets = sum(len(cells) for buckets in booked for cells in buckets.values())
    found.producers = _producers(connection, ledger, tables, {*records.series, *booked[0]})
    newest = next(tier.width for tier in tiers_at(ledger.clock(), tables.kind.tiers) if tier.start <= day * SECOND)
    for (table, of), buckets, computed in zip(
        _bucket_tables(tables), booked, (_seen(tables.kind, records), _looked(tables.kind, records, found)), strict=True
    ):
        # That is the widest of them, and of no bucket where the tiers were others whose widths do not divide these.
        widths = {number: lcm(*(width for _, width in cells)) for number, cells in buckets.items()}
        wide = {number: _widened(table, cells, widths[number]) for number, cells in buckets.items()}
        found.tables.append(TableRecount(table, of, wide, computed(day, widths, newest)))
    return found


def files_of(connection: Connection, ledger: Ledger, kind: Kind, day: int) -> list[File]:
    """The files of the archive that hold records of a day of snapshots."""
    return [file for file in files_in(connection, ledger, day) if file.kind == kind.name]


def rules_of(table: Table) -> dict[str, Rule]:
    """How each column that is no key merges."""
    return {column.name: rule_of(column) for column in table.columns if not column.primary_key}


def _bucket_tables(tables: SnapshotTables) -> list[tuple[Table, str]]:
    return [(tables.buckets, SERIES), (tables.cycles, PRODUCER)]


def _records(
    connection: Connection, tables: SnapshotTables, reading: ArchiveReading, day: int, found: DayRecount
) -> _Records:
    kind, table = tables.kind, tables.records
    needed = dict.fromkeys([kind.time, "cycle_size", *(each for name in held(kind) for each in factors(kind, name))])
    records = _Records({name: [] for name in needed}, [])
    question = select(table.c[SERIES], *(table.c[name] for name in needed)).where(of_day(table, day))
    for rows in connection.execute(question.execution_options(stream_results=True)).partitions(ROWS_AT_ONCE):
        series, *values = zip(*rows, strict=True)
        records.series.extend(series)
        for column, some in zip(records.columns.values(), values, strict=True):
            column.extend(some)
    for file in found.files:
        try:
            columns = reading.columns(kind, file, needed)
        except ArchiveError as error:
            found.unreadable.append(Unreadable(file, reading.reach(kind, file), str(error)))
            continue
        records.series.extend(reading.series(kind, columns).tolist())
        for name, column in records.columns.items():
            column.extend(columns[name])
    return records


def _producers(
    connection: Connection, ledger: Ledger, tables: SnapshotTables, series: set[Number]
) -> dict[Number, Number]:
    """The number of each series' producer."""
    mine, producers = tables.series, ledger.common.producers
    ordered = sorted(series)
    found: dict[Number, Number] = {}
    for first in range(0, len(ordered), AT_ONCE):
        question = (
            select(mine.c[SERIES], producers.c[PRODUCER])
            .select_from(mine.join(producers, mine.c.producer == producers.c.name))
            .where(mine.c[SERIES].in_(ordered[first : first + AT_ONCE]))
        )
        found |= {row[0]: row[1] for row in connection.execute(question)}
    return found


def _booked(connection: Connection, table: Table, of: str, day: int) -> Buckets:
    names = [column.name for column in table.columns if not column.primary_key]
    question = select(table.c[START], table.c[of], table.c[WIDTH], *(table.c[name] for name in names)).where(
        table.c[START] >= day, table.c[START] < day + DAY
    )
    found: Buckets = {}
    for start, number, width, *values in connection.execute(question):
        found.setdefault(number, {})[start, width] = dict(zip(names, values, strict=True))
    return found


_Computed = Callable[[int, Mapping[Number, int], int], Buckets]


def _seen(kind: Kind, records: _Records) -> _Computed:
    """What the buckets of a day have to be, in the width of each series, or in that of the newest buckets."""

    def computed(day: int, widths: Mapping[Number, int], newest: int) -> Buckets:
        series = np.array(records.series, np.int64)
        width = np.array([widths.get(number, newest) for number in records.series], np.int64)
        found: Buckets = {}
        for each in np.unique(width).tolist():
            places = np.flatnonzero(width == each).tolist()
            columns = {name: [values[place] for place in places] for name, values in records.columns.items()}
            found |= _as_buckets(seen(kind, columns, series[places], _tier(day, each)), SERIES)
        return found

    return computed


def _looked(kind: Kind, records: _Records, found: DayRecount) -> _Computed:
    """The same of the buckets of those who looked."""

    def computed(day: int, widths: Mapping[Number, int], newest: int) -> Buckets:
        looks: dict[tuple[Number, int], tuple[int, int]] = {}
        of_records = zip(records.series, records.columns[kind.time], records.columns["cycle_size"], strict=True)
        for series, time, size in of_records:
            if series not in found.producers:
                # Its series' row is lost, which `accounting.checks.numbered` tells.
                continue
            look = found.producers[series], int(time)
            count, largest = looks.get(look, (0, 0))
            looks[look] = count + 1, max(largest, int(size))
        buckets: Buckets = {}
        for width in {widths.get(number, newest) for number, _ in looks}:
            mine = {look: each for look, each in looks.items() if widths.get(look[0], newest) == width}
            changes = {CYCLES: [1] * len(mine), COMPLETE: [int(count == size) for count, size in mine.values()]}
            numbers, times = [number for number, _ in mine], [time for _, time in mine]
            buckets |= _as_buckets(looked(times, numbers, changes, _tier(day, width)), PRODUCER)
        return buckets

    return computed


def _tier(day: int, width: int) -> Sequence[Tier]:
    return [Tier(day * SECOND, (day + DAY) * SECOND, width)]


def _as_buckets(postings: Postings, of: str) -> Buckets:
    found: Buckets = {}
    if not postings.keys:
        return found
    columns = [values.tolist() if isinstance(values, np.ndarray) else values for values in postings.sums.values()]
    keys = (postings.keys[name].tolist() for name in (START, of, WIDTH))
    for start, number, width, *values in zip(*keys, *columns, strict=True):
        found.setdefault(number, {})[start, width] = dict(zip(postings.sums, values, strict=True))
    return found


def _widened(table: Table, cells: Mapping[Cell, Row], width: int) -> dict[Cell, Row]:
    """The buckets of one series or producer, all in one width."""
    rules = rules_of(table)
    found: dict[Cell, Row] = {}
    for (start, _), row in cells.items():
        cell = start - start % width, width
        found[cell] = _merged(rules, found[cell], row) if cell in found else row
    return found


def _merged(rules: Mapping[str, Rule], one: Row, other: Row) -> Row:
    return {name: _value(rule, one, other, name) for name, rule in rules.items()}


def _value(rule: Rule, one: Row, other: Row, name: str) -> int | None:
    known = [value for row in (one, other) if (value := row[name]) is not None]
    match rule.merge:
        case Merge.ADD:
            return sum(known)
        case Merge.LEAST:
            return min(known, default=None)
        case Merge.GREATEST:
            return max(known, default=None)
        case Merge.LATEST:
            later = max(one, other, key=lambda row: (row[rule.by] is not None, row[rule.by] or 0))
            return later[name]
