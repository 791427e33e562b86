"""Sums of buckets by group where rows are listed faster than the database adds them up; exact whatever their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Table, select

from accounting.query.conditions import Group, conditions_of, groups_of
from accounting.tables import CARRIED, RECORDS, SERIES, START, STARTED
from accounting.upkeep.month_marks import Piece
from siteward.records import Kind
from siteward.server.database import Dialect
from siteward.usage import UsageQuery

LOOKED_UP: Final = 1_000
"""Series of one question, where few of all are wanted."""
DENSE: Final = 8
"""One series in so many has to be wanted for all of them to be read."""
AT_ONCE: Final = 2**20
"""Rows that are added up together: halves of integers below 2^32 then stay below 2^52, which doubles hold exactly."""
_HALF: Final = 32
_LOW: Final = 2**_HALF - 1
_SMALL: Final = 2**31
"""What is smaller needs no halves."""
_UNKNOWN: Final = -2
_OUTSIDE: Final = -1
"""In the place of a group's number: the series does not meet the conditions."""
Integers = npt.NDArray[np.int64]


class ListedSums:
    """Adds up for one question. Which group a series belongs to is looked up once."""

    def __init__(self, connection: Connection, dialect: Dialect, kind: Kind, series: Table, query: UsageQuery) -> None:
        """Take a transaction that sees one state, what lists its rows, and the question."""
        self._connection = connection
        self._dialect = dialect
        self._kind = kind
        self._series = series
        self._query = query
        self._group_of: Integers = np.empty(0, np.int64)
        self._groups: dict[Group, int] = {}

    def of(self, piece: Piece, names: Sequence[str], since: int) -> dict[Group, dict[str, int]] | None:
        """The sums of each group that holds any record; None where the database had better add up itself.

        Args:
            piece: rows of buckets.
            names: the columns to sum.
            since: second at which the period starts: who was running then is told by its first buckets only.
        """
        table = piece.table
        counts = (STARTED, CARRIED) if STARTED in table.c else (RECORDS,)
        read = list(dict.fromkeys([SERIES, *names, *counts]))
        within = (table.c[START] >= piece.first) & (table.c[START] < piece.last)
        columns_read = [table.c[name] for name in read]
        listed = self._dialect.listed(self._connection, columns_read, within, {since, piece.first})
        if listed is None:
            return None
        sums = {name: Sums() for name in names}
        held = Sums()
        for start, columns in listed:
            values = dict(zip(read, columns, strict=True))
            groups = self._numbers(values[SERIES])
            inside = groups >= 0
            if not inside.all():
                groups = groups[inside]
                values = {name: each[inside] for name, each in values.items()}
            for name in names:
                # Later buckets tell of the same records again.
                if name != CARRIED or start == since:
                    sums[name].add(groups, values[name])
            for name in counts:
                if name != CARRIED or start == piece.first:
                    held.add(groups, values[name])
        there = held.of(len(self._groups))
        columns_of = {name: each.of(len(self._groups)) for name, each in sums.items()}
        return {
            group: {name: column[number] for name, column in columns_of.items()}
            for group, number in self._groups.items()
            if there[number]
        }

    def _numbers(self, series: Integers) -> Integers:
        """The number of each row's group."""
        most = int(series.max(initial=0))
        if most >= len(self._group_of):
            grown = np.full(max(most + 1, 2 * len(self._group_of)), _UNKNOWN, np.int64)
            grown[: len(self._group_of)] = self._group_of
            self._group_of = grown
        numbers: Integers = self._group_of[series]
        unknown = series[numbers == _UNKNOWN]
        if not len(unknown):
            return numbers
        self._learn(np.unique(unknown))
        found: Integers = self._group_of[series]
        return found

    def _learn(self, wanted: Integers) -> None:
        self._group_of[wanted] = _OUTSIDE
        column = self._series.c[SERIES]
        first, last = int(wanted[0]), int(wanted[-1])
        if len(wanted) * DENSE > last - first:
            # Those of which nobody asked are known too, then.
            self._group_of[first : last + 1] = _OUTSIDE
            self._enter(column.between(first, last))
            return
        for begin in range(0, len(wanted), LOOKED_UP):
            self._enter(column.in_(wanted[begin : begin + LOOKED_UP].tolist()))

    def _enter(self, chosen: Any) -> None:  # noqa: ANN401  # SQLAlchemy's, of either form.
        by = [self._series.c[name] for name in self._query.by]
        question = select(*by, self._series.c[SERIES]).where(chosen, *conditions_of(self._series, self._query.filters))
        rows = self._connection.execute(question).all()
        for group, row in zip(groups_of(self._kind, self._query.by, rows), rows, strict=True):
            self._group_of[row[-1]] = self._groups.setdefault(group, len(self._groups))


class Sums:
    """One column's sums by the number of the group."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._high: Integers = np.zeros(0, np.int64)
        self._low: Integers = np.zeros(0, np.int64)

    def add(self, groups: Integers, values: Integers) -> None:
        """Add values to the sums of their groups."""
        for begin in range(0, len(values), AT_ONCE):
            mine, part = groups[begin : begin + AT_ONCE], values[begin : begin + AT_ONCE]
            if part.min() > -_SMALL and part.max() < _SMALL:
                self._low = _added(self._low, mine, part)
                continue
            self._high = _added(self._high, mine, part >> _HALF)
            self._low = _added(self._low, mine, part & _LOW)

    def of(self, count: int) -> list[int]:
        """The sum of each of so many groups."""
        low, high = _widened(self._low, count).tolist(), _widened(self._high, count)
        return (
            [(above << _HALF) + below for above, below in zip(high.tolist(), low, strict=True)] if high.any() else low
        )


def _added(sums: Integers, groups: Integers, values: Integers) -> Integers:
    more = np.bincount(groups, weights=values.astype(np.float64)).astype(np.int64)
    sums = _widened(sums, len(more))
    sums[: len(more)] += more
    return sums


def _widened(sums: Integers, count: int) -> Integers:
    if len(sums) >= count:
        return sums
    wide = np.zeros(count, np.int64)
    wide[: len(sums)] = sums
    return wide
