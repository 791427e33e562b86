"""Archived records put back into the database, as they were when they left it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete

from accounting.archive.archive_file import ArchiveError, File, checked_columns, fields_of, steps_in
from accounting.archive.archiving import files
from accounting.ledger import Ledger
from accounting.tables import COUNTER, ENTRY, ID, MESSAGE, PRODUCER, SERIES, is_bucketed


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
    life = ledger.numbers.life
    series = ledger.numbers.series_of(tables.kind, columns)
    producers = ledger.numbers.producers_of(stored[PRODUCER])
    raw = {column.name: columns[column.name] for column in tables.kind.columns if not is_bucketed(column)}
    own = {name: stored[name] for name in (ID, ENTRY, MESSAGE)} | steps_in(tables.kind, stored)
    if tables.kind.since:
        own[COUNTER] = ledger.numbers.counters_of(tables.kind, columns)
    count = len(stored[ID])
    archived = ledger.common.archived
    with ledger.database.write() as connection:
        ledger.check(connection, entry.kind, life=life)
        mine = (archived.c.kind == entry.kind) & (archived.c.day == entry.day) & (archived.c.file == entry.file)
        if connection.execute(delete(archived).where(mine)).rowcount != 1:
            return 0  # Another process was faster.
        put = {**own, SERIES: series, PRODUCER: producers, **raw}
        if ledger.database.dialect.insert_new(connection, tables.records, put) != count:
            message = f"{file}: some of its records are in the database already"
            raise ArchiveError(message)
    return count


def _entry_of(ledger: Ledger, file: str) -> File:
    for entry in files(ledger):
        if entry.file == file:
            return entry
    message = f"the archive has no file {file!r}; `siteward ledger archived` lists them"
    raise ArchiveError(message)
