"""What a transaction changes in the buckets of a kind: differences where they add up, else what its records say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection

from accounting.arithmetic import Integers
from accounting.booking import Account, account_of, by_end, joined, prorated
from accounting.buckets import Tier
from accounting.counters import Counters, booked_columns
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.snapshots import Rows, Snapshots, as_rows
from accounting.tables import COUNTER, SERIES, CommonTables, KindTables
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

    def post(self, new: Arrived, old: Found, tiers: Sequence[Tier]) -> None:
        """Bring the buckets up to records that came.

        Args:
            new: those that have come, or taken another's place; at least one.
            old: those whose place they took, as they were.
            tiers: in which buckets lie now.
        """
        tables = self._tables
        if isinstance(tables, SnapshotTables):
            snapshots = Snapshots(self._connection, self._dialect, tables, self._common)
            snapshots.book(Rows(new.columns, new.series), as_rows(old, tables), new.entry, tiers)
        elif tables.kind.since:
            spots = [
                (int(number), int(time))
                for number, time in zip(new.columns[COUNTER], new.columns[tables.kind.time], strict=True)
            ]
            self._add(tables, Counters(self._connection, tables).booked(new.ids, spots, old), tiers)
        else:
            accounts = [account_of(tables.kind, new.columns, new.series)]
            if old:
                of_series = np.array([row[SERIES] for row in old], np.int64)
                accounts.append(account_of(tables.kind, booked_columns(tables.kind, old), of_series, -1))
            self._add(tables, accounts, tiers)

    def _add(self, tables: KindTables, accounts: Sequence[Account], tiers: Sequence[Tier]) -> None:
        account = joined(accounts) if len(accounts) > 1 else accounts[0]
        for table, postings in (
            (tables.prorated, prorated(account, tiers)),
            (tables.by_end, by_end(account, tiers)),
        ):
            self._dialect.accumulate(self._connection, table, postings.keys, postings.sums)
