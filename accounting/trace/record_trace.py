"""From a record's id to all that is known of it: where it is, what it says, and in which buckets it is booked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, select

from accounting.archive.archive_file import RECEIVED, ArchiveError, File
from accounting.archive.archive_reading import ArchiveReading
from accounting.archive.archived_ids import day_of, unpacked
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import DAY, SECOND, tiers_at
from accounting.booking.counters import booked_columns, counted_columns
from accounting.booking.postings import Postings, account_of, amounts_of, by_end, prorated
from accounting.checks.grids import grid_of
from accounting.corrections.correction import corrected
from accounting.corrections.originals import originals_of
from accounting.ledger import Ledger
from accounting.query.usage import Usage
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import (
    ENTRY,
    ID,
    MESSAGE,
    PRODUCER,
    SERIES,
    START,
    WIDTH,
    is_bucketed,
    step_columns,
    times_of,
)
from accounting.trace.traced import MOST_LISTED, BookedPart, RecordTrace
from siteward.query import QueryError
from siteward.records import Kind, Type, id_text, moment
from siteward.sight import Sight
from siteward.usage import Attribution
from siteward.viewer import Viewer

UNKNOWN: Final = (
    "no record of this id is in the ledger: it did not come, was refused (siteward dead-letters list), or its kind is "
    "not booked. A duplicate leaves no trace of its own: it has the id of the record that it repeats"
)


def trace_record(usage: Usage, folder: Path, identifier: bytes, viewer: Viewer) -> RecordTrace:
    """Everything known of a record, from one state of the database.

    Args:
        usage: whose ledger.
        folder: of the archive.
        identifier: 16 bytes.
        viewer: who asks; a record that is not visible is unknown, and names are shown as answers show them.
    """
    ledger = usage.ledger
    unknown = RecordTrace(id=id_text(identifier), state="unknown", why=UNKNOWN)
    with ledger.database.read() as connection:
        for tables in ledger.all_tables:
            found = _in_table(connection, ledger, tables, tables.records, identifier)
            found = found or _void(connection, ledger, tables, identifier)
            found = found or _archived(connection, ledger, tables, folder, identifier)
            if found is not None:
                sight = _sight(usage, tables.kind, viewer)
                return _seen(found, sight) if sight and sight.is_visible(found.fields) else unknown
    return unknown


def _sight(usage: Usage, kind: Kind, viewer: Viewer) -> Sight | None:
    """What the viewer sees of a kind; None where it does not say whose its records are: a refusal would tell of one."""
    try:
        return usage.sight(kind, viewer)
    except QueryError:
        return None


def _seen(found: RecordTrace, sight: Sight) -> RecordTrace:
    """The same with people's names as the viewer may see them."""
    fields = {name: sight.shown(name, value) for name, value in found.fields.items()}
    return msgspec.structs.replace(found, fields=fields)


def _void(connection: Connection, ledger: Ledger, tables: Tables, identifier: bytes) -> RecordTrace | None:
    """A record that a correction took out of everything, as it is under the others: so it is decided who sees it."""
    original = originals_of(connection, ledger.common, tables, [identifier]).get(identifier)
    if original is None or not original.is_void:
        return None
    found = _in_table(connection, ledger, tables, tables.originals, identifier)
    assert found is not None
    under = corrected(original.row, [layer for layer in original.layers.values() if not layer.is_void])
    assert under is not None
    fields = _shown(tables.kind, {name: [under[name]] for name in tables.kind.names})
    return msgspec.structs.replace(found, state="void", fields=fields, buckets=())


def _in_table(
    connection: Connection, ledger: Ledger, tables: Tables, records: Table, identifier: bytes
) -> RecordTrace | None:
    series = tables.series
    producers, entries = ledger.common.producers, ledger.common.entries
    fields = [(series if is_bucketed(column) else records).c[column.name] for column in tables.kind.columns]
    origin = (records.c[SERIES], records.c[MESSAGE], records.c[ENTRY], producers.c.name, entries.c.at)
    own = [column for column in records.columns if column.name in step_columns(tables.kind)]
    labelled = [column.label(f"_origin_{place}") for place, column in enumerate(origin)]
    question = (
        select(*labelled, *fields, *own)
        .select_from(
            records.join(series, records.c[SERIES] == series.c[SERIES])
            .join(producers, records.c[PRODUCER] == producers.c[PRODUCER])
            .join(entries, records.c[ENTRY] == entries.c[ENTRY])
        )
        .where(records.c[ID] == identifier)
    )
    row = connection.execute(question).mappings().one_or_none()
    if row is None:
        return None
    number, message, entry, producer, received = (row[f"_origin_{place}"] for place in range(len(origin)))
    columns = {name: [row[name]] for name in tables.kind.names}
    original = originals_of(connection, ledger.common, tables, [identifier]).get(identifier)
    return RecordTrace(
        id=id_text(identifier),
        state="booked",
        kind=tables.kind.name,
        revision=row["revision"],
        fields=_shown(tables.kind, columns),
        producer=producer,
        message=id_text(bytes(message)),
        entry=entry,
        received=moment(received),
        corrections=() if original is None else tuple(original.layers),
        buckets=tuple(_parts(connection, ledger, tables, booked_columns(tables.kind, [row]), int(number))),
    )


def _archived(
    connection: Connection, ledger: Ledger, tables: Tables, folder: Path, identifier: bytes
) -> RecordTrace | None:
    archived = ledger.common.archived
    question = select(archived).where(archived.c.kind == tables.kind.name, archived.c.day == day_of(identifier))
    for row in connection.execute(question).mappings():
        revision = unpacked(bytes(row["ids"])).get(identifier)
        if revision is not None:
            file = File(**{name: row[name] for name in File.__struct_fields__})
            return _in_file(connection, ledger, tables, ArchiveReading(ledger, folder), file, identifier, revision)
    return None


def _in_file(  # where it is, and which.
    connection: Connection,
    ledger: Ledger,
    tables: Tables,
    reading: ArchiveReading,
    file: File,
    identifier: bytes,
    revision: int,
) -> RecordTrace:
    known = RecordTrace(
        id=id_text(identifier), state="archived", kind=tables.kind.name, revision=revision, file=file.file
    )
    try:
        columns = reading.columns(tables.kind, file)
    except ArchiveError as error:
        return msgspec.structs.replace(known, why=f"what it says is not known: {error}")
    place = columns[ID].index(identifier)
    original = originals_of(connection, ledger.common, tables, [identifier]).get(identifier)
    kept = (*tables.kind.names, *step_columns(tables.kind))
    one: dict[str, Sequence[Any]] = {name: [columns[name][place]] for name in kept}
    booked = counted_columns(tables.kind, one)
    return msgspec.structs.replace(
        known,
        fields=_shown(tables.kind, one),
        producer=columns[PRODUCER][place],
        message=id_text(columns[MESSAGE][place]),
        entry=columns[ENTRY][place],
        received=moment(columns[RECEIVED][place]),
        corrections=() if original is None else tuple(original.layers),
        buckets=tuple(_parts(connection, ledger, tables, booked, int(reading.series(tables.kind, one)[0]))),
    )


def _shown(kind: Kind, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The fields of the only record of these columns, as they were declared."""
    fields = {}
    for column in kind.columns:
        (value,) = columns[column.name]
        if column.type is Type.TIME:
            value = moment(value)
        elif column.type is Type.BOOLEAN and value is not None:
            value = bool(value)
        fields[column.name] = value
    return fields


def _parts(
    connection: Connection, ledger: Ledger, tables: Tables, columns: Mapping[str, Sequence[Any]], series: int
) -> Iterator[BookedPart]:
    """What a record has in each bucket, the widest of those that lie over each other."""
    if isinstance(tables, SnapshotTables):
        yield from _seen_in(connection, tables, columns, series)
        return
    first, last = (columns[name][0] // (DAY * SECOND) * DAY for name in times_of(tables.kind))
    account = account_of(tables.kind, columns, np.array([series], np.int64))
    days = range(first, last + DAY, DAY)
    tiers = tiers_at(ledger.clock(), tables.kind.tiers)
    listed = 0
    for attribution, table in ((Attribution.PRORATED, tables.prorated), (Attribution.BY_END, tables.by_end)):
        grid = grid_of(_layout(connection, table, series, first, last), days, tiers)
        postings = prorated(account, grid.tiers) if table is tables.prorated else by_end(account, grid.tiers)
        for part in _told(grid.settled(postings), attribution):
            listed += 1
            if listed <= MOST_LISTED:
                yield part


def _seen_in(
    connection: Connection, tables: SnapshotTables, columns: Mapping[str, Sequence[Any]], series: int
) -> Iterator[BookedPart]:
    """What a snapshot adds to the bucket of its instant."""
    (instant,) = columns[tables.kind.time]
    day = instant // (DAY * SECOND) * DAY
    around = [
        (width, start)
        for start, width in _layout(connection, tables.buckets, series, day, day)
        if start <= instant // SECOND < start + width
    ]
    values, _ = amounts_of(tables.kind, columns)
    parts = {"records": 1} | {name: int(value[0]) for name, value in values.items() if value[0]}
    for width, start in sorted(around)[-1:]:
        yield BookedPart(
            attribution=str(Attribution.AT_INSTANT), start=moment(start * SECOND), width=width, parts=parts
        )


def _layout(connection: Connection, table: Table, series: int, first: int, last: int) -> list[tuple[int, int]]:
    """Start and width of the buckets of a series on some days."""
    start, width = table.c[START], table.c[WIDTH]
    mine = (table.c[SERIES] == series, start >= first, start < last + DAY)
    return [(int(row[0]), int(row[1])) for row in connection.execute(select(start, width).where(*mine))]


def _told(postings: Postings, attribution: Attribution) -> Iterator[BookedPart]:
    if not postings.keys:
        return
    columns: dict[str, Integers] = {**postings.keys, **postings.sums}
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        row = dict(zip(columns, values, strict=True))
        start, _, width = (row.pop(name) for name in postings.keys)
        parts = {name.removeprefix("_"): value for name, value in row.items() if value}
        yield BookedPart(attribution=str(attribution), start=moment(start * SECOND), width=width, parts=parts)
