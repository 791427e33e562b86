"""Sums of whole buckets, by group: one question to the database for each stretch of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, case, func, select
from sqlalchemy.sql import ColumnElement

from accounting.buckets import DAY, SECOND
from accounting.conditions import Group, conditions_of, groups_of
from accounting.cuts import Stretch, blocks_of, days_of
from accounting.tables import CARRIED, SERIES, START, WIDTH, KindTables
from siteward.server.database import Dialect
from siteward.usage import Attribution, UsageQuery

GroupSums = dict[Group, dict[str, int]]


class BucketSums:
    """The buckets that one question looks at, within one state of the database."""

    def __init__(
        self, connection: Connection, dialect: Dialect, tables: KindTables, query: UsageQuery, names: Sequence[str]
    ) -> None:
        """Choose them.

        Args:
            connection: a transaction that sees one state.
            dialect: of its database.
            tables: of the kind asked.
            query: the question.
            names: the columns to sum.
        """
        self._connection = connection
        self._dialect = dialect
        self._series = tables.series
        self._buckets = tables.prorated if query.attribution is Attribution.PRORATED else tables.by_end
        self._query = query
        self._names = names
        self._kind = tables.kind

    def groups(self, stretch: Stretch, since: int) -> GroupSums:
        """The sums of each group over the buckets that start within a stretch.

        Args:
            stretch: no bucket lies across its ends.
            since: where the period starts: who was running then is told by the first buckets only.
        """
        first, last = (-(-instant // SECOND) for instant in stretch)
        buckets, series = self._buckets, self._series
        by = [series.c[name] for name in self._query.by]
        sums = [self._dialect.exact_sum(self._summed(name, since)) for name in self._names]
        question = (
            select(*by, *(part for parts in sums for part in parts))
            .select_from(buckets.join(series, buckets.c[SERIES] == series.c[SERIES]))
            .where(buckets.c[START] >= first, buckets.c[START] < last, *conditions_of(series, self._query.filters))
            .group_by(*by)
            .having(func.count() > 0)
        )
        found: GroupSums = {}
        rows = self._connection.execute(question).all()
        for group, row in zip(groups_of(self._kind, self._query.by, rows), rows, strict=True):
            values = iter(row[len(by) :])
            found[group] = {
                name: self._dialect.whole([next(values) for _ in parts])
                for name, parts in zip(self._names, sums, strict=True)
            }
        return found

    def _summed(self, name: str, since: int) -> ColumnElement[int]:
        column = self._buckets.c[name]
        if name != CARRIED:
            return column
        # Later buckets tell of the same records again.
        return case((self._buckets.c[START] * SECOND == since, column), else_=0)

    def blocks_around(self, instants: Iterable[int]) -> list[Stretch]:
        """The blocks of buckets on the days within which instants lie; a day's start lies within none."""
        return blocks_of(buckets_around(self._connection, self._buckets, instants))


def buckets_around(connection: Connection, table: Table, instants: Iterable[int]) -> list[tuple[int, int]]:
    """Start and width of a table's buckets on the days within which instants lie."""
    start, width = table.c[START], table.c[WIDTH]
    found: list[tuple[int, int]] = []
    for first, last in days_of(instants, DAY * SECOND):
        within = (start >= first // SECOND, start < last // SECOND)
        found += [(row[0], row[1]) for row in connection.execute(select(start, width).where(*within).distinct())]
    return found
