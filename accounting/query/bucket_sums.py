"""Sums of whole buckets, by group: one question to the database for each stretch of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, FromClause, Table, case, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from accounting.booking.buckets import DAY, SECOND
from accounting.query.conditions import Group, conditions_of, groups_of
from accounting.query.cuts import Stretch, blocks_of, days_of
from accounting.query.listed_sums import ListedSums
from accounting.query.quantities import added
from accounting.tables import CARRIED, RECORDS, SERIES, START, STARTED, WIDTH, KindTables
from accounting.upkeep.month_marks import Piece, marked_months, pieces_of
from siteward.query import Filter
from siteward.server.database import Dialect
from siteward.usage import Attribution, UsageQuery

GroupSums = dict[Group, dict[str, int]]
Summing = Callable[[ColumnElement[int]], list[ColumnElement[Any]]]


class BucketSums:
    """The buckets that one question looks at, within one state of the database.

    Attributes:
        names: the columns to sum.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        tables: KindTables,
        query: UsageQuery,
        names: Sequence[str],
        summed: Table,
    ) -> None:
        """Choose them.

        Args:
            connection: a transaction that sees one state.
            dialect: of its database.
            tables: of the kind asked.
            query: the question.
            names: the columns to sum.
            summed: the table of months whose sums are kept.
        """
        self._connection = connection
        self._dialect = dialect
        self._series = tables.series
        buckets, self._months = tables.months[query.attribution is Attribution.BY_END]
        self._marked = marked_months(connection, summed, buckets)
        self._buckets: FromClause = buckets
        self._query = query
        self.names = names
        self._kind = tables.kind
        self._listed: ListedSums | None = ListedSums(connection, dialect, tables.kind, tables.series, query)

    def groups(self, stretch: Stretch, since: int) -> GroupSums:
        """The sums of each group over the buckets that start within a stretch.

        Args:
            stretch: no bucket lies across its ends.
            since: where the period starts: who was running then is told by the first buckets only.
        """
        first, last = (-(-instant // SECOND) for instant in stretch)
        found: GroupSums = {}
        for piece in pieces_of(self._buckets, self._months, self._marked, first, last):
            add_groups(found, self._read(piece, since))
        return found

    def _read(self, piece: Piece, since: int) -> GroupSums:
        listed = self._listed.of(piece, self.names, since // SECOND) if self._listed else None
        if listed is not None:
            return listed
        try:
            return self._asked(piece, since, self._dialect.quick_sum)
        except DBAPIError as error:
            if not self._dialect.is_too_wide(error.orig):
                raise
            return self._asked(piece, since, self._dialect.exact_sum)

    def _asked(self, piece: Piece, since: int, summing: Summing) -> GroupSums:
        table, series = piece.table, self._series
        by = [series.c[name] for name in self._query.by]
        sums = [summing(_told(table, name, since)) for name in self.names]
        question = (
            select(*by, *(part for parts in sums for part in parts))
            .select_from(table.join(series, table.c[SERIES] == series.c[SERIES]))
            .where(
                table.c[START] >= piece.first,
                table.c[START] < piece.last,
                *conditions_of(series, self._query.filters),
            )
            .group_by(*by)
            .having(self._holds(table, piece.first))
        )
        found: GroupSums = {}
        rows = self._connection.execute(question).all()
        for group, row in zip(groups_of(self._kind, self._query.by, rows), rows, strict=True):
            values = iter(row[len(by) :])
            found[group] = {
                name: self._dialect.whole([next(values) for _ in parts])
                for name, parts in zip(self.names, sums, strict=True)
            }
        return found

    def _holds(self, table: FromClause, first: int) -> ColumnElement[bool]:
        """Whether a group holds any record from a bucket's start on: what was moved away leaves sums of nothing.

        That of the group is exact, never that of a row: what a revision took away may stand in one of another width.
        """
        if STARTED not in table.c:
            return func.sum(table.c[RECORDS]) != 0
        return func.sum(table.c[STARTED] + _told(table, CARRIED, first * SECOND)) != 0

    def blocks_around(self, instants: Iterable[int], visible: Sequence[Filter]) -> list[Stretch]:
        """The blocks of buckets on the days within which instants lie; a day's start lies within none.

        Args:
            instants: any number of them.
            visible: conditions on the buckets that count: the widths of others tell of them.
        """
        return blocks_of(buckets_around(self._connection, self._buckets, instants, self._series, visible))


def buckets_around(
    connection: Connection, table: FromClause, instants: Iterable[int], series: Table, visible: Sequence[Filter]
) -> list[tuple[int, int]]:
    """Start and width of a table's buckets on the days within which instants lie; of visible series only."""
    start, width = table.c[START], table.c[WIDTH]
    chosen = select(start, width).distinct()
    if visible and SERIES in table.c:
        joined = table.join(series, table.c[SERIES] == series.c[SERIES])
        chosen = chosen.select_from(joined).where(*conditions_of(series, visible))
    found: list[tuple[int, int]] = []
    for first, last in days_of(instants, DAY * SECOND):
        within = (start >= first // SECOND, start < last // SECOND)
        found += [(row[0], row[1]) for row in connection.execute(chosen.where(*within))]
    return found


def _told(table: FromClause, name: str, since: int) -> ColumnElement[int]:
    """What each row adds to a sum."""
    column: ColumnElement[int] = table.c[name]
    if name != CARRIED:
        return column
    # Later buckets tell of the same records again.
    return case((table.c[START] * SECOND == since, column), else_=0)


def add_groups(sums: GroupSums, more: GroupSums) -> None:
    """Add sums over other records or buckets, group by group, to the first ones."""
    for group, here in more.items():
        sums[group] = added(sums[group], here) if group in sums else here
