"""Records that are older than anybody asks for, as Parquet files of a day each; their buckets and ids stay.

A file is written, forced to disk and read back before its records leave the database, in one transaction with the entry
that names it. A record that comes, or is revised, while its file is written makes the file be written again. Of each
counter the last record stays, since the next one counts from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archive_file import (
    DAY,
    ArchiveError,
    File,
    Listed,
    Stored,
    day_name,
    drafted,
    plain,
    write,
)
from accounting.archive.archived_ids import day_of, id_range, packed
from accounting.archive.column_texts import are_told_by_texts, read_by_texts
from accounting.archive.record_columns import Lookup, listed, read_records
from accounting.booking.counters import Counters
from accounting.booking.rows import remove_rows
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import (
    COUNTER,
    ENTRY,
    ID,
    KindTables,
    is_bucketed,
    step_columns,
)
from siteward.cycles import cycles_sought_rarely
from siteward.records import microseconds
from siteward.records.identity import ID_BYTES
from siteward.server.database import Conflict

SECOND: Final = 1_000_000
TRIES: Final = 10
AT_ONCE: Final = 50_000
"""Records of one file: they are in memory while it is written, with those of the next, a kilobyte or two each.

SQLite tells each column of them as one text, which may have no more than 10^9 bytes.
"""


def archive(ledger: Ledger, folder: Path, before: datetime, kinds: Collection[str] = ()) -> Iterator[File]:
    """Write the records of whole days before an instant into files, and take them out of the database.

    Those of kinds that are not archived stay: the ledger answers from them, and looks for them nowhere else.

    Args:
        ledger: whose.
        folder: of the archive.
        before: days that end at this instant or earlier.
        kinds: names of those to archive; () for all that are archived at all.

    Yields:
        Each file when its records are out of the database.

    Raises:
        ArchiveError: one of the kinds is not archived, or has a correction that is not finished.
    """
    for name in kinds:
        if not ledger.kinds[name].archived:
            message = f"records of {name} are not archived: other answers are made of them"
            raise ArchiveError(message)
    last = microseconds(before) // SECOND // DAY * DAY
    for tables in ledger.all_tables:
        if tables.kind.name in kinds or (not kinds and tables.kind.archived):
            yield from _Leaving(ledger, tables, folder, last).files()


def _may_leave(tables: Tables, last: int) -> ColumnElement[bool]:
    """Which records of a kind may leave.

    Args:
        tables: of the kind.
        last: first second of the first day that stays.
    """
    records = tables.records
    is_old = records.c[ID] < id_range(last)[0]
    if not tables.kind.since:
        return is_old
    later = records.alias("later")
    mine, time = later.c[COUNTER] == records.c[COUNTER], later.c[tables.kind.time]
    following = select(later.c[ID]).where(mine, time > records.c[tables.kind.time], time < last * SECOND)
    # As a value, and not by EXISTS, of which databases make a join with the whole table.
    return is_old & following.order_by(time).limit(1).correlate(records).scalar_subquery().is_not(None)


class _Standing(msgspec.Struct, frozen=True):
    """What decides which records of old entries there are in a day.

    Attributes:
        decided: the kind's corrections with their states.
        files: of that day.
    """

    decided: tuple[tuple[int, str], ...]
    files: frozenset[str]


class _Part(msgspec.Struct, frozen=True):
    """Records that were read, for a file.

    Attributes:
        day: first second of the UTC day of their partition times.
        begin: the smallest id that they may have.
        end: the smallest id after them.
        stored: they themselves.
        stood: what stood beside them when they were read.
    """

    day: int
    begin: bytes
    end: bytes
    stored: Stored
    stood: _Standing

    @property
    def first(self) -> bytes:
        """The smallest id of them."""
        return bytes(plain(self.stored[ID])[0])

    def beside(self, file: File) -> _Part:
        """The same after the records before them went into a file."""
        if file.day != self.day:
            return self
        stood = msgspec.structs.replace(self.stood, files=self.stood.files | {file.file})
        return msgspec.structs.replace(self, stood=stood)


class _Leaving:
    """The records of a kind that leave. While a file is written, those of the next one are read."""

    def __init__(self, ledger: Ledger, tables: Tables, folder: Path, last: int) -> None:
        self._ledger = ledger
        self._tables = tables
        self._folder = folder
        self._chosen = _may_leave(tables, last)
        self._series = Lookup(tables.series, [column.name for column in tables.kind.columns if is_bucketed(column)])

    def files(self) -> Iterator[File]:
        """Each when its records are out of the database."""
        part, tries = self._read(bytes(ID_BYTES)), 0
        with ThreadPoolExecutor(1, "archive") as beside:
            while part is not None:
                with cycles_sought_rarely():
                    file, following = self._written(part, beside)
                    if not self._take_out(part, file):
                        # Somebody wrote into the day meanwhile; a file that nothing names is no part of the archive.
                        (self._folder / file.file).unlink()
                        again = self._read(part.begin)
                        # Another process may have archived them.
                        tries = tries + 1 if again and again.first <= part.first else 0
                        if tries == TRIES:
                            _give_up(part, file)
                        part = again
                        continue
                yield file
                part, tries = following and following.beside(file), 0

    def _written(self, part: _Part, beside: Executor) -> tuple[File, _Part | None]:
        """A part's file, and the part after it."""
        kind = self._tables.kind
        writing = beside.submit(write, kind.name, self._folder, part.day, drafted(kind, part.day, part.stored))
        try:
            following = self._read(part.end)
        except BaseException:
            (self._folder / writing.result().file).unlink()
            raise
        return writing.result(), following

    def _read(self, begin: bytes) -> _Part | None:
        """The first records that leave from an id on; None where there are none."""
        ledger, tables = self._ledger, self._tables
        while (day := _next_day(ledger, tables, begin, self._chosen)) is not None:
            begin, end = max(begin, id_range(day)[0]), id_range(day)[1]
            with cycles_sought_rarely(), ledger.database.read() as connection:
                _refuse_unfinished(connection, ledger, tables.kind.name)
                stood = _standing(connection, ledger, tables.kind.name, day)
                stored = read_records(connection, ledger, tables, self._series, (begin, end), self._chosen, AT_ONCE)
            ids = plain(stored[ID])
            if ids:
                after = (int.from_bytes(ids[-1], "big") + 1).to_bytes(ID_BYTES, "big")
                return _Part(day, begin, after, stored, stood)
        return None

    def _take_out(self, part: _Part, file: File) -> bool:
        """Whether the records are out; they are not where somebody changed them meanwhile."""
        try:
            return _took_out(self._ledger, self._tables, part, file)
        except Conflict:
            return False


def _give_up(part: _Part, file: File) -> NoReturn:
    message = f"records of {file.kind} came into {day_name(part.day)} {TRIES} times while it was written"
    raise Conflict(message)


def _next_day(ledger: Ledger, tables: Tables, begin: bytes, leaving: ColumnElement[bool]) -> int | None:
    identifier = tables.records.c[ID]
    question = select(identifier).where(identifier >= begin, leaving).order_by(identifier).limit(1)
    with ledger.database.read() as connection:
        found = connection.execute(question).scalar()
    return None if found is None else day_of(bytes(found))


def _refuse_unfinished(connection: Connection, ledger: Ledger, kind: str) -> None:
    """A correction would not find the records that it has not come to yet."""
    numbers = unfinished_in(connection, ledger.common.corrections, kind)
    if numbers:
        message = f"correction {numbers[0]} of {kind} is not finished; approve or reverse it again, then archive"
        raise ArchiveError(message)


def _took_out(ledger: Ledger, tables: Tables, part: _Part, file: File) -> bool:
    """Put the file's entry in place of its records, if they are still what was written."""
    records, archived, stored = tables.records, ledger.common.archived, part.stored
    chosen = (records.c[ID] >= part.begin) & (records.c[ID] < part.end)
    ids = plain(stored[ID])
    with ledger.database.write(repeatable=True) as connection:
        ledger.check(connection, file.kind)
        if tables.kind.since:
            _lock_counters(connection, tables, chosen)
        if unfinished_in(connection, ledger.common.corrections, file.kind):
            return False
        if _standing(connection, ledger, file.kind, file.day) != part.stood:
            return False
        if not _are_as_written(connection, tables, chosen, stored):
            return False
        kept = packed(dict(zip(ids, plain(stored["revision"]), strict=True)))
        entry = msgspec.structs.asdict(file) | {"at": ledger.clock(), "ids": kept}
        connection.execute(archived.insert(), entry)
        if tables.kind.since:
            remove_rows(connection, records, ids)
        elif connection.execute(delete(records).where(chosen)).rowcount != len(ids):
            message = "a record came in while its day was taken out"
            raise Conflict(message)
    return True


def _standing(connection: Connection, ledger: Ledger, kind: str, day: int) -> _Standing:
    """What stands beside the records of a day."""
    corrections = ledger.common.corrections
    mine = select(corrections.c.number, corrections.c.state).where(corrections.c.kind == kind)
    decided = connection.execute(mine.order_by(corrections.c.number)).all()
    files = {each.file for each in files_in(connection, ledger, day) if each.kind == kind}
    return _Standing(tuple((number, state) for number, state in decided), frozenset(files))


def _lock_counters(connection: Connection, tables: Tables, chosen: ColumnElement[bool]) -> None:
    """Keep others from what these records hold of the ones before them, which changes without a new entry."""
    assert isinstance(tables, KindTables)
    numbers = connection.execute(select(tables.records.c[COUNTER]).where(chosen).distinct()).scalars().all()
    Counters(connection, tables).lock(numbers)


def _are_as_written(connection: Connection, tables: Tables, chosen: ColumnElement[bool], stored: Stored) -> bool:
    """Whether all of these records are still what was written, which they are until the transaction's end."""
    if not tables.kind.since:
        now = _entries_now(connection, tables.records, chosen)
        return np.array_equal(np.sort(now), np.sort(plain(stored[ENTRY])))
    names = [ID, ENTRY, *step_columns(tables.kind)]
    present = zip(*listed(connection, tables.records, names, chosen, locked=True).values(), strict=True)
    row_of = {bytes(row[0]): row[1:] for row in present}
    # Others are between them: those that stay.
    identifiers, *written = (plain(stored[name]) for name in names)
    return all(
        row_of.get(identifier) == row for identifier, row in zip(identifiers, zip(*written, strict=True), strict=True)
    )


def _entries_now(connection: Connection, records: Table, chosen: ColumnElement[bool]) -> Listed:
    """The entry that booked each record, locked until the transaction's end.

    All records of an entry come with one transaction, and a revision is booked under another entry. Records come back
    with their entry by `_standing` only: where that and how many each entry booked are what they were, so are the
    records.
    """
    entry = records.c[ENTRY]
    if are_told_by_texts(connection, [entry]):
        # Nobody else writes now; and no lock goes with texts.
        (entries,) = read_by_texts(connection, [entry], chosen)
        return entries
    return listed(connection, records, [ENTRY], chosen, locked=True)[ENTRY]


def files(ledger: Ledger) -> list[File]:
    """Every file of the archive, by kind and day."""
    with ledger.database.read() as connection:
        return files_in(connection, ledger)


def files_in(connection: Connection, ledger: Ledger, day: int | None = None) -> list[File]:
    """The same as a transaction sees them; of one day, where its first second is given."""
    archived = ledger.common.archived
    wanted = [archived.c[name] for name in File.__struct_fields__]
    question = select(*wanted) if day is None else select(*wanted).where(archived.c.day == day)
    found = connection.execute(question.order_by(archived.c.kind, archived.c.day, archived.c.file))
    return [File(*row) for row in found]
