"""What a transaction changes where a record's part depends on others: snapshots, and counters since a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from accounting.booking.adjustments import Cause, Posting
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import tiers_at
from accounting.booking.counters import Counters
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.rows import Row, plain, put_rows, replace_rows
from accounting.booking.snapshots import Rows, Snapshots, as_rows
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import COUNTER, ENTRY, ID, REPLACED, CommonTables
from siteward.server.database import Dialect
from siteward.sinks import Batch, Outcome

Found = Sequence[Mapping[Any, Any]]
"""Rows of a table of records."""


class Arrived(msgspec.Struct):
    """Records that are in their table by now.

    Attributes:
        ids: of the records.
        columns: values by column of the table of records; of counters also the number of each one's counter.
        series: number of each one's series.
        entry: that of these records, and of no others.
    """

    ids: Sequence[bytes]
    columns: Mapping[str, Any]
    series: Integers
    entry: int


class Books:
    """One transaction's work on the buckets of one kind."""

    def __init__(self, connection: Connection, dialect: Dialect, tables: Tables, common: CommonTables) -> None:
        """Begin within a transaction."""
        self._connection = connection
        self._dialect = dialect
        self._tables = tables
        self._common = common

    def lock(self, numbers: Sequence[int]) -> None:
        """Keep others from what depends on more than one record, before anything is written.

        Args:
            numbers: of the producers of snapshots, or of counters; none of other kinds.
        """
        if isinstance(self._tables, SnapshotTables):
            Snapshots(self._connection, self._dialect, self._tables, self._common).lock(numbers)
        elif self._tables.kind.since:
            Counters(self._connection, self._tables).lock(numbers)

    def foreseen(self, columns: Mapping[str, Any]) -> dict[str, list[int]]:
        """Columns of ours that records are to be inserted with, as far as can be told before; of counters only."""
        tables = self._tables
        if isinstance(tables, SnapshotTables) or not tables.kind.since:
            return {}
        return Counters(self._connection, tables).foreseen(columns)

    @property
    def are_needed(self) -> bool:
        """Whether what a record adds depends on others: of snapshots and counters."""
        return isinstance(self._tables, SnapshotTables) or bool(self._tables.kind.since)

    def replaced(self, batch: Batch, rows: Mapping[str, Any], entry: int, found: list[Outcome]) -> list[Row]:
        """Put newer revisions in the place of older ones, which are kept; the older ones.

        Args:
            batch: each id once.
            rows: its columns as the table of records has them.
            entry: under which they come.
            found: outcomes by position, which are entered.
        """
        table = self._tables.records
        position_of = {identifier: position for position, identifier in enumerate(batch.ids)}
        old: list[Row] = []
        for first in range(0, len(batch), AT_ONCE):
            ids = batch.ids[first : first + AT_ONCE]
            known = select(table).where(table.c[ID].in_(ids), table.c[ENTRY] != entry).order_by(table.c[ID])
            for row in self._connection.execute(known.with_for_update()).mappings():
                position = position_of[bytes(row[ID])]
                is_newer = row["revision"] < batch.columns["revision"][position]
                found[position] = Outcome.REPLACED if is_newer else Outcome.DUPLICATE
                old += [dict(row)] if is_newer else []
        places = [position_of[bytes(row[ID])] for row in old]
        newer = [{name: plain(rows[name][place]) for name in rows} | {ENTRY: entry} for place in places]
        put_rows(self._connection, self._dialect, self._tables.superseded, [{**row, REPLACED: entry} for row in old])
        replace_rows(self._connection, table, newer)
        return old

    def post(self, new: Arrived, old: Found, now: int, posting: Posting | None) -> None:
        """Bring the buckets up to records that came.

        Args:
            new: those that have come, or taken another's place; at least one.
            old: those whose place they took, as they were.
            now: microseconds since 1970 UTC.
            posting: adds to the sums of the transaction; of counters.
        """
        tables = self._tables
        if isinstance(tables, SnapshotTables):
            snapshots = Snapshots(self._connection, self._dialect, tables, self._common)
            tiers = tiers_at(now, tables.kind.tiers)
            snapshots.book(Rows(new.columns, new.series), as_rows(old, tables), new.entry, tiers)
            return
        assert posting is not None
        times = zip(new.columns[COUNTER], new.columns[tables.kind.time], strict=True)
        spots = [(int(number), int(time)) for number, time in times]
        cause = Cause.REVISION if old else Cause.LATE
        booked = Counters(self._connection, tables).booked(new.ids, spots, old)
        posting.post((cause, account) for account in booked)
