"""Records that are older than anybody asks for, as Parquet files of a day each; their buckets and ids stay.

A file is written, forced to disk and read back before its records leave the database, in one transaction with the entry
that names it. A record that comes, or is revised, while its file is written makes the file be written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    checked_columns,
    day_name,
    fields_of,
    own_columns,
    plain,
    write,
)
from accounting.archive.archived_ids import day_of, id_range, packed
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, SERIES, is_bucketed
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
        if tables.kind.since:
            # What a late record of a counter changes is told by its neighbours, however old.
            continue
        begin, end = bytes(ID_BYTES), id_range(last)[0]
        series = _Lookup(tables.series, [column.name for column in tables.kind.columns if is_bucketed(column)])
        while (day := _next_day(ledger, tables, begin, end)) is not None:
            begin = max(begin, id_range(day)[0])
            while True:
                with cycles_sought_rarely():
                    part = _archived_part(ledger, tables, series, folder, day, begin)
                if part is None:
                    break
                begin = part.end
                yield part.file


def _columns(
    connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool]
) -> dict[str, Sequence[Any]]:
    """Columns of rows in order of their ids. Those that say the same throughout, most of a wide kind, cost little."""
    question, key = select(*(table.c[name] for name in names)).where(chosen), table.c[ID]
    # From both ends: what changes with time is seen.
    sample = [row for order in (key, key.desc()) for row in connection.execute(question.order_by(order).limit(SAMPLE))]
    likely = {
        name: values[0] for name, values in zip(names, zip(*sample, strict=True), strict=False) if _is_one(values)
    }
    for name in _differing(connection, table, likely, chosen):
        del likely[name]
    columns = _listed(connection, table, [name for name in names if name == ID or name not in likely], chosen)
    return columns | {name: [value] * len(columns[ID]) for name, value in likely.items() if name != ID}


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


class _Lookup:
    """Columns of another table by its key; what was read is remembered."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = names
        self._forget()

    def _forget(self) -> None:
        self._row_of: dict[int, int] = {}
        self._values: list[dict[Any, int]] = [{} for _ in self._names]
        self._places: list[list[int]] = [[] for _ in self._names]

    def columns(self, connection: Connection, key: str, numbers: Sequence[int]) -> Stored:
        """The columns of the row of each number."""
        distinct, records = np.unique(np.array(numbers, np.int64), return_inverse=True)
        self._learn(connection, key, distinct.tolist())
        row_of = self._row_of
        rows = [row_of[number] for number in distinct.tolist()]
        found: dict[str, Sequence[Any] | Texts] = {}
        for name, values, places in zip(self._names, self._values, self._places, strict=True):
            if len(values) == 1:
                found[name] = [*values] * len(numbers)
                continue
            mine = np.array([places[row] for row in rows], np.int64)
            found[name] = Texts(list(values), mine[records])
        return found

    def _learn(self, connection: Connection, key: str, numbers: list[int]) -> None:
        missing = [number for number in numbers if number not in self._row_of]
        if len(self._row_of) + len(missing) > REMEMBERED:
            self._forget()
            missing = numbers
        column = self._table.c[key]
        question = select(column, *(self._table.c[name] for name in self._names))
        for first in range(0, len(missing), LOOKED_UP):
            rows = connection.execute(question.where(column.in_(missing[first : first + LOOKED_UP]))).all()
            for number, *row in rows:
                self._row_of[number] = len(self._row_of)
                for values, places, value in zip(self._values, self._places, row, strict=True):
                    places.append(values.setdefault(value, len(values)))


class _Part(msgspec.Struct, frozen=True):
    """A file, and the smallest id after those in it."""

    file: File
    end: bytes


def _next_day(ledger: Ledger, tables: Tables, begin: bytes, end: bytes) -> int | None:
    identifier = tables.records.c[ID]
    question = select(identifier).where(identifier >= begin, identifier < end).order_by(identifier).limit(1)
    with ledger.database.read() as connection:
        found = connection.execute(question).scalar()
    return None if found is None else day_of(bytes(found))


def _archived_part(
    ledger: Ledger, tables: Tables, series: _Lookup, folder: Path, day: int, begin: bytes
) -> _Part | None:
    """Write the next records of a day; None where there are no more."""
    for _ in range(TRIES):
        with ledger.database.read() as connection:
            _refuse_unfinished(connection, ledger, tables.kind.name)
            stood = _standing(connection, ledger, tables.kind.name, day)
            stored = _read(connection, ledger, tables, series, begin, id_range(day)[1])
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


def _read(connection: Connection, ledger: Ledger, tables: Tables, series: _Lookup, begin: bytes, end: bytes) -> Stored:
    """Records in order of their ids, some at a time, whole and with where they came from."""
    records, names = tables.records, own_columns(tables.kind)
    key = records.c[ID]
    later = connection.execute(select(key).where(key >= begin, key < end).order_by(key).offset(AT_ONCE).limit(1))
    chosen = (key >= begin) & (key < (later.scalar() or end))
    values = _columns(connection, records, [ID, SERIES, PRODUCER, ENTRY, MESSAGE, *names], chosen)
    ids = list(map(bytes, values[ID]))
    if not ids:
        return {ID: []}
    common = ledger.common
    stored: dict[str, Any] = {ID: ids, ENTRY: values[ENTRY], MESSAGE: list(map(bytes, values[MESSAGE]))}
    stored[PRODUCER] = _Lookup(common.producers, ["name"]).columns(connection, PRODUCER, values[PRODUCER])["name"]
    stored[RECEIVED] = _Lookup(common.entries, ["at"]).columns(connection, ENTRY, values[ENTRY])["at"]
    stored |= series.columns(connection, SERIES, values[SERIES])
    # In the order of the declaration, so that people find their way in the file.
    return stored | {name: stored.get(name, values.get(name, ())) for name in tables.kind.names}


def _took_out(
    ledger: Ledger, tables: Tables, part: _Part, begin: bytes, stored: Stored, stood: Sequence[object]
) -> bool:
    """Put the file's entry in place of its records, if they are still what was written."""
    records, archived = tables.records, ledger.common.archived
    chosen = (records.c[ID] >= begin) & (records.c[ID] < part.end)
    ids, entries = plain(stored[ID]), plain(stored[ENTRY])
    with ledger.database.write(repeatable=True) as connection:
        ledger.check(connection, part.file.kind)
        if unfinished_in(connection, ledger.common.corrections, part.file.kind):
            return False
        if _standing(connection, ledger, part.file.kind, part.file.day) != stood:
            return False
        if _entries_now(connection, records, chosen) != Counter(entries):
            return False
        kept = packed(dict(zip(ids, plain(stored["revision"]), strict=True)))
        entry = msgspec.structs.asdict(part.file) | {"at": ledger.clock(), "ids": kept}
        connection.execute(archived.insert(), entry)
        gone = connection.execute(delete(records).where(chosen)).rowcount
        if gone != len(ids):
            message = "a record came in while its day was taken out"
            raise Conflict(message)
    return True


def _standing(connection: Connection, ledger: Ledger, kind: str, day: int) -> list[object]:
    """What decides which records of old entries there are: corrections with their states, and the day's files."""
    corrections = ledger.common.corrections
    mine = select(corrections.c.number, corrections.c.state).where(corrections.c.kind == kind)
    decided = connection.execute(mine.order_by(corrections.c.number)).all()
    return [*map(tuple, decided), *(each.file for each in files_in(connection, ledger, day) if each.kind == kind)]


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


def restore(ledger: Ledger, folder: Path, file: str) -> int:
    """Put the records of a file back into the database; their number. Their buckets are there already.

    The file stays where it is, and is no part of the archive any more.

    Raises:
        ArchiveError: the archive has no such file, or it is not what was written.
    """
    entry = _entry_of(ledger, file)
    tables = ledger.tables_of(entry.kind)
    stored = checked_columns(folder, entry)
    columns = fields_of(tables.kind, stored)
    series = ledger.series_of(tables.kind, columns)
    producers = ledger.producers_of(stored[PRODUCER])
    raw = {column.name: columns[column.name] for column in tables.kind.columns if not is_bucketed(column)}
    own = {name: stored[name] for name in (ID, ENTRY, MESSAGE)}
    count = len(stored[ID])
    archived = ledger.common.archived
    with ledger.database.write() as connection:
        ledger.check(connection, entry.kind)
        mine = (archived.c.kind == entry.kind) & (archived.c.day == entry.day) & (archived.c.file == entry.file)
        if connection.execute(delete(archived).where(mine)).rowcount != 1:
            return 0  # Another process was faster.
        put = {**own, SERIES: series, PRODUCER: producers, **raw}
        if ledger.database.dialect.insert_new(connection, tables.records, put) != count:
            message = f"{file}: some of its records are in the database already"
            raise ArchiveError(message)
    return count


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


def _entry_of(ledger: Ledger, file: str) -> File:
    for entry in files(ledger):
        if entry.file == file:
            return entry
    message = f"the archive has no file {file!r}; `siteward ledger archived` lists them"
    raise ArchiveError(message)
