"""Buckets beside what their records come to, for some days of one kind, within one state of the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Column as TableColumn
from sqlalchemy import Connection, Table, func, select

from accounting.archive.archive_file import ArchiveError
from accounting.archive.archive_reading import FOR_EVER, NEVER, ArchiveReading, Unreadable
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import DAY, SECOND, tiers_at
from accounting.booking.counters import counted
from accounting.booking.measures import factors, held
from accounting.booking.postings import Account, Postings, account_of, by_end, column_of, merged, posted, prorated
from accounting.checks.grids import Grid, grid_of
from accounting.ledger import Ledger
from accounting.query.cuts import Stretch
from accounting.query.record_sums import id_from, id_times
from accounting.tables import ID, SERIES, START, WIDTH, KindTables, times_of

MOST_DAYS: Final = 31
"""Days of one slice: records that end long after it are looked at once for all of them."""
MOST_BUCKETS: Final = 50_000
"""Rows of buckets of one slice, unless a single day has more."""
AT_ONCE: Final = 20_000
_MERGE: Final = 64
"""Parts of sums that are kept before they are put together."""
KEYS: Final = (START, SERIES, WIDTH)
Column = npt.NDArray[Any]


class Slice(msgspec.Struct, frozen=True):
    """Consecutive UTC days, by the first second of the first, and of the day after the last."""

    first: int
    last: int

    @property
    def days(self) -> range:
        """The first second of each day."""
        return range(self.first, self.last, DAY)

    @property
    def stretch(self) -> Stretch:
        """The same in microseconds."""
        return self.first * SECOND, self.last * SECOND


class Differences(msgspec.Struct):
    """The blocks of one table of buckets that are not what their records come to.

    Attributes:
        table: of buckets.
        keys: start, series and width of each block, ascending.
        booked: what there is, by bucket column.
        computed: what there should be, by bucket column.
    """

    table: Table
    keys: dict[str, Integers]
    booked: dict[str, Column]
    computed: dict[str, Column]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.keys[START]) if self.keys else 0

    @property
    def missing(self) -> dict[str, Column]:
        """What has to be added."""
        return {name: _less(values, self.booked[name]) for name, values in self.computed.items()}


class Recount(msgspec.Struct):
    """What was found in a slice.

    Attributes:
        tables: differences of each attribution, days that cannot be told left out.
        records: looked at.
        buckets: looked at.
        unreadable: files of the archive that are needed and cannot be read.
        left_out: the days that cannot be told.
    """

    tables: list[Differences]
    records: int
    buckets: int
    unreadable: list[Unreadable]
    left_out: list[int]


def extent(connection: Connection, tables: KindTables, reading: ArchiveReading) -> Slice | None:
    """All days in which a kind has records, files of the archive or buckets; None without any."""
    first, last = (tables.records.c[name] for name in times_of(tables.kind))
    edges = [each // SECOND for each in ends(connection, first, last)]
    for table in (tables.prorated, tables.by_end):
        edges += ends(connection, table.c[START], table.c[START])
    for file in reading.files(connection, tables.kind, (NEVER, FOR_EVER)):
        edges += [file.day]
    return Slice(min(edges) // DAY * DAY, max(edges) // DAY * DAY + DAY) if edges else None


def ends(connection: Connection, first: TableColumn[int], last: TableColumn[int]) -> list[int]:
    """The least of a column and the greatest of another; nothing of an empty table.

    One question each: SQLite looks at an index only where it is asked for one end of it.
    """
    found = (connection.execute(select(each)).scalar() for each in (func.min(first), func.max(last)))
    return [int(each) for each in found if each is not None]


def slices(connection: Connection, tables: KindTables, whole: Slice) -> Iterator[Slice]:
    """Days in such portions that memory holds each."""
    counts: dict[int, int] = {}
    for table in (tables.prorated, tables.by_end):
        start = table.c[START]
        within = (start >= whole.first, start < whole.last)
        for first, rows_there in connection.execute(select(start, func.count()).where(*within).group_by(start)):
            counts[first // DAY * DAY] = counts.get(first // DAY * DAY, 0) + rows_there
    begin, rows = whole.first, 0
    for day in whole.days:
        here = counts.get(day, 0)
        if day > begin and (day - begin >= MOST_DAYS * DAY or rows + here > MOST_BUCKETS):
            yield Slice(begin, day)
            begin, rows = day, 0
        rows += here
    yield Slice(begin, whole.last)


def recount(
    connection: Connection, ledger: Ledger, tables: KindTables, reading: ArchiveReading, days: Slice
) -> Recount:
    """Compare the buckets of some days with their records, in the database and in the archive.

    Args:
        connection: a transaction that sees one state.
        ledger: whose.
        tables: of the kind.
        reading: of the archive.
        days: which.
    """
    tiers = tiers_at(ledger.clock(), tables.kind.tiers)
    pair = (tables.prorated, tables.by_end)
    grids = [grid_of(_layout(connection, table, days), days.days, tiers) for table in pair]
    computed = [_Sum(grid) for grid in grids]
    records = 0
    unreadable: list[Unreadable] = []
    for account in _accounts(connection, tables, reading, days, unreadable):
        records += len(account.series)
        computed[0].add(prorated(account, grids[0].tiers))
        computed[1].add(_within(by_end(account, grids[1].tiers)))
    left_out = [day for day in days.days if any(_touches(each.reach, day) for each in unreadable)]
    found, buckets = [], 0
    for table, grid, sums in zip(pair, grids, computed, strict=True):
        booked = _Sum(grid)
        for postings in _booked(connection, table, days):
            buckets += len(postings.keys[START])
            booked.add(postings)
        found.append(_compared(table, booked.total, sums.total, left_out))
    return Recount(found, records, buckets, unreadable, left_out)


class _Sum:
    """Postings as they come, put together by block."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._parts: list[Postings] = []

    def add(self, postings: Postings) -> None:
        if postings.keys:
            self._parts.append(self._grid.settled(postings))
        if len(self._parts) >= _MERGE:
            self._parts = [self.total]

    @property
    def total(self) -> Postings:
        return merged(self._parts)


def _layout(connection: Connection, table: Table, days: Slice) -> list[tuple[int, int]]:
    start, width = table.c[START], table.c[WIDTH]
    within = select(start, width).where(start >= days.first, start < days.last).distinct()
    return [(int(row[0]), int(row[1])) for row in connection.execute(within)]


def _booked(connection: Connection, table: Table, days: Slice) -> Iterator[Postings]:
    names = [column.name for column in table.columns]
    within = select(table).where(table.c[START] >= days.first, table.c[START] < days.last)
    for rows in connection.execute(within.execution_options(stream_results=True)).partitions(AT_ONCE):
        # As tuples: numpy asks the rows of a result for each value by name first, which takes ten times as long.
        columns = dict(zip(names, np.array(list(map(tuple, rows)), np.int64).T, strict=True))
        keys = {name: columns.pop(name) for name in KEYS}
        yield Postings(keys, dict(columns))


def _accounts(
    connection: Connection,
    tables: KindTables,
    reading: ArchiveReading,
    days: Slice,
    unreadable: list[Unreadable],
) -> Iterator[Account]:
    """All records that have a part in the days; what of the archive cannot be read is appended to a list."""
    kind = tables.kind
    names = list(dict.fromkeys([*times_of(kind), *(each for name in held(kind) for each in factors(kind, name))]))
    for rows in _pages(connection, tables, days, names):
        _, series, *values = zip(*rows, strict=True)
        yield account_of(kind, dict(zip(names, values, strict=True)), np.array(series, np.int64))
    for file in reading.files(connection, kind, days.stretch):
        try:
            columns = reading.booked(kind, file, names)
        except ArchiveError as error:
            unreadable.append(Unreadable(file, reading.reach(kind, file), str(error)))
            continue
        yield account_of(kind, columns, reading.series(kind, columns))


def _pages(connection: Connection, tables: KindTables, days: Slice, names: Sequence[str]) -> Iterator[Sequence[Any]]:
    records = tables.records
    start, end = (records.c[name] for name in times_of(tables.kind))
    first, last = days.stretch
    earliest, latest = id_times(tables.kind, days.stretch, is_prorated=True)
    # One that ends where the days begin has no time in them, and yet all of it by its end.
    within = [start < last, end >= first]
    if latest is not None:
        within.append(records.c[ID] < id_from(latest + 999))
    question = select(records.c[ID], records.c[SERIES], *(counted(tables, name) for name in names)).where(*within)
    question = question.order_by(records.c[ID]).limit(AT_ONCE)
    reached = None if earliest is None else id_from(earliest)
    while True:
        page = question if reached is None else question.where(records.c[ID] >= reached)
        rows = connection.execute(page).all()
        if rows:
            yield rows
        if len(rows) < AT_ONCE:
            return
        reached = (int.from_bytes(bytes(rows[-1][0]), "big") + 1).to_bytes(len(rows[-1][0]), "big")


def _within(postings: Postings) -> Postings:
    """Without the records that end on other days, for which there is no bucket here."""
    here = postings.keys[WIDTH] > 0 if postings.keys else np.zeros(0, np.bool_)
    if not here.any():
        return Postings({}, {})
    return Postings(
        {name: values[here] for name, values in postings.keys.items()},
        {name: values[here] for name, values in postings.sums.items()},
    )


def _touches(reach: Stretch, day: int) -> bool:
    return reach[0] < (day + DAY) * SECOND and day * SECOND < reach[1]


def _compared(table: Table, booked: Postings, computed: Postings, left_out: Sequence[int]) -> Differences:
    names = [column.name for column in table.columns if column.name not in KEYS]
    sides = [side for side in (booked, computed) if side.keys]
    if not sides:
        return Differences(table, {}, {}, {})
    start, series, width = (np.concatenate([side.keys[name] for side in sides]) for name in KEYS)
    columns: dict[str, Column] = {}
    for name in names:
        of_booked, of_computed = column_of(booked, name), column_of(computed, name)
        columns[f"booked {name}"] = np.concatenate([of_booked, np.zeros_like(of_computed)])
        columns[f"computed {name}"] = np.concatenate([np.zeros_like(of_booked), of_computed])
    joined = posted(start, series, width, columns)
    differs = ~np.isin(joined.keys[START] // DAY * DAY, np.array(left_out, np.int64))
    differs &= np.logical_or.reduce(
        [joined.sums[f"booked {name}"] != joined.sums[f"computed {name}"] for name in names]
    )
    return Differences(
        table,
        {name: values[differs] for name, values in joined.keys.items()},
        {name: joined.sums[f"booked {name}"][differs] for name in names},
        {name: joined.sums[f"computed {name}"][differs] for name in names},
    )


def _less(one: Column, other: Column) -> Column:
    """The difference of integers, as Python's own where 64 bits might not hold it."""
    difference: Column = one.astype(object) - other.astype(object)
    return difference
