"""The archive beside the database: which time the records of a file reach, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection

from accounting.archive.archive_file import File, checked_columns, fields_of, steps_in
from accounting.archive.archiving import files_in
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import DAY, SECOND
from accounting.booking.counters import counted_columns
from accounting.booking.numbers import Lost
from accounting.ledger import Ledger
from accounting.query.cuts import Stretch
from accounting.tables import ID, is_bucketed, step_columns, times_of
from siteward.records import Kind

NEVER: Final = -(2**62)
FOR_EVER: Final = 2**62


class Unreadable(msgspec.Struct, frozen=True):
    """A file whose records are needed and not there.

    Attributes:
        file: which.
        reach: the time in which its records may have a part.
        why: it cannot be read, in one sentence.
    """

    file: File
    reach: Stretch
    why: str


class ArchiveReading:
    """Reads files of an archive for one run, and remembers what it has learned of them."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        """Name the archive's folder, which need not be there."""
        self._ledger = ledger
        self._folder = folder
        self._reaches: dict[str, Stretch | None] = {}
        self._has_looked = False

    def files(self, connection: Connection, kind: Kind, stretch: Stretch) -> list[File]:
        """The files of a kind whose records may have a part in a stretch, as a transaction sees the archive."""
        found = (file for file in files_in(connection, self._ledger) if file.kind == kind.name)
        return [file for file in found if meet(self.reach(kind, file), stretch)]

    def reach(self, kind: Kind, file: File) -> Stretch:
        """The time in which records of a file may have a part: as it says itself, else what the kind allows."""
        if file.file not in self._reaches:
            self._reaches[file.file] = _told(self._folder / file.file, kind)
        return self._reaches[file.file] or possible(kind, file)

    def columns(self, kind: Kind, file: File, names: Collection[str] = ()) -> dict[str, Sequence[Any]]:
        """The records of a file, with their ids and where they came from.

        Args:
            kind: of the records.
            file: which.
            names: the fields that are wanted, beside those that make the series; () for all, and where they came from.

        Raises:
            ArchiveError: it is missing, or not what was written.
        """
        bucketed = [column.name for column in kind.columns if is_bucketed(column)]
        wanted = {ID, *names, *bucketed, *step_columns(kind)} if names else set[str]()
        asked = [kind.column[name] for name in names if name in kind.column]
        formers = {former.name for column in asked if (former := column.former)}
        stored = checked_columns(self._folder, file, wanted | formers)
        return {**stored, **fields_of(kind, stored, wanted), **steps_in(kind, stored)}

    def booked(self, kind: Kind, file: File, names: Collection[str]) -> dict[str, Sequence[Any]]:
        """The same as they are booked: of counters what each counted since the record before."""
        return counted_columns(kind, self.columns(kind, file, names))

    def series(self, kind: Kind, columns: Mapping[str, Sequence[Any]]) -> Integers:
        """The number of the series of each of these records."""
        bucketed = {column.name: columns[column.name] for column in kind.columns if is_bucketed(column)}
        if not self._has_looked:
            # A process that only reads would go by numbers of a database that was put back for ever.
            with self._ledger.database.read() as connection, suppress(Lost):
                self._ledger.numbers.refuse_lost(connection)
            self._has_looked = True
        return np.array(self._ledger.numbers.series_of(kind, bucketed), np.int64)


def meet(one: Stretch, other: Stretch) -> bool:
    """Whether two stretches have any time in common."""
    return one[0] < other[1] and other[0] < one[1]


def _told(path: Path, kind: Kind) -> Stretch | None:
    """From the first to the last instant of a file's records, by its own statistics; None where it has none."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only who has an archive needs it.
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above.

    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return None
    names = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    first, last = (names.index(name) for name in times_of(kind))
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    ranges = [(group.column(first).statistics, group.column(last).statistics) for group in groups]
    if not ranges or any(each is None or not each.has_min_max for pair in ranges for each in pair):
        return None
    return min(low.min_raw for low, _ in ranges), max(high.max_raw for _, high in ranges) + 1


def possible(kind: Kind, file: File) -> Stretch:
    """The time in which records of a file may have a part: by the day of their partition times, and the longest."""
    first, last = file.day * SECOND, (file.day + DAY) * SECOND
    if kind.longest is None:
        return first, last
    if kind.since:
        return first - kind.longest, last
    match kind.time:
        case "end":
            return first - kind.longest, last
        case "start":
            return first, last + kind.longest + 1
        case _:
            return NEVER, FOR_EVER
