"""Questions by end and closed months: figures as of closing, and whether anything has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from sqlalchemy import Connection, FromClause, Table, func, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.buckets import DAY, SECOND
from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, closed_within, meaning_of
from accounting.query.amounts import SAMPLED
from accounting.query.bucket_sums import BucketSums, GroupSums
from accounting.query.cuts import Stretch
from accounting.tables import CLOSING, KindTables
from accounting.upkeep.months import month_end, month_name, months_within
from siteward.query import QueryError
from siteward.records import microseconds
from siteward.server.database import Dialect
from siteward.usage import AsOf, Attribution, ClosedPeriod, Period, UsageQuery


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
        """Choose those since some closings, which are given by their entries; else as for buckets."""
        super().__init__(connection, dialect, tables, query, names, summed)
        # Nobody sums adjustments by months.
        self._marked = []
        self._listed = None
        table = tables.adjustments
        self._buckets = select(table).where(table.c[CLOSING].in_(list(closings))).subquery()

    def _holds(self, table: FromClause, first: int) -> ColumnElement[bool]:  # noqa: ARG002  # see BucketSums.
        # A change may leave the number of records as it was.
        return func.count() > 0

    def taken_away(self, stretch: Stretch) -> GroupSums:
        """What has to be added to present sums for those as of closing."""
        return {
            group: {name: -value for name, value in sums.items()}
            for group, sums in self.groups(stretch, stretch[0]).items()
        }


class ClosedMonths:
    """The closed months within the window of a question, within one state of the database."""

    def __init__(self, connection: Connection, ledger: Ledger, tables: KindTables, query: UsageQuery) -> None:
        """Find them.

        Args:
            connection: a transaction that sees one state.
            ledger: whose.
            tables: of the kind asked.
            query: the question.
        """
        self._connection = connection
        self._dialect = ledger.database.dialect
        self._summed = ledger.common.summed
        self._tables = tables
        self._window = microseconds(query.start), microseconds(query.end)
        is_by_end = query.attribution is Attribution.BY_END
        periods = ledger.common.periods
        self._months = closed_within(connection, periods, query.kind, *self._window) if is_by_end else []

    def noted(self, base: UsageQuery) -> tuple[ClosedPeriod, ...]:
        """What a reader of the answer has to know of them.

        Args:
            base: the question, asked by dimensions themselves.
        """
        table = self._tables.adjustments
        mine = table.c[CLOSING].in_([each.closing for each in self._months])
        changed = set(self._connection.execute(select(table.c[CLOSING]).where(mine).distinct()).scalars())
        return tuple(
            ClosedPeriod(each.name, str(each.state), each.closing in changed and self._is_adjusted(each, base))
            for each in self._months
        )

    def changes(self, base: UsageQuery, names: Sequence[str]) -> AdjustmentSums:
        """What has changed in the columns asked for since the months were closed.

        Raises:
            QueryError: a month is not closed, or its figures were something else then.
        """
        closed = {each.month: each for each in self._months}
        now = meaning_of(self._tables.kind).sums
        for month in months_within(self._window[0] // SECOND, -(-self._window[1] // SECOND)):
            if month not in closed:
                _refuse(f"{month_name(month)} of {base.kind} is not closed, and has no figures as of closing")
            before = closed[month].meaning
            unlike = [name for name in names if before.sums.get(name) != now[name]]
            if unlike:
                _refuse(f"{unlike[0]} of {base.kind} was declared after {month_name(month)} was closed; ask for others")
        return self._sums(base, names, [each.closing for each in self._months])

    def _is_adjusted(self, month: ClosedMonth, base: UsageQuery) -> bool:
        first, last = max(month.month * SECOND, self._window[0]), min(month_end(month.month) * SECOND, self._window[1])
        days = first // (DAY * SECOND) * DAY * SECOND, last
        names = list(meaning_of(self._tables.kind).sums)
        groups = self._sums(base, names, [month.closing]).groups(days, days[0])
        return any(any(sums.values()) for sums in groups.values())

    def _sums(self, base: UsageQuery, names: Sequence[str], closings: Sequence[int]) -> AdjustmentSums:
        return AdjustmentSums(self._connection, self._dialect, self._tables, base, names, self._summed, closings)


def check_as_of(query: UsageQuery) -> None:
    """Refuse what is not known as of closing.

    Raises:
        QueryError: it says what is.
    """
    if query.as_of is AsOf.PRESENT:
        return
    if query.attribution is not Attribution.BY_END:
        _refuse("periods are closed by end; ask as of closing with attribution by-end")
    if any(wanted.quantity in SAMPLED for wanted in query.wanted):
        _refuse("records tell single values as they are now; ask as of closing for sums, means, ratios and records")
    is_whole = all(microseconds(instant) % (DAY * SECOND) == 0 for instant in (query.start, query.end))
    if not is_whole or query.period is Period.HOUR:
        _refuse("what has changed since closing is known by the UTC day; ask for a window and periods of whole days")


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
