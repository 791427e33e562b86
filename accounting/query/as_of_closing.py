"""Questions by end and closed months: figures as of closing, and whether anything has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NoReturn

from sqlalchemy import Connection, FromClause, Table, func, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.adjustments import ALL_VOS
from accounting.booking.buckets import DAY, SECOND
from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, closed_within, meaning_of, period_text
from accounting.query.bucket_sums import BucketSums, GroupSums
from accounting.query.conditions import conditions_of
from accounting.query.cuts import Stretch
from accounting.query.quantities import is_sampled
from accounting.tables import CLOSING, KindTables, is_bucketed
from accounting.upkeep.months import month_end, month_name, months_within
from siteward.query import QueryError
from siteward.records import Kind, microseconds
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
    """The closed months within the window of a question, within one state of the database.

    No VO is in two periods of a month, so that the adjustments of all periods are those of the VOs that are asked for.
    """

    def __init__(self, connection: Connection, ledger: Ledger, tables: KindTables, base: UsageQuery) -> None:
        """Find them.

        Args:
            connection: a transaction that sees one state.
            ledger: whose.
            tables: of the kind asked.
            base: the question, asked by dimensions themselves, with what its viewer sees among its conditions.
        """
        self._connection = connection
        self._dialect = ledger.database.dialect
        self._summed = ledger.common.summed
        self._tables = tables
        self._base = base
        self._window = microseconds(base.start), microseconds(base.end)
        is_by_end = base.attribution is Attribution.BY_END
        periods = ledger.common.periods
        self._periods = closed_within(connection, periods, base.kind, *self._window) if is_by_end else []

    @property
    def closings(self) -> list[int]:
        """The entries with which they were closed."""
        return [each.closing for each in self._periods]

    def noted(self) -> tuple[ClosedPeriod, ...]:
        """What a reader of the answer has to know of them; of periods of VOs that are not asked for there is none."""
        table, asked = self._tables.adjustments, [each for each in self._periods if self._is_asked(each)]
        mine = table.c[CLOSING].in_([each.closing for each in asked])
        changed = set(self._connection.execute(select(table.c[CLOSING]).where(mine).distinct()).scalars())
        return tuple(
            ClosedPeriod(each.name, str(each.state), each.closing in changed and self._is_adjusted(each), each.vo)
            for each in asked
        )

    def changes(self, names: Sequence[str]) -> AdjustmentSums:
        """What has changed in the columns asked for since the months were closed.

        Raises:
            QueryError: a month is not closed for a VO that is asked for, or its figures were something else then.
        """
        for month in months_within(self._window[0] // SECOND, -(-self._window[1] // SECOND)):
            self._check(month, names)
        return self._sums(names, self.closings)

    def _check(self, month: int, names: Sequence[str]) -> None:
        kind = self._base.kind
        # Of periods of VOs that are not asked for, no refusal tells: the viewer may not see them.
        closed = [each for each in self._periods if each.month == month and self._is_asked(each)]
        is_whole = any(each.is_every for each in closed)
        missing = [] if is_whole else [vo for vo in self._vos if not any(each.covers(vo) for each in closed)]
        if missing and (closed or len(missing) == 1):
            _refuse(f"{period_text(kind, month, missing[0])} is not closed, and has no figures as of closing")
        if not closed:
            _refuse(f"{month_name(month)} of {kind} is not closed, and has no figures as of closing")
        now = meaning_of(self._tables.kind).sums
        told_by = {*self._base.by, *(each.field for each in self._base.filters)}
        told_by &= {column.name for column in self._tables.kind.columns if is_bucketed(column)}
        for period in closed:
            unlike = [name for name in names if period.meaning.sums.get(name) != now[name]]
            unlike += sorted(told_by.difference(period.meaning.dimensions))
            if unlike:
                _refuse(f"{unlike[0]} of {kind} was declared after {month_name(month)} was closed; ask for others")

    def _is_asked(self, period: ClosedMonth) -> bool:
        if period.is_every:
            return True
        # Where nothing at all is asked for, what is of all VOs but some answers that there is nothing.
        return any(map(period.covers, self._vos)) if self._vos else period.vo == ALL_VOS

    @cached_property
    def _vos(self) -> list[str]:
        """The VOs that the conditions on them let through; looked for only where months of single ones are closed."""
        vo = self._tables.series.c["vo"]
        mine = [each for each in self._base.filters if each.field == vo.name]
        chosen = select(vo).where(*conditions_of(self._tables.series, mine)).distinct().order_by(vo)
        return list(self._connection.execute(chosen).scalars())

    def _is_adjusted(self, period: ClosedMonth) -> bool:
        first, last = period.month * SECOND, month_end(period.month) * SECOND
        first, last = max(first, self._window[0]), min(last, self._window[1])
        days = first // (DAY * SECOND) * DAY * SECOND, last
        names = list(meaning_of(self._tables.kind).sums)
        groups = self._sums(names, [period.closing]).groups(days, days[0])
        return any(any(sums.values()) for sums in groups.values())

    def _sums(self, names: Sequence[str], closings: Sequence[int]) -> AdjustmentSums:
        return AdjustmentSums(self._connection, self._dialect, self._tables, self._base, names, self._summed, closings)


def check_as_of(kind: Kind, query: UsageQuery) -> None:
    """Refuse what is not known as of closing.

    Raises:
        QueryError: it says what is.
    """
    if query.as_of is AsOf.PRESENT:
        return
    if query.attribution is not Attribution.BY_END:
        _refuse("periods are closed by end; ask as of closing with attribution by-end")
    if any(is_sampled(kind, wanted) for wanted in query.wanted):
        _refuse("records tell single values as they are now; ask as of closing for sums, means, ratios and records")
    is_whole = all(microseconds(instant) % (DAY * SECOND) == 0 for instant in (query.start, query.end))
    if not is_whole or query.period is Period.HOUR:
        _refuse("what has changed since closing is known by the UTC day; ask for a window and periods of whole days")


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
