"""The records that a figure is made of which are no longer in the database, but in files of the archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import or_, select

from accounting.archive.archive_file import ArchiveError, File
from accounting.archive.archive_reading import ArchiveReading, meet, possible
from accounting.booking.buckets import DAY, SECOND
from accounting.booking.measures import factors, held
from accounting.booking.postings import account_of
from accounting.query.conditions import conditions_of
from accounting.query.record_sums import (
    MOST_LOOKED_AT,
    MOST_READ,
    Part,
    archived_within,
    chosen_from,
    id_from,
    meeting,
    refuse_more,
)
from accounting.query.samples import fields_of, values_of
from accounting.tables import CARRIED, ID, RECORDS, SERIES, START, STARTED, WIDTH, times_of
from accounting.trace.followed import Followed, Piece
from accounting.trace.listed_buckets import buckets_of
from accounting.trace.named_records import Single

FILE: Final = "_file"
"""Of a record's row, the name of its file."""
Columns = Mapping[str, Sequence[Any]]


class ArchivedRecords:
    """Those of one question. A file is read at most once to add up, and once to list."""

    def __init__(self, followed: Followed, reading: ArchiveReading | None) -> None:
        """Find the files that may hold some.

        Args:
            followed: the question.
            reading: reads the archive; None where it is not at hand.
        """
        self._followed = followed
        self._reading = reading
        self._kind = followed.kind
        self._files = archived_within(
            followed.connection, followed.ledger, self._kind, followed.window, is_prorated=followed.is_prorated
        )
        self._unreadable: dict[str, File] = {} if reading else {file.file: file for file in self._files}
        self._without: set[str] = set()

    def sums(self, measures: Sequence[str]) -> tuple[dict[str, int], dict[str, list[Single]]]:
        """What all of those that can be read come to, by column of buckets, and single values of theirs.

        Args:
            measures: of which each record's value is wanted, with its id.

        Raises:
            QueryError: they are too many.
        """
        followed, kind = self._followed, self._kind
        sums = dict.fromkeys(followed.names, 0)
        singles: dict[str, list[Single]] = {measure: [] for measure in measures}
        needed = {name for measure in held(kind) for name in factors(kind, measure)}
        needed |= {name for measure in measures for name in fields_of(kind, measure)}
        looked_at = taken = 0
        for file in self._files:
            columns = self._columns(file, self._needed(needed))
            if columns is None:
                continue
            # Of how many records others have, a refusal must not tell.
            looked_at += int(np.count_nonzero(meeting(followed.sight.conditions, columns, len(columns[ID]))))
            if looked_at > MOST_LOOKED_AT:
                refuse_more(MOST_LOOKED_AT)
            chosen = [(piece, here) for piece in followed.pieces if (here := self._chosen(piece, columns))]
            if not chosen:
                self._without.add(file.file)
            for piece, here in chosen:
                taken += len(here)
                if taken > MOST_READ:
                    refuse_more(MOST_READ)
                mine = _taken(columns, here)
                account = account_of(kind, mine, np.zeros(len(here), np.int64))
                part = Part([()], account, followed.names, is_prorated=followed.is_prorated)
                found = part.groups(piece.stretch, followed.window[0]).get((), {})
                sums = {name: value + found.get(name, 0) for name, value in sums.items()}
                for measure, values in singles.items():
                    of_each, known = values_of(kind, measure, mine)
                    ids = zip(of_each.tolist(), mine[ID], known.tolist(), strict=True)
                    values += [(value, identifier) for value, identifier, is_known in ids if is_known]
        return sums, singles

    def rows(self, piece: Piece, after: bytes | None, most: int) -> list[dict[str, Any]]:
        """Those of a piece with the lowest ids, as they are booked, with where they came from.

        Args:
            piece: of the window.
            after: only those with higher ids.
            most: at most so many.
        """
        found: list[dict[str, Any]] = []
        day = None
        for file in self._files_of(piece, after):
            # Ids begin with the time: those of later days are higher.
            if len(found) >= most and file.day != day:
                break
            day = file.day
            columns = self._columns(file)
            here = [] if columns is None else self._chosen(piece, columns)
            if columns is None or not here:
                continue
            ids = columns[ID]
            here = sorted((place for place in here if after is None or ids[place] > after), key=ids.__getitem__)
            found += (
                {name: each[place] for name, each in columns.items()} | {FILE: file.file} for place in here[:most]
            )
        return sorted(found, key=lambda row: bytes(row[ID]))[:most]

    def unreadable(self) -> list[str]:
        """The files that could not be read and may hold records of the question."""
        return [name for name, file in self._unreadable.items() if any(self._may_hold(file))]

    def _may_hold(self, file: File) -> Iterator[bool]:
        """Whether buckets tell of records that meet the conditions while those of a file may have been there."""
        followed, buckets = self._followed, buckets_of(self._followed)
        series = followed.tables.series
        start, width = buckets.c[START], buckets.c[WIDTH]
        counts = [buckets.c[name] for name in (RECORDS, STARTED, CARRIED) if name in buckets.c]
        first, last = self._reach(file)
        for piece in followed.pieces:
            begin, end = max(first, piece.stretch[0]), min(last, piece.stretch[1])
            if begin >= end:
                continue
            filters = [each for each in piece.filters if each.field in series.c]
            question = (
                select(buckets.c[SERIES])
                .select_from(buckets.join(series, buckets.c[SERIES] == series.c[SERIES]))
                .where(start > begin // SECOND - DAY, start * SECOND < end, (start + width) * SECOND > begin)
                .where(or_(*(count != 0 for count in counts)), *conditions_of(series, filters))
                .limit(1)
            )
            yield followed.connection.execute(question).first() is not None

    def _reach(self, file: File) -> tuple[int, int]:
        is_of_day = self._kind.time == times_of(self._kind)[1] and not self._followed.is_prorated
        return (file.day * SECOND, (file.day + DAY) * SECOND) if is_of_day else possible(self._kind, file)

    def _files_of(self, piece: Piece, after: bytes | None) -> Iterator[File]:
        for file in self._files:
            is_behind = after is not None and id_from((file.day + DAY) * SECOND) <= after
            if not is_behind and file.file not in self._without and meet(self._reach(file), piece.stretch):
                yield file

    def _needed(self, names: set[str]) -> set[str]:
        conditions = {each.field for piece in self._followed.pieces for each in piece.filters}
        return {*names, *times_of(self._kind), *conditions}

    def _columns(self, file: File, names: set[str] | None = None) -> Columns | None:
        """The records of a file as they are booked; None where it cannot be read."""
        if self._reading is None:
            return None
        try:
            return self._reading.booked(self._kind, file, names or ())
        except ArchiveError:
            self._unreadable[file.file] = file
            return None

    def _chosen(self, piece: Piece, columns: Columns) -> list[int]:
        return chosen_from(self._kind, columns, piece.stretch, piece.filters, is_prorated=self._followed.is_prorated)


def _taken(columns: Columns, places: Sequence[int]) -> dict[str, Sequence[Any]]:
    return {name: [each[place] for place in places] for name, each in columns.items()}
