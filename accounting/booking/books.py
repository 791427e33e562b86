"""What a transaction changes where a record's part depends on others: snapshots, and counters since a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from accounting.booking.adjustments import Cause, Posting
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import tiers_at
from accounting.booking.counters import Change, Counters, spots_of, stepped
from accounting.booking.rows import Row, account_of_rows
from accounting.booking.snapshots import Rows, Snapshots, as_rows
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import COUNTER, ID, CommonTables
from siteward.records import Kind
from siteward.server.database import Dialect

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


class Booked(msgspec.Struct):
    """Records that counted and do not any more, and those that count now; as `account_of_rows` takes them."""

    old: Sequence[Row]
    new: Sequence[Row]


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

    def foreseen(self, columns: Mapping[str, Any]) -> dict[str, list[int | None]]:
        """Columns of ours that records are to be inserted with, as far as can be told before; of counters only."""
        tables = self._tables
        if isinstance(tables, SnapshotTables) or not tables.kind.since:
            return {}
        return Counters(self._connection, tables).foreseen(columns)

    @property
    def are_needed(self) -> bool:
        """Whether what a record adds depends on others: of snapshots and counters."""
        return isinstance(self._tables, SnapshotTables) or bool(self._tables.kind.since)

    def post(self, new: Arrived, old: Found, now: int, posting: Posting | None) -> None:
        """Bring the buckets up to records that came.

        Args:
            new: those that have come, or taken another's place; at least one.
            old: those whose place they took, as they were.
            now: microseconds since 1970 UTC.
            posting: adds to the sums of the transaction; of counters.

        Raises:
            accounting.booking.parted.Parted: records of counters stand beside archived ones.
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

    def correct(
        self, old: Sequence[Row], new: Sequence[Row], now: int, cause: Cause, posting: Posting | None
    ) -> Booked:
        """Bring the buckets up to records that were changed in their table by now, put into it or removed.

        Args:
            old: those that were there, whole, as they were.
            new: those that are there, whole, as they are.
            now: microseconds since 1970 UTC.
            cause: why.
            posting: adds to the sums of the transaction; of usage.

        Returns:
            What counted before, and what counts now; of counters also the neighbours that others changed.

        Raises:
            accounting.booking.parted.Parted: records of counters stand beside archived ones.
        """
        tables, kind = self._tables, self._tables.kind
        if isinstance(tables, SnapshotTables):
            Snapshots(self._connection, self._dialect, tables, self._common).remake(
                as_rows([*old, *new], tables), tiers_at(now, kind.tiers)
            )
            return Booked(old, new)
        assert posting is not None
        if not kind.since:
            posting.post((cause, account_of_rows(kind, rows, sign)) for rows, sign in ((old, -1), (new, 1)) if rows)
            return Booked(old, new)
        counters = Counters(self._connection, tables)
        change = counters.change({bytes(row[ID]) for row in new}, spots_of(kind, [*old, *new]), old)
        posting.post((cause, account) for account in counters.settled(change))
        return booked_of(kind, change, old, new)


def booked_of(kind: Kind, change: Change, old: Sequence[Row], new: Sequence[Row]) -> Booked:
    """What a change of counters books, with the dimensions of the records themselves."""
    return Booked(
        stepped(kind, change.old, {bytes(row[ID]): row for row in old}),
        stepped(kind, change.new, {bytes(row[ID]): row for row in new}),
    )
