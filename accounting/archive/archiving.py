"""Records that are older than anybody asks for, as Parquet files of a day each; their buckets and ids stay.

A file is written, forced to disk and read back before its records leave the database, in one transaction with the entry
that names it. A record that comes, or is revised, while its file is written makes the file be written again. Of each
counter the last record stays, since the next one counts from it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, case, delete, false, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archive_file import (
    DAY,
    RECEIVED,
    ArchiveError,
    File,
    Stored,
    Texts,
    day_name,
    own_columns,
    plain,
    write,
)
from accounting.archive.archived_ids import day_of, id_range, packed
from accounting.booking.counters import Counters
from accounting.booking.rows import remove_rows
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import (
    COUNTER,
    ENTRY,
    ID,
    MESSAGE,
    PRODUCER,
    SERIES,
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
REMEMBERED: Final = 100_000
"""Rows of another table."""
LOOKED_UP: Final = 1_000
"""Keys of one question."""
SAMPLE: Final = 50
"""Rows of either end by which it is guessed which columns say the same throughout."""
AT_ONCE: Final = 100_000
"""Records of one file: they are in memory while it is written, a kilobyte or two each."""


def archive(ledger: Ledger, folder: Path, before: datetime) -> Iterator[File]:
    """Write the records of whole days before an instant into files, and take them out of the database.

    Args:
        ledger: whose.
        folder: of the archive.
        before: days that end at this instant or earlier.

    Yields:
        Each file when its records are out of the database.
    """
    last = microseconds(before) // SECOND // DAY * DAY
    for tables in ledger.all_tables:
        begin, leaving = bytes(ID_BYTES), _leaving(tables, last)
        series = _Lookup(tables.series, [column.name for column in tables.kind.columns if is_bucketed(column)])
        while (day := _next_day(ledger, tables, begin, leaving)) is not None:
            begin = max(begin, id_range(day)[0])
            while True:
                with cycles_sought_rarely():
                    part = _archived_part(ledger, tables, series, folder, day, begin, leaving)
                if part is None:
                    break
                begin = part.end
                yield part.file


def _leaving(tables: Tables, last: int) -> ColumnElement[bool]:
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


def _columns(connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool]) -> Stored:
    """Columns of rows in order of their ids. Those that say the same throughout, most of a wide kind, cost little."""
    question, key = select(*(table.c[name] for name in names)).where(chosen), table.c[ID]
    # From both ends: what changes with time is seen.
    sample = [row for order in (key, key.desc()) for row in connection.execute(question.order_by(order).limit(SAMPLE))]
    likely = {
        name: values[0] for name, values in zip(names, zip(*sample, strict=True), strict=False) if _is_one(values)
    }
    for name in _differing(connection, table, likely, chosen):
        del likely[name]
    listed = _listed(connection, table, [name for name in names if name == ID or name not in likely], chosen)
    places = np.zeros(len(listed[ID]), np.int64)
    return listed | {name: Texts([value], places) for name, value in likely.items() if name != ID}


def _differing(
    connection: Connection, table: Table, likely: Mapping[str, Any], chosen: ColumnElement[bool]
) -> list[str]:
    """Which columns do not have these values throughout."""
    others = {name: table.c[name].is_distinct_from(value) for name, value in likely.items()}
    # Mostly none: to ask for any costs half as much as to ask which.
    some = select(table.c[ID]).where(chosen, or_(false(), *others.values())).limit(1)
    if connection.execute(some).first() is None:
        return []
    counts = connection.execute(select(*(func.sum(case((each, 1), else_=0)) for each in others.values())).where(chosen))
    return [name for name, count in zip(others, counts.one(), strict=True) if count]


def _is_one(values: Sequence[Any]) -> bool:
    return values.count(values[0]) == len(values)


def _listed(
    connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool], *, locked: bool = False
) -> dict[str, list[Any]]:
    """Columns of rows in order of their ids, to be kept from others until the transaction's end if they are locked.

    Rows come some at a time, so that they are never all in memory.
    """
    columns: dict[str, list[Any]] = {name: [] for name in names}
    question = select(*(table.c[name] for name in names)).where(chosen).order_by(table.c[ID])
    for rows in connection.execute(question.with_for_update() if locked else question).partitions(LOOKED_UP):
        for column, values in zip(columns.values(), zip(*rows, strict=True), strict=True):
            column.extend(values)
    return columns


def _repeated(values: Iterable[Any]) -> Texts:
    """A column of values that come again."""
    places: dict[Any, int] = {}
    found = [places.setdefault(value, len(places)) for value in values]
    return Texts(list(places), np.array(found, np.int64))


class _Lookup:
    """Columns of another table by its key; what was read is remembered."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = names
        self._forget()

    def _forget(self) -> None:
        self._row_of: dict[int, int] = {}
        self._values: list[dict[Any, int]] = [{} for _ in self._names]
        self._places = np.zeros((0, len(self._names)), np.int32)

    def columns(self, connection: Connection, key: str, numbers: Sequence[int] | Texts) -> dict[str, Texts]:
        """The columns of the row of each number."""
        distinct, records = np.unique(np.array(plain(numbers), np.int64), return_inverse=True)
        self._learn(connection, key, distinct.tolist())
        rows = np.array([self._row_of[number] for number in distinct.tolist()], np.int64)
        places = self._places[rows].T
        return {
            name: Texts(list(values), places[column][records])
            for column, (name, values) in enumerate(zip(self._names, self._values, strict=True))
        }

    def _learn(self, connection: Connection, key: str, numbers: list[int]) -> None:
        missing = [number for number in numbers if number not in self._row_of]
        if len(self._row_of) + len(missing) > REMEMBERED:
            self._forget()
            missing = numbers
        column = self._table.c[key]
        question = select(column, *(self._table.c[name] for name in self._names))
        for first in range(0, len(missing), LOOKED_UP):
            rows = connection.execute(question.where(column.in_(missing[first : first + LOOKED_UP]))).all()
            found, *columns = zip(*rows, strict=True)
            self._row_of.update(zip(found, itertools.count(len(self._row_of))))
            places = [
                [values.setdefault(value, len(values)) for value in column]
                for values, column in zip(self._values, columns, strict=True)
            ]
            self._places = np.concatenate((self._places, np.array(places, np.int32).T))


class _Part(msgspec.Struct, frozen=True):
    """A file, and the smallest id after those in it."""

    file: File
    end: bytes


def _next_day(ledger: Ledger, tables: Tables, begin: bytes, leaving: ColumnElement[bool]) -> int | None:
    identifier = tables.records.c[ID]
    question = select(identifier).where(identifier >= begin, leaving).order_by(identifier).limit(1)
    with ledger.database.read() as connection:
        found = connection.execute(question).scalar()
    return None if found is None else day_of(bytes(found))


def _archived_part(  # what, and where it is and goes.
    ledger: Ledger,
    tables: Tables,
    series: _Lookup,
    folder: Path,
    day: int,
    begin: bytes,
    leaving: ColumnElement[bool],
) -> _Part | None:
    """Write the next records of a day; None where there are no more."""
    for _ in range(TRIES):
        with ledger.database.read() as connection:
            _refuse_unfinished(connection, ledger, tables.kind.name)
            stood = _standing(connection, ledger, tables.kind.name, day)
            stored = _read(connection, ledger, tables, series, (begin, id_range(day)[1]), leaving)
        ids = plain(stored[ID])
        if not ids:
            return None
        file = write(tables.kind, folder, day, stored)
        part = _Part(file, (int.from_bytes(ids[-1], "big") + 1).to_bytes(ID_BYTES, "big"))
        try:
            if _took_out(ledger, tables, part, begin, stored, stood):
                return part
        except Conflict:
            pass
        # Somebody wrote into the day meanwhile; a file that nothing names is no part of the archive.
        (folder / file.file).unlink()
    message = f"records of {tables.kind.name} came into {day_name(day)} {TRIES} times while it was written"
    raise Conflict(message)


def _refuse_unfinished(connection: Connection, ledger: Ledger, kind: str) -> None:
    """A correction would not find the records that it has not come to yet."""
    numbers = unfinished_in(connection, ledger.common.corrections, kind)
    if numbers:
        message = f"correction {numbers[0]} of {kind} is not finished; approve or reverse it again, then archive"
        raise ArchiveError(message)


def _read(
    connection: Connection,
    ledger: Ledger,
    tables: Tables,
    series: _Lookup,
    ids_between: tuple[bytes, bytes],
    leaving: ColumnElement[bool],
) -> Stored:
    """Records in order of their ids, some at a time, whole and with where they came from."""
    records, names = tables.records, own_columns(tables.kind)
    key, (begin, end) = records.c[ID], ids_between
    later = select(key).where(key >= begin, key < end, leaving).order_by(key).offset(AT_ONCE).limit(1)
    chosen = (key >= begin) & (key < (connection.execute(later).scalar() or end)) & leaving
    values = _columns(connection, records, [ID, SERIES, PRODUCER, ENTRY, MESSAGE, *names], chosen)
    ids = list(map(bytes, plain(values[ID])))
    if not ids:
        return {ID: []}
    common = ledger.common
    stored: dict[str, Any] = {ID: ids, ENTRY: values[ENTRY], MESSAGE: _repeated(map(bytes, plain(values[MESSAGE])))}
    stored[PRODUCER] = _Lookup(common.producers, ["name"]).columns(connection, PRODUCER, values[PRODUCER])["name"]
    stored[RECEIVED] = _Lookup(common.entries, ["at"]).columns(connection, ENTRY, values[ENTRY])["at"]
    stored |= series.columns(connection, SERIES, values[SERIES])
    # In the order of the declaration, so that people find their way in the file.
    order = (*tables.kind.names, *step_columns(tables.kind))
    return stored | {name: stored.get(name, values.get(name, ())) for name in order}


def _took_out(
    ledger: Ledger, tables: Tables, part: _Part, begin: bytes, stored: Stored, stood: Sequence[object]
) -> bool:
    """Put the file's entry in place of its records, if they are still what was written."""
    records, archived = tables.records, ledger.common.archived
    chosen = (records.c[ID] >= begin) & (records.c[ID] < part.end)
    ids = plain(stored[ID])
    with ledger.database.write(repeatable=True) as connection:
        ledger.check(connection, part.file.kind)
        if tables.kind.since:
            _lock_counters(connection, tables, chosen)
        if unfinished_in(connection, ledger.common.corrections, part.file.kind):
            return False
        if _standing(connection, ledger, part.file.kind, part.file.day) != stood:
            return False
        if not _are_as_written(connection, tables, chosen, stored):
            return False
        kept = packed(dict(zip(ids, plain(stored["revision"]), strict=True)))
        entry = msgspec.structs.asdict(part.file) | {"at": ledger.clock(), "ids": kept}
        connection.execute(archived.insert(), entry)
        if tables.kind.since:
            remove_rows(connection, records, ids)
        elif connection.execute(delete(records).where(chosen)).rowcount != len(ids):
            message = "a record came in while its day was taken out"
            raise Conflict(message)
    return True


def _standing(connection: Connection, ledger: Ledger, kind: str, day: int) -> list[object]:
    """What decides which records of old entries there are: corrections with their states, and the day's files."""
    corrections = ledger.common.corrections
    mine = select(corrections.c.number, corrections.c.state).where(corrections.c.kind == kind)
    decided = connection.execute(mine.order_by(corrections.c.number)).all()
    return [*map(tuple, decided), *(each.file for each in files_in(connection, ledger, day) if each.kind == kind)]


def _lock_counters(connection: Connection, tables: Tables, chosen: ColumnElement[bool]) -> None:
    """Keep others from what these records hold of the ones before them, which changes without a new entry."""
    assert isinstance(tables, KindTables)
    numbers = connection.execute(select(tables.records.c[COUNTER]).where(chosen).distinct()).scalars().all()
    Counters(connection, tables).lock(numbers)


def _are_as_written(connection: Connection, tables: Tables, chosen: ColumnElement[bool], stored: Stored) -> bool:
    """Whether all of these records are still what was written, which they are until the transaction's end."""
    if not tables.kind.since:
        return _entries_now(connection, tables.records, chosen) == Counter(plain(stored[ENTRY]))
    names = [ID, ENTRY, *step_columns(tables.kind)]
    present = zip(*_listed(connection, tables.records, names, chosen, locked=True).values(), strict=True)
    row_of = {bytes(row[0]): row[1:] for row in present}
    # Others are between them: those that stay.
    identifiers, *written = (plain(stored[name]) for name in names)
    return all(
        row_of.get(identifier) == row for identifier, row in zip(identifiers, zip(*written, strict=True), strict=True)
    )


def _entries_now(connection: Connection, records: Table, chosen: ColumnElement[bool]) -> Counter[int]:
    """How many records each entry booked, locked until the transaction's end.

    All records of an entry come with one transaction, and a revision is booked under another entry. Records come back
    with their entry by `_standing` only: where that and these numbers are what they were, so are the records.
    """
    if connection.dialect.name == "sqlite":
        # Nobody else writes now; and no lock goes with groups.
        question = select(records.c[ENTRY], func.count()).where(chosen).group_by(records.c[ENTRY])
        return Counter(dict(connection.execute(question).all()))
    return Counter(_listed(connection, records, [ENTRY], chosen, locked=True)[ENTRY])


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
