"""The records that a figure is made of, in portions: from the database and from files of the archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Select, select

from accounting.archive.archive_file import RECEIVED
from accounting.booking.arithmetic import Integers
from accounting.booking.counters import booked_columns
from accounting.booking.postings import account_of
from accounting.query.record_sums import Part
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, SERIES, times_of
from accounting.trace.archived_records import FILE, ArchivedRecords
from accounting.trace.followed import Followed, Piece, place_in
from accounting.trace.traced import Page, TracedRecord
from siteward.records import id_text, moment


def list_records(followed: Followed, archived: ArchivedRecords, page: Page) -> tuple[list[TracedRecord], str]:
    """Some of the records, and where the next ones begin.

    Raises:
        QueryError: no answer said to go on there.
    """
    number, *after = place_in(page.after_record, 2, "after_record", base=16)
    found: list[tuple[Piece, TracedRecord]] = []
    for piece in followed.pieces:
        most = page.limit + 1 - len(found)
        if piece.number >= number and most:
            behind = after[0].to_bytes(16, "big") if after and piece.number == number else None
            stored = followed.connection.execute(_records_of(followed, piece, behind).limit(most)).mappings().all()
            listed = [
                *_stored(followed, piece, stored),
                *_archived(followed, piece, archived.rows(piece, behind, most)),
            ]
            found += [(piece, record) for record in sorted(listed, key=lambda each: each.id)[:most]]
    records = [record for _, record in found[: page.limit]]
    if len(found) <= page.limit:
        return records, ""
    return records, f"{found[page.limit - 1][0].number:x}-{records[-1].id}"


def _records_of(followed: Followed, piece: Piece, after: bytes | None) -> Select[Any]:
    records, series = followed.tables.records, followed.tables.series
    producers, entries = followed.ledger.common.producers, followed.ledger.common.entries
    within = followed.of_piece(piece)
    if after is not None:
        within.append(records.c[ID] > after)
    origin = {"name": producers.c.name, "at": entries.c.at}
    return (
        select(records, *(column.label(f"_from_{name}") for name, column in origin.items()))
        .select_from(
            records.join(series, records.c[SERIES] == series.c[SERIES])
            .join(producers, records.c[PRODUCER] == producers.c[PRODUCER])
            .join(entries, records.c[ENTRY] == entries.c[ENTRY])
        )
        .where(*within)
        .order_by(records.c[ID])
    )


def _stored(followed: Followed, piece: Piece, rows: Sequence[Mapping[Any, Any]]) -> Iterator[TracedRecord]:
    """Those of the database."""
    if rows:
        columns = booked_columns(followed.kind, rows)
        for row, parts in zip(rows, _parts(followed, piece, columns, len(rows)), strict=True):
            yield _record(followed, row, parts, producer=row["_from_name"], received=row["_from_at"])


def _archived(followed: Followed, piece: Piece, rows: Sequence[Mapping[str, Any]]) -> Iterator[TracedRecord]:
    """Those of files."""
    if rows:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        for row, parts in zip(rows, _parts(followed, piece, columns, len(rows)), strict=True):
            yield _record(followed, row, parts, producer=row[PRODUCER], received=row[RECEIVED])


def _parts(
    followed: Followed, piece: Piece, columns: Mapping[str, Sequence[Any]], count: int
) -> Iterator[tuple[int, ...]]:
    """What of each record belongs to the figure."""
    # Each as a group of its own.
    places: Integers = np.arange(count)
    groups = [(place,) for place in places.tolist()]
    account = account_of(followed.kind, columns, places)
    part = Part(groups, account, followed.names, is_prorated=followed.is_prorated)
    amounts = part.groups(piece.stretch, followed.window[0])
    return (followed.values(amounts[group]) for group in groups)


def _record(
    followed: Followed, row: Mapping[Any, Any], parts: tuple[int, ...], *, producer: str, received: int
) -> TracedRecord:
    first, last = times_of(followed.kind)
    return TracedRecord(
        id=id_text(bytes(row[ID])),
        revision=row["revision"],
        start=moment(row[first]),
        end=moment(row[last]),
        parts=parts,
        producer=producer,
        message=id_text(bytes(row[MESSAGE])),
        entry=row[ENTRY],
        received=moment(received),
        file=row.get(FILE, ""),
    )
