"""Sums of what changed closed periods, asked like the buckets that it has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, select

from accounting.bucket_sums import BucketSums
from accounting.tables import CLOSING, KindTables
from siteward.server.database import Dialect
from siteward.usage import UsageQuery


class AdjustmentSums(BucketSums):
    """The adjustments that one question by end looks at, within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        tables: KindTables,
        query: UsageQuery,
        names: Sequence[str],
        summed: Table,
        closings: Iterable[int],
    ) -> None:
        """Choose them.

        Args:
            connection: a transaction that sees one state.
            dialect: of its database.
            tables: of the kind asked.
            query: the question.
            names: the columns to sum.
            summed: the table of months whose sums are kept; there are none of adjustments.
            closings: since which they were made; their entries.
        """
        super().__init__(connection, dialect, tables, query, names, summed)
        self._marked = []
        table = tables.adjustments
        self._buckets = select(table).where(table.c[CLOSING].in_(list(closings))).subquery()
