"""Records that are older than anybody asks for, as Parquet files of a day each; their buckets and ids stay.

A file is written, forced to disk and read back before its records leave the database, in one transaction with the entry
that names it. A record that comes, or is revised, while its day is written makes the day be written again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Select, delete, select
from sqlalchemy.engine import RowMapping

from accounting.archived_ids import day_of, id_range, packed
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, SERIES, is_bucketed
from siteward.records import Column, Kind, Type, microseconds
from siteward.server.database import Conflict

if TYPE_CHECKING:
    import pyarrow as pa

SECOND: Final = 1_000_000
DAY: Final = 86_400
TRIES: Final = 10
RECEIVED: Final = "_received"


class ArchiveError(Exception):
    """A file of the archive is not what it should be; the message names it and what is wrong."""

    permanent = True


class File(msgspec.Struct, frozen=True):
    """One file of the archive.

    Attributes:
        kind: whose records.
        day: first second of the UTC day of their partition times.
        file: its path below the archive's folder.
        digest: SHA-256 of its bytes, 64 hexadecimal digits.
        records: in it.
    """

    kind: str
    day: int
    file: str
    digest: str
    records: int


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
        begin: int | None = None
        while (day := _next_day(ledger, tables, begin, last)) is not None:
            written = _archived_day(ledger, tables, folder, day)
            if written is not None:
                yield written
            begin = day + DAY


def _next_day(ledger: Ledger, tables: Tables, begin: int | None, end: int) -> int | None:
    identifier = tables.records.c[ID]
    question = select(identifier).where(identifier < id_range(end)[0]).order_by(identifier).limit(1)
    if begin is not None:
        question = question.where(identifier >= id_range(begin)[0])
    with ledger.database.read() as connection:
        found = connection.execute(question).scalar()
    return None if found is None else day_of(bytes(found))


def _archived_day(ledger: Ledger, tables: Tables, folder: Path, day: int) -> File | None:
    for _ in range(TRIES):
        with ledger.database.read() as connection:
            rows = connection.execute(_of_day(ledger, tables, day)).mappings().all()
        if not rows:
            return None
        file = _write(tables.kind, folder, day, rows)
        try:
            if _took_out(ledger, tables, file, rows):
                return file
        except Conflict:
            pass
        # Somebody wrote into the day meanwhile; a file that nothing names is no part of the archive.
        (folder / file.file).unlink()
    message = f"records of {tables.kind.name} came into {_name(day)} {TRIES} times while it was written"
    raise Conflict(message)


def _of_day(ledger: Ledger, tables: Tables, day: int) -> Select[Any]:
    """Whole records of a day with where they came from, in order of their ids."""
    records, series = tables.records, tables.series
    producers, entries = ledger.common.producers, ledger.common.entries
    first, last = id_range(day)
    origin = {
        ID: records.c[ID],
        ENTRY: records.c[ENTRY],
        MESSAGE: records.c[MESSAGE],
        PRODUCER: producers.c["name"],
        RECEIVED: entries.c["at"],
    }
    fields = [(series if is_bucketed(column) else records).c[column.name] for column in tables.kind.columns]
    return (
        select(*(column.label(name) for name, column in origin.items()), *fields)
        .select_from(
            records.join(series, records.c[SERIES] == series.c[SERIES])
            .join(producers, records.c[PRODUCER] == producers.c[PRODUCER])
            .join(entries, records.c[ENTRY] == entries.c[ENTRY])
        )
        .where(records.c[ID] >= first, records.c[ID] < last)
        .order_by(records.c[ID])
    )


def _name(day: int) -> str:
    return datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d")


def _write(kind: Kind, folder: Path, day: int, rows: Sequence[RowMapping]) -> File:
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only who archives needs it.
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = {ID: pa.array([bytes(row[ID]) for row in rows], pa.binary(16))}
    columns[ENTRY] = pa.array([row[ENTRY] for row in rows], pa.int64())
    columns[MESSAGE] = pa.array([bytes(row[MESSAGE]) for row in rows], pa.binary(16))
    columns[PRODUCER] = pa.array([row[PRODUCER] for row in rows], pa.string())
    columns[RECEIVED] = pa.array([row[RECEIVED] for row in rows], pa.int64())
    columns |= {column.name: pa.array([row[column.name] for row in rows], _type(column)) for column in kind.columns}
    table = pa.table(columns).replace_schema_metadata({"siteward.kind": kind.name, "siteward.day": _name(day)})
    draft = folder / kind.name / f".{_name(day)}.{os.getpid()}.parquet"
    draft.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, draft, compression="zstd", compression_level=9)
    with draft.open("rb") as opened:
        os.fsync(opened.fileno())
    digest = sha256(draft.read_bytes()).hexdigest()
    if not pq.read_table(draft).equals(table):
        message = f"{draft} does not give back what was written into it; is the disk full or broken?"
        raise ArchiveError(message)
    name = f"{kind.name}/{_name(day)}.{digest[:16]}.parquet"
    draft.replace(folder / name)
    _force(folder / kind.name)
    return File(kind.name, day, name, digest, len(rows))


def _force(folder: Path) -> None:
    """Have a folder's names on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _type(column: Column) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415

    match column.type:
        case Type.STRING:
            return pa.string()
        case Type.NUMBER:
            return pa.float64()
        case Type.TIME:
            return pa.timestamp("us", "UTC")
        case _:
            return pa.int64()


def _took_out(ledger: Ledger, tables: Tables, file: File, rows: Sequence[RowMapping]) -> bool:
    """Put the file's entry in place of its records, if they are still what was written."""
    records, archived = tables.records, ledger.common.archived
    first, last = id_range(file.day)
    chosen = (records.c[ID] >= first) & (records.c[ID] < last)
    with ledger.database.write(repeatable=True) as connection:
        ledger.check(connection, file.kind)
        now = select(records.c[ID], records.c[ENTRY]).where(chosen).order_by(records.c[ID]).with_for_update()
        if [(bytes(row[0]), row[1]) for row in connection.execute(now)] != [(bytes(r[ID]), r[ENTRY]) for r in rows]:
            return False
        ids = packed({bytes(row[ID]): int(row["revision"]) for row in rows})
        entry = msgspec.structs.asdict(file) | {"at": ledger.clock(), "ids": ids}
        connection.execute(archived.insert(), entry)
        gone = connection.execute(delete(records).where(chosen)).rowcount
        if gone != len(rows):
            message = "a record came in while its day was taken out"
            raise Conflict(message)
    return True


def restore(ledger: Ledger, folder: Path, file: str) -> int:
    """Put the records of a file back into the database; their number. Their buckets are there already.

    The file stays where it is, and is no part of the archive any more.

    Raises:
        ArchiveError: the archive has no such file, or it is not what was written.
    """
    entry = _entry_of(ledger, file)
    tables = ledger.tables_of(entry.kind)
    rows = checked_rows(folder, entry)
    # Older files lack what the kind has gained since.
    columns = {column.name: [row.get(column.name, column.default) for row in rows] for column in tables.kind.columns}
    series = ledger.series_of(tables.kind, columns)
    producers = ledger.producers_of([row[PRODUCER] for row in rows])
    raw = {column.name: columns[column.name] for column in tables.kind.columns if not is_bucketed(column)}
    own = {ID: [row[ID] for row in rows], ENTRY: [row[ENTRY] for row in rows], MESSAGE: [row[MESSAGE] for row in rows]}
    archived = ledger.common.archived
    with ledger.database.write() as connection:
        ledger.check(connection, entry.kind)
        mine = (archived.c.kind == entry.kind) & (archived.c.day == entry.day) & (archived.c.file == entry.file)
        if connection.execute(delete(archived).where(mine)).rowcount != 1:
            return 0  # Another process was faster.
        put = {**own, SERIES: series, PRODUCER: producers, **raw}
        if ledger.database.dialect.insert_new(connection, tables.records, put) != len(rows):
            message = f"{file}: some of its records are in the database already"
            raise ArchiveError(message)
    return len(rows)


def files(ledger: Ledger) -> list[File]:
    """Every file of the archive, by kind and day."""
    archived = ledger.common.archived
    wanted = [archived.c[name] for name in File.__struct_fields__]
    with ledger.database.read() as connection:
        found = connection.execute(select(*wanted).order_by(archived.c.kind, archived.c.day, archived.c.file))
        return [File(*row) for row in found]


def checked_rows(folder: Path, file: File) -> list[dict[str, Any]]:
    """The records of a file, after a look at whether it is what was written; times in microseconds since 1970 UTC.

    Raises:
        ArchiveError: it is missing, or other bytes.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = folder / file.file
    try:
        digest = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ArchiveError(message) from error
    if digest != file.digest:
        message = f"{path} is not what was written: its digest is {digest}, not {file.digest}"
        raise ArchiveError(message)
    table = pq.read_table(path)
    columns = {name: _plain(table[name]) for name in table.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415

    found: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return found


def _entry_of(ledger: Ledger, file: str) -> File:
    for entry in files(ledger):
        if entry.file == file:
            return entry
    message = f"the archive has no file {file!r}; `siteward ledger archived` lists them"
    raise ArchiveError(message)
